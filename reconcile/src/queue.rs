//! The work queue: which keys wait for a pass, in which order, and when.
//!
//! A key waits at most once and is never handed out twice at a time. Keys of one priority take turns by owner, so that a namespace
//! with ten thousand keys delays another's single key by one pass, not by ten thousand.

use crate::{Backoff, ObjectKey};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a work queue holds: a name of what is to be done, cheap to clone.
pub trait QueueKey: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// Among whom the queue is fair. Keys of one owner are served in the order of their arrival.
    fn owner(&self) -> SmolStr {
        SmolStr::default()
    }
}

impl QueueKey for ObjectKey {
    /// The namespace.
    fn owner(&self) -> SmolStr {
        self.namespace.clone()
    }
}

impl QueueKey for SmolStr {}
impl QueueKey for String {}

/// How a queue behaves.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// The delay after failures in a row of one key.
    pub backoff: Backoff,
    /// How many keys may wait, those with a delay included.
    pub keys_max: usize,
    /// How many failed keys a second may come back, all together, and how many at once; `None` for no limit.
    pub retry_rate: Option<(f64, f64)>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions { backoff: Backoff::default(), keys_max: 1_000_000, retry_rate: None }
    }
}

/// The queue holds its maximum of keys, or is shutting down: the key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work queue takes no more keys")]
pub struct QueueFull;

/// What a queue did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMetrics {
    /// Keys that wait now.
    pub depth: usize,
    /// Keys that wait for a time to come.
    pub delayed: usize,
    /// Keys handed out now.
    pub processing: usize,
    /// Keys taken in since the start, duplicates left out.
    pub adds: u64,
    /// Keys that came back after a failure since the start.
    pub retries: u64,
    /// Keys refused because the queue was full.
    pub refused: u64,
}

/// The keys of one priority, in turns by owner.
struct Turns<T> {
    owners: FxHashMap<SmolStr, VecDeque<T>>,
    order: VecDeque<SmolStr>,
}

impl<T: QueueKey> Turns<T> {
    fn push(&mut self, key: T) {
        let owner = key.owner();
        let waiting = self.owners.entry(owner.clone()).or_default();
        if waiting.is_empty() {
            self.order.push_back(owner);
        }
        waiting.push_back(key);
    }

    fn pop(&mut self) -> Option<T> {
        let owner = self.order.pop_front()?;
        let waiting = self.owners.get_mut(&owner)?;
        let key = waiting.pop_front();
        if waiting.is_empty() {
            self.owners.remove(&owner);
        } else {
            self.order.push_back(owner);
        }
        key
    }

    /// Takes out one key that waits; the cost is that of its owner's queue.
    fn remove(&mut self, key: &T) {
        let owner = key.owner();
        if let Some(waiting) = self.owners.get_mut(&owner) {
            waiting.retain(|k| k != key);
            if waiting.is_empty() {
                self.owners.remove(&owner);
                self.order.retain(|o| *o != owner);
            }
        }
    }
}

struct State<T> {
    ready: BTreeMap<Reverse<i32>, Turns<T>>,
    /// The priority of each key in `ready`.
    waiting: FxHashMap<T, i32>,
    /// Keys handed out; the priority with which one came again meanwhile.
    processing: FxHashMap<T, Option<i32>>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: FxHashMap<T, (Instant, u64, i32)>,
    failures: FxHashMap<T, u32>,
    serial: u64,
    tokens: f64,
    tokens_at: Instant,
    metrics: QueueMetrics,
    stopping: bool,
}

struct Inner<T> {
    state: Mutex<State<T>>,
    options: QueueOptions,
    /// A key may be ready, or an earlier delay was set.
    wake: Notify,
    /// A key was given back.
    done: Notify,
}

/// A queue of keys. Cloning shares it.
pub struct WorkQueue<T: QueueKey> {
    inner: Arc<Inner<T>>,
}

impl<T: QueueKey> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        WorkQueue { inner: self.inner.clone() }
    }
}

impl<T: QueueKey> fmt::Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkQueue({:?})", self.metrics())
    }
}

impl<T: QueueKey> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new(QueueOptions::default())
    }
}

impl<T: QueueKey> WorkQueue<T> {
    /// An empty queue.
    pub fn new(options: QueueOptions) -> Self {
        let state = State {
            ready: BTreeMap::new(),
            waiting: FxHashMap::default(),
            processing: FxHashMap::default(),
            delayed: BTreeMap::new(),
            due: FxHashMap::default(),
            failures: FxHashMap::default(),
            serial: 0,
            tokens: options.retry_rate.map_or(0.0, |(_, burst)| burst),
            tokens_at: Instant::now(),
            metrics: QueueMetrics::default(),
            stopping: false,
        };
        let inner = Inner { state: Mutex::new(state), options, wake: Notify::new(), done: Notify::new() };
        WorkQueue { inner: Arc::new(inner) }
    }

    /// Adds a key at priority 0. A key that waits already is left where it is; one that is being worked on comes again afterwards.
    ///
    /// # Errors
    /// [`QueueFull`] where the bound is reached or the queue is shutting down.
    pub fn add(&self, key: T) -> Result<(), QueueFull> {
        self.add_with(key, 0)
    }

    /// Adds a key at a priority; higher goes first. A key that waits already is raised, never lowered.
    ///
    /// # Errors
    /// As [`WorkQueue::add`].
    pub fn add_with(&self, key: T, priority: i32) -> Result<(), QueueFull> {
        let mut state = self.inner.state.lock();
        let taken = state.add(key, priority, self.inner.options.keys_max);
        drop(state);
        self.inner.wake.notify_one();
        taken
    }

    /// Adds a key once `delay` is over. Of several delays of one key the earliest counts.
    ///
    /// # Errors
    /// As [`WorkQueue::add`].
    pub fn add_after(&self, key: T, delay: Duration) -> Result<(), QueueFull> {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.inner.state.lock();
        let taken = state.delay(key, Instant::now() + delay, 0, self.inner.options.keys_max);
        drop(state);
        self.inner.wake.notify_one();
        taken
    }

    /// Adds a key after the back-off of its failures so far, plus one. It is taken even by a full queue, which knew it already.
    pub fn retry(&self, key: T) {
        let mut state = self.inner.state.lock();
        if state.stopping {
            return;
        }
        let failures = state.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        let backoff = self.inner.options.backoff.delay(*failures);
        let wait = backoff.max(state.rate_wait(self.inner.options.retry_rate));
        state.metrics.retries += 1;
        // A far delay of the queue's own must not hold back a retry, so the earlier one of both counts here too.
        let _ = state.delay(key, Instant::now() + wait, 0, usize::MAX);
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &T) {
        self.inner.state.lock().failures.remove(key);
    }

    /// How many failures in a row a key has.
    pub fn failures(&self, key: &T) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Whether nothing waits, is delayed or is being worked on.
    pub fn is_idle(&self) -> bool {
        let m = self.metrics();
        m.depth + m.delayed + m.processing == 0
    }

    /// The queue's counts.
    pub fn metrics(&self) -> QueueMetrics {
        let state = self.inner.state.lock();
        QueueMetrics {
            depth: state.waiting.len(),
            delayed: state.due.len(),
            processing: state.processing.len(),
            ..state.metrics
        }
    }

    /// The next key, once there is one; `None` once the queue shuts down and nothing waits any more.
    ///
    /// # Cancel safety
    /// A dropped call takes no key.
    pub async fn get(&self) -> Option<Work<T>> {
        loop {
            let notified = self.inner.wake.notified();
            let next = {
                let mut state = self.inner.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.pop() {
                    let more = !state.waiting.is_empty();
                    drop(state);
                    if more {
                        // One notification may have stood for several keys.
                        self.inner.wake.notify_one();
                    }
                    return Some(Work { queue: self.clone(), key: Some(key) });
                }
                if state.stopping {
                    drop(state);
                    self.inner.wake.notify_one();
                    return None;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Takes no more keys and drops those with a delay; what waits is still handed out.
    pub fn shut_down(&self) {
        let mut state = self.inner.state.lock();
        state.stopping = true;
        state.delayed.clear();
        state.due.clear();
        drop(state);
        self.inner.wake.notify_one();
        self.inner.done.notify_waiters();
    }

    /// Shuts down and waits until every key handed out was given back.
    ///
    /// # Cancel safety
    /// Dropping it leaves the queue shut down.
    pub async fn drain(&self) {
        self.shut_down();
        loop {
            let done = self.inner.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            {
                let state = self.inner.state.lock();
                if state.processing.is_empty() && state.waiting.is_empty() {
                    return;
                }
            }
            done.await;
        }
    }

    fn give_back(&self, key: &T) {
        let mut state = self.inner.state.lock();
        if let Some(Some(priority)) = state.processing.remove(key) {
            if let Some((at, serial, _)) = state.due.remove(key) {
                state.delayed.remove(&(at, serial));
            }
            state.push(key.clone(), priority);
        }
        drop(state);
        self.inner.wake.notify_one();
        self.inner.done.notify_waiters();
    }
}

impl<T: QueueKey> State<T> {
    fn room(&mut self, max: usize) -> Result<(), QueueFull> {
        if self.stopping || self.waiting.len() + self.due.len() >= max {
            self.metrics.refused += 1;
            return Err(QueueFull);
        }
        Ok(())
    }

    fn add(&mut self, key: T, priority: i32, max: usize) -> Result<(), QueueFull> {
        if self.stopping {
            return Err(QueueFull);
        }
        if let Some(again) = self.processing.get_mut(&key) {
            *again = Some(again.map_or(priority, |p| p.max(priority)));
            return Ok(());
        }
        if let Some(present) = self.waiting.get_mut(&key) {
            if priority > *present {
                let old = std::mem::replace(present, priority);
                if let Some(turns) = self.ready.get_mut(&Reverse(old)) {
                    turns.remove(&key);
                }
                self.turns(priority).push(key);
            }
            return Ok(());
        }
        if let Some((at, serial, _)) = self.due.remove(&key) {
            self.delayed.remove(&(at, serial));
        } else {
            self.room(max)?;
        }
        self.metrics.adds += 1;
        self.push(key, priority);
        Ok(())
    }

    fn delay(&mut self, key: T, at: Instant, priority: i32, max: usize) -> Result<(), QueueFull> {
        if self.waiting.contains_key(&key) {
            return Ok(());
        }
        match self.due.get(&key).copied() {
            Some((present, ..)) if present <= at => return Ok(()),
            Some((present, serial, _)) => {
                self.delayed.remove(&(present, serial));
            }
            None => self.room(max)?,
        }
        self.serial += 1;
        self.delayed.insert((at, self.serial), key.clone());
        self.due.insert(key, (at, self.serial, priority));
        Ok(())
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            let priority = self.due.remove(&key).map_or(0, |(.., p)| p);
            if let Some(again) = self.processing.get_mut(&key) {
                *again = Some(again.map_or(priority, |p| p.max(priority)));
            } else {
                self.metrics.adds += 1;
                self.push(key, priority);
            }
        }
    }

    fn turns(&mut self, priority: i32) -> &mut Turns<T> {
        let empty = || Turns { owners: FxHashMap::default(), order: VecDeque::new() };
        self.ready.entry(Reverse(priority)).or_insert_with(empty)
    }

    fn push(&mut self, key: T, priority: i32) {
        self.waiting.insert(key.clone(), priority);
        self.turns(priority).push(key);
    }

    fn pop(&mut self) -> Option<T> {
        while let Some(mut entry) = self.ready.first_entry() {
            match entry.get_mut().pop() {
                Some(key) => {
                    self.waiting.remove(&key);
                    self.processing.insert(key.clone(), None);
                    return Some(key);
                }
                None => {
                    entry.remove();
                }
            }
        }
        None
    }

    /// Takes a token of the retry rate; how long until it is good.
    fn rate_wait(&mut self, rate: Option<(f64, f64)>) -> Duration {
        let Some((per_second, burst)) = rate else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        let earned = now.duration_since(self.tokens_at).as_secs_f64() * per_second;
        self.tokens_at = now;
        self.tokens = (self.tokens + earned).min(burst) - 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / per_second).unwrap_or(Duration::MAX)
    }
}

/// A key handed out. Dropping it gives it back: a key that was added meanwhile then waits again.
pub struct Work<T: QueueKey> {
    queue: WorkQueue<T>,
    key: Option<T>,
}

impl<T: QueueKey> Work<T> {
    /// The key.
    ///
    /// # Panics
    /// Never: the key leaves only when this is consumed.
    pub fn key(&self) -> &T {
        self.key.as_ref().expect("the key leaves only when this is consumed")
    }

    /// The pass succeeded: the key's failures are forgotten.
    pub fn succeed(self) {
        self.queue.forget(self.key());
    }

    /// The pass succeeded, and the key shall come again after `delay`.
    pub fn again_after(self, delay: Duration) {
        self.queue.forget(self.key());
        // A queue that refuses is full of other work or stopping; a known key is let in all the same.
        let mut state = self.queue.inner.state.lock();
        if !state.stopping {
            let _ = state.delay(self.key().clone(), Instant::now() + delay, 0, usize::MAX);
        }
    }

    /// The pass failed: the key comes again after its back-off.
    pub fn fail(self) {
        self.queue.retry(self.key().clone());
    }
}

impl<T: QueueKey> Drop for Work<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.queue.give_back(&key);
        }
    }
}

impl<T: QueueKey> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work({:?})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        let (namespace, name) = text.split_once('/').unwrap();
        ObjectKey::new(namespace, name)
    }

    /// Adds `namespace/name@priority` texts, then checks in which order they come out.
    async fn check(adds: &[&str], want: &[&str]) {
        let queue = WorkQueue::default();
        for add in adds {
            let (name, priority) = add.split_once('@').unwrap_or((add, "0"));
            queue.add_with(key(name), priority.parse().unwrap()).unwrap();
        }
        queue.shut_down();
        let mut got = Vec::new();
        while let Some(work) = queue.get().await {
            got.push(work.key().to_string());
        }
        assert_eq!(got, want, "of {adds:?}");
    }

    #[tokio::test]
    async fn order_is_by_priority_then_turns_of_owners() {
        check(&["a/1", "a/2", "a/1"], &["a/1", "a/2"]).await;
        check(&["a/1", "a/2", "a/3", "b/1"], &["a/1", "b/1", "a/2", "a/3"]).await;
        check(&["a/1", "a/2@5", "b/1@-1"], &["a/2", "a/1", "b/1"]).await;
        check(&["a/1", "a/2", "a/2@9", "a/2@1"], &["a/2", "a/1"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_out_twice() {
        let queue = WorkQueue::default();
        queue.add(key("a/1")).unwrap();
        let work = queue.get().await.unwrap();
        queue.add(key("a/1")).unwrap();
        queue.add_after(key("a/1"), Duration::from_millis(1)).unwrap();
        let second = tokio::time::timeout(Duration::from_secs(60), queue.get()).await;
        assert!(second.is_err(), "the key was handed out twice");
        work.succeed();
        queue.get().await.unwrap().succeed();
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_the_earliest_and_failures_double() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        queue.add_after(key("a/1"), Duration::from_secs(9)).unwrap();
        queue.add_after(key("a/1"), Duration::from_secs(2)).unwrap();
        queue.add_after(key("a/1"), Duration::from_secs(5)).unwrap();
        let mut work = queue.get().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 2);
        for want in [5, 10, 20] {
            let before = Instant::now();
            work.fail();
            work = queue.get().await.unwrap();
            assert_eq!(before.elapsed().as_millis(), want);
        }
        assert_eq!((queue.failures(&key("a/1")), queue.metrics().retries), (3, 3));
        work.succeed();
        assert_eq!(queue.failures(&key("a/1")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_and_rates_hold() {
        let options = QueueOptions { keys_max: 2, retry_rate: Some((1.0, 1.0)), ..QueueOptions::default() };
        let queue = WorkQueue::new(options);
        queue.add(key("a/1")).unwrap();
        queue.add(key("a/2")).unwrap();
        assert_eq!(queue.add(key("a/3")), Err(QueueFull));
        assert_eq!(queue.add(key("a/1")), Ok(()));
        let start = Instant::now();
        queue.get().await.unwrap().fail();
        queue.get().await.unwrap().fail();
        queue.get().await.unwrap().succeed();
        queue.get().await.unwrap().succeed();
        assert_eq!(start.elapsed().as_secs(), 1, "the second failure had to wait for a token");
    }

    #[tokio::test]
    async fn a_drain_waits_for_what_is_out() {
        let queue = WorkQueue::default();
        queue.add(key("a/1")).unwrap();
        let work = queue.get().await.unwrap();
        let drain = tokio::spawn({
            let queue = queue.clone();
            async move { queue.drain().await }
        });
        tokio::task::yield_now().await;
        assert!(!drain.is_finished());
        drop(work);
        drain.await.unwrap();
        assert!(queue.get().await.is_none());
        assert_eq!(queue.add(key("a/1")), Err(QueueFull));
    }
}
