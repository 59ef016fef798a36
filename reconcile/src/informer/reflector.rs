//! The task that keeps a cache equal to the server's collection: list, watch, and begin again where that fails.

use super::cache::{Cache, Item, Update};
use crate::{Backoff, ObjectKey};
use futures::StreamExt;
use futures::stream::ReadyChunks;
use kubewright_client::{Api, Client};
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, Entropy, GroupVersionResource, Options, Reason, Representation,
    ResponseBody, Verb, WatchEvent, WatchEventType, WatchStream,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Which part of a collection an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only objects with these labels, as a label selector is written.
    pub label_selector: Option<String>,
    /// Only objects with these fields, as a field selector is written.
    pub field_selector: Option<String>,
}

pub(crate) type Decode<K> = fn(&ApiObject) -> Result<Arc<K>, ApiError>;

/// How many events are applied under one lock.
const BATCH_EVENTS_MAX: usize = 512;
/// How long a list, or the opening of a watch, may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Between failed attempts.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_secs(30) };
/// The shortest time of a watch before it is renewed; the longest is twice that.
const WATCH_SECONDS_MIN: u64 = 300;

pub(crate) struct Reflector<K> {
    pub(crate) client: Client,
    pub(crate) resource: GroupVersionResource,
    pub(crate) selection: Selection,
    pub(crate) cache: Arc<Cache<K>>,
    pub(crate) decode: Decode<K>,
    pub(crate) entropy: Arc<Entropy>,
    /// Whether only the metadata of objects is wanted.
    pub(crate) metadata_only: bool,
    /// Cleared once the server has refused to begin a watch with the present objects.
    pub(crate) streams: AtomicBool,
}

/// How a watch ended.
enum End {
    /// The server ended it; it may go on from where it was.
    Closed,
    /// Its revision is too old.
    Expired,
}

impl<K: Send + Sync + 'static> Reflector<K> {
    /// Runs until cancelled, then closes the cache.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let cache = self.cache.clone();
        cancel.run_until_cancelled_owned(self.follow_forever()).await;
        cache.close();
    }

    async fn follow_forever(self) {
        let mut failures = 0u32;
        let mut from: Option<u64> = None;
        loop {
            let before = self.cache.revision();
            let step = match from {
                None if self.streams.load(Ordering::Relaxed) => {
                    self.stream_all().await.map(|next| from = next)
                }
                None => self.list().await.map(|revision| from = Some(revision)),
                Some(revision) => self.watch(revision).await.map(|end| {
                    from = match end {
                        End::Closed => Some(self.cache.revision().max(revision)),
                        End::Expired => None,
                    };
                }),
            };
            let moved = self.cache.revision() != before;
            match step {
                Ok(()) if moved || failures == 0 => failures = u32::from(!moved),
                Ok(()) => failures += 1,
                Err(e) => {
                    failures += 1;
                    tracing::debug!(resource = %self.resource.resource, error = %e, failures, "informer retries");
                    if e.reason() == Reason::NotFound {
                        from = None;
                    } else if moved {
                        from = from.map(|f| self.cache.revision().max(f));
                    }
                }
            }
            if failures > 0 {
                // A resource that is not served yet may come any moment: look again soon.
                let delay = BACKOFF.jittered(failures, &self.entropy);
                tokio::time::sleep(delay.min(Duration::from_secs(5))).await;
            }
        }
    }

    fn api(&self) -> Api<Value> {
        Api::dynamic(self.client.clone(), self.resource.clone(), "", self.selection.namespace.as_deref())
    }

    fn options(&self) -> Options {
        Options {
            label_selector: self.selection.label_selector.clone(),
            field_selector: self.selection.field_selector.clone(),
            ..Options::default()
        }
    }

    async fn list(&self) -> Result<u64, ApiError> {
        let mut request = self.api().request(Verb::List, None);
        request.options = self.options();
        self.want(&mut request);
        let list = match timed(self.client.send(request)).await?.body {
            ResponseBody::List(list) => list,
            other => return Err(ApiError::internal(format!("a list was expected, not {other:?}"))),
        };
        let items = list.items.iter().filter_map(|object| self.item(object)).collect();
        self.cache.replace(items, list.resource_version);
        Ok(list.resource_version)
    }

    /// Takes the present objects as the beginning of a watch, and follows it; where the watch can go on when it ends. A server that does
    /// not know this is asked for lists from then on.
    async fn stream_all(&self) -> Result<Option<u64>, ApiError> {
        let seconds = WATCH_SECONDS_MIN + self.entropy.next_u64() % WATCH_SECONDS_MIN;
        let options = Options {
            send_initial_events: Some(true),
            resource_version_match: Some("NotOlderThan".to_owned()),
            allow_watch_bookmarks: true,
            timeout_seconds: Some(seconds),
            ..self.options()
        };
        let stream = match timed(self.open(options)).await {
            Err(e) if matches!(e.code(), 400 | 403 | 422) => {
                tracing::debug!(resource = %self.resource.resource, error = %e, "no streamed list");
                self.streams.store(false, Ordering::Relaxed);
                return self.list().await.map(Some);
            }
            other => other?,
        };
        let mut batches = stream.ready_chunks(BATCH_EVENTS_MAX);
        match timed(self.present(&mut batches)).await {
            Ok(()) => {}
            Err(e) => {
                // It began without ever telling where the present objects end; or the time was too short for them.
                self.streams.store(false, Ordering::Relaxed);
                return Err(e);
            }
        }
        Ok(match self.follow(&mut batches, seconds).await {
            Ok(End::Closed) => Some(self.cache.revision()),
            Ok(End::Expired) => None,
            Err(e) => {
                tracing::debug!(resource = %self.resource.resource, error = %e, "the watch broke off");
                Some(self.cache.revision())
            }
        })
    }

    /// Collects the objects until the bookmark that ends them, and replaces what the cache held; what comes after is applied.
    async fn present(&self, batches: &mut Batches) -> Result<(), ApiError> {
        let mut items = BTreeMap::new();
        loop {
            let Some(batch) = batches.next().await else {
                return Err(ApiError::unavailable("the watch ended within the present objects"));
            };
            let mut batch = batch.into_iter();
            while let Some(event) = batch.next() {
                let event = event?;
                if event.event == WatchEventType::Bookmark && ends_initial(&event.object) {
                    self.cache.replace(items.into_iter().collect(), event.object.resource_version());
                    return self.take(batch.collect());
                }
                match event.event {
                    WatchEventType::Deleted => drop(items.remove(&ObjectKey::of_object(&event.object))),
                    WatchEventType::Bookmark => {}
                    _ => items.extend(self.item(&event.object)),
                }
            }
        }
    }

    /// Opens a watch, of the metadata only where nothing else is wanted.
    async fn open(&self, options: Options) -> Result<WatchStream, ApiError> {
        let mut request = self.api().request(Verb::Watch, None);
        request.options = options;
        self.want(&mut request);
        match self.client.send(request).await?.body {
            ResponseBody::Watch(stream) => Ok(stream),
            other => Err(ApiError::internal(format!("a watch was expected, not {other:?}"))),
        }
    }

    fn want(&self, request: &mut ApiRequest) {
        if self.metadata_only {
            request.representation = Representation::PartialObjectMetadata;
        }
    }

    async fn watch(&self, revision: u64) -> Result<End, ApiError> {
        let seconds = WATCH_SECONDS_MIN + self.entropy.next_u64() % WATCH_SECONDS_MIN;
        let options = Options {
            resource_version: Some(revision.to_string()),
            allow_watch_bookmarks: true,
            timeout_seconds: Some(seconds),
            ..self.options()
        };
        let stream = match timed(self.open(options)).await {
            Err(e) if is_expired(&e) => return Ok(End::Expired),
            other => other?,
        };
        self.follow(&mut stream.ready_chunks(BATCH_EVENTS_MAX), seconds).await
    }

    /// Applies what comes until the watch ends.
    async fn follow(&self, batches: &mut Batches, seconds: u64) -> Result<End, ApiError> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds + 30);
        loop {
            let Ok(batch) = tokio::time::timeout_at(deadline, batches.next()).await else {
                return Ok(End::Closed);
            };
            let Some(batch) = batch else {
                return Ok(End::Closed);
            };
            match self.take(batch) {
                Ok(()) => {}
                Err(e) if is_expired(&e) => return Ok(End::Expired),
                Err(e) => return Err(e),
            }
        }
    }

    /// Applies events; what came before an error is applied too.
    fn take(&self, batch: Vec<Result<WatchEvent, ApiError>>) -> Result<(), ApiError> {
        let mut updates = Vec::with_capacity(batch.len());
        let mut revision = 0;
        let mut end = Ok(());
        for event in batch {
            let event = match event {
                Ok(event) => event,
                Err(e) => {
                    end = Err(e);
                    break;
                }
            };
            revision = revision.max(event.object.resource_version());
            match event.event {
                WatchEventType::Added | WatchEventType::Modified => {
                    updates.extend(self.item(&event.object).map(|(key, item)| Update::Put(key, item)));
                }
                WatchEventType::Deleted => {
                    let last = self.item(&event.object).map(|(_, item)| item);
                    updates.push(Update::Remove(ObjectKey::of_object(&event.object), last));
                }
                WatchEventType::Bookmark => {}
            }
        }
        self.cache.apply(updates, revision);
        end
    }

    /// An object that does not decode is left out, loudly: one bad object must not stop a whole controller.
    fn item(&self, object: &Arc<ApiObject>) -> Option<(ObjectKey, Item<K>)> {
        match (self.decode)(object) {
            Ok(decoded) => Some((
                ObjectKey::of_object(object),
                Item {
                    object: decoded,
                    uid: object.header().uid.clone(),
                    resource_version: object.resource_version(),
                },
            )),
            Err(e) => {
                tracing::error!(resource = %self.resource.resource, object = ?object, error = %e, "object left out");
                None
            }
        }
    }
}

/// The events of a watch, as many at once as are there.
type Batches = ReadyChunks<WatchStream>;

/// Whether a bookmark says that the present objects are through.
fn ends_initial(bookmark: &ApiObject) -> bool {
    let value = bookmark.value().unwrap_or_default();
    value["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
}

fn is_expired(e: &ApiError) -> bool {
    matches!(e.reason(), Reason::Expired | Reason::Gone) || e.code() == 410
}

async fn timed<T>(call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(Reason::Timeout, "the server did not answer in time")),
    }
}
