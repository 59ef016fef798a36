//! The one task that follows the store and brings the cache forward.

use super::resource::Change;
use super::{CacheEvent, Entry, ObjectCache, ResourceCache, field_texts};
use crate::encode;
use crate::keys::{PREFIX, ResourceId};
use bytes::Bytes;
use futures::StreamExt;
use kubewright_core::{ApiError, ApiObject};
use kubewright_store::{Event, KeyRange, KeyValue, RangeRequest, WatchBatch};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How many objects are loaded at a time.
const LOAD_PAGE: usize = 2000;
/// Everything that this server writes, claims included, so that no commit of its own leaves the cache waiting for a progress mark.
const WATCHED: &str = "/";
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Hears of changes after they are in the snapshots and before the revision counts as applied.
pub(crate) trait Listener: Send + Sync {
    /// The changes of one resource, oldest first.
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]);

    /// Everything was loaded anew.
    fn reloaded(&self, cache: &ObjectCache);
}

/// Follows the store.
pub(crate) struct Feeder {
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) listeners: Vec<Arc<dyn Listener>>,
    pub(crate) cancel: CancellationToken,
}

impl Feeder {
    /// Loads what the store holds under a prefix and gives the revision at which it is true.
    ///
    /// # Errors
    /// Where the store cannot be read, or holds something that is no object.
    async fn read(&self, prefix: &str) -> Result<(Vec<KeyValue>, u64), ApiError> {
        let mut range = KeyRange::prefix(prefix.to_owned());
        let (mut items, mut revision) = (Vec::new(), None);
        loop {
            let request = RangeRequest { range: range.clone(), limit: LOAD_PAGE, revision };
            let page = self.cache.store.range(request).await.map_err(|e| crate::errors::store(&e))?;
            revision = Some(page.revision);
            let last = page.items.last().map(|i| i.key.clone());
            items.extend(page.items);
            match last {
                Some(last) if page.more => range.start = Bytes::from([last.as_ref(), b"\0"].concat()),
                _ => return Ok((items, page.revision)),
            }
        }
    }

    /// Loads everything, first what listeners turn into kinds (`first`), then the rest.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(crate) async fn load(&self) -> Result<u64, ApiError> {
        let (items, revision) = self.read(PREFIX).await?;
        let mut by_resource: FxHashMap<ResourceId, Vec<(Bytes, Arc<Entry>)>> = FxHashMap::default();
        for item in &items {
            let Some((group, resource, key)) = ResourceId::split(&item.key) else { continue };
            let id = ResourceId { group: group.into(), resource: resource.into() };
            match self.decode(&self.cache.resource(&id), item) {
                Ok(entry) => by_resource.entry(id).or_default().push((key, Arc::new(entry))),
                Err(e) => {
                    tracing::error!(key = ?item.key, error = %e, "a stored object is unreadable; left out")
                }
            }
        }
        self.cache.prepared.clear();
        for (id, resource) in self.cache.all().iter() {
            resource.reset(by_resource.remove(id).unwrap_or_default(), revision);
        }
        for listener in &self.listeners {
            listener.reloaded(&self.cache);
        }
        self.cache.advance(revision);
        Ok(revision)
    }

    /// Follows the store until cancelled; a broken watch is resumed, a hole in the history leads to a fresh load.
    pub(crate) async fn run(self) {
        let cancel = self.cancel.clone();
        let mut wait = RETRY_FIRST;
        loop {
            let before = self.cache.applied();
            let ended = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.follow() => ended,
            };
            let reload = matches!(&ended, Err(e) if e.reason() == kubewright_store::Reason::Compacted);
            if let Err(e) = &ended {
                if e.reason() == kubewright_store::Reason::Closed {
                    return;
                }
                tracing::warn!(error = %e, "the watch of the store ended; resuming");
            }
            wait = if self.cache.applied() > before { RETRY_FIRST } else { (wait * 2).min(RETRY_MAX) };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if reload && let Err(e) = self.load().await {
                tracing::warn!(error = %e, "the store could not be loaded anew");
            }
        }
    }

    async fn follow(&self) -> Result<(), kubewright_store::Error> {
        let from = self.cache.applied() + 1;
        let mut stream = self.cache.store.watch(KeyRange::prefix(WATCHED), from).await?;
        while let Some(batch) = stream.next().await {
            self.apply(batch?);
        }
        Ok(())
    }

    fn apply(&self, batch: WatchBatch) {
        let mut touched: Vec<(Arc<ResourceCache>, Vec<Change>)> = Vec::new();
        for event in batch.events {
            let Some((group, resource, key)) = ResourceId::split(event.key()) else { continue };
            let same = |id: &ResourceId| id.group == group && id.resource == resource;
            let at = match touched.iter().position(|(r, _)| same(&r.id)) {
                Some(at) => at,
                None => {
                    let id = ResourceId { group: group.into(), resource: resource.into() };
                    touched.push((self.cache.resource(&id), Vec::new()));
                    touched.len() - 1
                }
            };
            let (revision, entry) = match &event {
                Event::Delete { revision, .. } => (*revision, None),
                Event::Put { item, .. } => match self.decode(&touched[at].0, item) {
                    Ok(entry) => (item.mod_revision, Some(Arc::new(entry))),
                    Err(e) => {
                        tracing::error!(key = ?item.key, error = %e, "a stored object is unreadable; left out");
                        continue;
                    }
                },
            };
            touched[at].1.push(Change { key, revision, entry });
        }
        for (resource, changes) in touched {
            let events = resource.apply(changes);
            for listener in &self.listeners {
                listener.changed(&resource, &events);
            }
        }
        self.cache.advance(batch.revision);
    }

    fn decode(&self, resource: &ResourceCache, item: &KeyValue) -> Result<Entry, ApiError> {
        let bytes = encode::served(&item.value, item.mod_revision)?;
        if let Some(known) = self.cache.prepared.take(&item.key, &item.value) {
            let object = ApiObject::from_parts(bytes, known.header, item.mod_revision);
            return Ok(Entry::new(object, known.fields));
        }
        let object = ApiObject::from_bytes(bytes)?;
        let fields = match resource.kind() {
            Some(kind) if !kind.selectable_fields.is_empty() => {
                field_texts(&kind.selectable_fields, &object.value()?)
            }
            _ => Box::default(),
        };
        Ok(Entry::new(object, fields))
    }
}
