//! VolumeRestrictions: disks that can't be shared, and claims that only one pod may use.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Locality, Plugin, Points, PreFilter, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::volumes::{Disk, PodVolume};

const DISK_CONFLICT: &str = "node(s) had no available disk";
const CLAIM_IN_USE: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// Filters by disks and claims in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeRestrictions;

/// The claims of a pod that only one pod may use.
#[derive(Debug, Default)]
struct Exclusive(Vec<PodKey>);

fn exclusive(pod: &PodInfo, nodes: &NodeTable) -> Exclusive {
    let claims = pod.class.volumes().iter().filter_map(|v| match v {
        PodVolume::Claim { name, .. } => Some(PodKey::new(&pod.key.namespace, name)),
        PodVolume::Disk { .. } => None,
    });
    let once = claims.filter(|key| {
        let claim = nodes.objects.volumes.claim(key);
        let modes = claim.and_then(|c| c.spec.as_ref()).and_then(|s| s.access_modes.as_ref());
        modes.is_some_and(|m| m.iter().any(|mode| mode == "ReadWriteOncePod"))
    });
    Exclusive(once.collect())
}

fn disks(volumes: &[PodVolume]) -> impl Iterator<Item = (&Disk, bool)> {
    volumes.iter().filter_map(|v| match v {
        PodVolume::Disk { disk: Disk::Azure(_) | Disk::Cinder(_), .. } | PodVolume::Claim { .. } => None,
        PodVolume::Disk { disk, read_only } => Some((disk, *read_only)),
    })
}

/// Whether two pods of one node can't have both disks.
fn collide((a, a_reads): (&Disk, bool), (b, b_reads): (&Disk, bool)) -> bool {
    match (a, b) {
        (Disk::Aws(a), Disk::Aws(b)) => a == b,
        (Disk::Rbd(monitors, pool, image), Disk::Rbd(others, other_pool, other_image)) => {
            pool == other_pool
                && image == other_image
                && monitors.iter().any(|m| others.contains(m))
                && !(a_reads && b_reads)
        }
        (a, b) => a == b && !(a_reads && b_reads),
    }
}

fn is_taken(pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) -> bool {
    disks(pod.class.volumes()).any(|mine| {
        nodes.groups_on(node).iter().any(|g| disks(g.class.volumes()).any(|theirs| collide(mine, theirs)))
    })
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER
    }

    /// A claim in use keeps the pod from every node.
    fn locality(&self) -> Locality {
        Locality::Domain
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        let exclusive = exclusive(cx.pod, cx.nodes);
        if exclusive.0.is_empty() && disks(cx.pod.class.volumes()).next().is_none() {
            return PreFilter::Skip;
        }
        PreFilter::Continue(Some(Box::new(exclusive)))
    }

    fn cell(&self, cx: CycleContext<'_>, node: NodeIndex, key: &mut Vec<u64>) {
        if cx.state::<Exclusive>().is_some() {
            key.push(u64::from(is_taken(cx.pod, cx.nodes, node)));
        }
    }

    fn watches(&self, pod: &PodInfo) -> Watched {
        if pod.class.volumes().is_empty() { Watched::NOTHING } else { Watched::VOLUMES }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        if is_taken(cx.pod, cx.nodes, node) {
            return Err(Refusal::new(DISK_CONFLICT));
        }
        let claims = cx.state::<Exclusive>().map_or(&[][..], |e| &e.0);
        if claims.iter().any(|claim| cx.nodes.objects.volumes.users(claim) > 0) {
            return Err(Refusal::new(CLAIM_IN_USE));
        }
        Ok(())
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        let helps = match event {
            ClusterEvent::PodGone(other, _) => !other.class.volumes().is_empty(),
            ClusterEvent::Node(_, change) => change.added,
            ClusterEvent::Other(kind) => kind == "persistentvolumeclaims" && !pod.class.volumes().is_empty(),
            ClusterEvent::PodChanged => true,
            ClusterEvent::NodeDeleted(_) | ClusterEvent::PodPlaced(_) => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
