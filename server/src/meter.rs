//! What is counted of requests: how many, how they ended, how long they took, how much they gave. Atomic counters found by one lookup;
//! no text is made but for those who read the metrics.

use crate::ports::MetricSource;
use crate::server::Shared;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, GroupVersionResource, ResponseBody, Target, Verb};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::Instrument;

const VERBS: [Verb; 8] = [
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Update,
    Verb::Patch,
    Verb::Delete,
    Verb::DeleteCollection,
];
const SCOPES: [&str; 3] = ["cluster", "namespace", "resource"];
const CODES: [u16; 19] =
    [101, 200, 201, 202, 304, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503, 504];
/// Upstream's buckets of `apiserver_request_duration_seconds`, in milliseconds.
const MILLIS: [u64; 23] = [
    5, 25, 50, 100, 200, 400, 600, 800, 1000, 1250, 1500, 2000, 3000, 4000, 5000, 6000, 8000, 10000, 15000,
    20000, 30000, 45000, 60000,
];
/// Upstream's buckets of `apiserver_response_sizes`, in bytes.
const SIZES: [u64; 7] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// The counters of one resource (or subresource), verb and scope.
#[derive(Default)]
struct Row {
    /// The last one is for all other codes.
    codes: [AtomicU64; CODES.len() + 1],
    /// The last one is for all that took longer.
    took: [AtomicU64; MILLIS.len() + 1],
    took_micros: AtomicU64,
    sizes: [AtomicU64; SIZES.len() + 1],
    bytes: AtomicU64,
}

/// The rows of one resource or subresource, each made when it is first needed.
#[derive(Default)]
struct Rows([[OnceLock<Box<Row>>; SCOPES.len()]; VERBS.len()]);

#[derive(Default)]
struct OfResource {
    own: Rows,
    below: ArcSwap<Vec<(SmolStr, Arc<Rows>)>>,
}

/// All counters of a server.
#[derive(Default)]
pub(crate) struct Meter {
    resources: ArcSwap<FxHashMap<GroupVersionResource, Arc<OfResource>>>,
    /// One new resource at a time.
    adding: Mutex<()>,
    /// Paths, and resources that are not served.
    others: Arc<OfResource>,
    writing: AtomicI64,
    reading: AtomicI64,
}

/// Where one request is counted.
pub(crate) struct Place {
    of: Arc<OfResource>,
    below: Option<Arc<Rows>>,
    verb: usize,
    scope: usize,
}

impl Meter {
    /// Where a request is counted; `served` says whether its resource is one, so that strangers cannot fill the memory.
    pub(crate) fn place(
        &self,
        request: &ApiRequest,
        served: impl FnOnce(&GroupVersionResource) -> bool,
    ) -> Place {
        let verb = VERBS.iter().position(|v| *v == request.verb).unwrap_or(0);
        let Target::Resource { resource, namespace, name, subresource } = &request.target else {
            return Place { of: self.others.clone(), below: None, verb, scope: 0 };
        };
        let of = match self.resources.load().get(resource) {
            Some(found) => found.clone(),
            None if served(resource) => self.add(resource),
            None => self.others.clone(),
        };
        let below = subresource.as_deref().map(|s| of.subresource(s.split('/').next().unwrap_or("")));
        let scope = match (namespace, name) {
            (_, Some(_)) => 2,
            (Some(_), None) => 1,
            (None, None) => 0,
        };
        Place { of, below, verb, scope }
    }

    fn add(&self, resource: &GroupVersionResource) -> Arc<OfResource> {
        let _one_at_a_time = self.adding.lock();
        let mut all = FxHashMap::clone(&self.resources.load());
        let made = all.entry(resource.clone()).or_default().clone();
        self.resources.store(Arc::new(all));
        made
    }

    /// Raises the count of requests that run, until the guard is dropped.
    fn running(&self, verb: Verb) -> &AtomicI64 {
        if matches!(verb, Verb::Get | Verb::List | Verb::Watch) { &self.reading } else { &self.writing }
    }
}

/// The subresources that there are; others are counted together.
const SUBRESOURCES: [&str; 14] = [
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "finalize",
    "log",
    "portforward",
    "proxy",
    "resize",
    "scale",
    "status",
    "token",
];

impl OfResource {
    fn subresource(&self, name: &str) -> Arc<Rows> {
        let known = SUBRESOURCES.iter().find(|s| **s == name).copied().unwrap_or("other");
        if let Some((_, rows)) = self.below.load().iter().find(|(n, _)| n == known) {
            return rows.clone();
        }
        self.below.rcu(|all| {
            let mut all = Vec::clone(all);
            if !all.iter().any(|(n, _)| n == known) {
                all.push((SmolStr::new_static(known), Arc::default()));
            }
            all
        });
        let all = self.below.load();
        all.iter().find(|(n, _)| n == known).map(|(_, rows)| rows.clone()).unwrap_or_default()
    }
}

impl Place {
    /// Counts an answer.
    pub(crate) fn count(&self, answer: &Result<ApiResponse, ApiError>, took: Duration) {
        let rows = self.below.as_deref().unwrap_or(&self.of.own);
        let row = rows.0[self.verb][self.scope].get_or_init(Box::default);
        let code = answer.as_ref().map_or_else(ApiError::code, |a| a.code);
        let add = |counters: &[AtomicU64], at: usize| counters[at].fetch_add(1, Ordering::Relaxed);
        add(&row.codes, CODES.iter().position(|c| *c == code).unwrap_or(CODES.len()));
        if VERBS[self.verb] != Verb::Watch {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            add(&row.took, MILLIS.iter().position(|m| micros <= m * 1000).unwrap_or(MILLIS.len()));
            row.took_micros.fetch_add(micros, Ordering::Relaxed);
        }
        if let Some(bytes) = answer.as_ref().ok().and_then(|a| size(&a.body)) {
            add(&row.sizes, SIZES.iter().position(|s| bytes <= *s).unwrap_or(SIZES.len()));
            row.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// The bytes of a read, where they are known.
fn size(body: &ResponseBody) -> Option<u64> {
    match body {
        ResponseBody::Object(object) => Some(object.bytes().len() as u64),
        ResponseBody::Raw { bytes, .. } => Some(bytes.len() as u64),
        ResponseBody::List(list) => Some(list.items.iter().map(|o| o.bytes().len() as u64).sum()),
        _ => None,
    }
}

/// What tells a row from others.
type Labels = (GroupVersionResource, SmolStr, usize, usize);

impl MetricSource for Meter {
    fn write(&self, out: &mut String) {
        let all = self.resources.load();
        let nothing = GroupVersionResource::new("", "", "");
        let mut rows: Vec<(Labels, &Row)> = Vec::new();
        let belows: Vec<_> = all.iter().map(|(r, of)| (r, of, of.below.load_full())).collect();
        let others = self.others.below.load_full();
        for (resource, of, below) in &belows {
            collect(&mut rows, resource, &SmolStr::default(), &of.own);
            for (name, of) in below.iter() {
                collect(&mut rows, resource, name, of);
            }
        }
        collect(&mut rows, &nothing, &SmolStr::default(), &self.others.own);
        for (name, of) in others.iter() {
            collect(&mut rows, &nothing, name, of);
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        totals(out, &rows);
        durations(out, &rows);
        sizes(out, &rows);
        head(out, "gauge", "apiserver_current_inflight_requests", "Requests that run, by kind.");
        for (kind, count) in [("mutating", &self.writing), ("readOnly", &self.reading)] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}");
        }
    }
}

fn collect<'a>(
    into: &mut Vec<(Labels, &'a Row)>,
    resource: &GroupVersionResource,
    below: &SmolStr,
    rows: &'a Rows,
) {
    for (verb, scopes) in rows.0.iter().enumerate() {
        for (scope, row) in scopes.iter().enumerate() {
            if let Some(row) = row.get() {
                into.push(((resource.clone(), below.clone(), verb, scope), row));
            }
        }
    }
}

pub(crate) fn head(out: &mut String, kind: &str, name: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The labels of a row, as they stand between the braces.
struct Told<'a>(&'a Labels);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, below, verb, scope) = self.0;
        let GroupVersionResource { group, version, resource } = resource;
        let (verb, scope) = (VERBS[*verb].as_str().to_ascii_uppercase(), SCOPES[*scope]);
        let verb = if verb == "CREATE" { "POST" } else { verb.as_str() };
        let verb = if verb == "UPDATE" { "PUT" } else { verb };
        write!(
            f,
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{below}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

fn totals(out: &mut String, rows: &[(Labels, &Row)]) {
    head(out, "counter", "apiserver_request_total", "Requests answered.");
    for (labels, row) in rows {
        for (at, count) in row.codes.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let code = CODES.get(at).map_or_else(|| "other".to_owned(), ToString::to_string);
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {count}", Told(labels));
            }
        }
    }
}

fn histogram<const N: usize>(
    out: &mut String,
    name: &str,
    labels: &Labels,
    counts: &[AtomicU64],
    bounds: [String; N],
    sum: impl fmt::Display,
) {
    let mut so_far = 0;
    for (at, count) in counts.iter().enumerate() {
        so_far += count.load(Ordering::Relaxed);
        let bound = bounds.get(at).map_or("+Inf", String::as_str);
        let _ = writeln!(out, "{name}_bucket{{{},le=\"{bound}\"}} {so_far}", Told(labels));
    }
    let _ = writeln!(out, "{name}_sum{{{}}} {sum}\n{name}_count{{{}}} {so_far}", Told(labels), Told(labels));
}

fn durations(out: &mut String, rows: &[(Labels, &Row)]) {
    let name = "apiserver_request_duration_seconds";
    head(out, "histogram", name, "How long requests that are no watches took.");
    for (labels, row) in rows.iter().filter(|(l, _)| VERBS[l.2] != Verb::Watch) {
        let sum = row.took_micros.load(Ordering::Relaxed) as f64 / 1e6;
        histogram(out, name, labels, &row.took, MILLIS.map(|m| (m as f64 / 1000.0).to_string()), sum);
    }
}

fn sizes(out: &mut String, rows: &[(Labels, &Row)]) {
    let name = "apiserver_response_sizes";
    head(out, "histogram", name, "Bytes of the answers to reads.");
    for (labels, row) in rows.iter().filter(|(l, _)| matches!(VERBS[l.2], Verb::Get | Verb::List)) {
        let sum = row.bytes.load(Ordering::Relaxed);
        histogram(out, name, labels, &row.sizes, SIZES.map(|s| s.to_string()), sum);
    }
}

/// Counts the requests of a server at its outermost layer, where refusals are seen too, and puts each into a span.
#[derive(Clone)]
pub struct MeterLayer(pub(crate) Arc<Shared>);

impl fmt::Debug for MeterLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeterLayer")
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, meter: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    inner: S,
    meter: MeterLayer,
}

impl<S> Service<ApiRequest> for Metered<S>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError>,
    S::Future: Send + 'static,
{
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<ApiResponse, ApiError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        let shared = self.meter.0.clone();
        let place = shared.place(&request);
        let running = Running::new(shared, request.verb);
        let span = span(&request);
        let since = Instant::now();
        let work = self.inner.call(request);
        let counted = async move {
            let _running = running;
            let answer = work.await;
            place.count(&answer, since.elapsed());
            let code = answer.as_ref().map_or_else(ApiError::code, |a| a.code);
            tracing::Span::current().record("code", code);
            answer
        };
        Box::pin(counted.instrument(span))
    }
}

fn span(request: &ApiRequest) -> tracing::Span {
    let verb = request.verb.as_str();
    match &request.target {
        Target::Path(path) => tracing::debug_span!("request", verb, path, code = tracing::field::Empty),
        Target::Resource { resource, namespace, name, subresource } => tracing::debug_span!(
            "request",
            verb,
            group = %resource.group,
            resource = %resource.resource,
            namespace,
            name,
            subresource,
            code = tracing::field::Empty
        ),
    }
}

/// Counts as running until it is dropped.
struct Running(Arc<Shared>, Verb);

impl Running {
    fn new(shared: Arc<Shared>, verb: Verb) -> Self {
        shared.meter.running(verb).fetch_add(1, Ordering::Relaxed);
        Running(shared, verb)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.meter.running(self.1).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthorizationLayer, authenticated};
    use crate::server::ApiServer;
    use kubewright_core::Registry;
    use kubewright_store::MemoryStore;
    use tower::ServiceExt;

    struct OnlyJane;

    impl crate::auth::Authorizer for OnlyJane {
        fn authorize<'a>(
            &'a self,
            a: &'a crate::auth::Attributes<'a>,
        ) -> BoxFuture<'a, crate::auth::Decision> {
            let jane = a.user.username.as_deref() == Some("jane");
            let no = crate::auth::Decision::NoOpinion(String::new());
            Box::pin(std::future::ready(if jane { crate::auth::Decision::Allow } else { no }))
        }
    }

    #[tokio::test]
    async fn requests_are_counted_where_they_belong() {
        let mut registry = Registry::new();
        for kind in kubewright_core::api::builtin(&Default::default()) {
            registry.insert(kind).unwrap();
        }
        let store = Arc::new(MemoryStore::new());
        let server = ApiServer::builder(store).registry(registry).build().await.unwrap();
        let meter = server.meter();
        let service = meter.layer(AuthorizationLayer::new(Arc::new(OnlyJane)).layer(server.clone()));
        let send = async |user: &str, verb: Verb, resource: &str, name: Option<&str>| {
            let resource = GroupVersionResource::new("", "v1", resource);
            let mut request = ApiRequest::resource(verb, resource, Some("default"), name);
            request.user = authenticated(user, &[]).into();
            service.clone().oneshot(request).await.map_or_else(|e| e.code(), |a| a.code)
        };
        assert_eq!(send("jane", Verb::List, "configmaps", None).await, 200);
        assert_eq!(send("jane", Verb::List, "configmaps", None).await, 200);
        assert_eq!(send("joe", Verb::Get, "configmaps", Some("x")).await, 403);
        for n in 0..50 {
            assert_eq!(send("jane", Verb::Get, &format!("strangers{n}"), Some("x")).await, 404);
        }
        let metrics = ApiRequest::new(Verb::Get, Target::Path("/metrics".to_owned()));
        let Ok(ResponseBody::Raw { bytes, .. }) = server.clone().oneshot(metrics).await.map(|a| a.body)
        else {
            panic!("the metrics are a text");
        };
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let list = "component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"";
        let get = "component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"";
        let strange = "component=\"apiserver\",group=\"\",resource=\"\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",{list}}} 2"),
            format!("apiserver_request_total{{code=\"403\",{get}}} 1"),
            format!("apiserver_request_total{{code=\"404\",{strange}}} 50"),
            format!("apiserver_request_duration_seconds_count{{{list}}} 2"),
            format!("apiserver_response_sizes_bucket{{{list},le=\"1000\"}} 2"),
            "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0".to_owned(),
            "apiserver_storage_objects{resource=\"namespaces\"} 4".to_owned(),
            "process_cpu_seconds_total ".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        let families: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        let mut unique = families.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), families.len(), "each family once: {families:?}");
        server.shutdown().await;
    }
}
