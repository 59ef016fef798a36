//! VolumeZone: a volume that is labelled with zones is reached from nodes of these zones only.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::volumes::{PodVolume, class_of_claim};

const CONFLICT: &str = "node(s) had no available volume zone";
/// The labels of old with the present ones.
const KEYS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// Filters by the zones of the pod's volumes.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeZone;

/// A label that a node must have with one of these values, or else the present name of the label.
#[derive(Debug)]
struct Zone {
    key: &'static str,
    present: &'static str,
    values: Vec<String>,
}

/// The zones of the bound volumes of a pod.
fn zones(pod: &PodInfo, nodes: &NodeTable) -> Result<Vec<Zone>, Refusal> {
    let objects = &nodes.objects.volumes;
    let mut zones = Vec::new();
    for volume in pod.class.volumes() {
        let PodVolume::Claim { name, ephemeral: false } = volume else { continue };
        let missing = |what: &str, name: &str| Refusal::unresolvable(format!("{what} \"{name}\" not found"));
        let claim = objects.claim(&PodKey::new(&pod.key.namespace, name));
        let claim = claim.ok_or_else(|| missing("persistentvolumeclaim", name))?;
        let bound = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty());
        let Some(bound) = bound else {
            let class = class_of_claim(claim);
            if class.is_empty() {
                return Err(Refusal::unresolvable(
                    "PersistentVolumeClaim had no pv name and storageClass name",
                ));
            }
            let found = objects.class(class).ok_or_else(|| missing("storageclass.storage.k8s.io", class))?;
            if found.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") {
                continue;
            }
            return Err(Refusal::unresolvable("PersistentVolume had no name"));
        };
        let volume = objects.volume(bound).ok_or_else(|| missing("persistentvolume", bound))?;
        for (key, present) in KEYS {
            if let Some(value) = volume.metadata.labels.as_ref().and_then(|l| l.get(key)) {
                zones.push(Zone { key, present, values: value.split("__").map(str::to_owned).collect() });
            }
        }
    }
    Ok(zones)
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        match zones(cx.pod, cx.nodes) {
            Err(refusal) => PreFilter::Refuse(refusal),
            Ok(zones) if zones.is_empty() => PreFilter::Skip,
            Ok(zones) => PreFilter::Continue(Some(Box::new(zones))),
        }
    }

    fn watches(&self, pod: &PodInfo) -> Watched {
        if pod.class.volumes().is_empty() { Watched::NOTHING } else { Watched::VOLUMES }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let symbols = cx.nodes.symbols();
        let label = |key: &str| {
            let value = symbols.get(key).and_then(|key| cx.nodes.label(node, key));
            value.map(|v| symbols.text(v))
        };
        // A cluster of one zone labels nothing.
        if KEYS.iter().all(|(key, _)| label(key).is_none()) {
            return Ok(());
        }
        let zones = cx.state::<Vec<Zone>>().map_or(&[][..], |z| z);
        let reached = |zone: &Zone| {
            let value = label(zone.key).or_else(|| label(zone.present));
            value.is_some_and(|v| zone.values.iter().any(|w| *w == v.as_str()))
        };
        if zones.iter().all(reached) { Ok(()) } else { Err(Refusal::unresolvable(CONFLICT)) }
    }

    fn hint(&self, _: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        let helps = match event {
            ClusterEvent::Node(_, change) => change.added || change.labels,
            ClusterEvent::Other(kind) => {
                ["persistentvolumeclaims", "persistentvolumes", "storageclasses"].contains(&kind.as_str())
            }
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
