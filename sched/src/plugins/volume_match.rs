//! Which volume a claim gets on a node, and whether one can be made there: the rules behind VolumeBinding.

use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodKey;
use crate::resources::whole;
use crate::selection::TextTerm;
use crate::volumes::{capacity, claimed, class_of_claim};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The provisioner of classes whose volumes are made by hand.
const BY_HAND: &str = "kubernetes.io/no-provisioner";

/// A claim that looks for a volume on a node.
pub(super) struct Wish<'a> {
    pub(super) claim: &'a PersistentVolumeClaim,
    pub(super) node: NodeIndex,
    pub(super) nodes: &'a NodeTable,
    /// Volumes that other claims are about to get.
    pub(super) taken: &'a dyn Fn(&str) -> bool,
}

/// Whether a volume's node affinity accepts the node.
pub(super) fn reaches(volume: &PersistentVolume, nodes: &NodeTable, node: NodeIndex) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|t| TextTerm::new(t).matches(nodes, node)))
}

/// The smallest volume that will do; one that is set aside for the claim comes first.
pub(super) fn find(wish: &Wish<'_>) -> Option<Arc<PersistentVolume>> {
    let volumes = &wish.nodes.objects.volumes;
    let meta = &wish.claim.metadata;
    let key = PodKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    let set_aside = |v: &&Arc<PersistentVolume>| claim_of(v).is_some_and(|c| is_for(c, wish.claim));
    let reserved = volumes.volumes_for(&key).find(|v| set_aside(v) && serves(v, wish));
    let mut free = volumes.free_volumes_of(class_of_claim(wish.claim));
    reserved.or_else(|| free.find(|v| serves(v, wish))).cloned()
}

type Reference = k8s_openapi::api::core::v1::ObjectReference;

fn claim_of(volume: &PersistentVolume) -> Option<&Reference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn is_for(reference: &Reference, claim: &PersistentVolumeClaim) -> bool {
    let uid = reference.uid.as_deref().unwrap_or("");
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

fn serves(volume: &PersistentVolume, wish: &Wish<'_>) -> bool {
    let (Some(spec), Some(asked)) = (&volume.spec, &wish.claim.spec) else { return false };
    fn mode(mode: &Option<String>) -> &str {
        mode.as_deref().unwrap_or("Filesystem")
    }
    let modes = asked.access_modes.iter().flatten();
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    let ours = claim_of(volume).is_some();
    volume.metadata.deletion_timestamp.is_none()
        && (ours || phase.is_none_or(|p| p == "Available"))
        && capacity(volume) >= claimed(wish.claim)
        && mode(&spec.volume_mode) == mode(&asked.volume_mode)
        && modes.into_iter().all(|m| spec.access_modes.iter().flatten().any(|have| have == m))
        && (ours || asked.selector.as_ref().is_none_or(|s| selects(s, volume.metadata.labels.as_ref())))
        && !(wish.taken)(volume.metadata.name.as_deref().unwrap_or(""))
        && reaches(volume, wish.nodes, wish.node)
}

/// A label selector over text: volumes are not compiled.
fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key));
    selector.match_labels.iter().flatten().all(|(k, v)| value(k) == Some(v))
        && selector.match_expressions.iter().flatten().all(|e| {
            let among = |v: &String| e.values.iter().flatten().any(|w| w == v);
            match e.operator.as_str() {
                "In" => value(&e.key).is_some_and(among),
                "NotIn" => value(&e.key).is_none_or(|v| !among(v)),
                "Exists" => value(&e.key).is_some(),
                "DoesNotExist" => value(&e.key).is_none(),
                _ => false,
            }
        })
}

/// Whether a volume can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    Possible,
    Impossible,
    NoSpace,
}

/// Whether the claim's class makes volumes for the node.
pub(super) fn can_be_made(claim: &PersistentVolumeClaim, nodes: &NodeTable, node: NodeIndex) -> Making {
    let objects = &nodes.objects.volumes;
    let Some(class) = objects.class(class_of_claim(claim)) else { return Making::Impossible };
    if class.provisioner.is_empty() || class.provisioner == BY_HAND || !is_allowed(class, nodes, node) {
        return Making::Impossible;
    }
    let driver = objects.driver(&class.provisioner).map(|d| &d.spec);
    if driver.is_none_or(|d| d.storage_capacity != Some(true)) {
        return Making::Possible;
    }
    let of_class =
        |c: &&Arc<CSIStorageCapacity>| Some(c.storage_class_name.as_str()) == class.metadata.name.as_deref();
    let enough = objects.capacities().filter(of_class).any(|c| has_room(c, claim, nodes, node));
    if enough { Making::Possible } else { Making::NoSpace }
}

/// How much a node's storage has left for a claim's class, in bytes, where the driver tells it.
pub(super) fn capacity_for(claim: &PersistentVolumeClaim, nodes: &NodeTable, node: NodeIndex) -> Option<i64> {
    let name = class_of_claim(claim);
    let mut fitting = nodes.objects.volumes.capacities().filter(|c| c.storage_class_name == name);
    let found = fitting.find(|c| has_room(c, claim, nodes, node))?;
    found.capacity.as_ref().map(whole)
}

/// Whether the class may make volumes for the node's topology.
fn is_allowed(class: &StorageClass, nodes: &NodeTable, node: NodeIndex) -> bool {
    let Some(terms) = class.allowed_topologies.as_ref().filter(|t| !t.is_empty()) else { return true };
    let symbols = nodes.symbols();
    let label = |key: &str| {
        let value = symbols.get(key).and_then(|key| nodes.label(node, key));
        value.map(|v| symbols.text(v).as_str())
    };
    terms.iter().any(|term| {
        let expressions = term.match_label_expressions.iter().flatten();
        expressions.into_iter().all(|e| label(&e.key).is_some_and(|v| e.values.iter().any(|w| w == v)))
    })
}

fn has_room(
    capacity: &CSIStorageCapacity,
    claim: &PersistentVolumeClaim,
    nodes: &NodeTable,
    node: NodeIndex,
) -> bool {
    let symbols = nodes.symbols();
    let labels: BTreeMap<String, String> = nodes
        .labels(node)
        .iter()
        .map(|(k, v)| (symbols.text(*k).to_string(), symbols.text(*v).to_string()))
        .collect();
    let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
    limit.is_some_and(|l| whole(l) >= claimed(claim))
        && capacity.node_topology.as_ref().is_some_and(|s| selects(s, Some(&labels)))
}
