//! The window of recent revisions, and the watchers that are fed from it.
//!
//! Every revision is published once; only the watchers whose range it touches are woken. A watcher whose own buffer is full reads on
//! from the window, and is cut off only when the window has moved past it. So memory is bounded whatever the watchers do.

use super::{Committed, Limits};
use crate::{Error, Event, KeyRange, KeyValue, Reason, Revision};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

/// How many revisions a watcher takes at once while it catches up.
const CATCH_UP_REVISIONS_MAX: usize = 512;

/// The history and the watchers of one store.
pub(crate) struct Hub {
    state: Mutex<State>,
    /// The last published revision, readable without the lock.
    published: AtomicU64,
    limits: Limits,
}

struct State {
    /// Revisions `oldest..`, without gaps; those above `published` are staged.
    window: VecDeque<Arc<Committed>>,
    bytes: usize,
    oldest: Revision,
    published: Revision,
    /// Reads and watches below it were given up by [`Hub::compact`].
    compacted: Revision,
    watchers: HashMap<u64, Slot>,
    index: RangeIndex,
    next_id: u64,
    closed: bool,
}

/// What the hub knows of one watcher.
struct Slot {
    queue: VecDeque<Arc<Committed>>,
    bytes: usize,
    /// The first revision that was not handed over yet.
    next: Revision,
    /// Reads from the window instead of the queue.
    catching_up: bool,
    waker: Option<Waker>,
    range: KeyRange,
}

/// What a watcher is handed: revisions that touch its range, and up to where that is everything.
pub(crate) struct Handed {
    pub(crate) committed: Vec<Arc<Committed>>,
    pub(crate) upto: Revision,
}

impl Hub {
    /// A hub of a store whose newest revision is `current` and whose history begins after it.
    pub(crate) fn new(limits: Limits, current: Revision) -> Self {
        let state = State {
            window: VecDeque::new(),
            bytes: 0,
            oldest: current + 1,
            published: current,
            compacted: 0,
            watchers: HashMap::new(),
            index: RangeIndex::default(),
            next_id: 0,
            closed: false,
        };
        Hub { state: Mutex::new(state), published: AtomicU64::new(current), limits }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    #[cfg(any(feature = "redb", feature = "sled"))]
    /// The last published revision.
    pub(crate) fn published(&self) -> Revision {
        self.published.load(Ordering::Acquire)
    }

    /// Takes the revisions that are about to be made visible, so that readers who see them can undo them.
    pub(crate) fn stage(&self, committed: impl IntoIterator<Item = Arc<Committed>>) {
        let mut state = self.state.lock();
        for one in committed {
            state.bytes += one.bytes;
            state.window.push_back(one);
        }
    }

    #[cfg(any(feature = "redb", feature = "sled"))]
    /// Forgets the staged revisions: they did not happen.
    pub(crate) fn unstage(&self) {
        let mut state = self.state.lock();
        let keep = (state.published + 1 - state.oldest) as usize;
        let dropped: usize = state.window.drain(keep..).map(|c| c.bytes).sum();
        state.bytes -= dropped;
    }

    /// The staged revisions happened: hands them to the watchers.
    pub(crate) fn publish(&self) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            let first = (state.published + 1 - state.oldest) as usize;
            for at in first..state.window.len() {
                let committed = state.window[at].clone();
                state.published = committed.revision;
                state.dispatch(&committed, &self.limits, &mut wakers);
            }
            state.trim(&self.limits);
            self.published.store(state.published, Ordering::Release);
        }
        for waker in wakers {
            waker.wake();
        }
    }

    /// What the keys of a range that changed after `revision`, up to `snapshot`, were at `revision`.
    pub(crate) fn undo(
        &self,
        range: &KeyRange,
        revision: Revision,
        snapshot: Revision,
    ) -> Result<BTreeMap<Bytes, Option<KeyValue>>, Error> {
        if revision > snapshot {
            return Err(future_revision(revision, snapshot));
        }
        let state = self.state.lock();
        if revision < state.compacted || revision + 1 < state.oldest {
            return Err(compacted(revision, state.compacted.max(state.oldest - 1)));
        }
        let mut before = BTreeMap::new();
        let (from, to) = (revision + 1 - state.oldest, snapshot + 1 - state.oldest);
        for committed in state.window.range(from as usize..to as usize) {
            for event in committed.events.iter().filter(|e| range.contains(e.key())) {
                let (Event::Put { previous, .. } | Event::Delete { previous, .. }) = event;
                before.entry(event.key().clone()).or_insert_with(|| previous.clone());
            }
        }
        Ok(before)
    }

    /// Gives up the history before `revision`.
    pub(crate) fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut state = self.state.lock();
        if revision > state.published {
            return Err(future_revision(revision, state.published));
        }
        state.compacted = state.compacted.max(revision);
        while state.oldest < state.compacted && !state.window.is_empty() {
            state.drop_oldest();
        }
        Ok(())
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let wakers: Vec<_> = state.watchers.values_mut().filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Makes a watcher; gives its id.
    pub(crate) fn subscribe(&self, range: KeyRange, from: Revision) -> Result<u64, Error> {
        let mut state = self.state.lock();
        let floor = state.compacted.max(state.oldest);
        let from = from.max(1);
        if from < floor {
            return Err(compacted(from, floor));
        }
        let id = state.next_id;
        state.next_id += 1;
        state.index.add(&range, id);
        let slot =
            Slot { queue: VecDeque::new(), bytes: 0, next: from, catching_up: true, waker: None, range };
        state.watchers.insert(id, slot);
        Ok(id)
    }

    /// Ends a watcher.
    pub(crate) fn unsubscribe(&self, id: u64) {
        let mut state = self.state.lock();
        if let Some(slot) = state.watchers.remove(&id) {
            state.index.remove(&slot.range, id);
        }
    }

    /// What the watcher has not seen yet. Pending means that nothing touched its range; `waker` is woken when something does.
    /// With `mark` set it is told how far the store is even so.
    pub(crate) fn poll(&self, id: u64, mark: bool, waker: &Waker) -> Poll<Result<Handed, Error>> {
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(Err(Error::new(Reason::Closed, "the store was closed")));
        }
        let State { window, watchers, oldest, published, compacted: floor, .. } = &mut *state;
        let Some(slot) = watchers.get_mut(&id) else {
            return Poll::Ready(Err(Error::new(Reason::Closed, "the watch has ended")));
        };
        let committed = if slot.catching_up {
            if slot.next < *oldest && slot.next <= *published {
                return Poll::Ready(Err(left_behind(slot.next, *floor, *oldest)));
            }
            slot.catch_up(window, *oldest, *published)
        } else {
            slot.bytes = 0;
            slot.next = slot.next.max(*published + 1);
            slot.queue.drain(..).collect()
        };
        if committed.is_empty() && !slot.catching_up && !mark {
            slot.waker = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(Handed { committed, upto: (*published).min(slot.next - 1) }))
    }
}

impl State {
    fn dispatch(&mut self, committed: &Arc<Committed>, limits: &Limits, wakers: &mut Vec<Waker>) {
        let watchers = &mut self.watchers;
        for event in &committed.events {
            self.index.each(event.key(), |id| {
                if let Some(slot) = watchers.get_mut(&id) {
                    slot.push(committed, limits);
                    wakers.extend(slot.waker.take());
                }
            });
        }
    }

    fn trim(&mut self, limits: &Limits) {
        while self.window.len() > limits.history_revisions_max || self.bytes > limits.history_bytes_max {
            // What is staged, or the very last revision, stays whatever its size.
            if self.oldest >= self.published {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(gone) = self.window.pop_front() {
            self.bytes -= gone.bytes;
            self.oldest = gone.revision + 1;
        }
    }
}

impl Slot {
    fn push(&mut self, committed: &Arc<Committed>, limits: &Limits) {
        // Two events of one revision are handed over once.
        let again = self.queue.back().is_some_and(|last| last.revision == committed.revision);
        if self.catching_up || committed.revision < self.next || again {
            return;
        }
        self.bytes += committed.bytes;
        let full = self.queue.len() >= limits.watch_buffer_revisions_max;
        if full || self.bytes > limits.history_bytes_max {
            self.next = self.queue.front().map_or(committed.revision, |first| first.revision);
            self.queue = VecDeque::new();
            self.bytes = 0;
            self.catching_up = true;
            return;
        }
        self.queue.push_back(committed.clone());
    }

    fn catch_up(
        &mut self,
        window: &VecDeque<Arc<Committed>>,
        oldest: Revision,
        published: Revision,
    ) -> Vec<Arc<Committed>> {
        let mut taken = Vec::new();
        while self.next <= published && taken.len() < CATCH_UP_REVISIONS_MAX {
            let committed = &window[(self.next - oldest) as usize];
            if committed.events.iter().any(|e| self.range.contains(e.key())) {
                taken.push(committed.clone());
            }
            self.next += 1;
        }
        self.catching_up = self.next <= published;
        taken
    }
}

fn left_behind(next: Revision, floor: Revision, oldest: Revision) -> Error {
    if next < floor {
        return compacted(next, floor);
    }
    Error::new(
        Reason::Lagged,
        format!("the watcher still wants revision {next}, and the history kept begins at {oldest}"),
    )
}

fn compacted(revision: Revision, floor: Revision) -> Error {
    Error::new(
        Reason::Compacted,
        format!("revision {revision} was compacted, the history kept begins at {floor}"),
    )
}

fn future_revision(revision: Revision, current: Revision) -> Error {
    Error::new(
        Reason::FutureRevision,
        format!("revision {revision} is in the future, the store is at {current}"),
    )
}

/// Finds the watchers of a key without asking each: most ranges are prefixes, and those are looked up by hash.
#[derive(Default)]
struct RangeIndex {
    prefixes: HashMap<Bytes, Vec<u64>>,
    /// How many distinct prefixes of each length there are.
    lengths: BTreeMap<usize, usize>,
    others: Vec<(KeyRange, u64)>,
}

impl RangeIndex {
    fn is_prefix(range: &KeyRange) -> bool {
        *range == KeyRange::prefix(range.start.clone())
    }

    fn add(&mut self, range: &KeyRange, id: u64) {
        if !Self::is_prefix(range) {
            self.others.push((range.clone(), id));
            return;
        }
        let ids = self.prefixes.entry(range.start.clone()).or_default();
        if ids.is_empty() {
            *self.lengths.entry(range.start.len()).or_default() += 1;
        }
        ids.push(id);
    }

    fn remove(&mut self, range: &KeyRange, id: u64) {
        if !Self::is_prefix(range) {
            self.others.retain(|(_, other)| *other != id);
            return;
        }
        let Some(ids) = self.prefixes.get_mut(&range.start) else { return };
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            self.prefixes.remove(&range.start);
            if let Some(count) = self.lengths.get_mut(&range.start.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&range.start.len());
                }
            }
        }
    }

    fn each(&self, key: &[u8], mut found: impl FnMut(u64)) {
        for length in self.lengths.range(..=key.len()).map(|(length, _)| *length) {
            self.prefixes.get(&key[..length]).into_iter().flatten().copied().for_each(&mut found);
        }
        self.others.iter().filter(|(range, _)| range.contains(key)).for_each(|(_, id)| found(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &RangeIndex, key: &str) -> Vec<u64> {
        let mut ids = Vec::new();
        index.each(key.as_bytes(), |id| ids.push(id));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_index_finds_each_watcher_of_a_key() {
        let mut index = RangeIndex::default();
        index.add(&KeyRange::prefix("a/"), 1);
        index.add(&KeyRange::prefix("a/b/"), 2);
        index.add(&KeyRange::prefix(""), 3);
        index.add(&KeyRange { start: "a/b".into(), end: Some("a/d".into()) }, 4);
        index.add(&KeyRange::prefix("a/"), 5);
        assert_eq!(found(&index, "a/b/c"), [1, 2, 3, 4, 5]);
        assert_eq!(found(&index, "a/x"), [1, 3, 5]);
        assert_eq!(found(&index, "b"), [3]);
        index.remove(&KeyRange::prefix("a/"), 1);
        index.remove(&KeyRange { start: "a/b".into(), end: Some("a/d".into()) }, 4);
        index.remove(&KeyRange::prefix(""), 3);
        assert_eq!(found(&index, "a/b/c"), [2, 5]);
        index.remove(&KeyRange::prefix("a/"), 5);
        index.remove(&KeyRange::prefix("a/b/"), 2);
        assert!(index.lengths.is_empty() && index.prefixes.is_empty() && index.others.is_empty());
    }
}
