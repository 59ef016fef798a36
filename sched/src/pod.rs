//! A pod as the scheduler sees it: everything that plugins ask of it, compiled once.

use crate::intern::{Interner, Symbol};
use crate::resources::PodRequests;
use crate::selection::{self, NodeDemand, NodeTerm};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Toleration};
use rustc_hash::FxHasher;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
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
    fn compile(toleration: &Toleration, symbols: &mut Interner) -> Option<Self> {
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

    /// Whether it says anything about `PreferNoSchedule`.
    pub fn concerns_preference(&self) -> bool {
        self.effect.is_none_or(|e| e == Effect::PreferNoSchedule)
    }
}

/// Everything that makes two pods alike to every plugin; equal classes get equal verdicts on the same nodes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PodClass {
    namespace: SmolStr,
    labels: BTreeMap<String, String>,
    requests: PodRequests,
    demand: NodeDemand,
    preferred: Vec<(i64, NodeTerm)>,
    tolerances: Vec<Tolerance>,
    ports: Vec<HostPort>,
    node_name: Option<SmolStr>,
    scheduler_name: SmolStr,
    priority: i32,
    /// The controller that owns the pod; spreading plugins look at it.
    owner: SmolStr,
    /// The parts that no plugin of this crate reads (pod affinity, spread constraints, volumes, claims, images), as JSON.
    rest: String,
}

/// A pod, compiled.
#[derive(Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: PodKey,
    /// `metadata.uid`.
    pub uid: SmolStr,
    /// The object.
    pub pod: Arc<Pod>,
    /// When it was created.
    pub created: Timestamp,
    /// `spec.schedulingGates` by name.
    pub gates: Vec<SmolStr>,
    /// What makes it like others.
    pub class: Arc<PodClass>,
    /// Hash of [`PodInfo::class`].
    pub class_hash: u64,
}

impl PodInfo {
    /// Compiles a pod.
    pub fn compile(pod: Arc<Pod>, symbols: &mut Interner) -> Self {
        let class = PodClass::compile(&pod, symbols);
        let mut hasher = FxHasher::default();
        class.hash(&mut hasher);
        let gates = pod.spec.iter().flat_map(|s| s.scheduling_gates.iter().flatten());
        PodInfo {
            key: PodKey::of(&pod),
            uid: pod.metadata.uid.as_deref().unwrap_or("").into(),
            created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            gates: gates.map(|g| g.name.as_str().into()).collect(),
            class: Arc::new(class),
            class_hash: hasher.finish(),
            pod,
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
        self.class.node_name.as_ref()
    }

    /// `spec.schedulerName`.
    pub fn scheduler_name(&self) -> &SmolStr {
        &self.class.scheduler_name
    }

    /// `spec.priority`.
    pub fn priority(&self) -> i32 {
        self.class.priority
    }

    /// Whether it has ended, so that it takes nothing of its node.
    pub fn is_terminal(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

impl PodClass {
    fn compile(pod: &Pod, symbols: &mut Interner) -> Self {
        let meta = &pod.metadata;
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let spec = pod.spec.as_ref();
        let (demand, preferred) = spec.map(|s| selection::compile(s, symbols)).unwrap_or_default();
        let tolerations = spec.and_then(|s| s.tolerations.as_ref());
        PodClass {
            namespace: meta.namespace.as_deref().unwrap_or("").into(),
            labels: meta.labels.clone().unwrap_or_default(),
            requests: PodRequests::of(pod, symbols),
            demand,
            preferred,
            tolerances: tolerations
                .iter()
                .flat_map(|list| list.iter())
                .filter_map(|t| Tolerance::compile(t, symbols))
                .collect(),
            ports: spec.map(|s| host_ports(&s.containers)).unwrap_or_default(),
            node_name: spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()).map(SmolStr::new),
            scheduler_name: spec
                .and_then(|s| s.scheduler_name.as_deref())
                .unwrap_or("default-scheduler")
                .into(),
            priority: spec.and_then(|s| s.priority).unwrap_or(0),
            owner: owner.map(|o| o.uid.as_str()).unwrap_or("").into(),
            rest: rest(pod),
        }
    }
}

/// Host ports of containers; init containers' ports are not counted, as upstream does.
fn host_ports(containers: &[Container]) -> Vec<HostPort> {
    let ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            Some(HostPort {
                port: p.host_port.filter(|p| *p > 0)?,
                protocol: p.protocol.as_deref().unwrap_or("TCP").into(),
                ip: p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0").into(),
            })
        })
        .collect()
}

fn rest(pod: &Pod) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    let affinity = spec.affinity.as_ref().map(|a| (&a.pod_affinity, &a.pod_anti_affinity));
    // The service account token volume has another name in each pod and no say in scheduling.
    let volumes: Vec<_> = spec.volumes.iter().flatten().filter(|v| v.projected.is_none()).collect();
    let images: Vec<_> = spec.containers.iter().map(|c| &c.image).collect();
    let parts = (affinity, &spec.topology_spread_constraints, volumes, &spec.resource_claims, images);
    serde_json::to_string(&parts).unwrap_or_default()
}
