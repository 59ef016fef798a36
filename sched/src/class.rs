//! Classes of pods: pods of one class get the same verdicts on the same nodes, so that what a cycle finds out holds for all of them.
//!
//! A pod's class is found by comparing it with pods seen before, without compiling it again: thousands of replicas share one class.

use crate::devices::{self, PodClaim};
use crate::intern::{Interner, Symbol};
use crate::labels::{Labels, intern_labels};
use crate::pod::{HostPort, Tolerance};
use crate::resources::PodRequests;
use crate::selection::{self, NodeDemand, NodeTerm};
use crate::terms::{AffinityTerms, SpreadConstraint};
use crate::volumes::{self, PodVolume};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use rustc_hash::{FxHashMap, FxHasher};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Classes that no pod has any more are forgotten when there are this many.
const CLASSES_MAX: usize = 4096;

/// The controller that owns a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `apps/v1/ReplicaSet` and the like.
    pub kind: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// `metadata.uid`.
    pub uid: SmolStr,
}

impl Owner {
    fn of(pod: &Pod) -> Option<&OwnerReference> {
        pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))
    }
}

/// Everything that makes two pods alike to every plugin.
#[derive(Debug)]
pub struct PodClass {
    /// No other class of the same table has it, now or later.
    pub id: u32,
    namespace: Symbol,
    labels: Labels,
    pub(crate) requests: PodRequests,
    pub(crate) demand: NodeDemand,
    pub(crate) preferred: Vec<(i64, NodeTerm)>,
    pub(crate) tolerances: Vec<Tolerance>,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) scheduler_name: SmolStr,
    pub(crate) priority: i32,
    pub(crate) never_preempts: bool,
    owner: Owner,
    affinity: AffinityTerms,
    spread: Vec<SpreadConstraint>,
    images: Vec<Symbol>,
    volumes: Vec<PodVolume>,
    claims: Vec<PodClaim>,
    features: Vec<&'static str>,
    /// The same class without volumes and claims of devices, where it has any: pods that differ by those alone share it.
    pub(crate) base: Option<Arc<PodClass>>,
}

impl PodClass {
    /// The namespace.
    pub fn namespace(&self) -> Symbol {
        self.namespace
    }

    /// The labels, ordered by key.
    pub fn labels(&self) -> &[(Symbol, Symbol)] {
        &self.labels
    }

    /// The controller that owns the pods; empty where none does.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What the pods demand and prefer of other pods.
    pub fn affinity(&self) -> &AffinityTerms {
        &self.affinity
    }

    /// How the pods shall spread.
    pub fn spread(&self) -> &[SpreadConstraint] {
        &self.spread
    }

    /// The images of all containers, with tags, once for each container.
    pub fn images(&self) -> &[Symbol] {
        &self.images
    }

    /// The volumes that matter to placement.
    pub fn volumes(&self) -> &[PodVolume] {
        &self.volumes
    }

    /// What the pods claim of devices (`spec.resourceClaims`).
    pub fn claims(&self) -> &[PodClaim] {
        &self.claims
    }

    /// The features that a node must declare, by name.
    pub fn features(&self) -> &[&'static str] {
        &self.features
    }

    /// What the pods ask for.
    pub fn requests(&self) -> &PodRequests {
        &self.requests
    }

    /// `spec.priority`.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    fn compile(id: u32, pod: &Pod, symbols: &mut Interner) -> Self {
        let meta = &pod.metadata;
        let namespace = symbols.intern(meta.namespace.as_deref().unwrap_or(""));
        let labels = intern_labels(meta.labels.as_ref(), symbols);
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let (demand, preferred) = selection::compile(spec, symbols);
        let tolerations = spec.tolerations.iter().flatten();
        let constraints = spec.topology_spread_constraints.iter().flatten();
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        PodClass {
            id,
            namespace,
            requests: PodRequests::of(pod, symbols),
            demand,
            preferred,
            tolerances: tolerations.filter_map(|t| Tolerance::compile(t, symbols)).collect(),
            ports: host_ports(&spec.containers),
            scheduler_name: scheduler_name(spec).into(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            owner: Owner::of(pod).map(owner).unwrap_or_default(),
            affinity: AffinityTerms::compile(spec, namespace, &labels, symbols),
            spread: constraints.map(|c| SpreadConstraint::compile(c, &labels, symbols)).collect(),
            images: containers().map(|c| image(c, symbols)).collect(),
            volumes: volumes::compile(pod),
            claims: devices::claims_of(pod),
            features: features(spec),
            base: None,
            labels,
        }
    }
}

fn owner(reference: &OwnerReference) -> Owner {
    Owner {
        kind: format!("{}/{}", reference.api_version, reference.kind).into(),
        name: reference.name.as_str().into(),
        uid: reference.uid.as_str().into(),
    }
}

/// What a pod needs of its node beyond what every node can do.
fn features(spec: &PodSpec) -> Vec<&'static str> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut rules = containers.flat_map(|c| c.restart_policy_rules.iter().flatten());
    let restarts_all = rules.any(|r| r.action == "RestartAllContainers");
    if restarts_all { vec!["RestartAllContainersOnContainerExits"] } else { Vec::new() }
}

fn scheduler_name(spec: &PodSpec) -> &str {
    spec.scheduler_name.as_deref().unwrap_or("default-scheduler")
}

/// An image's name with its tag, as nodes list it.
fn image(container: &Container, symbols: &mut Interner) -> Symbol {
    let name = container.image.as_deref().unwrap_or("");
    symbols.intern(&with_tag(name))
}

/// A name without a tag means the tag `latest`.
pub(crate) fn with_tag(name: &str) -> SmolStr {
    let (tag, slash) = (name.rfind(':'), name.rfind('/'));
    if tag.is_some() && tag > slash { name.into() } else { format!("{name}:latest").into() }
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

/// A class with a pod that it was read from.
type Known = (Arc<Pod>, Arc<PodClass>);

/// The classes of a table.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// By a quick hash.
    known: FxHashMap<u64, Vec<Known>>,
    count: usize,
    /// Unused classes are looked for when there are more than this.
    limit: usize,
    /// The next id.
    next: u32,
}

impl Classes {
    /// The class of a pod.
    pub(crate) fn of(&mut self, pod: &Arc<Pod>, symbols: &mut Interner) -> Arc<PodClass> {
        let hash = quick_hash(pod);
        let found = self.known.get(&hash).and_then(|list| list.iter().find(|(seen, _)| alike(seen, pod)));
        if let Some((_, class)) = found {
            return class.clone();
        }
        if self.count >= self.limit.max(CLASSES_MAX) {
            self.forget();
            self.limit = 2 * self.count;
        }
        self.next += 1;
        let mut class = PodClass::compile(self.next, pod, symbols);
        if !class.volumes.is_empty() || !class.claims.is_empty() {
            let mut bare = (**pod).clone();
            let spec = bare.spec.get_or_insert_default();
            (spec.volumes, spec.resource_claims) = (None, None);
            class.base = Some(self.of(&Arc::new(bare), symbols));
        }
        let class = Arc::new(class);
        self.known.entry(hash).or_default().push((pod.clone(), class.clone()));
        self.count += 1;
        class
    }

    /// How many classes there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn forget(&mut self) {
        self.known.retain(|_, list| {
            list.retain(|(_, class)| Arc::strong_count(class) > 1);
            !list.is_empty()
        });
        self.count = self.known.values().map(Vec::len).sum();
    }
}

/// A hash of what most often tells classes apart.
fn quick_hash(pod: &Pod) -> u64 {
    let mut hasher = FxHasher::default();
    let meta = &pod.metadata;
    meta.namespace.hash(&mut hasher);
    meta.labels.hash(&mut hasher);
    Owner::of(pod).map(|o| &o.uid).hash(&mut hasher);
    if let Some(spec) = &pod.spec {
        spec.priority.hash(&mut hasher);
        for volume in spec.volumes.iter().flatten().filter(|v| volumes::matters(v)) {
            volume.persistent_volume_claim.as_ref().map(|c| &c.claim_name).hash(&mut hasher);
        }
        for claim in spec.resource_claims.iter().flatten() {
            claim.resource_claim_name.hash(&mut hasher);
        }
        if spec.resource_claims.is_some() {
            let made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
            made.for_each(|s| s.resource_claim_name.hash(&mut hasher));
        }
        for container in &spec.containers {
            container.image.hash(&mut hasher);
            requests_hash(container.resources.as_ref().and_then(|r| r.requests.as_ref()), &mut hasher);
        }
    }
    hasher.finish()
}

fn requests_hash(
    list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    hasher: &mut FxHasher,
) {
    for (name, amount) in list.into_iter().flatten() {
        (name, &amount.0).hash(hasher);
    }
}

/// Whether nothing that scheduling looks at differs. Node name, gates and status are the pod's own, not its class's.
fn alike(a: &Pod, b: &Pod) -> bool {
    if a.metadata.namespace != b.metadata.namespace || a.metadata.labels != b.metadata.labels {
        return false;
    }
    let owners = (Owner::of(a), Owner::of(b));
    let same_owner = match owners {
        (Some(a), Some(b)) => a.uid == b.uid && a.kind == b.kind && a.name == b.name,
        (None, None) => true,
        _ => false,
    };
    let (Some(x), Some(y)) = (&a.spec, &b.spec) else { return same_owner && a.spec == b.spec };
    same_owner
        && same_containers(&x.containers, &y.containers)
        && same_containers(
            x.init_containers.as_deref().unwrap_or_default(),
            y.init_containers.as_deref().unwrap_or_default(),
        )
        && x.priority == y.priority
        && x.affinity == y.affinity
        && x.node_selector == y.node_selector
        && x.tolerations == y.tolerations
        && x.topology_spread_constraints == y.topology_spread_constraints
        && x.overhead == y.overhead
        && x.resources == y.resources
        && x.preemption_policy == y.preemption_policy
        && scheduler_name(x) == scheduler_name(y)
        && x.resource_claims == y.resource_claims
        && same_claims(a, b)
        && same_volumes(a, b)
}

fn same_containers(a: &[Container], b: &[Container]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.image == b.image
                && a.resources == b.resources
                && a.restart_policy == b.restart_policy
                && a.ports == b.ports
                && a.restart_policy_rules == b.restart_policy_rules
        })
}

/// Compares which claims of devices were made for the pods.
fn same_claims(a: &Pod, b: &Pod) -> bool {
    let any = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.resource_claims.is_some());
    let made = |pod: &'_ Pod| pod.status.as_ref().and_then(|s| s.resource_claim_statuses.clone());
    !any(a) || made(a) == made(b)
}

/// Compares the volumes that matter. Volumes that are made for each pod are told apart by the pod's name.
fn same_volumes(a: &Pod, b: &Pod) -> bool {
    let list = |pod: &'_ Pod| -> Vec<Volume> {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        volumes.filter(|v| volumes::matters(v)).cloned().collect()
    };
    let any = |pod: &Pod| pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(volumes::matters);
    if !any(a) && !any(b) {
        return true;
    }
    let of_pod = |v: &Volume| v.ephemeral.is_some();
    let (x, y) = (list(a), list(b));
    x == y && (a.metadata.name == b.metadata.name || !x.iter().any(of_pod))
}
