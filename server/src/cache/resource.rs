//! The objects of one stored resource: an immutable snapshot for readers, a window of events and the watchers behind a short lock.

use super::entry::Entry;
use super::event::CacheEvent;
use super::hub::{Hub, Interest, Registration};
use crate::keys::ResourceId;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use kubewright_core::{ApiError, KindDescriptor};
use parking_lot::Mutex;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

/// The selectable field that is asked for so often (every node agent watches its own pods) that it has an index.
const INDEXED_FIELD: &str = "spec.nodeName";

/// What a resource held at a revision.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The last change.
    pub(crate) revision: u64,
    items: RedBlackTreeMapSync<Bytes, Arc<Entry>>,
    /// Values of the indexed field with the keys of their objects.
    index: RedBlackTreeSetSync<(SmolStr, Bytes)>,
    /// Whether the index is kept; a snapshot out of the history has none.
    has_index: bool,
}

impl Snapshot {
    /// A snapshot of its own, for history.
    pub(crate) fn of(items: Vec<(Bytes, Arc<Entry>)>, revision: u64) -> Self {
        let mut snapshot = Self::empty(revision);
        for (key, entry) in items {
            snapshot.put(key, entry, None);
        }
        snapshot
    }

    fn empty(revision: u64) -> Self {
        Snapshot {
            revision,
            items: RedBlackTreeMapSync::new_sync(),
            index: RedBlackTreeSetSync::new_sync(),
            has_index: false,
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.items.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.size()
    }

    /// The objects from `start` on (all of them from empty), in key order, as far as `prefix` goes.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        start: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Arc<Entry>)> {
        let from = if start > prefix { start } else { prefix };
        self.items
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Whether [`Snapshot::indexed`] knows every object.
    pub(crate) fn has_index(&self) -> bool {
        self.has_index
    }

    /// The objects whose indexed field has this value, in key order.
    pub(crate) fn indexed<'a>(
        &'a self,
        value: &SmolStr,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Arc<Entry>)> {
        let value = value.clone();
        let start = (value.clone(), Bytes::new());
        self.index
            .range((Bound::Included(start), Bound::Unbounded))
            .take_while(move |(v, _)| *v == value)
            .filter_map(|(_, key)| self.items.get_key_value(key))
    }

    fn put(&mut self, key: Bytes, entry: Arc<Entry>, indexed: Option<usize>) -> Option<Arc<Entry>> {
        let before = self.items.get(&key).cloned();
        if let Some(at) = indexed {
            let new = entry.shape.fields.get(at);
            let old = before.as_ref().and_then(|b| b.shape.fields.get(at));
            if new != old {
                if let Some(old) = old {
                    self.index.remove_mut(&(old.clone(), key.clone()));
                }
                if let Some(new) = new.filter(|v| !v.is_empty()) {
                    self.index.insert_mut((new.clone(), key.clone()));
                }
            }
        }
        self.items.insert_mut(key, entry);
        before
    }

    fn remove(&mut self, key: &Bytes, indexed: Option<usize>) -> Option<Arc<Entry>> {
        let before = self.items.get(key).cloned()?;
        if let Some(value) = indexed.and_then(|at| before.shape.fields.get(at)) {
            self.index.remove_mut(&(value.clone(), key.clone()));
        }
        self.items.remove_mut(key);
        Some(before)
    }
}

/// A change to apply, decoded already.
pub(crate) struct Change {
    pub(crate) key: Bytes,
    pub(crate) revision: u64,
    /// `None` deletes.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// The cache of one stored resource.
pub(crate) struct ResourceCache {
    pub(crate) id: ResourceId,
    /// The descriptor of the stored shape; none while only keys of an unknown kind were seen.
    kind: ArcSwapOption<KindDescriptor>,
    current: ArcSwap<Snapshot>,
    state: Mutex<State>,
    /// Snapshots that lists in pages go on from, oldest first.
    pages: Mutex<VecDeque<(u64, Arc<Snapshot>)>>,
}

/// How many snapshots are kept for lists in pages; they share what did not change.
const PAGES_KEPT_MAX: usize = 64;

struct State {
    /// Where the next changes go; what readers see is a clone of it.
    next: Snapshot,
    hub: Hub,
    /// Which selectable field is indexed, by its place in the descriptor.
    indexed: Option<usize>,
}

impl ResourceCache {
    pub(crate) fn new(id: ResourceId, revision: u64, window_events_max: usize) -> Self {
        let next = Snapshot::empty(revision);
        ResourceCache {
            id,
            kind: ArcSwapOption::empty(),
            current: ArcSwap::from_pointee(next.clone()),
            state: Mutex::new(State { next, hub: Hub::new(revision, window_events_max), indexed: None }),
            pages: Mutex::default(),
        }
    }

    /// The descriptor of the stored shape.
    pub(crate) fn kind(&self) -> Option<Arc<KindDescriptor>> {
        self.kind.load_full()
    }

    /// Takes a (new) descriptor; the selectable fields of what is held are taken out anew.
    pub(crate) fn set_kind(&self, kind: Arc<KindDescriptor>) -> Result<(), ApiError> {
        let mut state = self.state.lock();
        let indexed = kind.selectable_fields.iter().position(|f| f.name == INDEXED_FIELD);
        self.kind.store(Some(kind.clone()));
        state.indexed = indexed;
        let mut next = Snapshot::empty(state.next.revision);
        next.has_index = indexed.is_some();
        for (key, entry) in state.next.range(b"", b"") {
            next.put(key.clone(), Arc::new(entry.under(&kind)?), indexed);
        }
        state.next = next;
        self.current.store(Arc::new(state.next.clone()));
        Ok(())
    }

    /// What readers see now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Keeps a snapshot for the next page of a list.
    pub(crate) fn keep(&self, revision: u64, snapshot: &Arc<Snapshot>) {
        let mut pages = self.pages.lock();
        if pages.iter().any(|(r, _)| *r == revision) {
            return;
        }
        if pages.len() == PAGES_KEPT_MAX {
            pages.pop_front();
        }
        pages.push_back((revision, snapshot.clone()));
    }

    /// The snapshot kept at a revision.
    pub(crate) fn kept(&self, revision: u64) -> Option<Arc<Snapshot>> {
        self.pages.lock().iter().find(|(r, _)| *r == revision).map(|(_, s)| s.clone())
    }

    /// Applies changes in revision order, publishes the result and hands the events to the watchers.
    pub(crate) fn apply(&self, changes: Vec<Change>) -> Vec<Arc<CacheEvent>> {
        let mut state = self.state.lock();
        let State { next, hub, indexed } = &mut *state;
        let mut events = Vec::with_capacity(changes.len());
        for Change { key, revision, entry } in changes {
            let before = match &entry {
                Some(entry) => next.put(key.clone(), entry.clone(), *indexed),
                None => next.remove(&key, *indexed),
            };
            next.revision = revision;
            if entry.is_some() || before.is_some() {
                events.push(Arc::new(CacheEvent::new(revision, key, before, entry)));
            }
        }
        self.current.store(Arc::new(next.clone()));
        hub.publish(&events, *indexed);
        events
    }

    /// Forgets everything and cuts all watchers off: the history has a hole.
    pub(crate) fn reset(&self, items: Vec<(Bytes, Arc<Entry>)>, revision: u64) {
        let mut state = self.state.lock();
        let indexed = state.indexed;
        let mut next = Snapshot::empty(revision);
        next.has_index = indexed.is_some();
        for (key, entry) in items {
            next.put(key, entry, indexed);
        }
        state.next = next;
        state.hub.reset(revision);
        self.current.store(Arc::new(state.next.clone()));
    }

    /// Starts a watch: from a revision (events after it come out of the window), or from the present state.
    ///
    /// `applied` is what the whole cache had applied before this call.
    ///
    /// # Errors
    /// 410 where the window does not reach back so far.
    pub(crate) fn watch(
        &self,
        from: Option<u64>,
        interest: Interest,
        applied: u64,
    ) -> Result<Registration, ApiError> {
        let mut state = self.state.lock();
        let snapshot = self.current.load_full();
        state.hub.register(from, interest, snapshot, applied)
    }

    /// Ends every watch, letting what is buffered out.
    pub(crate) fn end_watches(&self) {
        self.state.lock().hub.end_all();
    }

    /// Whether the index can serve this field.
    pub(crate) fn indexes(&self, field: usize) -> bool {
        self.state.lock().indexed == Some(field)
    }

    /// Watchers registered now.
    pub(crate) fn watchers(&self) -> usize {
        self.state.lock().hub.len()
    }
}
