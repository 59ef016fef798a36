//! The scheduling queue: an active heap, a back-off heap, and the pods that wait for an event.
//!
//! Pods move by events and by time, never by polling; hints of the plugins that refused a pod decide whether an event is worth a try.

use crate::pod::{PodInfo, PodKey};
use jiff::{SignedDuration, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How the queue backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// After the first failed try.
    pub initial_backoff: Duration,
    /// At most.
    pub max_backoff: Duration,
    /// A pod that no event moved is tried again after this long.
    pub max_unschedulable: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_unschedulable: Duration::from_secs(300),
        }
    }
}

/// A pod in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// When it was added, for the order.
    pub added: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When the last try failed.
    pub failed: Timestamp,
    /// The plugins that refused it in the last try.
    pub refused_by: Vec<&'static str>,
    /// Whether PreEnqueue holds it.
    pub gated: bool,
    /// Ties are broken by arrival.
    sequence: u64,
}

/// The order of the active heap; the QueueSort plugin gives it.
pub trait QueueOrder {
    /// `Less` where `a` comes first.
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering;
}

impl<F: Fn(&QueuedPod, &QueuedPod) -> Ordering> QueueOrder for F {
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        self(a, b)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the active heap, under this ticket.
    Active(u64),
    BackOff(Timestamp),
    Unschedulable,
}

/// What makes waiting pods alike: their class, and the plugins that refused them.
type Alike = (u32, Vec<&'static str>);

fn alike(pod: &QueuedPod) -> Alike {
    (pod.info.class.id, pod.refused_by.clone())
}

/// A binary heap whose order comes with each call. A pod that leaves the active set leaves its ticket here, which is skipped later.
#[derive(Debug, Default)]
struct Heap(Vec<(u64, QueuedPod)>);

impl Heap {
    fn before(&self, a: usize, b: usize, order: &dyn QueueOrder) -> bool {
        let ((ticket_a, a), (ticket_b, b)) = (&self.0[a], &self.0[b]);
        order.compare(a, b).then(a.sequence.cmp(&b.sequence)).then(ticket_a.cmp(ticket_b)) == Ordering::Less
    }

    fn push(&mut self, ticket: u64, pod: QueuedPod, order: &dyn QueueOrder) {
        self.0.push((ticket, pod));
        let mut at = self.0.len() - 1;
        while at > 0 && self.before(at, (at - 1) / 2, order) {
            self.0.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn pop(&mut self, order: &dyn QueueOrder) -> Option<(u64, QueuedPod)> {
        if self.0.is_empty() {
            return None;
        }
        let first = self.0.swap_remove(0);
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut best = at;
            for child in [left, right] {
                if child < self.0.len() && self.before(child, best, order) {
                    best = child;
                }
            }
            if best == at {
                return Some(first);
            }
            self.0.swap(at, best);
            at = best;
        }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    options: QueueOptions,
    pods: FxHashMap<PodKey, (QueuedPod, Place)>,
    active: Heap,
    /// Keys of the pods that wait for an event, by what makes them alike to hints: an event is judged once for all alike pods.
    waiting: FxHashMap<Alike, FxHashSet<PodKey>>,
    /// When the tries of those failed.
    waiting_since: BTreeSet<(Timestamp, PodKey)>,
    counts: [usize; 3],
    backing_off: BTreeMap<Timestamp, BTreeSet<PodKey>>,
    /// Counts arrivals and tickets.
    sequence: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(options: QueueOptions) -> Self {
        Queue { options, ..Self::default() }
    }

    /// How many pods are in it, waiting ones included.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// How many pods are active, backing off, and waiting for an event.
    pub fn counts(&self) -> (usize, usize, usize) {
        let [active, backing_off, waiting] = self.counts;
        (active, backing_off, waiting)
    }

    /// A pod of the queue.
    pub fn get(&self, key: &PodKey) -> Option<&QueuedPod> {
        self.pods.get(key).map(|(pod, _)| pod)
    }

    /// Adds a new pod; `gated` holds it until it changes.
    pub fn add(&mut self, info: Arc<PodInfo>, gated: bool, now: Timestamp, order: &dyn QueueOrder) {
        self.sequence += 1;
        let pod = QueuedPod {
            added: now,
            attempts: 0,
            failed: Timestamp::UNIX_EPOCH,
            refused_by: Vec::new(),
            gated,
            sequence: self.sequence,
            info,
        };
        self.insert(pod, if gated { Wanted::Event } else { Wanted::Active }, order);
    }

    /// Puts a pod back whose try failed; it waits for an event, or only backs off where `retry` is set.
    pub fn requeue(
        &mut self,
        mut pod: QueuedPod,
        refused_by: Vec<&'static str>,
        retry: bool,
        now: Timestamp,
        order: &dyn QueueOrder,
    ) {
        pod.failed = now;
        pod.refused_by = refused_by;
        let wanted = if retry { self.due(&pod, now) } else { Wanted::Event };
        self.insert(pod, wanted, order);
    }

    /// Puts a pod back that gave its place back: it backs off, until this time at least.
    pub fn requeue_after(
        &mut self,
        mut pod: QueuedPod,
        until: Option<Timestamp>,
        now: Timestamp,
        order: &dyn QueueOrder,
    ) {
        pod.failed = now;
        pod.refused_by = Vec::new();
        let ready = until.map_or(self.ready_at(&pod), |until| until.max(self.ready_at(&pod)));
        let wanted = if ready <= now { Wanted::Active } else { Wanted::BackOff(ready) };
        self.insert(pod, wanted, order);
    }

    /// Takes the first active pod, counting the try.
    pub fn pop(&mut self, order: &dyn QueueOrder) -> Option<QueuedPod> {
        loop {
            let (ticket, ticketed) = self.active.pop(order)?;
            let key = &ticketed.info.key;
            if self.pods.get(key).is_some_and(|(_, place)| *place == Place::Active(ticket)) {
                let (mut pod, _) = self.pods.remove(key)?;
                self.counts[0] -= 1;
                pod.attempts += 1;
                return Some(pod);
            }
        }
    }

    /// Takes a pod out, wherever it is.
    pub fn remove(&mut self, key: &PodKey) -> Option<QueuedPod> {
        self.take(key).map(|(pod, _)| pod)
    }

    /// Replaces the object of a queued pod. One whose scheduling changed (`changed`) is tried again.
    pub fn update(
        &mut self,
        info: Arc<PodInfo>,
        gated: bool,
        changed: bool,
        now: Timestamp,
        order: &dyn QueueOrder,
    ) {
        let Some((mut pod, place)) = self.take(&info.key) else {
            return self.add(info, gated, now, order);
        };
        let released = pod.gated && !gated;
        pod.info = info;
        pod.gated = gated;
        let wanted = match place {
            _ if gated => Wanted::Event,
            Place::Unschedulable if released => Wanted::Active,
            Place::Unschedulable if changed => self.due(&pod, now),
            Place::Unschedulable => Wanted::Event,
            Place::BackOff(until) => Wanted::BackOff(until),
            Place::Active(_) => Wanted::Active,
        };
        self.insert(pod, wanted, order);
    }

    /// Moves the waiting pods for which `worth` says yes, to the active heap or into back-off. It is asked once for pods of one class
    /// that were refused by the same plugins.
    pub fn move_where(
        &mut self,
        now: Timestamp,
        order: &dyn QueueOrder,
        mut worth: impl FnMut(&QueuedPod) -> bool,
    ) -> usize {
        let pods = &self.pods;
        let first = |keys: &FxHashSet<PodKey>| keys.iter().next().and_then(|key| pods.get(key));
        let groups: Vec<Alike> = self
            .waiting
            .iter()
            .filter(|(_, keys)| first(keys).is_some_and(|(pod, _)| worth(pod)))
            .map(|(group, _)| group.clone())
            .collect();
        let mut keys: Vec<PodKey> = Vec::new();
        for group in groups {
            keys.extend(self.waiting.get(&group).into_iter().flatten().cloned());
        }
        // The sets have no order of their own.
        keys.sort_unstable();
        self.wake(&keys, now, order);
        keys.len()
    }

    fn wake(&mut self, keys: &[PodKey], now: Timestamp, order: &dyn QueueOrder) {
        for key in keys {
            if let Some((pod, _)) = self.take(key) {
                let wanted = self.due(&pod, now);
                self.insert(pod, wanted, order);
            }
        }
    }

    /// Makes a waiting pod active without regard to its back-off: what it waited for has come.
    pub fn activate(&mut self, key: &PodKey, order: &dyn QueueOrder) {
        let waits = |(pod, place): &(QueuedPod, Place)| !pod.gated && !matches!(place, Place::Active(_));
        if self.pods.get(key).is_some_and(waits)
            && let Some((pod, _)) = self.take(key)
        {
            self.insert(pod, Wanted::Active, order);
        }
    }

    /// Moves what time has made ready: ended back-offs, and pods that waited too long for an event.
    pub fn advance(&mut self, now: Timestamp, order: &dyn QueueOrder) {
        while let Some(entry) = self.backing_off.first_entry().filter(|e| *e.key() <= now) {
            for key in entry.remove() {
                if let Some((pod, _)) = self.pods.remove(&key) {
                    self.counts[1] -= 1;
                    self.insert(pod, Wanted::Active, order);
                }
            }
        }
        let limit = SignedDuration::try_from(self.options.max_unschedulable).unwrap_or(SignedDuration::MAX);
        let overdue = self.waiting_since.iter().take_while(|(failed, _)| now.duration_since(*failed) > limit);
        let keys: Vec<PodKey> = overdue.map(|(_, key)| key.clone()).collect();
        self.wake(&keys, now, order);
    }

    /// When [`Queue::advance`] has something to do next, as far as back-offs go.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.backing_off.keys().next().copied()
    }

    fn due(&self, pod: &QueuedPod, now: Timestamp) -> Wanted {
        let ready = self.ready_at(pod);
        if ready <= now { Wanted::Active } else { Wanted::BackOff(ready) }
    }

    /// The end of a pod's back-off: doubled with each try, from the initial to the largest.
    fn ready_at(&self, pod: &QueuedPod) -> Timestamp {
        if pod.attempts == 0 {
            return pod.failed;
        }
        let factor = 1u32.checked_shl(pod.attempts - 1).unwrap_or(u32::MAX);
        let wait = self.options.initial_backoff.saturating_mul(factor).min(self.options.max_backoff);
        pod.failed.checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    fn insert(&mut self, pod: QueuedPod, wanted: Wanted, order: &dyn QueueOrder) {
        let key = pod.info.key.clone();
        self.take(&key);
        let place = match wanted {
            Wanted::Active => {
                self.sequence += 1;
                self.active.push(self.sequence, pod.clone(), order);
                Place::Active(self.sequence)
            }
            Wanted::BackOff(until) => {
                self.backing_off.entry(until).or_default().insert(key.clone());
                Place::BackOff(until)
            }
            Wanted::Event => {
                // Gates are opened by the pod's own change alone.
                if !pod.gated {
                    self.waiting.entry(alike(&pod)).or_default().insert(key.clone());
                    self.waiting_since.insert((pod.failed, key.clone()));
                }
                Place::Unschedulable
            }
        };
        self.counts[place.at()] += 1;
        self.pods.insert(key, (pod, place));
    }

    fn take(&mut self, key: &PodKey) -> Option<(QueuedPod, Place)> {
        let (pod, place) = self.pods.remove(key)?;
        self.counts[place.at()] -= 1;
        match place {
            // The heap drops the ticket when it surfaces.
            Place::Active(_) => {}
            Place::Unschedulable => self.stop_waiting(&pod),
            Place::BackOff(until) => {
                if let Some(keys) = self.backing_off.get_mut(&until) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.backing_off.remove(&until);
                    }
                }
            }
        }
        Some((pod, place))
    }

    fn stop_waiting(&mut self, pod: &QueuedPod) {
        let group = alike(pod);
        if let Some(keys) = self.waiting.get_mut(&group) {
            keys.remove(&pod.info.key);
            if keys.is_empty() {
                self.waiting.remove(&group);
            }
        }
        self.waiting_since.remove(&(pod.failed, pod.info.key.clone()));
    }
}

impl Place {
    fn at(self) -> usize {
        match self {
            Place::Active(_) => 0,
            Place::BackOff(_) => 1,
            Place::Unschedulable => 2,
        }
    }
}

/// Where a pod shall go.
enum Wanted {
    Active,
    BackOff(Timestamp),
    Event,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeTable;
    use serde_json::json;

    fn info(name: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"namespace": "n", "name": name}, "spec": {"containers": [], "priority": priority}});
        Arc::new(NodeTable::default().compile(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn order(a: &QueuedPod, b: &QueuedPod) -> Ordering {
        b.info.priority().cmp(&a.info.priority()).then(a.added.cmp(&b.added))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn name(pod: Option<QueuedPod>) -> String {
        pod.map(|p| p.info.key.name.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_first_is_the_most_urgent_then_the_oldest() {
        let mut q = Queue::new(QueueOptions::default());
        for (n, (name, priority)) in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", 9)].iter().enumerate() {
            q.add(info(name, *priority), false, at(n as i64), &order);
        }
        q.remove(&PodKey::new("n", "d"));
        let names: Vec<String> = (0..4).map(|_| name(q.pop(&order))).collect();
        assert_eq!(names, ["e", "b", "a", "c"]);
        assert!(q.pop(&order).is_none() && q.is_empty());
    }

    #[test]
    fn a_failed_pod_waits_for_an_event_and_backs_off() {
        let mut q = Queue::new(QueueOptions::default());
        q.add(info("a", 0), false, at(0), &order);
        for (failed, ready) in [(10, 11), (20, 22), (30, 34), (40, 48), (60, 70), (80, 90)] {
            let pod = q.pop(&order).unwrap();
            q.requeue(pod, vec!["P"], false, at(failed), &order);
            q.advance(at(failed + 100), &order);
            assert!(q.pop(&order).is_none(), "nothing happened");
            assert_eq!(q.move_where(at(failed), &order, |p| p.refused_by == ["P"]), 1);
            q.advance(at(ready - 1), &order);
            assert!(q.pop(&order).is_none(), "back-off until {ready}");
            assert_eq!(q.next_wake(), Some(at(ready)));
            q.advance(at(ready), &order);
        }
        assert_eq!(q.counts(), (1, 0, 0));
    }

    #[test]
    fn a_gated_pod_is_held_until_it_changes() {
        let mut q = Queue::new(QueueOptions::default());
        q.add(info("a", 0), true, at(0), &order);
        q.advance(at(10_000), &order);
        assert_eq!(q.move_where(at(1), &order, |_| true), 0);
        assert!(q.pop(&order).is_none());
        q.update(info("a", 0), false, true, at(2), &order);
        assert_eq!(name(q.pop(&order)), "a");
        q.add(info("b", 0), false, at(0), &order);
        let pod = q.pop(&order).unwrap();
        q.requeue(pod, vec![], false, at(0), &order);
        q.advance(at(301), &order);
        assert_eq!(name(q.pop(&order)), "b", "tried again after five minutes");
    }
}
