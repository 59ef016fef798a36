//! Following an informer, at the follower's own pace.

use super::cache::Item;
use crate::ObjectKey;
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::any::Any;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What happened to an object between two looks of a subscriber.
#[derive(Debug)]
pub enum Change<K> {
    /// It is new to this subscriber, or it changed.
    Applied {
        /// As it is now.
        object: Arc<K>,
        /// As this subscriber saw it last; `None` when it is new.
        old: Option<Arc<K>>,
    },
    /// It is gone; the last state known.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Change::Applied { object, old } => Change::Applied { object: object.clone(), old: old.clone() },
            Change::Deleted(object) => Change::Deleted(object.clone()),
        }
    }
}

struct Slot<K> {
    turn: u64,
    /// What the subscriber was told last.
    old: Option<Item<K>>,
    new: Option<Item<K>>,
    /// The final state of an object that is gone.
    last: Option<Arc<K>>,
}

struct Pending<K> {
    order: BTreeMap<u64, ObjectKey>,
    slots: FxHashMap<ObjectKey, Slot<K>>,
    next_turn: u64,
    /// The second half of a change that is told in two (deleted, then created again).
    second: Option<Change<K>>,
    closed: bool,
}

/// The changes that one subscriber has not seen yet, merged by object.
///
/// Its size is bounded by the number of objects that the subscriber knows plus those that exist: an object that came and went
/// unseen leaves nothing behind.
pub(crate) struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    waker: AtomicWaker,
}

impl<K> Mailbox<K> {
    pub(crate) fn new() -> Self {
        let pending = Pending {
            order: BTreeMap::new(),
            slots: FxHashMap::default(),
            next_turn: 0,
            second: None,
            closed: false,
        };
        Mailbox { pending: Mutex::new(pending), waker: AtomicWaker::new() }
    }

    pub(crate) fn change(
        &self,
        key: &ObjectKey,
        old: Option<Item<K>>,
        new: Option<Item<K>>,
        last: Option<Arc<K>>,
    ) {
        let mut pending = self.pending.lock();
        if let Some(slot) = pending.slots.get_mut(key) {
            slot.new = new;
            slot.last = last;
            if slot.new.is_none() && slot.old.is_none() {
                let turn = slot.turn;
                pending.slots.remove(key);
                pending.order.remove(&turn);
            }
            return;
        }
        let turn = pending.next_turn;
        pending.next_turn += 1;
        pending.order.insert(turn, key.clone());
        pending.slots.insert(key.clone(), Slot { turn, old, new, last });
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn close(&self) {
        self.pending.lock().closed = true;
        self.waker.wake();
    }
}

impl<K> Pending<K> {
    fn pop(&mut self) -> Option<Change<K>> {
        if let Some(second) = self.second.take() {
            return Some(second);
        }
        let (_, key) = self.order.pop_first()?;
        let slot = self.slots.remove(&key)?;
        match (slot.old, slot.new) {
            (Some(old), Some(new)) if old.uid != new.uid => {
                self.second = Some(Change::Applied { object: new.object, old: None });
                Some(Change::Deleted(old.object))
            }
            (old, Some(new)) => Some(Change::Applied { object: new.object, old: old.map(|o| o.object) }),
            (Some(old), None) => Some(Change::Deleted(slot.last.unwrap_or(old.object))),
            (None, None) => self.pop(),
        }
    }
}

/// A stream of an informer's changes, starting with all objects present.
///
/// A subscriber that reads slowly sees fewer, larger steps: changes of one object that it has not read yet are merged into one. It
/// never misses the final state of an object, nor the end of one that it knew. An object that was deleted and created again
/// meanwhile comes as two changes.
pub struct Subscription<K> {
    mailbox: Arc<Mailbox<K>>,
    /// Keeps the informer's task alive.
    _keep: Arc<dyn Any + Send + Sync>,
}

impl<K> std::fmt::Debug for Subscription<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subscription({} unread)", self.mailbox.pending.lock().slots.len())
    }
}

impl<K> Subscription<K> {
    pub(crate) fn new(mailbox: Arc<Mailbox<K>>, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Subscription { mailbox, _keep: keep }
    }

    /// The next change; `None` once the informer has shut down.
    ///
    /// # Cancel safety
    /// A dropped call loses no change.
    pub async fn next(&mut self) -> Option<Change<K>> {
        futures::StreamExt::next(self).await
    }

    /// Waits for a change, then gives all that are unread, at most `max`; empty once the informer has shut down.
    ///
    /// # Cancel safety
    /// A dropped call loses no change.
    pub async fn batch(&mut self, max: usize) -> Vec<Change<K>> {
        let Some(first) = self.next().await else {
            return Vec::new();
        };
        let mut batch = vec![first];
        let mut pending = self.mailbox.pending.lock();
        while batch.len() < max {
            match pending.pop() {
                Some(change) => batch.push(change),
                None => break,
            }
        }
        batch
    }

    /// A change that is there already.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.mailbox.pending.lock().pop()
    }
}

impl<K> Stream for Subscription<K> {
    type Item = Change<K>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change<K>>> {
        self.mailbox.waker.register(cx.waker());
        let mut pending = self.mailbox.pending.lock();
        match pending.pop() {
            Some(change) => Poll::Ready(Some(change)),
            None if pending.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
