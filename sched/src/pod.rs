//! A pod as the scheduler sees it: everything that plugins ask of it, compiled once.

use crate::class::PodClass;
use crate::intern::{Interner, Symbol};
use crate::resources::PodRequests;
use crate::selection::{NodeDemand, NodeTerm};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use smol_str::SmolStr;
use std::fmt;
use std::sync::Arc;

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
}

impl PodKey {
    /// From its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        PodKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a pod.
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Port.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: SmolStr,
    /// Address; `0.0.0.0` for all.
    pub ip: SmolStr,
}

impl HostPort {
    /// Whether two pods of one node can't have both.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ALL || other.ip == ALL)
    }
}

/// A taint's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away where they can.
    PreferNoSchedule,
    /// New pods stay away, running ones are evicted.
    NoExecute,
}

impl Effect {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// Key.
    pub key: Symbol,
    /// Value; the symbol of the empty string where there is none.
    pub value: Symbol,
    /// Effect.
    pub effect: Effect,
}

/// A toleration of a pod, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tolerance {
    /// `None` tolerates every key.
    key: Option<Symbol>,
    /// `None` tolerates every value (`Exists`).
    value: Option<Symbol>,
    /// `None` tolerates every effect.
    effect: Option<Effect>,
}

impl Tolerance {
    pub(crate) fn compile(toleration: &Toleration, symbols: &mut Interner) -> Option<Self> {
        let key = toleration.key.as_deref().filter(|k| !k.is_empty());
        let value = match toleration.operator.as_deref().unwrap_or("Equal") {
            "" | "Equal" => Some(symbols.intern(toleration.value.as_deref().unwrap_or(""))),
            "Exists" => None,
            // Later operators (Gt, Lt) are refused by the API while they are not served.
            _ => return None,
        };
        let effect = match toleration.effect.as_deref().unwrap_or("") {
            "" => None,
            text => Some(Effect::parse(text)?),
        };
        Some(Tolerance { key: key.map(|k| symbols.intern(k)), value, effect })
    }

    /// Whether the pod can live with the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && self.key.is_none_or(|k| k == taint.key)
            && self.value.is_none_or(|v| v == taint.value)
    }

    /// Whether it tolerates every taint of an effect.
    pub fn tolerates_everything(&self, effect: Effect) -> bool {
        self.key.is_none() && self.value.is_none() && self.effect.is_none_or(|e| e == effect)
    }

    /// Whether it says anything about `PreferNoSchedule`.
    pub fn concerns_preference(&self) -> bool {
        self.effect.is_none_or(|e| e == Effect::PreferNoSchedule)
    }
}

/// A pod, compiled.
#[derive(Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: PodKey,
    /// `metadata.uid`.
    pub uid: SmolStr,
    /// The object, while the pod is not bound: a bound pod's is not kept.
    pub pod: Option<Arc<Pod>>,
    /// When it was created.
    pub created: Timestamp,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// `spec.schedulingGates` by name.
    pub gates: Vec<SmolStr>,
    /// What makes it like others.
    pub class: Arc<PodClass>,
    node_name: Option<SmolStr>,
    phase: Phase,
}

/// What of a pod's life matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Phase {
    terminal: bool,
    terminating: bool,
    /// Being deleted because a scheduler wants its place.
    preempted: bool,
}

impl PodInfo {
    /// A pod of a class.
    pub(crate) fn new(pod: Arc<Pod>, class: Arc<PodClass>) -> Self {
        let spec = pod.spec.as_ref();
        let node_name = spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()).map(SmolStr::new);
        let gates = spec.into_iter().flat_map(|s| s.scheduling_gates.iter().flatten());
        let status = pod.status.as_ref();
        PodInfo {
            key: PodKey::of(&pod),
            uid: pod.metadata.uid.as_deref().unwrap_or("").into(),
            created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            started: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            gates: gates.map(|g| g.name.as_str().into()).collect(),
            class,
            phase: Phase::of(&pod),
            pod: if node_name.is_some() { None } else { Some(pod) },
            node_name,
        }
    }

    /// The same pod without volumes and claims of devices, where it has any.
    pub(crate) fn without_claims(&self) -> Option<Self> {
        let class = self.class.base.clone()?;
        Some(PodInfo { class, ..self.unbound() })
    }

    /// The same pod as if it were on no node, to look for another one.
    pub(crate) fn unbound(&self) -> Self {
        PodInfo {
            key: self.key.clone(),
            uid: self.uid.clone(),
            pod: self.pod.clone(),
            created: self.created,
            started: self.started,
            gates: self.gates.clone(),
            class: self.class.clone(),
            node_name: None,
            phase: self.phase,
        }
    }

    /// What it asks for.
    pub fn requests(&self) -> &PodRequests {
        &self.class.requests
    }

    /// What it demands of its node's labels and name.
    pub fn demand(&self) -> &NodeDemand {
        &self.class.demand
    }

    /// What it prefers of its node, with weights.
    pub fn preferred(&self) -> &[(i64, NodeTerm)] {
        &self.class.preferred
    }

    /// What it tolerates.
    pub fn tolerances(&self) -> &[Tolerance] {
        &self.class.tolerances
    }

    /// The node ports that it takes.
    pub fn ports(&self) -> &[HostPort] {
        &self.class.ports
    }

    /// `spec.nodeName`, where set.
    pub fn node_name(&self) -> Option<&SmolStr> {
        self.node_name.as_ref()
    }

    /// `status.nominatedNodeName` of a pod that is not bound, where set.
    pub fn nominated_node(&self) -> Option<&str> {
        let status = self.pod.as_ref()?.status.as_ref()?;
        status.nominated_node_name.as_deref().filter(|n| !n.is_empty())
    }

    /// `spec.schedulerName`.
    pub fn scheduler_name(&self) -> &SmolStr {
        &self.class.scheduler_name
    }

    /// `spec.priority`.
    pub fn priority(&self) -> i32 {
        self.class.priority
    }

    /// Whether it may evict others (`spec.preemptionPolicy` is not `Never`).
    pub fn may_preempt(&self) -> bool {
        !self.class.never_preempts
    }

    /// Whether it has ended, so that it takes nothing of its node.
    pub fn is_terminal(&self) -> bool {
        self.phase.terminal
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.phase.terminating
    }

    /// Whether it is being deleted to make room for another.
    pub fn is_being_preempted(&self) -> bool {
        self.phase.preempted
    }

    /// Whether the pod's new version changes nothing that placed pods are looked at for: most updates are of status.
    pub(crate) fn same_place(&self, other: &PodInfo) -> bool {
        self.uid == other.uid
            && self.class.id == other.class.id
            && self.phase == other.phase
            && self.started == other.started
    }
}

impl Phase {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let preempted = terminating
            && status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| {
                c.type_ == "DisruptionTarget"
                    && c.status == "True"
                    && c.reason.as_deref() == Some("PreemptionByScheduler")
            });
        let phase = status.and_then(|s| s.phase.as_deref());
        Phase { terminal: matches!(phase, Some("Succeeded" | "Failed")), terminating, preempted }
    }
}
