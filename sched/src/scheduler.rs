//! The scheduler: facts about nodes and pods go in, decisions come out. It reads no clock and talks to nobody.

use crate::binding::{InFlight, Stage};
use crate::config::{ExtenderConfig, Registry};
use crate::cycle::{Choice, CycleCache, refused_try};
use crate::diagnosis::{AWAITS_VICTIMS, Diagnosis, Refusal, sentence};
use crate::events::{ClusterEvent, Hint};
use crate::explain::{Attempt, Attempts};
use crate::framework::{Points, PostFilter, TableChange};
use crate::node::NodeTable;
use crate::pod::{PodInfo, PodKey};
use crate::profile::{Profile, ProfileError};
use crate::queue::{Queue, QueueOptions, QueueOrder, QueuedPod};
use crate::trace::{Entry, Fact, Trace};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright_core::ApiRequest;
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// What shall be done with a pod.
#[derive(Debug)]
pub enum Decision {
    /// Send these requests in order, the last one binds; then call [`Scheduler::bound`] or [`Scheduler::failed`].
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node's name.
        node: SmolStr,
        /// PreBind's requests and the binding.
        requests: Vec<ApiRequest>,
        /// How often it was tried, this time included.
        attempts: u32,
    },
    /// Send these requests in order; then call [`Scheduler::prepared`] or [`Scheduler::failed`]. The pod is bound once what they ask for
    /// has come.
    Prepare {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node's name.
        node: SmolStr,
        /// PreBind's requests.
        requests: Vec<ApiRequest>,
    },
    /// Ask these extenders about the pod, one after the other, then call [`Scheduler::consulted`].
    Consult {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Which of [`Scheduler::extenders`].
        extenders: Vec<usize>,
        /// The nodes that the plugins accept, in order of their names.
        nodes: Vec<SmolStr>,
    },
    /// A Permit plugin holds the pod; [`Scheduler::advance`] gives it up after this time.
    Wait {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Until when.
        until: Timestamp,
    },
    /// No node will do now; the pod is back in the queue.
    Unschedulable {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        diagnosis: Diagnosis,
        /// Where it will fit once the victims are gone.
        nominated: Option<(SmolStr, Vec<PodKey>)>,
        /// Pods whose nomination is over, this one perhaps among them: what their status says of it is to be cleared.
        displaced: Vec<PodKey>,
        /// To be sent in order: what plugins ask for so that a later try may succeed. Nothing depends on the answers.
        requests: Vec<ApiRequest>,
    },
}

/// The pod that a scheduler is trying.
pub type Trying = Arc<Mutex<Option<Arc<PodInfo>>>>;

/// A scheduler of one or several profiles over one table of nodes.
pub struct Scheduler {
    /// The first one's QueueSort orders the queue.
    pub(crate) profiles: Vec<(Profile, CycleCache)>,
    pub(crate) nodes: NodeTable,
    pub(crate) queue: Queue,
    pub(crate) in_flight: FxHashMap<PodKey, InFlight>,
    /// Chosen pods that wait for what PreBind asked for.
    pub(crate) awaiting: FxHashSet<PodKey>,
    pub(crate) extenders: Vec<ExtenderConfig>,
    /// Pods that extenders are asked about.
    pub(crate) consulting: FxHashMap<PodKey, QueuedPod>,
    /// Held pods that a plugin lets go on.
    pub(crate) released: Vec<PodKey>,
    /// Whether any object changed since they were asked.
    pub(crate) objects_changed: bool,
    /// Whom a pod waits for that was made room for.
    pub(crate) victims: FxHashMap<PodKey, Vec<PodKey>>,
    /// Pods whose nomination ended in this try.
    displaced: Vec<PodKey>,
    /// What plugins ask for in this try.
    pub(crate) asked: Vec<ApiRequest>,
    /// Who waits for a victim to go.
    pub(crate) waited_for: FxHashMap<PodKey, PodKey>,
    attempts: Attempts,
    trace: Option<Trace>,
    trying: Trying,
    /// Counts cycles; breaks ties among equal nodes.
    tie: u64,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scheduler({} nodes, {} queued)", self.nodes.len(), self.queue.len())
    }
}

/// The queue's order as a borrowed view, so that the queue can be changed meanwhile: QueueSort of the first profile.
pub(crate) struct ProfileOrder<'a>(pub(crate) &'a [(Profile, CycleCache)]);

impl QueueOrder for ProfileOrder<'_> {
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        self.0[0].0.sorter().map_or(Ordering::Equal, |p| p.queue_sort(a, b))
    }
}

impl Scheduler {
    /// A scheduler with these profiles; equal seeds make equal choices among equal nodes.
    ///
    /// # Errors
    /// Two profiles of one name, or none at all.
    pub fn new(profiles: Vec<Profile>, options: QueueOptions, seed: u64) -> Result<Self, ProfileError> {
        if profiles.is_empty() {
            return Err(ProfileError::NoQueueSort);
        }
        for (at, profile) in profiles.iter().enumerate() {
            if profiles[..at].iter().any(|p| p.name() == profile.name()) {
                return Err(ProfileError::Duplicate("profile"));
            }
        }
        Ok(Scheduler {
            profiles: profiles.into_iter().map(|p| (p, CycleCache::default())).collect(),
            nodes: NodeTable::default(),
            queue: Queue::new(options),
            in_flight: FxHashMap::default(),
            awaiting: FxHashSet::default(),
            extenders: Vec::new(),
            consulting: FxHashMap::default(),
            released: Vec::new(),
            objects_changed: false,
            victims: FxHashMap::default(),
            waited_for: FxHashMap::default(),
            displaced: Vec::new(),
            asked: Vec::new(),
            attempts: Attempts::default(),
            trace: None,
            trying: Trying::default(),
            tie: seed,
        })
    }

    /// A scheduler with upstream's default plugins for `default-scheduler`.
    pub fn with_defaults(seed: u64) -> Self {
        let profile =
            Profile::defaults("default-scheduler").build().expect("the default profile is complete");
        Self::new(vec![profile], QueueOptions::default(), seed).expect("one profile has one name")
    }

    /// The last tries, each with why it ended as it did.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Sets how much is kept of the last tries.
    pub fn attempts_mut(&mut self) -> &mut Attempts {
        &mut self.attempts
    }

    pub(crate) fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().map(|(p, _)| p).find(|p| p.name() == name)
    }

    pub(crate) fn profile_mut(&mut self, name: &str) -> Option<&mut Profile> {
        self.profiles.iter_mut().map(|(p, _)| p).find(|p| p.name() == name)
    }

    /// The table of nodes.
    pub fn nodes(&self) -> &NodeTable {
        &self.nodes
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Begins to record what the scheduler is told.
    pub fn record_trace(&mut self) {
        self.trace = Some(Trace::default());
    }

    /// Ends recording and gives what was recorded.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    pub(crate) fn record(&mut self, at: Timestamp, fact: impl FnOnce() -> Fact) {
        if let Some(trace) = &mut self.trace {
            trace.entries.push(Entry { at, fact: fact() });
        }
    }

    /// A node came or changed.
    pub fn apply_node(&mut self, node: Arc<Node>, now: Timestamp) {
        self.record(now, || Fact::Node(serde_json::to_value(&node).unwrap_or_default()));
        let name: SmolStr = node.metadata.name.as_deref().unwrap_or("").into();
        let change = self.nodes.apply(node);
        if change.any() {
            if let Some(index) = self.nodes.find(&name) {
                self.observe(|p, nodes| p.observe(TableChange::Node(index), nodes));
            }
            self.event(ClusterEvent::Node(name, change), now);
        }
    }

    /// A node went.
    pub fn remove_node(&mut self, name: &str, now: Timestamp) {
        self.record(now, || Fact::NodeGone(name.to_owned()));
        let Some(index) = self.nodes.find(name) else { return };
        self.nodes.remove(name);
        self.observe(|p, nodes| p.observe(TableChange::Node(index), nodes));
        self.event(ClusterEvent::NodeDeleted(name.into()), now);
    }

    /// A pod came or changed.
    pub fn apply_pod(&mut self, pod: Arc<Pod>, now: Timestamp) {
        self.record(now, || Fact::Pod(serde_json::to_value(&pod).unwrap_or_default()));
        let info = Arc::new(self.nodes.compile(pod));
        let key = info.key.clone();
        if info.node_name().is_some() {
            self.queue.remove(&key);
            self.consulting.remove(&key);
            self.awaiting.remove(&key);
            // The watch may be faster than the answer to the binding.
            self.bound(&key);
            self.settle_nomination(&key);
            self.apply_placed(info, now);
        } else if info.is_terminal() || info.is_terminating() {
            self.drop_pending(&key, now);
        } else if self.profile(info.scheduler_name()).is_some()
            && !self.in_flight.contains_key(&key)
            && !self.consulting.contains_key(&key)
        {
            self.apply_pending(info, now);
        }
    }

    /// A pod went.
    pub fn remove_pod(&mut self, key: &PodKey, now: Timestamp) {
        self.record(now, || Fact::PodGone(key.namespace.to_string(), key.name.to_string()));
        self.drop_pending(key, now);
        self.unplace(key, now);
    }

    /// Anything else happened that plugins may wait for.
    pub fn event(&mut self, event: ClusterEvent, now: Timestamp) {
        let (profiles, nodes) = (&self.profiles, &self.nodes);
        let worth = |pod: &QueuedPod| {
            let Some((profile, _)) = profiles.iter().find(|(p, _)| p.name() == pod.info.scheduler_name())
            else {
                return false;
            };
            pod.refused_by.is_empty()
                || pod.refused_by.iter().any(|name| {
                    profile.find(name).is_none_or(|p| p.hint(&pod.info, &event, nodes) == Hint::Queue)
                })
        };
        self.queue.move_where(now, &ProfileOrder(&self.profiles), worth);
    }

    /// Lets time pass: ends back-offs, and gives up pods that were held or waited too long. Returns what to say of those.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Decision> {
        self.queue.advance(now, &ProfileOrder(&self.profiles));
        let overdue = self.in_flight.iter().filter(|(_, f)| f.until.is_some_and(|until| until <= now));
        let mut keys: Vec<(PodKey, Stage)> = overdue.map(|(key, f)| (key.clone(), f.stage)).collect();
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        keys.into_iter().filter_map(|(key, stage)| self.overdue(&key, stage, now)).collect()
    }

    /// When [`Scheduler::advance`] has something to do next.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let held = self.in_flight.values().filter_map(|f| f.until).min();
        self.queue.next_wake().into_iter().chain(held).min()
    }

    /// Tries the first pod of the queue; `None` where none is ready.
    pub fn schedule_one(&mut self, now: Timestamp) -> Option<Decision> {
        let pod = self.queue.pop(&ProfileOrder(&self.profiles))?;
        self.try_is_of(Some(&pod.info));
        let decision = self.try_pod(pod, now);
        self.try_is_of(None);
        Some(decision)
    }

    /// The pod that is being tried, for those who look on from another thread.
    pub fn trying(&self) -> Trying {
        self.trying.clone()
    }

    fn try_is_of(&self, pod: Option<&Arc<PodInfo>>) {
        *self.trying.lock().unwrap_or_else(PoisonError::into_inner) = pod.cloned();
    }

    /// Whether some profile has a plugin that is not one of this crate's, by its name.
    pub fn has_foreign_plugins(&self) -> bool {
        let builtin = Registry::builtin();
        let ours = |name: &str| builtin.has(name) || ["ElasticQuota", "Gang"].contains(&name);
        self.profiles.iter().any(|(profile, _)| profile.plugins().any(|(p, _)| !ours(p.name())))
    }

    fn try_pod(&mut self, pod: QueuedPod, now: Timestamp) -> Decision {
        let tie = self.next_tie();
        // A plugin that panics costs its pod this try and the profile what it remembers, nothing more.
        let found = catch_unwind(AssertUnwindSafe(|| self.find_node(&pod, tie)));
        let found = found.unwrap_or_else(|panic| {
            self.forget(pod.info.scheduler_name());
            let text = panic_text(panic.as_ref());
            Err(Box::new(refused_try(&self.nodes, "Scheduler", Refusal::error(text))))
        });
        match found {
            Ok(choice) => match self.consult(&pod) {
                Some(consult) => consult,
                None => {
                    self.note_choice(&pod, choice, now);
                    self.commit(pod, choice.node, now)
                }
            },
            Err(diagnosis) => self.refuse_pod(pod, *diagnosis, now),
        }
    }

    pub(crate) fn next_tie(&mut self) -> u64 {
        self.tie = self.tie.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.tie >> 33
    }

    fn find_node(&mut self, pod: &QueuedPod, tie: u64) -> Result<Choice, Box<Diagnosis>> {
        let info = &pod.info;
        let Some((profile, cache)) =
            self.profiles.iter_mut().find(|(p, _)| p.name() == info.scheduler_name())
        else {
            let refusal = Refusal::error("no profile has the pod's scheduler name");
            return Err(Box::new(refused_try(&self.nodes, "Scheduler", refusal)));
        };
        // The node that room was made on comes first, as upstream has it.
        if let Some(node) = self.nodes.nomination(&info.key)
            && cache.accepts(profile, info, &mut self.nodes, node)
        {
            return Ok(Choice { node, feasible: 1 });
        }
        cache.run(profile, info, &mut self.nodes, tie)
    }

    fn forget(&mut self, profile: &str) {
        if let Some((_, cache)) = self.profiles.iter_mut().find(|(p, _)| p.name() == profile) {
            let (all_wanted, candidates_wanted) = (cache.all_wanted, cache.candidates_wanted);
            *cache = CycleCache::default();
            (cache.all_wanted, cache.candidates_wanted) = (all_wanted, candidates_wanted);
        }
    }

    pub(crate) fn note_choice(&mut self, pod: &QueuedPod, choice: Choice, now: Timestamp) {
        if !self.attempts.is_on() {
            return;
        }
        let Some((profile, cache)) =
            self.profiles.iter().find(|(p, _)| p.name() == pod.info.scheduler_name())
        else {
            return;
        };
        let most = if choice.feasible > 1 { self.attempts.scores_max } else { 0 };
        let scores = cache.explain(profile, &pod.info, &self.nodes, choice.node, most);
        self.attempts.push(Attempt {
            pod: pod.info.key.clone(),
            at: now,
            number: pod.attempts,
            feasible: choice.feasible,
            chosen: Some((self.nodes.name(choice.node).clone(), scores)),
            diagnosis: None,
        });
    }

    fn apply_placed(&mut self, info: Arc<PodInfo>, now: Timestamp) {
        if info.is_terminal() {
            return self.unplace(&info.key.clone(), now);
        }
        let node = info.node_name().cloned().unwrap_or_default();
        // Most updates of bound pods change their status only; the binding that was foreseen changes nothing at all.
        if let Some(known) = self.nodes.placed(&info.key)
            && known.info.same_place(&info)
            && *self.nodes.name(known.node) == node
        {
            let seen_before = known.info.node_name().is_some();
            self.nodes.replace(info.clone());
            if !seen_before {
                self.event(ClusterEvent::PodPlaced(info), now);
            }
            return;
        }
        self.place(&info, &node);
        self.event(ClusterEvent::PodPlaced(info), now);
    }

    fn apply_pending(&mut self, info: Arc<PodInfo>, now: Timestamp) {
        let gated = self.is_gated(&info);
        let before = self.queue.get(&info.key);
        if before.is_some_and(|b| b.info.uid != info.uid) {
            self.queue.remove(&info.key);
        }
        // A change of status alone (the scheduler's own condition among them) is no reason for another try.
        let changed = self
            .queue
            .get(&info.key)
            .is_some_and(|b| b.info.class.id != info.class.id || b.info.gates != info.gates);
        if self.nodes.nomination(&info.key).is_none()
            && let Some(node) = info.nominated_node().and_then(|name| self.nodes.find(name))
        {
            self.nodes.nominate(info.clone(), node);
        }
        self.queue.update(info, gated, changed, now, &ProfileOrder(&self.profiles));
    }

    fn is_gated(&self, info: &PodInfo) -> bool {
        let profile = self.profile(info.scheduler_name());
        profile.is_some_and(|p| p.at(Points::PRE_ENQUEUE).any(|p| p.pre_enqueue(info).is_err()))
    }

    fn drop_pending(&mut self, key: &PodKey, now: Timestamp) {
        self.queue.remove(key);
        self.consulting.remove(key);
        self.settle_nomination(key);
        self.awaiting.remove(key);
        if let Some(flight) = self.in_flight.remove(key) {
            self.release(&flight.pod.info, now);
        }
    }

    /// The pod that room was made for has its place, or is gone.
    pub(crate) fn settle_nomination(&mut self, key: &PodKey) {
        for victim in self.victims.remove(key).into_iter().flatten() {
            self.waited_for.remove(&victim);
        }
        self.nodes.unnominate(key);
    }

    /// Notes for whom these pods have to go.
    pub(crate) fn await_victims(&mut self, key: &PodKey, victims: Vec<PodKey>) {
        self.waited_for.extend(victims.iter().map(|v| (v.clone(), key.clone())));
        self.victims.insert(key.clone(), victims);
    }

    /// A pod is off its node: whom room was made for by the last one of its victims is tried at once, without its back-off.
    fn victim_gone(&mut self, victim: &PodKey) {
        let Some(waiting) = self.waited_for.remove(victim) else { return };
        let left = self.victims.get(&waiting).into_iter().flatten();
        if left.filter(|v| self.nodes.placed(v).is_some()).count() == 0 {
            self.queue.activate(&waiting, &ProfileOrder(&self.profiles));
        }
    }

    pub(crate) fn place(&mut self, info: &Arc<PodInfo>, node: &str) {
        if let Some(before) = self.nodes.unplace(&info.key) {
            self.observe(|p, nodes| p.observe(TableChange::Unplaced(&before.info, before.node), nodes));
        }
        self.nodes.place(info.clone(), node);
        if let Some(index) = self.nodes.placed(&info.key).map(|p| p.node) {
            self.observe(|p, nodes| p.observe(TableChange::Placed(info, index), nodes));
        }
    }

    pub(crate) fn unplace(&mut self, key: &PodKey, now: Timestamp) {
        let Some(before) = self.nodes.placed(key).cloned() else { return };
        let node = self.nodes.name(before.node).clone();
        self.nodes.unplace(key);
        self.observe(|p, nodes| p.observe(TableChange::Unplaced(&before.info, before.node), nodes));
        self.event(ClusterEvent::PodGone(before.info, node), now);
        self.victim_gone(key);
    }

    pub(crate) fn observe(&mut self, mut tell: impl FnMut(&mut dyn crate::Plugin, &NodeTable)) {
        for (profile, _) in &mut self.profiles {
            for plugin in profile.plugins_mut() {
                tell(plugin.as_mut(), &self.nodes);
            }
        }
    }

    pub(crate) fn refuse_pod(
        &mut self,
        pod: QueuedPod,
        mut diagnosis: Diagnosis,
        now: Timestamp,
    ) -> Decision {
        let mut nominated = None;
        if diagnosis.is_error() || diagnosis.nodes == 0 {
            return self.requeue_refused(pod, diagnosis, None, now);
        }
        if diagnosis.pod.is_none() && diagnosis.resolvable().0 > 0 {
            nominated = self.make_room(&pod.info, &mut diagnosis);
        }
        if diagnosis.post_filter.is_empty() && nominated.is_none() {
            diagnosis.post_filter = no_preemption(&diagnosis);
        }
        self.requeue_refused(pod, diagnosis, nominated, now)
    }

    /// PostFilter.
    fn make_room(
        &mut self,
        info: &Arc<PodInfo>,
        diagnosis: &mut Diagnosis,
    ) -> Option<(SmolStr, Vec<PodKey>)> {
        let on = self.nodes.nomination(&info.key);
        let pending = self.victims.get(&info.key).into_iter().flatten();
        let still_there = |victim: &PodKey| self.nodes.placed(victim).is_some_and(|p| Some(p.node) == on);
        if on.is_some() && pending.into_iter().any(still_there) {
            AWAITS_VICTIMS.clone_into(&mut diagnosis.post_filter);
            return None;
        }
        let (profile, cache) = self.profiles.iter_mut().find(|(p, _)| p.name() == info.scheduler_name())?;
        let (answer, asked) = cache.post_filter(profile, info, &mut self.nodes, diagnosis);
        self.asked.extend(asked);
        match answer {
            PostFilter::Nothing(text) | PostFilter::Request { message: text, .. } => {
                diagnosis.post_filter = text;
                if on.is_some() {
                    self.settle_nomination(&info.key);
                    self.displaced.push(info.key.clone());
                }
                None
            }
            PostFilter::Nominate { node, victims } => {
                // Pods of lower priority that room was made for here have to look again.
                let lower = self.nodes.nominated_on(node).iter().filter(|p| p.priority() < info.priority());
                let lower: Vec<PodKey> = lower.map(|p| p.key.clone()).collect();
                lower.iter().for_each(|key| self.settle_nomination(key));
                self.displaced.extend(lower);
                self.nodes.nominate(info.clone(), node);
                self.await_victims(&info.key, victims.clone());
                Some((self.nodes.name(node).clone(), victims))
            }
        }
    }

    /// The victims could not be evicted: the pod may look for others.
    pub fn preemption_failed(&mut self, key: &PodKey) {
        self.settle_nomination(key);
    }

    pub(crate) fn requeue_refused(
        &mut self,
        pod: QueuedPod,
        diagnosis: Diagnosis,
        nominated: Option<(SmolStr, Vec<PodKey>)>,
        now: Timestamp,
    ) -> Decision {
        let info = pod.info.clone();
        if self.attempts.is_on() {
            self.attempts.push(Attempt {
                pod: info.key.clone(),
                at: now,
                number: pod.attempts,
                feasible: 0,
                chosen: None,
                diagnosis: Some(diagnosis.clone()),
            });
        }
        let retry = diagnosis.is_error();
        self.queue.requeue(pod, diagnosis.plugins(), retry, now, &ProfileOrder(&self.profiles));
        let displaced = std::mem::take(&mut self.displaced);
        let requests = std::mem::take(&mut self.asked);
        Decision::Unschedulable { pod: info, diagnosis, nominated, displaced, requests }
    }
}

/// What upstream's message says of preemption where it can't help.
fn no_preemption(diagnosis: &Diagnosis) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (hopeful, helpless) = diagnosis.resolvable();
    let of_pod = if diagnosis.pod.is_some() { diagnosis.nodes } else { 0 };
    for (text, n) in [
        ("No preemption victims found for incoming pod", hopeful),
        ("Preemption is not helpful for scheduling", helpless + of_pod),
    ] {
        if n > 0 {
            counts.insert(text, n);
        }
    }
    format!("preemption: {}", sentence(diagnosis.nodes, &counts))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a plugin panicked: {}", text.unwrap_or("no message"))
}
