//! NodeVolumeLimits: a node takes only so many volumes of a CSI driver.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::volumes::{PodVolume, class_of_claim, driver_of, driver_of_provisioner};
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::{SmolStr, format_smolstr};

const TOO_MANY: &str = "node(s) exceed max volume count";

/// Filters by the number of attached volumes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeVolumeLimits;

/// A driver's volumes by handle.
type Attached = FxHashMap<SmolStr, FxHashSet<SmolStr>>;

/// Adds the volumes of a pod: by the handle of the bound volume or of the disk that the pod names itself, or by the claim where the volume
/// is yet to be made.
fn attach(namespace: &str, volumes: &[PodVolume], nodes: &NodeTable, attached: &mut Attached) {
    let objects = &nodes.objects.volumes;
    for volume in volumes {
        let name = match volume {
            PodVolume::Claim { name, .. } => name,
            PodVolume::Disk { disk, .. } => {
                if let Some((driver, handle)) = disk.migrated() {
                    attached.entry(SmolStr::new_static(driver)).or_default().insert(handle);
                }
                continue;
            }
        };
        let Some(claim) = objects.claim(&PodKey::new(namespace, name)) else { continue };
        let bound = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty());
        let found = match bound {
            Some(volume) => objects.volume(volume).and_then(|v| driver_of(v)),
            None => objects.class(class_of_claim(claim)).map(|c| {
                (SmolStr::new(driver_of_provisioner(&c.provisioner)), format_smolstr!("{namespace}/{name}"))
            }),
        };
        if let Some((driver, handle)) = found {
            attached.entry(driver).or_default().insert(handle);
        }
    }
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        let mut wanted = Attached::default();
        attach(&cx.pod.key.namespace, cx.pod.class.volumes(), cx.nodes, &mut wanted);
        if wanted.is_empty() { PreFilter::Skip } else { PreFilter::Continue(Some(Box::new(wanted))) }
    }

    fn watches(&self, pod: &PodInfo) -> Watched {
        if pod.class.volumes().is_empty() { Watched::NOTHING } else { Watched::VOLUMES }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let Some(wanted) = cx.state::<Attached>() else { return Ok(()) };
        let Some(csi) = cx.nodes.objects.volumes.csi_node(cx.nodes.name(node)) else { return Ok(()) };
        let mut there = Attached::default();
        for pod in cx.nodes.pods_on(node).iter().filter(|p| !p.class.volumes().is_empty()) {
            attach(&pod.key.namespace, pod.class.volumes(), cx.nodes, &mut there);
        }
        for driver in &csi.spec.drivers {
            let limit = driver.allocatable.as_ref().and_then(|a| a.count);
            let (Some(limit), Some(new)) = (limit, wanted.get(driver.name.as_str())) else { continue };
            let attached = there.get(driver.name.as_str());
            let more = new.iter().filter(|handle| attached.is_none_or(|a| !a.contains(*handle))).count();
            let all = attached.map_or(0, FxHashSet::len) + more;
            if more > 0 && i64::try_from(all).unwrap_or(i64::MAX) > i64::from(limit) {
                return Err(Refusal::new(TOO_MANY));
            }
        }
        Ok(())
    }

    fn hint(&self, _: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        let helps = match event {
            ClusterEvent::PodGone(other, _) => !other.class.volumes().is_empty(),
            ClusterEvent::Node(_, change) => change.added,
            ClusterEvent::Other(kind) => kind == "csinodes" || kind == "persistentvolumeclaims",
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
