//! A wrapper that counts and times what goes through it.

use crate::{
    Capabilities, Commit, CommitOutcome, Error, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision,
    Store, WatchStream,
};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The upper bounds of the latency buckets; one more bucket holds what is slower.
pub const LATENCY_BOUNDS: [Duration; 12] = [
    Duration::from_micros(10),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// What was counted of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallMetrics {
    /// Calls that ended, well or not. A dropped one is not counted.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
    /// How long all of them took together.
    pub total: Duration,
    /// How many took up to each of [`LATENCY_BOUNDS`], and longer; not cumulative.
    pub buckets: [u64; LATENCY_BOUNDS.len() + 1],
}

/// What was counted of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// Reads of the current revision.
    pub current_revision: CallMetrics,
    /// Reads of one key.
    pub get: CallMetrics,
    /// Reads of a range.
    pub range: CallMetrics,
    /// Commits, refused ones included.
    pub commit: CallMetrics,
    /// Starts of watches.
    pub watch: CallMetrics,
    /// Compactions.
    pub compact: CallMetrics,
    /// Commits whose conditions did not hold.
    pub commits_refused: u64,
    /// Failed commits that may have happened.
    pub commits_indeterminate: u64,
    /// Bytes of the values written.
    pub bytes_written: u64,
    /// Bytes of the values read by gets and ranges.
    pub bytes_read: u64,
    /// Watches open now.
    pub watches_open: u64,
    /// Events handed to watchers.
    pub watch_events: u64,
}

#[derive(Default)]
struct Call {
    calls: AtomicU64,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; LATENCY_BOUNDS.len() + 1],
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Call {
    async fn timed<T>(&self, call: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
        let start = Instant::now();
        let result = call.await;
        let took = start.elapsed();
        add(&self.calls, 1);
        add(&self.errors, u64::from(result.is_err()));
        add(&self.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let bucket = LATENCY_BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(LATENCY_BOUNDS.len());
        add(&self.buckets[bucket], 1);
        result
    }

    fn snapshot(&self) -> CallMetrics {
        CallMetrics {
            calls: load(&self.calls),
            errors: load(&self.errors),
            total: Duration::from_nanos(load(&self.nanoseconds)),
            buckets: std::array::from_fn(|at| load(&self.buckets[at])),
        }
    }
}

#[derive(Default)]
struct Counters {
    current_revision: Call,
    get: Call,
    range: Call,
    commit: Call,
    watch: Call,
    compact: Call,
    commits_refused: AtomicU64,
    commits_indeterminate: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
    watches_open: AtomicU64,
    watch_events: AtomicU64,
}

/// A store that counts the calls to another one, and how long they take.
///
/// ```
/// # use kubewright_store::{MemoryStore, MeteredStore, Store};
/// # use std::sync::Arc;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let store = MeteredStore::new(Arc::new(MemoryStore::new()));
/// store.get("a".into()).await?;
/// assert_eq!(store.metrics().get.calls, 1);
/// # Ok::<(), kubewright_store::Error>(())
/// # }).unwrap();
/// ```
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    counters: Arc<Counters>,
}

impl MeteredStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        MeteredStore { inner, counters: Arc::default() }
    }

    /// What was counted so far.
    pub fn metrics(&self) -> StoreMetrics {
        let c = &self.counters;
        StoreMetrics {
            current_revision: c.current_revision.snapshot(),
            get: c.get.snapshot(),
            range: c.range.snapshot(),
            commit: c.commit.snapshot(),
            watch: c.watch.snapshot(),
            compact: c.compact.snapshot(),
            commits_refused: load(&c.commits_refused),
            commits_indeterminate: load(&c.commits_indeterminate),
            bytes_written: load(&c.bytes_written),
            bytes_read: load(&c.bytes_read),
            watches_open: load(&c.watches_open),
            watch_events: load(&c.watch_events),
        }
    }
}

impl std::fmt::Debug for MeteredStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MeteredStore({:?})", self.metrics())
    }
}

/// Counts a watch as open until it is dropped.
struct OpenWatch(Arc<Counters>);

impl OpenWatch {
    fn new(counters: Arc<Counters>) -> Self {
        add(&counters.watches_open, 1);
        OpenWatch(counters)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.watches_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store for MeteredStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(self.counters.current_revision.timed(self.inner.current_revision()))
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(async move {
            let found = self.counters.get.timed(self.inner.get(key)).await?;
            add(&self.counters.bytes_read, found.as_ref().map_or(0, |kv| kv.value.len() as u64));
            Ok(found)
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(async move {
            let page = self.counters.range.timed(self.inner.range(request)).await?;
            add(&self.counters.bytes_read, page.items.iter().map(|kv| kv.value.len() as u64).sum());
            Ok(page)
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move {
            let bytes = commit.ops.iter().map(|op| op.value_len() as u64).sum();
            let result = self.counters.commit.timed(self.inner.commit(commit)).await;
            match &result {
                Ok(CommitOutcome::Committed { .. }) => add(&self.counters.bytes_written, bytes),
                Ok(CommitOutcome::Refused { .. }) => add(&self.counters.commits_refused, 1),
                Err(error) => add(&self.counters.commits_indeterminate, u64::from(error.is_indeterminate())),
            }
            result
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move {
            let stream = self.counters.watch.timed(self.inner.watch(range, from)).await?;
            let open = OpenWatch::new(self.counters.clone());
            let counted = stream.inspect(move |batch| {
                let events = batch.as_ref().map_or(0, |batch| batch.events.len() as u64);
                add(&open.0.watch_events, events);
            });
            Ok(counted.boxed())
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.counters.compact.timed(self.inner.compact(revision)))
    }

    fn keep_in_memory(&self, prefix: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.keep_in_memory(prefix)
    }

    fn expire(&self, prefix: Bytes, after: Duration) -> bool {
        self.inner.expire(prefix, after)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.close()
    }
}
