//! Volumes as placement sees them: what a pod mounts, and the claims, volumes, classes and drivers of the cluster.

use crate::cluster::ClusterObject;
use crate::intern::Interner;
use k8s_openapi::api::core::v1::{Pod, Volume};
use smol_str::SmolStr;

/// A disk that a pod names by itself, by the types whose sharing upstream restricts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Disk {
    /// A Google disk: shared by readers.
    Gce(SmolStr),
    /// An Amazon disk: never shared.
    Aws(SmolStr),
    /// A Ceph image: monitors, pool and image; shared by readers.
    Rbd(Vec<SmolStr>, SmolStr, SmolStr),
    /// An iSCSI target: shared by readers.
    Iscsi(SmolStr),
}

/// A volume of a pod that matters to placement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PodVolume {
    /// A claim of the pod's namespace.
    Claim {
        /// Its name.
        name: SmolStr,
        /// Whether it is made for the pod and must be owned by it.
        ephemeral: bool,
    },
    /// A disk without a claim.
    Disk {
        /// Which.
        disk: Disk,
        /// Whether the pod only reads.
        read_only: bool,
    },
}

/// Whether a volume matters to placement.
pub(crate) fn matters(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// The volumes of a pod that matter.
pub(crate) fn compile(pod: &Pod, _: &mut Interner) -> Vec<PodVolume> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| read(pod, v)).collect()
}

fn read(pod: &Pod, volume: &Volume) -> Option<PodVolume> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(PodVolume::Claim { name: claim.claim_name.as_str().into(), ephemeral: false });
    }
    if volume.ephemeral.is_some() {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        return Some(PodVolume::Claim { name: format!("{name}-{}", volume.name).into(), ephemeral: true });
    }
    let (disk, read_only) = if let Some(d) = &volume.gce_persistent_disk {
        (Disk::Gce(d.pd_name.as_str().into()), d.read_only)
    } else if let Some(d) = &volume.aws_elastic_block_store {
        (Disk::Aws(d.volume_id.as_str().into()), d.read_only)
    } else if let Some(d) = &volume.rbd {
        let monitors = d.monitors.iter().map(SmolStr::new).collect();
        let pool = d.pool.as_deref().unwrap_or("rbd");
        (Disk::Rbd(monitors, pool.into(), d.image.as_str().into()), d.read_only)
    } else {
        let d = volume.iscsi.as_ref()?;
        (Disk::Iscsi(d.iqn.as_str().into()), d.read_only)
    };
    Some(PodVolume::Disk { disk, read_only: read_only.unwrap_or(false) })
}

/// The cluster's volumes.
#[derive(Debug, Default)]
pub struct VolumeObjects {}

impl VolumeObjects {
    pub(crate) fn apply(&mut self, _: &ClusterObject, _: &mut Interner) -> bool {
        false
    }

    pub(crate) fn remove(&mut self, _: &ClusterObject) -> bool {
        false
    }
}
