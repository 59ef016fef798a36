//! Flow control around a real server: floods, borrowing, refusals, and the objects that are kept.

use super::*;
use crate::auth::authenticated;
use crate::server::ApiServer;
use kubewright_core::{
    ContentType, GroupVersionResource, Notes, Registry, ResponseBody, SystemClock, Target, Verb,
};
use kubewright_store::MemoryStore;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

fn group(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("flowcontrol.apiserver.k8s.io", "v1", resource)
}

fn request(verb: Verb, user: &str, groups: &[&str], name: &str) -> ApiRequest {
    let maps = GroupVersionResource::new("", "v1", "configmaps");
    let mut request = ApiRequest::resource(verb, maps, Some("a"), Some(name));
    request.user = authenticated(user, groups).into();
    request
}

/// A service whose requests run until they are let go.
fn held(
    gate: Arc<Semaphore>,
) -> impl Service<
    ApiRequest,
    Response = ApiResponse,
    Error = ApiError,
    Future = BoxFuture<'static, Result<ApiResponse, ApiError>>,
> + Clone
+ Send
+ 'static {
    tower::service_fn(move |_: ApiRequest| {
        let gate = gate.clone();
        let answer: BoxFuture<'static, _> = Box::pin(async move {
            gate.acquire().await.map_err(ApiError::internal)?.forget();
            Ok::<_, ApiError>(ApiResponse::new(200, ResponseBody::Value(Value::Null)))
        });
        answer
    })
}

/// Sends a request in a task of its own, and waits until it stands where it will stand.
async fn sent<S>(service: &S, request: ApiRequest) -> tokio::task::JoinHandle<Result<ApiResponse, ApiError>>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
{
    let task = tokio::spawn(service.clone().oneshot(request));
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    task
}

fn taken(flow: &FlowControl, level: &str) -> (i64, i64) {
    let level = flow.control.config.load().levels[level].clone();
    (level.taken.load(Ordering::SeqCst), level.waiting.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_flood_of_one_user_leaves_room_for_another() {
    let flow = FlowControl::with_limits(Arc::new(SystemClock), 30, PATIENCE);
    let gate = Arc::new(Semaphore::new(0));
    let service = flow.layer(held(gate.clone()));
    let robot = |n: usize| {
        request(Verb::Get, "system:serviceaccount:a:robot", &["system:serviceaccounts"], &n.to_string())
    };
    let mut flood = Vec::new();
    for n in 0..500 {
        flood.push(sent(&service, robot(n)).await);
    }
    // Seats of its own and all that may be borrowed are taken; its hand of queues is full; the rest was refused.
    let (seats, waiting) = taken(&flow, "workload-low");
    assert!((13..30).contains(&seats), "{seats} seats");
    assert_eq!(waiting, 300, "six queues of fifty");
    let refused = flood.iter().filter(|t| t.is_finished()).count();
    assert_eq!(refused, 500 - 300 - usize::try_from(seats).unwrap());
    // Another level has its seats, whoever borrowed them; and so has who is exempt.
    let joe = sent(&service, request(Verb::Get, "joe", &[], "x")).await;
    let admin = sent(&service, request(Verb::Get, "root", &["system:masters"], "x")).await;
    assert_eq!(taken(&flow, "global-default"), (1, 0));
    assert_eq!(taken(&flow, "exempt"), (1, 0));
    // Another account of the flooded level waits in a queue of its own and comes within a few turns.
    let other = request(Verb::Get, "system:serviceaccount:a:other", &["system:serviceaccounts"], "x");
    let other = sent(&service, other).await;
    for _ in 0..60 {
        gate.add_permits(1);
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
    }
    assert!(joe.is_finished() && admin.is_finished() && other.is_finished());
    gate.add_permits(1000);
    let mut codes = std::collections::BTreeMap::new();
    for task in flood {
        let code = task.await.unwrap().map_or_else(|e| e.code(), |r| r.code);
        *codes.entry(code).or_insert(0) += 1;
    }
    assert_eq!(codes.keys().copied().collect::<Vec<_>>(), [200, 429]);
    assert_eq!((taken(&flow, "workload-low"), taken(&flow, "global-default")), ((0, 0), (0, 0)));
    assert_eq!(flow.control.pool.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_waits_too_long_or_goes_away_leaves_no_trace() {
    let flow = FlowControl::with_limits(Arc::new(SystemClock), 8, Duration::from_secs(2));
    let gate = Arc::new(Semaphore::new(0));
    let service = flow.layer(held(gate.clone()));
    let mut tasks = Vec::new();
    for n in 0..20 {
        tasks.push(sent(&service, request(Verb::Get, "joe", &[], &n.to_string())).await);
    }
    let (seats, waiting) = taken(&flow, "global-default");
    assert!(seats >= 1 && waiting == 20 - seats, "{seats} {waiting}");
    tasks.pop().unwrap().abort();
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(taken(&flow, "global-default").1, waiting - 1);
    let refused: Vec<ApiError> = futures::future::join_all(tasks.drain(usize::try_from(seats).unwrap()..))
        .await
        .into_iter()
        .map(|r| r.unwrap().unwrap_err())
        .collect();
    assert!(refused.iter().all(|e| e.code() == 429), "{refused:?}");
    assert_eq!(taken(&flow, "global-default"), (seats, 0));
    // Sessions pass whatever is full.
    let exec = request(Verb::Get, "joe", &[], "p").subresource("exec");
    let exec = sent(&service, exec).await;
    gate.add_permits(100);
    assert_eq!(exec.await.unwrap().unwrap().code, 200);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(taken(&flow, "global-default"), (0, 0));
    let level = flow.control.config.load().levels["global-default"].clone();
    assert_eq!(level.running.load(Ordering::Relaxed), 0);
}

async fn plane() -> (ApiServer, FlowControl) {
    let mut registry = Registry::new();
    for kind in kubewright_core::api::builtin(&Default::default()) {
        registry.insert(kind).unwrap();
    }
    let flow = FlowControl::new(Arc::new(SystemClock));
    let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry);
    let server = flow.install(builder).build().await.unwrap();
    flow.start(&server).await.unwrap();
    (server, flow)
}

async fn value(server: &ApiServer, mut request: ApiRequest) -> Result<Value, ApiError> {
    request.user = authenticated("root", &["system:masters"]).into();
    match server.clone().oneshot(request).await?.body {
        ResponseBody::Object(object) => object.value(),
        ResponseBody::Value(value) => Ok(value),
        ResponseBody::Raw { bytes, .. } => Ok(json!(String::from_utf8_lossy(&bytes))),
        other => panic!("{other:?}"),
    }
}

/// Asks until the answer is as wanted.
async fn until(server: &ApiServer, request: ApiRequest, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        if let Ok(found) = value(server, request.clone()).await
            && holds(&found)
        {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A level without seats refuses everything, and says whose fault it is.
async fn full_level(server: &ApiServer, flow: &FlowControl, schema: &Value) {
    let service = flow.layer(server.clone());
    let mut list = request(Verb::List, "jane", &[], "");
    if let Target::Resource { name, .. } = &mut list.target {
        *name = None;
    }
    let notes = Notes::default();
    list.notes = notes.clone();
    assert_eq!(service.clone().oneshot(list.clone()).await.unwrap_err().code(), 429);
    let noted = notes.flow().cloned().unwrap();
    assert_eq!(noted.schema_uid, schema["metadata"]["uid"].as_str().unwrap());
    list.user = authenticated("joe", &[]).into();
    list.notes = Notes::default();
    service.clone().oneshot(list).await.unwrap();
    let metrics =
        value(server, ApiRequest::new(Verb::Get, Target::Path("/metrics".to_owned()))).await.unwrap();
    let text = metrics.as_str().unwrap();
    for line in [
        "apiserver_flowcontrol_rejected_requests_total{priority_level=\"mine\",reason=\"concurrency-limit\"} 1",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\"} 1",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn the_objects_are_made_and_kept() {
    let (server, flow) = plane().await;
    let (schemas, levels) = (group("flowschemas"), group("prioritylevelconfigurations"));
    assert_eq!(server.reader().count(&schemas, "", 100).unwrap(), 13);
    assert_eq!(server.reader().count(&levels, "", 100).unwrap(), 8);
    let get = |resource: &GroupVersionResource, name: &str| {
        ApiRequest::resource(Verb::Get, resource.clone(), None, Some(name))
    };
    let probes =
        until(&server, get(&schemas, "probes"), |o| o["status"]["conditions"][0]["status"] == "False").await;
    assert_eq!(probes["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"], "true");
    assert_eq!(probes["spec"]["matchingPrecedence"], 2);
    // What is mandatory cannot be changed, and comes back when it is deleted.
    let patch = |resource: &GroupVersionResource, name: &str, patch: Value| {
        ApiRequest::resource(Verb::Patch, resource.clone(), None, Some(name))
            .body(ContentType::MergePatch, patch)
    };
    let refused = value(
        &server,
        patch(&levels, "catch-all", json!({"spec": {"limited": {"nominalConcurrencyShares": 9}}})),
    )
    .await
    .unwrap_err();
    assert!(refused.message().contains("spec of 'catch-all' must equal the fixed value"), "{refused:?}");
    let exempt = json!({"spec": {"exempt": {"lendablePercent": 50}}});
    value(&server, patch(&levels, "exempt", exempt)).await.unwrap();
    let before = value(&server, get(&schemas, "catch-all")).await.unwrap();
    value(&server, ApiRequest::resource(Verb::Delete, schemas.clone(), None, Some("catch-all")))
        .await
        .unwrap();
    until(&server, get(&schemas, "catch-all"), |o| o["metadata"]["uid"] != before["metadata"]["uid"]).await;
    // A schema of one's own leads nowhere until its level is there.
    let own = json!({"metadata": {"name": "own"}, "spec": {"priorityLevelConfiguration": {"name": "mine"},
        "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}});
    value(
        &server,
        ApiRequest::resource(Verb::Create, schemas.clone(), None, None).body(ContentType::Json, own),
    )
    .await
    .unwrap();
    let dangling =
        until(&server, get(&schemas, "own"), |o| o["status"]["conditions"][0]["status"] == "True").await;
    assert_eq!(dangling["status"]["conditions"][0]["reason"], "NotFound");
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    value(
        &server,
        ApiRequest::resource(Verb::Create, levels.clone(), None, None).body(ContentType::Json, level),
    )
    .await
    .unwrap();
    let found =
        until(&server, get(&schemas, "own"), |o| o["status"]["conditions"][0]["status"] == "False").await;
    full_level(&server, &flow, &found).await;
    server.shutdown().await;
}

#[tokio::test]
async fn lists_take_seats_by_what_they_go_through() {
    let (server, _) = plane().await;
    for n in 0..250 {
        let map = json!({"metadata": {"name": format!("m{n}")}});
        let mut create = request(Verb::Create, "root", &["system:masters"], "");
        if let Target::Resource { name, namespace, .. } = &mut create.target {
            (*name, *namespace) = (None, Some("default".to_owned()));
        }
        value(&server, create.body(ContentType::Json, map)).await.unwrap();
    }
    server.reader().consistent().await.unwrap();
    let check =
        |verb: Verb, namespace: Option<&str>, limit: Option<u64>, version: Option<&str>, want: i64| {
            let maps = GroupVersionResource::new("", "v1", "configmaps");
            let mut request = ApiRequest::resource(verb, maps, namespace, None);
            request.options.limit = limit;
            request.options.resource_version = version.map(str::to_owned);
            assert_eq!(
                work::width(&request, Some(server.reader()), 10),
                want,
                "{verb:?} {namespace:?} {limit:?}"
            );
        };
    check(Verb::List, None, None, None, 3);
    check(Verb::List, Some("default"), None, None, 3);
    check(Verb::List, Some("other"), None, None, 1);
    check(Verb::List, None, Some(50), None, 1);
    check(Verb::Watch, None, None, None, 3);
    check(Verb::Watch, None, None, Some("17"), 1);
    check(Verb::Create, Some("default"), None, None, 1);
    server.shutdown().await;
}
