//! The keys of a store on disk that are kept in memory only: what they hold now, in the same revision order as everything on disk.
//!
//! Their revisions come out of the same counter. So that the counter never goes back, a store on disk reserves revisions in blocks before
//! they are given to writes in memory, and begins after the reserved ones when it is opened again.

use crate::{Error, Event, KeyRange, KeyValue, Revision};
use arc_swap::ArcSwap;
use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many revisions are reserved at once: one flush for so many writes in memory.
pub(super) const RESERVED_REVISIONS: u64 = 1 << 16;

/// What the keys in memory held at a revision. A copy shares what did not change.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) revision: Revision,
    items: RedBlackTreeMapSync<Bytes, KeyValue>,
}

impl Held {
    fn new() -> Self {
        Held { revision: 0, items: RedBlackTreeMapSync::new_sync() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.items.get(key)
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Put { item, .. } => self.items.insert_mut(item.key.clone(), item.clone()),
            Event::Delete { key, .. } => {
                self.items.remove_mut(key);
            }
        }
        self.revision = event.revision();
    }

    pub(super) fn put(&mut self, item: KeyValue) {
        self.items.insert_mut(item.key.clone(), item);
    }

    /// The items of a range that begin at `start`, in order.
    pub(super) fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a KeyValue> {
        let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_ref()));
        let sound = range.end.as_ref().is_none_or(|end| range.start < *end);
        let bounds = (Bound::Included(range.start.as_ref()), end);
        sound.then(|| self.items.range::<[u8], _>(bounds)).into_iter().flatten().map(|(_, item)| item)
    }
}

/// Which keys are in memory, and what they hold for readers.
pub(super) struct Volatile {
    /// Whether there are any; the rest of a store on disk asks no more than this.
    active: AtomicBool,
    prefixes: ArcSwap<Vec<Bytes>>,
    held: ArcSwap<Held>,
}

impl Volatile {
    pub(super) fn new() -> Self {
        Volatile {
            active: AtomicBool::new(false),
            prefixes: ArcSwap::default(),
            held: ArcSwap::from_pointee(Held::new()),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Whether a key is in memory.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.is_active() && self.prefixes.load().iter().any(|prefix| key.starts_with(prefix))
    }

    pub(super) fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }

    /// Shows readers what a group of commits made of it.
    pub(super) fn show(&self, held: Held) {
        self.held.store(Arc::new(held));
    }

    /// Takes one more prefix, with what its keys hold.
    pub(super) fn add(&self, prefix: Bytes, held: Held) {
        self.show(held);
        let mut prefixes = Vec::clone(&self.prefixes.load());
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
        self.prefixes.store(Arc::new(prefixes));
        self.active.store(true, Ordering::Release);
    }
}

/// Hands the items in memory over between those on disk, in the order of their keys.
pub(super) struct Between<I: Iterator> {
    items: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = &'a KeyValue>> Between<I> {
    pub(super) fn new(items: I) -> Self {
        Between { items: items.peekable() }
    }

    /// Those before a key; all that are left where there is none.
    pub(super) fn before(
        &mut self,
        key: Option<&[u8]>,
        mut take: impl FnMut(&KeyValue) -> Result<ControlFlow<()>, Error>,
    ) -> Result<ControlFlow<()>, Error> {
        while let Some(item) = self.items.next_if(|item| key.is_none_or(|key| item.key.as_ref() < key)) {
            if take(item)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
