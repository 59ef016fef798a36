//! The store that keeps everything in memory: for tests, simulations and throw-away planes.

use crate::mvcc::{Committed, Counts, Hub, Limits, Merge, Verdict, check_commit, evaluate, watch};
use crate::{
    Capabilities, Commit, CommitOutcome, Error, Event, KeyRange, KeyValue, RangeRequest, RangeResponse,
    Reason, Revision, Store, WatchStream,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rpds::RedBlackTreeMapSync;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store in memory. Readers take an immutable snapshot and never wait for writers.
///
/// Its history is bounded by [`Limits`]; what falls out of it answers `Compacted`, and a watcher that was still reading it `Lagged`.
///
/// ```
/// # use kubewright_store::{MemoryStore, Store, Commit, Op};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let store = MemoryStore::new();
/// let put = Op::Put { key: "greeting".into(), value: "hello".into() };
/// store.commit(Commit { compares: vec![], ops: vec![put] }).await?;
/// assert_eq!(store.get("greeting".into()).await?.unwrap().value, "hello");
/// # Ok::<(), kubewright_store::Error>(())
/// # }).unwrap();
/// ```
pub struct MemoryStore {
    newest: ArcSwap<Snapshot>,
    /// One writer at a time.
    write: Mutex<()>,
    hub: Arc<Hub>,
    counts: Counts,
    closed: AtomicBool,
}

#[derive(Clone)]
struct Snapshot {
    revision: Revision,
    map: RedBlackTreeMapSync<Bytes, Held>,
}

#[derive(Clone)]
struct Held {
    value: Bytes,
    create_revision: Revision,
    mod_revision: Revision,
}

impl Held {
    fn item(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

impl MemoryStore {
    /// An empty store with the default bounds.
    pub fn new() -> Self {
        MemoryStore::with_limits(Limits::default())
    }

    /// An empty store with these bounds.
    pub fn with_limits(limits: Limits) -> Self {
        MemoryStore {
            newest: ArcSwap::from_pointee(Snapshot { revision: 0, map: RedBlackTreeMapSync::new_sync() }),
            write: Mutex::new(()),
            hub: Arc::new(Hub::new(limits, 0)),
            counts: Counts::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Reason::Closed, "the store was closed"));
        }
        Ok(())
    }

    fn read_range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.open()?;
        let snapshot = self.newest.load_full();
        let revision = request.revision.unwrap_or(snapshot.revision);
        let undone = match request.revision {
            Some(revision) => self.hub.undo(&request.range, revision, snapshot.revision)?,
            None => Default::default(),
        };
        let mut merge = Merge::new(&request.range, request.limit, revision, undone, &self.counts);
        let start = Bound::Included(request.range.start.as_ref());
        let end = request.range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_ref()));
        if request.range.end.as_ref().is_none_or(|end| request.range.start < *end) {
            for (key, held) in snapshot.map.range::<[u8], _>((start, end)) {
                if merge.visit(key, || Ok(held.item(key)))?.is_break() {
                    break;
                }
            }
        }
        Ok(merge.finish())
    }

    fn write(&self, commit: Commit) -> Result<CommitOutcome, Error> {
        check_commit(&commit, self.hub.limits())?;
        let _one = self.write.lock();
        self.open()?;
        let before = self.newest.load_full();
        let lookup = |key: &Bytes| Ok(before.map.get(key).map(|held| held.item(key)));
        match evaluate(commit, before.revision + 1, lookup)? {
            Verdict::Unchanged(outcome) => Ok(outcome),
            Verdict::Changed(committed) => {
                let revision = committed.revision;
                let after = before.with(&committed);
                self.hub.stage([Arc::new(committed)]);
                self.newest.store(Arc::new(after));
                self.hub.publish();
                Ok(CommitOutcome::Committed { revision })
            }
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryStore(at revision {})", self.newest.load().revision)
    }
}

impl Snapshot {
    fn with(&self, committed: &Committed) -> Snapshot {
        let mut map = self.map.clone();
        for event in &committed.events {
            match event {
                Event::Put { item, .. } => {
                    let held = Held {
                        value: item.value.clone(),
                        create_revision: item.create_revision,
                        mod_revision: item.mod_revision,
                    };
                    map.insert_mut(item.key.clone(), held);
                }
                Event::Delete { key, .. } => {
                    map.remove_mut(key);
                }
            }
        }
        Snapshot { revision: committed.revision, map }
    }
}

impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            replicated: false,
            shared: false,
            history: true,
            previous_values: true,
        }
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async move {
            self.open()?;
            Ok(self.newest.load().revision)
        })
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(async move {
            self.open()?;
            Ok(self.newest.load().map.get(&key).map(|held| held.item(&key)))
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(async move { self.read_range(&request) })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move { self.write(commit) })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move {
            self.open()?;
            watch(&self.hub, range, from)
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.open()?;
            self.hub.compact(revision)
        })
    }

    fn keep_in_memory(&self, _: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.open() })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let _one = self.write.lock();
            self.closed.store(true, Ordering::Release);
            self.hub.close();
            Ok(())
        })
    }
}
