//! The object cache: every object once, as the bytes that are served, fed by one watch of the store.
//!
//! Readers take immutable snapshots and no locks. A read is consistent by waiting until the cache has seen the revision that the
//! store has at that moment; a watch starts from the window of recent events and is fed by what follows.

mod entry;
mod event;
mod feeder;
mod history;
mod hub;
mod prepared;
mod recent;
mod resource;

pub(crate) use entry::{Entry, Shape, ShapeRef, field_texts};
pub(crate) use event::CacheEvent;
pub(crate) use feeder::{Feeder, Listener};
pub(crate) use history::history;
pub(crate) use hub::{Interest, Registration};
pub(crate) use prepared::Prepared;
pub(crate) use resource::{ResourceCache, Snapshot};

use crate::keys::ResourceId;
use arc_swap::ArcSwap;
use kubewright_core::{ApiError, Reason};
use kubewright_store::Store;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long a read waits for a revision before it is refused.
const REVISION_WAIT: Duration = Duration::from_secs(3);

/// All resources, and how far the cache has come.
pub(crate) struct ObjectCache {
    store: Arc<dyn Store>,
    resources: ArcSwap<FxHashMap<ResourceId, Arc<ResourceCache>>>,
    /// Only one at a time adds a resource.
    adding: Mutex<()>,
    applied: watch::Sender<u64>,
    prepared: prepared::PreparedWrites,
    /// What was written a moment ago, parsed.
    pub(crate) recent: recent::RecentObjects,
    window_events_max: usize,
    /// What was before this revision is forgotten, also where a snapshot of it is still at hand.
    forgotten: AtomicU64,
}

impl ObjectCache {
    pub(crate) fn new(store: Arc<dyn Store>, window_events_max: usize) -> Self {
        ObjectCache {
            store,
            resources: ArcSwap::default(),
            adding: Mutex::new(()),
            applied: watch::Sender::new(0),
            prepared: prepared::PreparedWrites::default(),
            recent: recent::RecentObjects::default(),
            window_events_max,
            forgotten: AtomicU64::new(0),
        }
    }

    /// The store has been compacted up to this revision.
    pub(crate) fn forget(&self, revision: u64) {
        self.forgotten.fetch_max(revision, Ordering::Relaxed);
    }

    /// Whether what was at this revision is forgotten.
    pub(crate) fn forgot(&self, revision: u64) -> bool {
        revision < self.forgotten.load(Ordering::Relaxed)
    }

    /// The cache of a resource, made when it is first asked for.
    pub(crate) fn resource(&self, id: &ResourceId) -> Arc<ResourceCache> {
        if let Some(found) = self.resources.load().get(id) {
            return found.clone();
        }
        let _adding = self.adding.lock();
        let mut all = FxHashMap::clone(&self.resources.load());
        if let Some(found) = all.get(id) {
            return found.clone();
        }
        let made = Arc::new(ResourceCache::new(id.clone(), self.applied(), self.window_events_max));
        all.insert(id.clone(), made.clone());
        self.resources.store(Arc::new(all));
        made
    }

    /// What it follows.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Every resource that holds or held objects.
    pub(crate) fn all(&self) -> Arc<FxHashMap<ResourceId, Arc<ResourceCache>>> {
        self.resources.load_full()
    }

    /// Every change up to this revision is visible.
    pub(crate) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Leaves what a commit will write, so that the feeder need not parse it.
    pub(crate) fn prepare(&self, write: Prepared) {
        self.prepared.put(write);
    }

    /// Takes back what a failed commit left.
    pub(crate) fn unprepare(&self, key: &[u8], stored: &[u8]) {
        drop(self.prepared.take(key, stored));
    }

    /// Waits until everything that the store has acknowledged is visible.
    ///
    /// # Errors
    /// Where the store is not reachable, or the cache does not catch up in time.
    pub(crate) async fn consistent(&self) -> Result<u64, ApiError> {
        let target = self.store.current_revision().await.map_err(|e| crate::errors::store(&e))?;
        if self.applied() < target && !self.reached(target, REVISION_WAIT).await {
            let message = format!("the cache has not caught up with revision {target} of the store");
            return Err(ApiError::new(Reason::ServerTimeout, message));
        }
        Ok(target)
    }

    /// Waits for a revision that a client named.
    ///
    /// # Errors
    /// 504 with the cause `ResourceVersionTooLarge` where it does not come.
    pub(crate) async fn at_least(&self, revision: u64) -> Result<(), ApiError> {
        if self.applied() >= revision || self.reached(revision, REVISION_WAIT).await {
            return Ok(());
        }
        Err(crate::errors::too_large(revision, self.applied()))
    }

    /// Waits until a revision is visible; false where it takes longer than `patience`.
    pub(crate) async fn reached(&self, revision: u64, patience: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let wait = applied.wait_for(|r| *r >= revision);
        matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(_)))
    }

    fn advance(&self, revision: u64) {
        self.applied.send_if_modified(|applied| {
            let forward = revision > *applied;
            *applied = revision.max(*applied);
            forward
        });
    }
}
