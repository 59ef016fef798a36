//! What comes after a node was chosen: Reserve, Permit, PreBind, Bind, PostBind, and giving a place back when one of them ends otherwise.

use crate::cycle::refused_try;
use crate::diagnosis::Refusal;
use crate::framework::{CycleContext, Permit, Points};
use crate::node::NodeIndex;
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::queue::QueuedPod;
use crate::scheduler::{Decision, ProfileOrder, Scheduler};
use jiff::Timestamp;
use kubewright_core::ApiRequest;
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;

/// A pod that was given a node and is not bound yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) pod: QueuedPod,
    pub(crate) node: SmolStr,
    /// When it is given up, where it waits for something.
    pub(crate) until: Option<Timestamp>,
    pub(crate) stage: Stage,
}

/// How far a chosen pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A Permit plugin holds it.
    Held,
    /// PreBind's requests are being sent.
    Preparing,
    /// They were sent; what they ask for has not come yet.
    Awaiting,
    /// It is being bound.
    Binding,
}

/// How long a pod waits at most for what PreBind asked for, as upstream's `bindTimeoutSeconds` has it by default.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(600);

impl Scheduler {
    /// The pod's binding was acknowledged.
    pub fn bound(&mut self, key: &PodKey) {
        let Some(flight) = self.in_flight.remove(key) else { return };
        if let Some(profile) = self.profile_mut(flight.pod.info.scheduler_name()) {
            for plugin in profile.plugins_mut().filter(|p| p.points().contains(Points::POST_BIND)) {
                plugin.post_bind(&flight.pod.info, &flight.node);
            }
        }
    }

    /// The pod's binding failed: it gives its place back and is tried again after a back-off. Returns the pod.
    pub fn failed(&mut self, key: &PodKey, now: Timestamp) -> Option<Arc<PodInfo>> {
        let flight = self.in_flight.remove(key)?;
        self.awaiting.remove(key);
        self.release(&flight.pod.info, now);
        let info = flight.pod.info.clone();
        let plugins = self.profile(info.scheduler_name()).into_iter().flat_map(|p| p.at(Points::RESERVE));
        let wait = plugins.filter_map(|p| p.back_off(&info)).max();
        let until = wait.map(|wait| now.checked_add(wait).unwrap_or(Timestamp::MAX));
        self.queue.requeue_after(flight.pod, until, now, &ProfileOrder(&self.profiles));
        Some(info)
    }

    /// A pod was held, or waited, for longer than it may.
    pub(crate) fn overdue(&mut self, key: &PodKey, stage: Stage, now: Timestamp) -> Option<Decision> {
        let requests = match stage {
            Stage::Awaiting => self.withdraw(&self.in_flight.get(key)?.pod.info),
            _ => Vec::new(),
        };
        let pod = self.failed(key, now)?;
        let refusal = match stage {
            Stage::Held => Refusal::new("rejected due to timeout while waiting on permit"),
            _ => Refusal::error("timed out waiting for what was asked for before the binding"),
        };
        let diagnosis = refused_try(&self.nodes, "Scheduler", refusal);
        Some(Decision::Unschedulable { pod, diagnosis, nominated: None, displaced: Vec::new(), requests })
    }

    /// What takes back what PreBind brought about for a pod.
    fn withdraw(&self, info: &PodInfo) -> Vec<ApiRequest> {
        let plugins = self.profile(info.scheduler_name()).into_iter().flat_map(|p| p.at(Points::PRE_BIND));
        let cx = CycleContext::new(info, &self.nodes, None);
        plugins.flat_map(|p| p.withdraw(cx)).collect()
    }

    /// Lets a pod go on that a Permit plugin holds.
    pub fn allow(&mut self, key: &PodKey, now: Timestamp) -> Option<Decision> {
        if self.in_flight.get(key)?.stage != Stage::Held {
            return None;
        }
        let flight = self.in_flight.remove(key)?;
        match self.nodes.find(&flight.node) {
            Some(node) => Some(self.bind(flight.pod, node, now)),
            None => {
                // The node went meanwhile.
                self.in_flight.insert(key.clone(), flight);
                self.failed(key, now);
                None
            }
        }
    }

    /// PreBind's requests were sent; gives the binding where nothing has to be waited for.
    pub fn prepared(&mut self, key: &PodKey, now: Timestamp) -> Option<Decision> {
        let flight = self.in_flight.get_mut(key).filter(|f| f.stage == Stage::Preparing)?;
        flight.stage = Stage::Awaiting;
        self.awaiting.insert(key.clone());
        self.try_to_bind(key, now)
    }

    /// The bindings of pods that have got what they waited for since the last call, and of those that a plugin let go on: to be asked
    /// after each decision.
    pub fn take_prepared(&mut self, now: Timestamp) -> Vec<Decision> {
        let released = std::mem::take(&mut self.released);
        let mut ready: Vec<Decision> = released.iter().filter_map(|key| self.allow(key, now)).collect();
        if self.awaiting.is_empty() || !std::mem::take(&mut self.objects_changed) {
            return ready;
        }
        let mut keys: Vec<PodKey> = self.awaiting.iter().cloned().collect();
        keys.sort_unstable();
        ready.extend(keys.iter().filter_map(|key| self.try_to_bind(key, now)));
        ready
    }

    fn try_to_bind(&mut self, key: &PodKey, now: Timestamp) -> Option<Decision> {
        let flight = self.in_flight.get(key)?;
        let info = flight.pod.info.clone();
        let ready = match self.nodes.find(&flight.node) {
            None => Err(("Scheduler", Refusal::error("the node is gone"))),
            Some(node) => self.is_prepared(&info, node).map(|ready| (ready, node)),
        };
        match ready {
            Ok((false, _)) => None,
            Ok((true, node)) => {
                self.awaiting.remove(key);
                let flight = self.in_flight.remove(key)?;
                Some(self.send_binding(flight.pod, node, Vec::new(), now))
            }
            Err((plugin, refusal)) => {
                self.awaiting.remove(key);
                self.asked = self.withdraw(&info);
                let flight = self.in_flight.remove(key)?;
                Some(self.give_up(flight.pod, plugin, refusal, now))
            }
        }
    }

    fn is_prepared(&self, info: &PodInfo, node: NodeIndex) -> Result<bool, (&'static str, Refusal)> {
        let Some(profile) = self.profile(info.scheduler_name()) else { return Ok(true) };
        for plugin in profile.at(Points::PRE_BIND) {
            let cx = CycleContext::new(info, &self.nodes, None);
            if !plugin.is_prepared(cx, node).map_err(|refusal| (plugin.name(), refusal))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up a pod that a Permit plugin holds.
    pub fn refuse(&mut self, key: &PodKey, now: Timestamp) -> Option<Arc<PodInfo>> {
        self.failed(key, now)
    }

    /// Reserve, Permit, and then the binding.
    pub(crate) fn commit(&mut self, pod: QueuedPod, node: NodeIndex, now: Timestamp) -> Decision {
        let info = pod.info.clone();
        let name = self.nodes.name(node).clone();
        self.settle_nomination(&info.key);
        self.place(&info, &name);
        if let Err((plugin, refusal)) = self.reserve(&info, node) {
            return self.give_up(pod, plugin, refusal, now);
        }
        let hold = match self.permit(&info, node) {
            Ok(hold) => hold,
            Err((plugin, refusal)) => return self.give_up(pod, plugin, refusal, now),
        };
        match hold.map(|h| now.checked_add(h).unwrap_or(Timestamp::MAX)) {
            None => self.bind(pod, node, now),
            Some(until) => {
                let stage = Stage::Held;
                let flight = InFlight { pod, node: name, until: Some(until), stage };
                self.in_flight.insert(info.key.clone(), flight);
                Decision::Wait { pod: info, until }
            }
        }
    }

    fn reserve(&mut self, info: &Arc<PodInfo>, node: NodeIndex) -> Result<(), (&'static str, Refusal)> {
        let Some((profile, _)) = self.profiles.iter_mut().find(|(p, _)| p.name() == info.scheduler_name())
        else {
            return Ok(());
        };
        for plugin in profile.plugins_mut().filter(|p| p.points().contains(Points::RESERVE)) {
            let cx = CycleContext::new(info, &self.nodes, None);
            plugin.reserve(cx, node).map_err(|refusal| (plugin.name(), refusal))?;
            self.released.extend(plugin.released());
        }
        self.volumes_changed(info);
        Ok(())
    }

    /// Volumes or devices were set aside or given back: what was found out about pods that want any is void.
    fn volumes_changed(&mut self, info: &PodInfo) {
        if !info.class.volumes().is_empty() {
            self.nodes.objects_mut().0.changed(Watched::VOLUMES);
        }
        if !info.class.claims().is_empty() {
            self.nodes.objects_mut().0.changed(Watched::DEVICES);
        }
    }

    /// The shortest time that a Permit plugin wants the pod held, if any.
    fn permit(&self, info: &PodInfo, node: NodeIndex) -> Result<Option<Duration>, (&'static str, Refusal)> {
        let Some(profile) = self.profile(info.scheduler_name()) else { return Ok(None) };
        let mut hold: Option<Duration> = None;
        for plugin in profile.at(Points::PERMIT) {
            match plugin.permit(CycleContext::new(info, &self.nodes, None), node) {
                Permit::Allow => {}
                Permit::Wait(time) => hold = Some(hold.map_or(time, |h| h.min(time))),
                Permit::Refuse(refusal) => return Err((plugin.name(), refusal)),
            }
        }
        Ok(hold)
    }

    /// PreBind and Bind.
    fn bind(&mut self, pod: QueuedPod, node: NodeIndex, now: Timestamp) -> Decision {
        let info = pod.info.clone();
        let before = match self.before_binding(&info, node) {
            Ok(requests) => requests,
            Err((plugin, refusal)) => return self.give_up(pod, plugin, refusal, now),
        };
        // What must come before the binding is sent with it where nothing has to be waited for.
        let waits = self.is_prepared(&info, node) != Ok(true);
        if !waits {
            return self.send_binding(pod, node, before, now);
        }
        let name = self.nodes.name(node).clone();
        let until = Some(now.checked_add(PREPARE_TIMEOUT).unwrap_or(Timestamp::MAX));
        let flight = InFlight { pod, node: name.clone(), until, stage: Stage::Preparing };
        self.in_flight.insert(info.key.clone(), flight);
        Decision::Prepare { pod: info, node: name, requests: before }
    }

    fn send_binding(
        &mut self,
        pod: QueuedPod,
        node: NodeIndex,
        mut requests: Vec<ApiRequest>,
        now: Timestamp,
    ) -> Decision {
        let info = pod.info.clone();
        let name = self.nodes.name(node).clone();
        let profile = self.profile(info.scheduler_name());
        let cx = CycleContext::new(&info, &self.nodes, None);
        let Some(binding) = profile.and_then(|p| p.at(Points::BIND).find_map(|p| p.bind(cx, node))) else {
            return self.give_up(pod, "Scheduler", Refusal::error("no plugin binds the pod"), now);
        };
        requests.push(binding);
        let attempts = pod.attempts;
        let flight = InFlight { pod, node: name.clone(), until: None, stage: Stage::Binding };
        self.in_flight.insert(info.key.clone(), flight);
        Decision::Bind { pod: info, node: name, requests, attempts }
    }

    fn before_binding(
        &self,
        info: &PodInfo,
        node: NodeIndex,
    ) -> Result<Vec<ApiRequest>, (&'static str, Refusal)> {
        let Some(profile) = self.profile(info.scheduler_name()) else { return Ok(Vec::new()) };
        let cx = CycleContext::new(info, &self.nodes, None);
        let mut requests = Vec::new();
        for plugin in profile.at(Points::PRE_BIND) {
            requests.extend(plugin.pre_bind(cx, node).map_err(|refusal| (plugin.name(), refusal))?);
        }
        Ok(requests)
    }

    fn give_up(
        &mut self,
        pod: QueuedPod,
        plugin: &'static str,
        refusal: Refusal,
        now: Timestamp,
    ) -> Decision {
        self.release(&pod.info.clone(), now);
        let diagnosis = refused_try(&self.nodes, plugin, refusal);
        self.requeue_refused(pod, diagnosis, None, now)
    }

    /// Takes back what a try took: the place on the node and the plugins' reservations.
    pub(crate) fn release(&mut self, info: &Arc<PodInfo>, now: Timestamp) {
        let Some(placed) = self.nodes.placed(&info.key).map(|p| p.node) else { return };
        let mut abandoned = Vec::new();
        if let Some(profile) = self.profile_mut(info.scheduler_name()) {
            for plugin in profile.plugins_mut().filter(|p| p.points().contains(Points::RESERVE)) {
                plugin.unreserve(info, placed);
                abandoned.extend(plugin.abandoned());
            }
        }
        self.volumes_changed(info);
        self.unplace(&info.key, now);
        for key in abandoned {
            // A binding that is on its way is not called back.
            if self.in_flight.get(&key).is_some_and(|f| f.stage == Stage::Held) {
                self.failed(&key, now);
            }
        }
    }
}
