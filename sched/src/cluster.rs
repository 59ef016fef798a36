//! Objects beyond nodes and pods, as facts for the scheduler.

use crate::events::ClusterEvent;
use crate::framework::TableChange;
use crate::objects::{Objects, Watched};
use crate::pod::PodKey;
use crate::scheduler::Scheduler;
use crate::trace::Fact;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// An object that some plugin looks at.
#[derive(Clone, Debug)]
pub enum ClusterObject {
    /// Its labels are matched by namespace selectors.
    Namespace(Arc<Namespace>),
    /// Its selector says which pods spread by default.
    Service(Arc<Service>),
    /// The same.
    ReplicationController(Arc<ReplicationController>),
    /// The same.
    ReplicaSet(Arc<ReplicaSet>),
    /// The same.
    StatefulSet(Arc<StatefulSet>),
    /// Preemption spares its pods.
    PodDisruptionBudget(Arc<PodDisruptionBudget>),
    /// Volumes of pods.
    PersistentVolumeClaim(Arc<PersistentVolumeClaim>),
    /// Volumes of the cluster.
    PersistentVolume(Arc<PersistentVolume>),
    /// How volumes are bound and made.
    StorageClass(Arc<StorageClass>),
    /// How many volumes of a driver a node takes.
    CsiNode(Arc<CSINode>),
    /// Whether a driver tells its capacity.
    CsiDriver(Arc<CSIDriver>),
    /// What is left of it.
    CsiStorageCapacity(Arc<CSIStorageCapacity>),
    /// What pods want and have of devices.
    ResourceClaim(Arc<ResourceClaim>),
    /// What kinds of devices there are.
    DeviceClass(Arc<DeviceClass>),
    /// Devices of nodes.
    ResourceSlice(Arc<ResourceSlice>),
}

impl ClusterObject {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            ClusterObject::Namespace(o) => &o.metadata,
            ClusterObject::Service(o) => &o.metadata,
            ClusterObject::ReplicationController(o) => &o.metadata,
            ClusterObject::ReplicaSet(o) => &o.metadata,
            ClusterObject::StatefulSet(o) => &o.metadata,
            ClusterObject::PodDisruptionBudget(o) => &o.metadata,
            ClusterObject::PersistentVolumeClaim(o) => &o.metadata,
            ClusterObject::PersistentVolume(o) => &o.metadata,
            ClusterObject::StorageClass(o) => &o.metadata,
            ClusterObject::CsiNode(o) => &o.metadata,
            ClusterObject::CsiDriver(o) => &o.metadata,
            ClusterObject::CsiStorageCapacity(o) => &o.metadata,
            ClusterObject::ResourceClaim(o) => &o.metadata,
            ClusterObject::DeviceClass(o) => &o.metadata,
            ClusterObject::ResourceSlice(o) => &o.metadata,
        }
    }

    /// Namespace and name; the namespace is empty where the kind has none.
    pub fn key(&self) -> PodKey {
        let meta = self.metadata();
        PodKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// The resource (`persistentvolumes` and the like), as hints get it.
    pub fn resource(&self) -> &'static str {
        match self {
            ClusterObject::Namespace(_) => "namespaces",
            ClusterObject::Service(_) => "services",
            ClusterObject::ReplicationController(_) => "replicationcontrollers",
            ClusterObject::ReplicaSet(_) => "replicasets",
            ClusterObject::StatefulSet(_) => "statefulsets",
            ClusterObject::PodDisruptionBudget(_) => "poddisruptionbudgets",
            ClusterObject::PersistentVolumeClaim(_) => "persistentvolumeclaims",
            ClusterObject::PersistentVolume(_) => "persistentvolumes",
            ClusterObject::StorageClass(_) => "storageclasses",
            ClusterObject::CsiNode(_) => "csinodes",
            ClusterObject::CsiDriver(_) => "csidrivers",
            ClusterObject::CsiStorageCapacity(_) => "csistoragecapacities",
            ClusterObject::ResourceClaim(_) => "resourceclaims",
            ClusterObject::DeviceClass(_) => "deviceclasses",
            ClusterObject::ResourceSlice(_) => "resourceslices",
        }
    }

    /// An object of a resource (`persistentvolumes` and the like); `None` for one that no plugin looks at.
    ///
    /// # Errors
    /// The object does not fit its type.
    pub fn from_value(resource: &str, object: &Value) -> Result<Option<Self>, serde_json::Error> {
        fn read<T: DeserializeOwned>(
            wrap: fn(Arc<T>) -> ClusterObject,
            object: &Value,
        ) -> Result<Option<ClusterObject>, serde_json::Error> {
            T::deserialize(object).map(|o| Some(wrap(Arc::new(o))))
        }
        match resource {
            "namespaces" => read(Self::Namespace, object),
            "services" => read(Self::Service, object),
            "replicationcontrollers" => read(Self::ReplicationController, object),
            "replicasets" => read(Self::ReplicaSet, object),
            "statefulsets" => read(Self::StatefulSet, object),
            "poddisruptionbudgets" => read(Self::PodDisruptionBudget, object),
            "persistentvolumeclaims" => read(Self::PersistentVolumeClaim, object),
            "persistentvolumes" => read(Self::PersistentVolume, object),
            "storageclasses" => read(Self::StorageClass, object),
            "csinodes" => read(Self::CsiNode, object),
            "csidrivers" => read(Self::CsiDriver, object),
            "csistoragecapacities" => read(Self::CsiStorageCapacity, object),
            "resourceclaims" => read(Self::ResourceClaim, object),
            "deviceclasses" => read(Self::DeviceClass, object),
            "resourceslices" => read(Self::ResourceSlice, object),
            _ => Ok(None),
        }
    }

    /// The object as JSON, for traces.
    pub fn to_value(&self) -> Value {
        let written = match self {
            ClusterObject::Namespace(o) => serde_json::to_value(o),
            ClusterObject::Service(o) => serde_json::to_value(o),
            ClusterObject::ReplicationController(o) => serde_json::to_value(o),
            ClusterObject::ReplicaSet(o) => serde_json::to_value(o),
            ClusterObject::StatefulSet(o) => serde_json::to_value(o),
            ClusterObject::PodDisruptionBudget(o) => serde_json::to_value(o),
            ClusterObject::PersistentVolumeClaim(o) => serde_json::to_value(o),
            ClusterObject::PersistentVolume(o) => serde_json::to_value(o),
            ClusterObject::StorageClass(o) => serde_json::to_value(o),
            ClusterObject::CsiNode(o) => serde_json::to_value(o),
            ClusterObject::CsiDriver(o) => serde_json::to_value(o),
            ClusterObject::CsiStorageCapacity(o) => serde_json::to_value(o),
            ClusterObject::ResourceClaim(o) => serde_json::to_value(o),
            ClusterObject::DeviceClass(o) => serde_json::to_value(o),
            ClusterObject::ResourceSlice(o) => serde_json::to_value(o),
        };
        written.unwrap_or_default()
    }

    /// The kind of a controller with its selector.
    fn controller(&self) -> Option<(&'static str, Option<LabelSelector>)> {
        match self {
            ClusterObject::ReplicaSet(o) => {
                Some(("apps/v1/ReplicaSet", o.spec.as_ref().map(|s| s.selector.clone())))
            }
            ClusterObject::StatefulSet(o) => {
                Some(("apps/v1/StatefulSet", o.spec.as_ref().map(|s| s.selector.clone())))
            }
            ClusterObject::ReplicationController(o) => {
                let labels = o.spec.as_ref().and_then(|s| s.selector.clone());
                let selector = labels.map(|match_labels| LabelSelector {
                    match_labels: Some(match_labels),
                    match_expressions: None,
                });
                Some(("v1/ReplicationController", selector))
            }
            _ => None,
        }
    }
}

impl Scheduler {
    /// An object came or changed.
    pub fn apply_object(&mut self, object: &ClusterObject, now: Timestamp) {
        self.record(now, || Fact::Object(object.resource().to_owned(), object.to_value()));
        let (objects, symbols) = self.nodes.objects_mut();
        let before = changes(objects);
        match object {
            ClusterObject::Namespace(o) => {
                objects.apply_namespace(o, symbols);
            }
            ClusterObject::Service(o) => objects.apply_service(o, symbols),
            ClusterObject::PodDisruptionBudget(o) => objects.apply_budget(o, symbols),
            ClusterObject::ReplicaSet(_)
            | ClusterObject::StatefulSet(_)
            | ClusterObject::ReplicationController(_) => {
                if let Some((kind, selector)) = object.controller() {
                    objects.set_controller(kind, &object.key(), selector.as_ref(), symbols);
                }
            }
            ClusterObject::ResourceClaim(_)
            | ClusterObject::DeviceClass(_)
            | ClusterObject::ResourceSlice(_) => {
                if objects.devices.apply(object) {
                    objects.changed(Watched::DEVICES);
                }
            }
            volume => {
                if objects.volumes.apply(volume) {
                    objects.changed(Watched::VOLUMES);
                }
            }
        }
        let changed = changes(objects) != before;
        self.observe(|p, nodes| p.observe(TableChange::Object(object), nodes));
        if changed {
            self.objects_changed = true;
            self.event(ClusterEvent::Other(object.resource().into()), now);
        }
    }

    /// An object went; only its kind and key are looked at.
    pub fn remove_object(&mut self, object: &ClusterObject, now: Timestamp) {
        self.record(now, || Fact::ObjectGone(object.resource().to_owned(), object.to_value()));
        let (objects, symbols) = self.nodes.objects_mut();
        let before = changes(objects);
        let key = object.key();
        match object {
            ClusterObject::Namespace(o) => {
                let mut bare = (**o).clone();
                bare.metadata.labels = None;
                objects.apply_namespace(&bare, symbols);
            }
            ClusterObject::Service(_) => objects.remove_service(&key, symbols),
            ClusterObject::PodDisruptionBudget(_) => objects.remove_budget(&key),
            ClusterObject::ReplicaSet(_)
            | ClusterObject::StatefulSet(_)
            | ClusterObject::ReplicationController(_) => {
                if let Some((kind, _)) = object.controller() {
                    objects.set_controller(kind, &key, None, symbols);
                }
            }
            ClusterObject::ResourceClaim(_)
            | ClusterObject::DeviceClass(_)
            | ClusterObject::ResourceSlice(_) => {
                if objects.devices.remove(object) {
                    objects.changed(Watched::DEVICES);
                }
            }
            volume => {
                if objects.volumes.remove(volume) {
                    objects.changed(Watched::VOLUMES);
                }
            }
        }
        let changed = changes(objects) != before;
        self.observe(|p, nodes| p.observe(TableChange::ObjectGone(object), nodes));
        if changed {
            self.objects_changed = true;
            self.event(ClusterEvent::Other(object.resource().into()), now);
        }
    }
}

fn changes(objects: &Objects) -> u64 {
    let all = Watched::NAMESPACES | Watched::SELECTORS | Watched::BUDGETS | Watched::VOLUMES;
    objects.changes(all | Watched::DEVICES)
}
