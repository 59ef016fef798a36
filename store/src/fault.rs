//! A wrapper that makes another store slow and unreliable, from one seed.

use crate::{
    Capabilities, Commit, CommitOutcome, Error, KeyRange, KeyValue, RangeRequest, RangeResponse, Reason,
    Revision, Store, WatchStream,
};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong, and how often. Chances are from 0 (never) to 1 (always).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The least time that every call takes.
    pub latency_min: Duration,
    /// The most; a call's own time is drawn between them.
    pub latency_max: Duration,
    /// The chance that a call fails before it is done: `Unavailable`.
    pub refuse: f64,
    /// The chance that a commit is done and its answer lost: `Timeout`, indeterminate.
    pub lose_answer: f64,
    /// The chance that a commit is not done and nobody knows: `Timeout`, indeterminate.
    pub lose_commit: f64,
    /// The chance, for each batch, that a watch ends with `Unavailable` instead.
    pub cut_watch: f64,
}

/// A store that fails on purpose, to try what stands on it. The same seed and the same calls give the same faults.
///
/// ```
/// # use kubewright_store::{Faults, FaultyStore, MemoryStore, Store};
/// # use std::sync::Arc;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let store = FaultyStore::new(Arc::new(MemoryStore::new()), 7, Faults { refuse: 1.0, ..Faults::default() });
/// assert!(store.get("a".into()).await.unwrap_err().is_retryable());
/// store.set_faults(Faults::default());
/// assert!(store.get("a".into()).await.unwrap().is_none());
/// # });
/// ```
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    dice: Arc<Mutex<Dice>>,
}

struct Dice {
    faults: Faults,
    random: StdRng,
}

impl Dice {
    fn falls(&mut self, chance: impl Fn(&Faults) -> f64) -> bool {
        let chance = chance(&self.faults).clamp(0.0, 1.0);
        chance > 0.0 && self.random.random_bool(chance)
    }

    fn latency(&mut self) -> Duration {
        let Faults { latency_min, latency_max, .. } = self.faults;
        if latency_max <= latency_min {
            return latency_min;
        }
        latency_min + (latency_max - latency_min).mul_f64(self.random.random::<f64>())
    }
}

impl FaultyStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, seed: u64, faults: Faults) -> Self {
        let dice = Dice { faults, random: StdRng::seed_from_u64(seed) };
        FaultyStore { inner, dice: Arc::new(Mutex::new(dice)) }
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.lock().faults = faults;
    }

    /// What every call goes through first.
    async fn suffer(&self) -> Result<(), Error> {
        let (latency, refused) = {
            let mut dice = self.dice.lock();
            (dice.latency(), dice.falls(|f| f.refuse))
        };
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        if refused {
            return Err(Error::new(Reason::Unavailable, "injected: the store is not reachable"));
        }
        Ok(())
    }

    async fn unreliable<T>(&self, call: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
        self.suffer().await?;
        call.await
    }
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultyStore({:?})", self.dice.lock().faults)
    }
}

fn lost() -> Error {
    Error::new(Reason::Timeout, "injected: the commit's answer is lost").indeterminate()
}

impl Store for FaultyStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(self.unreliable(self.inner.current_revision()))
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(self.unreliable(self.inner.get(key)))
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(self.unreliable(self.inner.range(request)))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move {
            self.suffer().await?;
            let (answer_lost, commit_lost) = {
                let mut dice = self.dice.lock();
                (dice.falls(|f| f.lose_answer), dice.falls(|f| f.lose_commit))
            };
            if commit_lost {
                return Err(lost());
            }
            let outcome = self.inner.commit(commit).await?;
            if answer_lost { Err(lost()) } else { Ok(outcome) }
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move {
            let stream = self.unreliable(self.inner.watch(range, from)).await?;
            let dice = self.dice.clone();
            // The stream ends after its first error.
            let cut = stream.scan(false, move |ended, batch| {
                let cut = !*ended && dice.lock().falls(|f| f.cut_watch);
                let item = match (*ended, cut) {
                    (true, _) => None,
                    (_, true) => {
                        Some(Err(Error::new(Reason::Unavailable, "injected: the watch was cut off")))
                    }
                    _ => Some(batch),
                };
                *ended = matches!(item, Some(Err(_)) | None);
                futures::future::ready(item)
            });
            Ok(cut.boxed())
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.unreliable(self.inner.compact(revision)))
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
