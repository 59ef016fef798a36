//! Volumes as placement sees them: what a pod mounts, and the claims, volumes, classes and drivers of the cluster.

use crate::cluster::ClusterObject;
use crate::pod::PodKey;
use crate::resources::whole;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

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
    /// An Azure disk: its sharing is not restricted, it only counts.
    Azure(SmolStr),
    /// A Cinder volume: likewise.
    Cinder(SmolStr),
}

impl Disk {
    /// The CSI driver that looks after such disks today, with the disk's handle there.
    pub(crate) fn migrated(&self) -> Option<(&'static str, SmolStr)> {
        match self {
            Disk::Gce(name) => Some((GCE, name.clone())),
            Disk::Aws(id) => Some((AWS, aws_handle(id))),
            Disk::Azure(uri) => Some((AZURE, uri.clone())),
            Disk::Cinder(id) => Some((CINDER, id.clone())),
            Disk::Rbd(..) | Disk::Iscsi(_) => None,
        }
    }
}

const AWS: &str = "ebs.csi.aws.com";
const GCE: &str = "pd.csi.storage.gke.io";
const AZURE: &str = "disk.csi.azure.com";
const CINDER: &str = "cinder.csi.openstack.org";

/// `aws://ZONE/vol-1` and `vol-1` are the same.
fn aws_handle(id: &str) -> SmolStr {
    id.rsplit('/').next().unwrap_or(id).into()
}

/// The driver of a volume with its handle there; of volumes of the types that became drivers of their own, theirs.
pub(crate) fn driver_of(volume: &PersistentVolume) -> Option<(SmolStr, SmolStr)> {
    let spec = volume.spec.as_ref()?;
    if let Some(csi) = &spec.csi {
        return Some((csi.driver.as_str().into(), csi.volume_handle.as_str().into()));
    }
    let (driver, handle) = if let Some(d) = &spec.aws_elastic_block_store {
        (AWS, aws_handle(&d.volume_id))
    } else if let Some(d) = &spec.gce_persistent_disk {
        (GCE, d.pd_name.as_str().into())
    } else if let Some(d) = &spec.azure_disk {
        (AZURE, d.disk_uri.as_str().into())
    } else {
        (CINDER, spec.cinder.as_ref()?.volume_id.as_str().into())
    };
    Some((SmolStr::new_static(driver), handle))
}

/// The driver that a provisioner's volumes are of.
pub(crate) fn driver_of_provisioner(provisioner: &str) -> &str {
    match provisioner {
        "kubernetes.io/aws-ebs" => AWS,
        "kubernetes.io/gce-pd" => GCE,
        "kubernetes.io/azure-disk" => AZURE,
        "kubernetes.io/cinder" => CINDER,
        other => other,
    }
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
        || volume.azure_disk.is_some()
        || volume.cinder.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// The volumes of a pod that matter.
pub(crate) fn compile(pod: &Pod) -> Vec<PodVolume> {
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
    } else if let Some(d) = &volume.azure_disk {
        (Disk::Azure(d.disk_uri.as_str().into()), d.read_only)
    } else if let Some(d) = &volume.cinder {
        (Disk::Cinder(d.volume_id.as_str().into()), d.read_only)
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

/// The cluster's volumes and what belongs to them.
#[derive(Debug, Default)]
pub struct VolumeObjects {
    claims: FxHashMap<PodKey, Arc<PersistentVolumeClaim>>,
    volumes: FxHashMap<SmolStr, Arc<PersistentVolume>>,
    /// Volumes that no claim has, by class and size, the smallest first: a claim takes the smallest that will do.
    by_size: FxHashMap<SmolStr, BTreeSet<(i64, SmolStr)>>,
    /// The others, by the claim that has them or that they are set aside for.
    by_claim: FxHashMap<PodKey, BTreeSet<SmolStr>>,
    classes: FxHashMap<SmolStr, Arc<StorageClass>>,
    nodes: FxHashMap<SmolStr, Arc<CSINode>>,
    drivers: FxHashMap<SmolStr, Arc<CSIDriver>>,
    capacities: FxHashMap<PodKey, Arc<CSIStorageCapacity>>,
    /// How many placed pods use each claim.
    users: FxHashMap<PodKey, u32>,
}

impl VolumeObjects {
    /// A claim.
    pub fn claim(&self, key: &PodKey) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(key)
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    /// The volumes that say that they are a claim's, or set aside for one of its name.
    pub fn volumes_for(&self, claim: &PodKey) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.by_claim.get(claim).into_iter().flatten().filter_map(|name| self.volumes.get(name))
    }

    /// The volumes of a class that no claim has, the smallest first; the class of those without one is empty.
    pub fn free_volumes_of(&self, class: &str) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        let names = self.by_size.get(class).into_iter().flatten();
        names.filter_map(|(_, name)| self.volumes.get(name))
    }

    /// A storage class.
    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    /// What drivers say of a node.
    pub fn csi_node(&self, node: &str) -> Option<&Arc<CSINode>> {
        self.nodes.get(node)
    }

    /// A driver.
    pub fn driver(&self, name: &str) -> Option<&Arc<CSIDriver>> {
        self.drivers.get(name)
    }

    /// What is left of the drivers' capacities.
    pub fn capacities(&self) -> impl Iterator<Item = &Arc<CSIStorageCapacity>> {
        self.capacities.values()
    }

    /// How many placed pods use a claim.
    pub fn users(&self, claim: &PodKey) -> u32 {
        self.users.get(claim).copied().unwrap_or(0)
    }

    /// Counts a placed pod's claims in or out.
    pub(crate) fn count_user(&mut self, namespace: &str, volumes: &[PodVolume], sign: i32) {
        for volume in volumes {
            if let PodVolume::Claim { name, .. } = volume {
                let key = PodKey::new(namespace, name);
                let users = self.users.entry(key.clone()).or_default();
                *users = users.saturating_add_signed(sign);
                if *users == 0 {
                    self.users.remove(&key);
                }
            }
        }
    }

    pub(crate) fn apply(&mut self, object: &ClusterObject) -> bool {
        let key = object.key();
        match object {
            ClusterObject::PersistentVolumeClaim(o) => set(&mut self.claims, key, o),
            ClusterObject::PersistentVolume(o) => {
                self.forget_size(&key.name);
                match claim_of(o) {
                    Some(claim) => self.by_claim.entry(claim).or_default().insert(key.name.clone()),
                    None => {
                        let of_class = self.by_size.entry(class_of_volume(o).into()).or_default();
                        of_class.insert((capacity(o), key.name.clone()))
                    }
                };
                set(&mut self.volumes, key.name, o)
            }
            ClusterObject::StorageClass(o) => set(&mut self.classes, key.name, o),
            ClusterObject::CsiNode(o) => set(&mut self.nodes, key.name, o),
            ClusterObject::CsiDriver(o) => set(&mut self.drivers, key.name, o),
            ClusterObject::CsiStorageCapacity(o) => set(&mut self.capacities, key, o),
            _ => false,
        }
    }

    pub(crate) fn remove(&mut self, object: &ClusterObject) -> bool {
        let key = object.key();
        match object {
            ClusterObject::PersistentVolumeClaim(_) => self.claims.remove(&key).is_some(),
            ClusterObject::PersistentVolume(_) => {
                self.forget_size(&key.name);
                self.volumes.remove(&key.name).is_some()
            }
            ClusterObject::StorageClass(_) => self.classes.remove(&key.name).is_some(),
            ClusterObject::CsiNode(_) => self.nodes.remove(&key.name).is_some(),
            ClusterObject::CsiDriver(_) => self.drivers.remove(&key.name).is_some(),
            ClusterObject::CsiStorageCapacity(_) => self.capacities.remove(&key).is_some(),
            _ => false,
        }
    }

    fn forget_size(&mut self, name: &SmolStr) {
        let Some(known) = self.volumes.get(name) else { return };
        match claim_of(known) {
            None => {
                if let Some(list) = self.by_size.get_mut(class_of_volume(known)) {
                    list.remove(&(capacity(known), name.clone()));
                }
            }
            Some(claim) => {
                if let Some(list) = self.by_claim.get_mut(&claim) {
                    list.remove(name);
                    if list.is_empty() {
                        self.by_claim.remove(&claim);
                    }
                }
            }
        }
    }
}

/// The claim that a volume names.
fn claim_of(volume: &PersistentVolume) -> Option<PodKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let text = |field: &Option<String>| field.as_deref().unwrap_or("").to_owned();
    Some(PodKey::new(&text(&reference.namespace), &text(&reference.name)))
}

/// Puts an object in; whether it is new or another than before.
fn set<K: Eq + Hash, T: PartialEq>(map: &mut FxHashMap<K, Arc<T>>, key: K, object: &Arc<T>) -> bool {
    let before = map.insert(key, object.clone());
    before.is_none_or(|b| b != *object)
}

/// The class of a volume; empty where it has none.
pub(crate) fn class_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).unwrap_or("")
}

/// The class of a claim; empty where it has none. The annotation of old stands before the field.
pub(crate) fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    const OLD: &str = "volume.beta.kubernetes.io/storage-class";
    let old = claim.metadata.annotations.as_ref().and_then(|a| a.get(OLD));
    let field = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    old.map(String::as_str).or(field).unwrap_or("")
}

/// The capacity of a volume in bytes.
pub(crate) fn capacity(volume: &PersistentVolume) -> i64 {
    let list = volume.spec.as_ref().and_then(|s| s.capacity.as_ref());
    list.and_then(|l| l.get("storage")).map_or(0, whole)
}

/// What a claim asks for in bytes.
pub(crate) fn claimed(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let list = resources.and_then(|r| r.requests.as_ref());
    list.and_then(|l| l.get("storage")).map_or(0, whole)
}
