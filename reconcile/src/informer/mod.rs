//! Shared informers: one list and watch for each resource of a process, whoever reads it.

mod cache;
mod reflector;
mod subscription;

pub use reflector::Selection;
pub use subscription::{Change, Subscription};

use crate::ObjectKey;
use cache::Cache;
use futures::future::BoxFuture;
use kubewright_client::Client;
use kubewright_core::{ApiError, ApiObject, Entropy, GroupVersionResource, ObjectMeta, Resource};
use parking_lot::Mutex;
use reflector::{Decode, Reflector};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;
use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Any object, of which only the metadata is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialObject {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata`.
    pub metadata: ObjectMeta,
}

type Shelf =
    FxHashMap<(GroupVersionResource, TypeId, Selection), (Arc<dyn Any + Send + Sync>, CancellationToken)>;

struct Inner {
    client: Client,
    entropy: Arc<Entropy>,
    runtime: Handle,
    tasks: TaskTracker,
    cancel: CancellationToken,
    shelf: Mutex<Shelf>,
    /// Ends the tasks when the last handle on the set, an informer or a subscription is dropped.
    _guard: DropGuard,
}

/// The informers of a process. Cloning shares them; their tasks end when the last handle, informer and subscription is dropped.
///
/// ```no_run
/// use k8s_openapi::api::core::v1::Pod;
/// use kubewright_reconcile::{Informers, client::Client};
///
/// async fn count(client: Client) -> usize {
///     let pods = Informers::new(client).of::<Pod>();
///     pods.synced().await;
///     pods.list_in("default").len()
/// }
/// ```
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
    /// Whether the server is asked to stream the first objects, and for metadata only where that is enough: in process a list of shared
    /// objects is cheaper than both.
    streams: bool,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Informers({})", self.inner.shelf.lock().len())
    }
}

impl Informers {
    /// Informers over a client. Nothing is watched before it is asked for.
    ///
    /// # Panics
    /// Outside of a tokio runtime, whose tasks the informers will be.
    pub fn new(client: Client) -> Self {
        Self::with_entropy(client, Arc::new(Entropy::from_system()))
    }

    /// Informers whose jitter comes from `entropy`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn with_entropy(client: Client, entropy: Arc<Entropy>) -> Self {
        let cancel = CancellationToken::new();
        let inner = Inner {
            client,
            entropy,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            _guard: cancel.clone().drop_guard(),
            cancel,
            shelf: Mutex::default(),
        };
        Informers { streams: inner.client.is_remote(), inner: Arc::new(inner) }
    }

    /// Asks for streamed first lists and for bare metadata even in process, as is done of a remote server; for informers that are yet to come.
    #[must_use]
    pub fn streaming(mut self) -> Self {
        self.streams = true;
        self
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The informer of all objects of a kind; it starts now if it is the first asked for.
    pub fn of<K: Resource>(&self) -> Informer<K> {
        self.select(Selection::default())
    }

    /// The informer of some objects of a kind; equal selections share one.
    pub fn select<K: Resource>(&self, selection: Selection) -> Informer<K> {
        self.open(K::resource(), selection, ApiObject::decode::<K>, false)
    }

    /// The informer of any resource, as JSON.
    pub fn dynamic(&self, resource: GroupVersionResource) -> Informer<Value> {
        self.open(resource, Selection::default(), decode_aside::<Value>, false)
    }

    /// The informer of any resource, of which only the metadata is kept.
    pub fn metadata(&self, resource: GroupVersionResource) -> Informer<PartialObject> {
        self.open(resource, Selection::default(), decode_aside::<PartialObject>, true)
    }

    fn open<K: Send + Sync + 'static>(
        &self,
        resource: GroupVersionResource,
        selection: Selection,
        decode: Decode<K>,
        metadata_only: bool,
    ) -> Informer<K> {
        let key = (resource.clone(), TypeId::of::<K>(), selection.clone());
        let mut shelf = self.inner.shelf.lock();
        if let Some(Ok(shared)) = shelf.get(&key).map(|(any, _)| any.clone().downcast::<Shared<K>>()) {
            return Informer { shared, set: self.inner.clone() };
        }
        let cancel = self.inner.cancel.child_token();
        let cache = Arc::new(Cache::new());
        let reflector = Reflector {
            client: self.inner.client.clone(),
            resource: resource.clone(),
            selection: selection.clone(),
            cache: cache.clone(),
            decode,
            entropy: self.inner.entropy.clone(),
            metadata_only: metadata_only && self.streams,
            streams: AtomicBool::new(self.streams),
        };
        let shared = Arc::new(Shared { resource, selection, cache });
        shelf.insert(key, (shared.clone(), cancel.clone()));
        self.inner.tasks.spawn_on(reflector.run(cancel), &self.inner.runtime);
        Informer { shared, set: self.inner.clone() }
    }

    /// Stops one informer, for a resource that is no longer served. Its subscriptions end; asking again starts a new one.
    pub fn stop<K: Send + Sync + 'static>(&self, informer: &Informer<K>) {
        let shared = &informer.shared;
        let key = (shared.resource.clone(), TypeId::of::<K>(), shared.selection.clone());
        if let Some((_, cancel)) = self.inner.shelf.lock().remove(&key) {
            cancel.cancel();
        }
    }

    /// Stops all informers and waits for their tasks.
    pub async fn shutdown(&self) {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Decodes without taking the object's one shared slot, which belongs to the typed readers.
fn decode_aside<K: serde::de::DeserializeOwned>(object: &ApiObject) -> Result<Arc<K>, ApiError> {
    serde_json::from_slice(object.bytes()).map(Arc::new).map_err(ApiError::internal)
}

struct Shared<K> {
    resource: GroupVersionResource,
    selection: Selection,
    cache: Arc<Cache<K>>,
}

/// A local copy of a collection that follows the server. Cloning shares it.
///
/// Reads take a short read lock and give shared pointers; they never wait for the server.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
    /// Keeps the tasks of the set alive.
    set: Arc<Inner>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { shared: self.shared.clone(), set: self.set.clone() }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Informer({})", self.shared.resource.resource)
    }
}

impl<K: Send + Sync + 'static> Informer<K> {
    /// The resource followed.
    pub fn resource(&self) -> &GroupVersionResource {
        &self.shared.resource
    }

    /// One object; the namespace is empty for cluster scope.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.cache.get(namespace, name).map(|item| item.object)
    }

    /// One object by its key.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.cache.list()
    }

    /// The objects of a namespace, ordered by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.cache.list_in(namespace)
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.shared.cache.keys()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.cache.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index under a name: `keys_of` gives the values under which an object is found. It is kept up to date by each
    /// change. Where the name is taken, the index that exists stays.
    pub fn add_index(&self, name: &str, keys_of: impl Fn(&K) -> Vec<SmolStr> + Send + Sync + 'static) {
        self.shared.cache.add_index(name, Arc::new(keys_of));
    }

    /// The objects with a value in an index, ordered by key. An index that was never added has none, which is logged.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.shared.cache.by_index(name, value).unwrap_or_else(|| {
            tracing::error!(index = name, resource = %self.shared.resource.resource, "no such index");
            Vec::new()
        })
    }

    /// Follows the changes, starting with all objects present.
    pub fn subscribe(&self) -> Subscription<K> {
        self.shared.cache.subscribe(self.set.clone())
    }

    /// Waits until the first list is in; `false` where the informer was shut down.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn synced(&self) -> bool {
        self.shared.cache.synced().await
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        self.shared.cache.is_synced()
    }

    /// Everything up to this revision is in.
    pub fn revision(&self) -> u64 {
        self.shared.cache.revision()
    }

    /// Waits until everything up to `revision` is in; `false` where the informer was shut down before. `revision` should be that
    /// of an object of this resource: another's may come in only with the server's next bookmark.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn caught_up(&self, revision: u64) -> bool {
        self.shared.cache.caught_up(revision).await
    }
}

/// An informer of whatever type, for those who only wait for it.
pub(crate) trait Follows: Send + Sync {
    fn resource(&self) -> &GroupVersionResource;
    fn revision(&self) -> u64;
    /// Whether an object of this name and uid is in.
    fn holds(&self, key: &ObjectKey, uid: &str) -> bool;
    fn caught_up(&self, revision: u64) -> BoxFuture<'_, bool>;
    fn synced(&self) -> BoxFuture<'_, bool>;
}

impl<K: Send + Sync + 'static> Follows for Informer<K> {
    fn resource(&self) -> &GroupVersionResource {
        Informer::resource(self)
    }

    fn revision(&self) -> u64 {
        Informer::revision(self)
    }

    fn holds(&self, key: &ObjectKey, uid: &str) -> bool {
        self.shared.cache.get(&key.namespace, &key.name).is_some_and(|item| uid.is_empty() || item.uid == uid)
    }

    fn caught_up(&self, revision: u64) -> BoxFuture<'_, bool> {
        Box::pin(Informer::caught_up(self, revision))
    }

    fn synced(&self) -> BoxFuture<'_, bool> {
        Box::pin(Informer::synced(self))
    }
}
