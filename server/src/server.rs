//! The API server as a tower service: which handler answers which request.

use crate::admission::policy::{AuthorizerSlot, Policies};
use crate::admission::webhook::Webhooks;
use crate::admission::{self, Admission, ResourceQuota};
use crate::aggregation::{self, Aggregator};
use crate::allocate::{self, Allocator};
use crate::auth::Authorizer;
use crate::bootstrap;
use crate::builder::ApiServerBuilder;
use crate::cache::{Feeder, Listener, ObjectCache};
use crate::conversion::Converter;
use crate::crd::{self, Definitions};
use crate::handlers::{self, Call};
use crate::janitor::{self, Keep};
use crate::kinds::KindTable;
use crate::meter::{Meter, MeterLayer, Place};
use crate::outbound::{Outbound, Resolver};
use crate::paths::{self, Documents};
use crate::pipeline;
use crate::ports::{MetricSource, NodeConnections, TokenIssuer, VirtualResource};
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::future::BoxFuture;
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, Entropy, GroupVersionResource, Reason, Representation,
    SharedClock, Target,
};
use kubewright_store::Store;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tower::Service;

/// The API server. Cloning shares it; when the last clone is dropped its tasks end.
///
/// It authorizes nothing by itself: that is a layer around it, below authentication.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Arc<Shared>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) kinds: Arc<KindTable>,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) virtuals: FxHashMap<GroupVersionResource, Arc<dyn VirtualResource>>,
    pub(crate) nodes: NodeConnections,
    pub(crate) tokens: ArcSwapOption<Arc<dyn TokenIssuer>>,
    /// Answers what the expressions of policies ask.
    pub(crate) authorizer: Arc<AuthorizerSlot>,
    pub(crate) reader: Reader,
    /// Custom objects into other versions.
    pub(crate) converter: Arc<Converter>,
    /// Calls to webhooks and other servers.
    pub(crate) outbound: Arc<Outbound>,
    /// The API servers behind this one.
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) meter: Meter,
    /// Whether an outer layer counts, which sees refusals too.
    metered: AtomicBool,
    /// What the layers around the server count.
    pub(crate) metrics: ArcSwap<Vec<Arc<dyn MetricSource>>>,
    pub(crate) advertise: ArcSwap<Option<(IpAddr, u16)>>,
    pub(crate) allocator: Arc<Allocator>,
    /// The certificate authority in PEM.
    pub(crate) ca_certificate: Option<String>,
    /// Discovery and OpenAPI, made when asked for.
    pub(crate) documents: Documents,
    /// Writes under way, waited for by a shutdown.
    pub(crate) writes: TaskTracker,
    /// `/readyz` fails: the server will end soon.
    pub(crate) stopping: AtomicBool,
    /// Ends watches and the feeder.
    pub(crate) cancel: CancellationToken,
    _ends_with_the_server: DropGuard,
}

impl ApiServer {
    /// Begins to compose a server over a store.
    pub fn builder(store: Arc<dyn Store>) -> ApiServerBuilder {
        ApiServerBuilder::new(store)
    }

    pub(crate) async fn start(builder: ApiServerBuilder) -> Result<ApiServer, ApiError> {
        if !builder.clashes.is_empty() {
            let clashes = builder.clashes.join(", ");
            return Err(ApiError::internal(format!("kinds were added twice: {clashes}")));
        }
        crate::keys::declare(&*builder.store, &builder.in_memory, builder.keep.events).await?;
        let cache = Arc::new(ObjectCache::new(builder.store.clone(), builder.window_events_max));
        let kinds = Arc::new(KindTable::new(builder.registry, cache.clone())?);
        let cancel = CancellationToken::new();
        let shared_store = builder.store.capabilities().shared;
        let entropy = builder.entropy;
        let allocator =
            Allocator::of(&builder.service_cidr, builder.node_ports, &entropy, shared_store, &kinds)?;
        let (going, authorizer) = (Arc::new(Notify::new()), Arc::new(AuthorizerSlot::default()));
        let definitions = Arc::new(Definitions::new(kinds.clone(), going.clone()));
        let reader = Reader { cache: cache.clone(), kinds: kinds.clone() };
        let outbound = Arc::new(Outbound::new(Resolver::new(reader.clone())));
        let converter = Arc::new(Converter::new(outbound.clone(), entropy.clone()));
        let aggregator = Arc::new(Aggregator::new(builder.front_proxy));
        let mut listeners: Vec<Arc<dyn Listener>> = vec![definitions, allocator.clone(), aggregator.clone()];
        let mut admission = builder.admission;
        if builder.builtin_admission {
            let (out, random) = (outbound.clone(), entropy.clone());
            let webhooks = Webhooks::new(out, converter.clone(), random, authorizer.clone());
            let policies = Policies::new(reader.clone(), converter.clone(), authorizer.clone());
            let (own, quotas) = (admission::builtin(&entropy), ResourceQuota::new(builder.clock.clone()));
            admission = admission::chain(own, webhooks, policies, admission, quotas, &mut listeners);
        }
        let feeder = Feeder { cache: cache.clone(), listeners, cancel: cancel.clone() };
        feeder.load().await?;
        let writes = TaskTracker::new();
        let computed = builder.virtuals.iter().map(|v| v.descriptor()).collect();
        let virtuals = builder.virtuals.into_iter().map(|v| {
            let d = v.descriptor();
            (GroupVersionResource::new(d.group, d.version, d.plural), v)
        });
        let shared = Shared {
            store: builder.store,
            cache,
            kinds,
            clock: builder.clock,
            entropy,
            admission,
            allocator,
            ca_certificate: builder.ca_certificate,
            virtuals: virtuals.collect(),
            nodes: builder.nodes,
            tokens: ArcSwapOption::from_pointee(builder.tokens),
            authorizer,
            reader,
            converter,
            outbound,
            aggregator,
            meter: Meter::default(),
            metered: AtomicBool::new(false),
            metrics: ArcSwap::default(),
            advertise: ArcSwap::from_pointee(builder.advertise),
            documents: Documents::new(computed),
            writes,
            stopping: AtomicBool::new(false),
            cancel: cancel.clone(),
            _ends_with_the_server: cancel.drop_guard(),
        };
        // The feeder holds the cache, not the server, and ends with the server's token.
        shared.writes.spawn(feeder.run());
        begin(Arc::new(shared), going, builder.advertise, builder.keep).await
    }

    /// Says under which address pods reach this server: writes the endpoints of the `kubernetes` Service.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub async fn advertise(&self, address: IpAddr, port: u16) -> Result<(), ApiError> {
        self.shared.advertise.store(Arc::new(Some((address, port))));
        bootstrap::endpoints(&self.shared, address, port).await
    }

    /// Forgets what was before a revision, now instead of when its time has come: lists that would go on from there answer 410 with
    /// a token that goes on with what is there then.
    ///
    /// # Errors
    /// The store's.
    pub async fn compact(&self, revision: u64) -> Result<(), ApiError> {
        self.shared.compact(revision).await
    }

    /// Reads of the cache for parts of the same process (authorizers, admission).
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// Says who issues tokens from now on; for issuers that need the server themselves.
    pub fn set_token_issuer(&self, tokens: Arc<dyn TokenIssuer>) {
        self.shared.tokens.store(Some(Arc::new(tokens)));
    }

    /// A layer that counts requests instead of the server itself: around authorization and flow control it sees what they refuse.
    pub fn meter(&self) -> MeterLayer {
        self.shared.metered.store(true, Ordering::Relaxed);
        MeterLayer(self.shared.clone())
    }

    /// Shows what this counts on `/metrics` too.
    pub fn add_metrics(&self, source: Arc<dyn MetricSource>) {
        self.shared.metrics.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(source.clone());
            all
        });
    }

    /// Lets `/readyz` fail from now on, so that load balancers send no more; everything else goes on until [`ApiServer::shutdown`].
    pub fn begin_shutdown(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Says whom the expressions of admission policies ask what users may do; without anybody they are told that everything is allowed, as
    /// this server itself authorizes nothing.
    pub fn set_authorizer(&self, authorizer: Arc<dyn Authorizer>) {
        self.shared.authorizer.store(Some(Arc::new(authorizer)));
    }

    /// Ends every watch, lets the writes under way finish, and refuses what comes later. The store stays open.
    ///
    /// # Cancel safety
    /// A dropped call has ended the watches; writes go on to their end.
    pub async fn shutdown(&self) {
        self.shared.cancel.cancel();
        self.shared.writes.close();
        for resource in self.shared.cache.all().values() {
            resource.end_watches();
        }
        self.shared.writes.wait().await;
    }
}

impl Shared {
    /// Has the store and the cache forget what was before a revision.
    pub(crate) async fn compact(&self, revision: u64) -> Result<(), ApiError> {
        self.store.compact(revision).await.map_err(|e| crate::errors::store(&e))?;
        self.cache.forget(revision);
        Ok(())
    }

    /// Where a request is counted.
    pub(crate) fn place(&self, request: &ApiRequest) -> Place {
        self.meter.place(request, |r| self.kinds.get(r).is_some() || self.virtuals.contains_key(r))
    }
}

impl Service<ApiRequest> for ApiServer {
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<ApiResponse, ApiError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let _writing = shared.writes.token();
            let counts = !shared.metered.load(Ordering::Relaxed);
            let own = counts.then(|| (shared.place(&request), tokio::time::Instant::now()));
            let notes = request.notes.clone();
            let mut answer = answer(shared.clone(), request).await;
            if let Ok(answer) = &mut answer {
                answer.warnings.extend(notes.warnings());
            }
            if let Some((place, since)) = own {
                place.count(&answer, since.elapsed());
            }
            answer
        })
    }
}

/// Brings what every cluster has, and begins what runs beside the requests. The tasks hold the server weakly and end with it.
async fn begin(
    shared: Arc<Shared>,
    going: Arc<Notify>,
    advertise: Option<(IpAddr, u16)>,
    keep: Keep,
) -> Result<ApiServer, ApiError> {
    let (tasks, cancel) = (&shared.writes, &shared.cancel);
    tasks.spawn(crd::clean_up(Arc::downgrade(&shared), going, cancel.clone()));
    tasks.spawn(allocate::keep(Arc::downgrade(&shared), shared.allocator.gone.clone(), cancel.clone()));
    tasks.spawn(janitor::run(Arc::downgrade(&shared), keep, cancel.clone()));
    bootstrap::run(&shared, advertise).await?;
    aggregation::ensure(&shared).await?;
    tasks.spawn(aggregation::run(Arc::downgrade(&shared), cancel.clone()));
    Ok(ApiServer { shared })
}

async fn answer(shared: Arc<Shared>, request: ApiRequest) -> Result<ApiResponse, ApiError> {
    if let Some(remote) = shared.aggregator.of(&request.target) {
        return Box::pin(remote.answer(&shared, &request)).await;
    }
    let resource = match &request.target {
        Target::Resource { resource, .. } => resource,
        Target::Path(path) => return Box::pin(paths::answer(&shared, &request, path)).await,
    };
    if shared.cancel.is_cancelled() {
        return Err(ApiError::unavailable("the server is shutting down"));
    }
    if let Some(unread) = unread(&request) {
        return Err(unread);
    }
    if let Some(computed) = shared.virtuals.get(resource).cloned() {
        if !computed.descriptor().verbs.contains(&request.verb) {
            return Err(method_not_allowed());
        }
        if request.representation != Representation::Object {
            // What is computed has no metadata: there are no rows to be made of it.
            let message = "object does not implement the Object interfaces";
            return Err(ApiError::new(Reason::NotAcceptable, message));
        }
        return computed.call(request).await;
    }
    let kind = shared.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
    handlers::handle(Call::new(shared, kind, request)?).await
}

/// What is wrong with a request that is not passed on after all.
fn unread(request: &ApiRequest) -> Option<ApiError> {
    let proxied = matches!(&request.target, Target::Resource { resource, subresource: Some(below), .. }
        if resource.group.is_empty() && below.split('/').next() == Some("proxy"));
    request.passage.as_ref().filter(|_| !proxied)?.unread.clone()
}

/// 405 in upstream's words.
pub(crate) fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiServer(at {})", self.shared.cache.applied())
    }
}

/// Reads of the object cache without requests: for authorizers, admission plugins and the like.
#[derive(Clone)]
pub struct Reader {
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) kinds: Arc<KindTable>,
}

impl Reader {
    /// Waits until every acknowledged write is visible.
    ///
    /// # Errors
    /// Where the store is not reachable.
    pub async fn consistent(&self) -> Result<(), ApiError> {
        self.cache.consistent().await.map(drop)
    }

    /// The revision up to which everything is visible.
    pub fn revision(&self) -> u64 {
        self.cache.applied()
    }

    /// An object as the cache holds it now; the namespace is empty for cluster scope.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    pub fn get(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ApiObject>>, ApiError> {
        let kind = self.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
        let snapshot = kind.cache.snapshot();
        let Some(entry) = snapshot.get(&crate::keys::object_key(namespace, name)) else { return Ok(None) };
        Ok(Some(entry.shape(&kind)?.object.clone()))
    }

    /// The objects of a namespace (of all when empty) as the cache holds them now.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    pub fn list(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
    ) -> Result<Vec<Arc<ApiObject>>, ApiError> {
        let kind = self.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
        let snapshot = kind.cache.snapshot();
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let entries = snapshot.range(prefix.as_bytes(), b"");
        entries.map(|(_, entry)| Ok(entry.shape(&kind)?.object.clone())).collect()
    }

    /// The pods that are bound to a node, by the index that the cache keeps.
    ///
    /// # Errors
    /// 404 where pods are not served.
    pub fn pods_on(&self, node: &str) -> Result<Vec<Arc<ApiObject>>, ApiError> {
        let pods = GroupVersionResource::new("", "v1", "pods");
        let kind = self.kinds.get(&pods).ok_or_else(ApiError::no_such_path)?;
        let snapshot = kind.cache.snapshot();
        let node = node.into();
        let of_node = snapshot.indexed(&node);
        of_node.map(|(_, entry)| Ok(entry.shape(&kind)?.object.clone())).collect()
    }

    /// Whether there is an object in a namespace; of a resource that is not served there is none.
    pub fn has_any(&self, resource: &GroupVersionResource, namespace: &str) -> bool {
        let kinds = self.kinds.load();
        let Some(kind) = kinds.get(resource) else { return false };
        let snapshot = kind.cache.snapshot();
        snapshot.len() > 0 && snapshot.range(format!("{namespace}/").as_bytes(), b"").next().is_some()
    }

    /// Replaces an object if it is still at the revision `expected`: for what admission keeps account of. `None` where it is not.
    ///
    /// # Errors
    /// 404 where no such resource is served, or the store's error.
    pub(crate) async fn replace(
        &self,
        resource: &GroupVersionResource,
        object: &Value,
        expected: u64,
    ) -> Result<Option<u64>, ApiError> {
        let kind = self.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
        pipeline::replace(&self.cache, &kind, object, expected).await
    }

    /// How many objects there are in a namespace (in all when empty); counting ends at `most`.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    pub fn count(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        most: usize,
    ) -> Result<usize, ApiError> {
        let kind = self.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
        let snapshot = kind.cache.snapshot();
        if namespace.is_empty() {
            return Ok(snapshot.len().min(most));
        }
        let prefix = format!("{namespace}/");
        Ok(snapshot.range(prefix.as_bytes(), b"").take(most).count())
    }

    /// The revision of a resource's last change, so that what is computed from its objects can be kept until then.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    pub fn changed_at(&self, resource: &GroupVersionResource) -> Result<u64, ApiError> {
        let kind = self.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
        Ok(kind.cache.snapshot().revision)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader(at {})", self.revision())
    }
}
