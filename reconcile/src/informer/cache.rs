//! What an informer knows: the objects, their indexes, and who follows them.
//!
//! One task writes (the reflector); everybody reads under short read locks and gets shared pointers.

use super::subscription::{Mailbox, Subscription};
use crate::ObjectKey;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::{oneshot, watch};

/// One version of one object, as the cache holds it.
pub(crate) struct Item<K> {
    pub(crate) object: Arc<K>,
    pub(crate) uid: SmolStr,
    pub(crate) resource_version: u64,
}

impl<K> Clone for Item<K> {
    fn clone(&self) -> Self {
        Item { object: self.object.clone(), uid: self.uid.clone(), resource_version: self.resource_version }
    }
}

/// A change that the reflector saw, decoded.
pub(crate) enum Update<K> {
    Put(ObjectKey, Item<K>),
    /// Gone; with its last state where it is known.
    Remove(ObjectKey, Option<Item<K>>),
}

type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<SmolStr> + Send + Sync>;

struct Index<K> {
    name: SmolStr,
    keys_of: IndexFn<K>,
    entries: FxHashMap<SmolStr, BTreeMap<ObjectKey, Arc<K>>>,
}

impl<K> Index<K> {
    fn change(&mut self, key: &ObjectKey, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let new_keys = new.map(|n| (self.keys_of)(n)).unwrap_or_default();
        for value in old.map(|o| (self.keys_of)(o)).unwrap_or_default() {
            if new_keys.contains(&value) {
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&value) {
                entry.remove(key);
                if entry.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
        if let Some(object) = new {
            for value in new_keys {
                self.entries.entry(value).or_default().insert(key.clone(), object.clone());
            }
        }
    }
}

struct State<K> {
    /// By namespace, then by name, so that lists have one order and a namespace is one subtree.
    objects: BTreeMap<SmolStr, BTreeMap<SmolStr, Item<K>>>,
    count: usize,
    indexes: Vec<Index<K>>,
    mailboxes: Vec<Weak<Mailbox<K>>>,
    closed: bool,
}

pub(crate) struct Cache<K> {
    state: RwLock<State<K>>,
    /// Everything up to this revision has been applied.
    revision: AtomicU64,
    /// Who waits for a revision, ordered by it.
    waiters: Mutex<BTreeMap<(u64, u64), oneshot::Sender<()>>>,
    waiter_ids: AtomicU64,
    synced: watch::Sender<bool>,
}

impl<K: Send + Sync + 'static> Cache<K> {
    pub(crate) fn new() -> Self {
        Cache {
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                count: 0,
                indexes: Vec::new(),
                mailboxes: Vec::new(),
                closed: false,
            }),
            revision: AtomicU64::new(0),
            waiters: Mutex::new(BTreeMap::new()),
            waiter_ids: AtomicU64::new(0),
            synced: watch::Sender::new(false),
        }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Item<K>> {
        self.state.read().objects.get(namespace)?.get(name).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        let state = self.state.read();
        let mut all = Vec::with_capacity(state.count);
        all.extend(state.objects.values().flat_map(|n| n.values().map(|i| i.object.clone())));
        all
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        let state = self.state.read();
        let key = |ns: &SmolStr, name: &SmolStr| ObjectKey { namespace: ns.clone(), name: name.clone() };
        state.objects.iter().flat_map(|(ns, objects)| objects.keys().map(move |n| key(ns, n))).collect()
    }

    pub(crate) fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let objects = state.objects.get(namespace);
        objects.map(|o| o.values().map(|i| i.object.clone()).collect()).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().count
    }

    pub(crate) fn add_index(&self, name: &str, keys_of: IndexFn<K>) {
        if self.state.read().indexes.iter().any(|i| i.name == name) {
            return;
        }
        let mut state = self.state.write();
        if state.indexes.iter().any(|i| i.name == name) {
            return;
        }
        let mut index = Index { name: SmolStr::new(name), keys_of, entries: FxHashMap::default() };
        for (namespace, objects) in &state.objects {
            for (name, item) in objects {
                let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
                index.change(&key, None, Some(&item.object));
            }
        }
        state.indexes.push(index);
    }

    pub(crate) fn by_index(&self, name: &str, value: &str) -> Option<Vec<Arc<K>>> {
        let state = self.state.read();
        let index = state.indexes.iter().find(|i| i.name == name)?;
        Some(index.entries.get(value).map(|e| e.values().cloned().collect()).unwrap_or_default())
    }

    /// `keep` lives as long as the subscription.
    pub(crate) fn subscribe(&self, keep: Arc<dyn Any + Send + Sync>) -> Subscription<K> {
        let mailbox = Arc::new(Mailbox::new());
        let mut state = self.state.write();
        for (namespace, objects) in &state.objects {
            for (name, item) in objects {
                let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
                mailbox.change(&key, None, Some(item.clone()), None);
            }
        }
        if state.closed {
            mailbox.close();
        }
        state.mailboxes.push(Arc::downgrade(&mailbox));
        Subscription::new(mailbox, keep)
    }

    /// Applies changes in order; everything up to `revision` is known afterwards.
    pub(crate) fn apply(&self, updates: Vec<Update<K>>, revision: u64) {
        // Replaced objects are dropped after the lock is free.
        let mut replaced = Vec::with_capacity(updates.len());
        if !updates.is_empty() {
            let mut state = self.state.write();
            for update in updates {
                replaced.extend(state.apply(update));
            }
            state.wake();
        }
        drop(replaced);
        self.advance(revision);
    }

    /// Makes the cache equal to a list.
    pub(crate) fn replace(&self, items: Vec<(ObjectKey, Item<K>)>, revision: u64) {
        let listed: rustc_hash::FxHashSet<&ObjectKey> = items.iter().map(|(key, _)| key).collect();
        let gone: Vec<ObjectKey> = self.keys().into_iter().filter(|key| !listed.contains(key)).collect();
        let mut updates: Vec<Update<K>> = gone.into_iter().map(|key| Update::Remove(key, None)).collect();
        updates.extend(items.into_iter().map(|(key, item)| Update::Put(key, item)));
        self.apply(updates, revision);
        self.synced.send_replace(true);
    }

    fn advance(&self, revision: u64) {
        if self.revision.fetch_max(revision, Ordering::AcqRel) >= revision {
            return;
        }
        let mut waiters = self.waiters.lock();
        if waiters.is_empty() {
            return;
        }
        let later = waiters.split_off(&(revision.saturating_add(1), 0));
        let ready = std::mem::replace(&mut *waiters, later);
        drop(waiters);
        for waiter in ready.into_values() {
            let _ = waiter.send(());
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Waits until everything up to `revision` was applied; `false` where the informer was closed before.
    pub(crate) async fn caught_up(&self, revision: u64) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiters = self.waiters.lock();
            waiters.insert((revision, self.waiter_ids.fetch_add(1, Ordering::Relaxed)), sender);
        }
        // The revision may have come between the check and the registration; or the informer may have closed.
        if self.revision() >= revision {
            return true;
        }
        if self.state.read().closed {
            return false;
        }
        receiver.await.is_ok()
    }

    pub(crate) async fn synced(&self) -> bool {
        self.synced.subscribe().wait_for(|done| *done).await.is_ok() && !self.state.read().closed
    }

    pub(crate) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Ends all subscriptions and waits.
    pub(crate) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        for mailbox in state.mailboxes.drain(..).filter_map(|m| m.upgrade()) {
            mailbox.close();
        }
        drop(state);
        self.waiters.lock().clear();
        // Whoever waits for the first list learns from `closed` that it will not come.
        self.synced.send_replace(true);
    }
}

impl<K: Send + Sync + 'static> State<K> {
    fn apply(&mut self, update: Update<K>) -> Option<Item<K>> {
        match update {
            Update::Put(key, item) => self.put(key, item),
            Update::Remove(key, last) => self.remove(&key, last),
        }
    }

    fn put(&mut self, key: ObjectKey, item: Item<K>) -> Option<Item<K>> {
        let objects = self.objects.entry(key.namespace.clone()).or_default();
        let old = objects.insert(key.name.clone(), item.clone());
        if old.is_none() {
            self.count += 1;
        }
        if old.as_ref().is_some_and(|o| o.resource_version == item.resource_version && o.uid == item.uid) {
            // A relist gave the same version again: keep the indexes on the newest pointer, tell nobody.
            for index in &mut self.indexes {
                index.change(&key, old.as_ref().map(|o| &o.object), Some(&item.object));
            }
            return old;
        }
        self.tell(&key, old.as_ref(), Some(&item), None);
        old
    }

    fn remove(&mut self, key: &ObjectKey, last: Option<Item<K>>) -> Option<Item<K>> {
        let objects = self.objects.get_mut(&key.namespace)?;
        let old = objects.remove(&key.name)?;
        if objects.is_empty() {
            self.objects.remove(&key.namespace);
        }
        self.count -= 1;
        self.tell(key, Some(&old), None, last.as_ref());
        Some(old)
    }

    fn tell(
        &mut self,
        key: &ObjectKey,
        old: Option<&Item<K>>,
        new: Option<&Item<K>>,
        last: Option<&Item<K>>,
    ) {
        for index in &mut self.indexes {
            index.change(key, old.map(|o| &o.object), new.map(|n| &n.object));
        }
        for mailbox in self.mailboxes.iter().filter_map(Weak::upgrade) {
            mailbox.change(key, old.cloned(), new.cloned(), last.map(|l| l.object.clone()));
        }
    }

    fn wake(&mut self) {
        self.mailboxes.retain(|m| match m.upgrade() {
            Some(mailbox) => {
                mailbox.wake();
                true
            }
            None => false,
        });
    }
}
