//! The watchers of one resource, reached by what they are interested in, and the window of recent events they can start from.

use super::event::CacheEvent;
use super::resource::Snapshot;
use bytes::Bytes;
use kubewright_core::ApiError;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// How many events wait for one watcher before it is cut off.
const WATCHER_EVENTS_MAX: usize = 8192;

/// Which events can concern a watcher at all; finer selection is the watcher's own work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    All,
    Namespace(SmolStr),
    /// One object, by its key within the resource.
    Key(Bytes),
    /// Objects whose indexed field has or had this value.
    Indexed(SmolStr),
}

struct Watcher {
    sender: mpsc::Sender<Arc<CacheEvent>>,
    /// Set when the receiving side is dropped.
    gone: Arc<AtomicBool>,
}

/// A started watch: the state or the events it starts with, and the channel of what follows.
pub(crate) struct Registration {
    /// The present state.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What the whole cache had applied before; the snapshot holds at least that.
    pub(crate) applied: u64,
    /// Events of the window after the revision asked for.
    pub(crate) backlog: Vec<Arc<CacheEvent>>,
    pub(crate) receiver: mpsc::Receiver<Arc<CacheEvent>>,
    /// Unregisters when the watch is dropped.
    _guard: WatchGuard,
}

/// Marks the watcher as gone when dropped; the hub sweeps it at the next event of its interest or registration.
#[derive(Debug)]
pub(crate) struct WatchGuard(Arc<AtomicBool>);

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Window and watchers.
pub(crate) struct Hub {
    window: VecDeque<Arc<CacheEvent>>,
    window_events_max: usize,
    /// The window holds every event after this revision.
    window_from: u64,
    all: Vec<Watcher>,
    namespaces: FxHashMap<SmolStr, Vec<Watcher>>,
    keys: FxHashMap<Bytes, Vec<Watcher>>,
    indexed: FxHashMap<SmolStr, Vec<Watcher>>,
}

impl Hub {
    pub(crate) fn new(revision: u64, window_events_max: usize) -> Self {
        Hub {
            window: VecDeque::new(),
            window_events_max,
            window_from: revision,
            all: Vec::new(),
            namespaces: FxHashMap::default(),
            keys: FxHashMap::default(),
            indexed: FxHashMap::default(),
        }
    }

    pub(crate) fn publish(&mut self, events: &[Arc<CacheEvent>], indexed: Option<usize>) {
        for event in events {
            if self.window.len() >= self.window_events_max
                && let Some(oldest) = self.window.pop_front()
            {
                self.window_from = oldest.revision;
            }
            self.window.push_back(event.clone());
            deliver(&mut self.all, event);
            if !self.namespaces.is_empty()
                && let Some(at) = event.key.iter().position(|b| *b == b'/')
                && let Ok(namespace) = std::str::from_utf8(&event.key[..at])
            {
                deliver_in(&mut self.namespaces, namespace, event);
            }
            deliver_in(&mut self.keys, &event.key[..], event);
            if let Some(at) = indexed.filter(|_| !self.indexed.is_empty()) {
                let text =
                    |e: &Option<Arc<super::Entry>>| e.as_ref().and_then(|e| e.shape.fields.get(at).cloned());
                let (before, after) = (text(&event.before), text(&event.after));
                if let Some(value) = &before {
                    deliver_in(&mut self.indexed, value.as_str(), event);
                }
                if let Some(value) = after.filter(|v| Some(v) != before.as_ref()) {
                    deliver_in(&mut self.indexed, value.as_str(), event);
                }
            }
        }
    }

    pub(crate) fn register(
        &mut self,
        from: Option<u64>,
        interest: Interest,
        snapshot: Arc<Snapshot>,
        applied: u64,
    ) -> Result<Registration, ApiError> {
        let backlog = match from {
            Some(from) if from < self.window_from => {
                return Err(too_old(from, self.window_from));
            }
            Some(from) => {
                let at = self.window.partition_point(|e| e.revision <= from);
                self.window.range(at..).cloned().collect()
            }
            None => Vec::new(),
        };
        let (sender, receiver) = mpsc::channel(WATCHER_EVENTS_MAX);
        let gone = Arc::new(AtomicBool::new(false));
        let watcher = Watcher { sender, gone: gone.clone() };
        match interest {
            Interest::All => add(&mut self.all, watcher),
            Interest::Namespace(n) => add(sweep(&mut self.namespaces).entry(n).or_default(), watcher),
            Interest::Key(k) => add(sweep(&mut self.keys).entry(k).or_default(), watcher),
            Interest::Indexed(v) => add(sweep(&mut self.indexed).entry(v).or_default(), watcher),
        }
        Ok(Registration { snapshot, applied, backlog, receiver, _guard: WatchGuard(gone) })
    }

    pub(crate) fn end_all(&mut self) {
        self.all.clear();
        self.namespaces.clear();
        self.keys.clear();
        self.indexed.clear();
    }

    pub(crate) fn reset(&mut self, revision: u64) {
        self.end_all();
        self.window.clear();
        self.window_from = revision;
    }

    pub(crate) fn len(&self) -> usize {
        let maps = self.namespaces.values().chain(self.indexed.values()).chain(self.keys.values());
        let live = |list: &Vec<Watcher>| list.iter().filter(|w| !w.gone.load(Ordering::Acquire)).count();
        live(&self.all) + maps.map(live).sum::<usize>()
    }
}

/// 410 in upstream's words.
fn too_old(asked: u64, oldest: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
}

fn add(list: &mut Vec<Watcher>, watcher: Watcher) {
    list.retain(|w| !w.gone.load(Ordering::Acquire));
    list.push(watcher);
}

/// Drops the watchers that are gone once many keys have gathered, so that the map stays as large as its live watchers.
fn sweep<K: Eq + Hash>(map: &mut FxHashMap<K, Vec<Watcher>>) -> &mut FxHashMap<K, Vec<Watcher>> {
    if map.len() >= 64 && map.len().is_power_of_two() {
        map.retain(|_, list| {
            list.retain(|w| !w.gone.load(Ordering::Acquire));
            !list.is_empty()
        });
    }
    map
}

/// Hands an event to each watcher; one whose buffer is full is cut off, never waited for.
fn deliver(watchers: &mut Vec<Watcher>, event: &Arc<CacheEvent>) {
    watchers.retain(|w| w.sender.try_send(event.clone()).is_ok());
}

fn deliver_in<K, Q>(map: &mut FxHashMap<K, Vec<Watcher>>, key: &Q, event: &Arc<CacheEvent>)
where
    K: Eq + Hash + std::borrow::Borrow<Q>,
    Q: Eq + Hash + ?Sized,
{
    let Some(list) = map.get_mut(key) else { return };
    deliver(list, event);
    if list.is_empty() {
        map.remove(key);
    }
}
