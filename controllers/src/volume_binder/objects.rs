//! What claims and volumes say of themselves, and the indexes by which each finds the other.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kubewright_core::{ObjectMeta, Resource};
use kubewright_reconcile::{Context, Informer, ObjectKey};
use smol_str::{SmolStr, format_smolstr};
use std::sync::Arc;

/// On claims: both sides of the binding were made once.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On claims and volumes: not the user set the reference.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On volumes: who made it.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On claims: the node that the scheduler chose for the first pod.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Unclaimed volumes by class.
pub(super) const FREE: &str = "volume-binder.free";
/// Volumes by the claim that they name.
pub(super) const OF_CLAIM: &str = "volume-binder.of-claim";
/// Claims without a volume by class.
pub(super) const PENDING: &str = "volume-binder.pending";
/// Claims by the volume that they name.
pub(super) const OF_VOLUME: &str = "volume-binder.of-volume";
/// Pods without a node by their claims.
const WAITING: &str = "volume-binder.waiting";

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let field = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    annotation(&claim.metadata, OLD_CLASS).or(field).unwrap_or("")
}

/// Whether a claim leaves its class to the cluster.
pub(super) fn has_no_class(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, OLD_CLASS).is_none()
        && claim.spec.as_ref().is_some_and(|s| s.storage_class_name.is_none())
}

pub(super) fn volume_class(volume: &PersistentVolume) -> &str {
    let field = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    annotation(&volume.metadata, OLD_CLASS).or(field).unwrap_or("")
}

/// The volume that a claim names; empty where it names none.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("")
}

pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

pub(super) fn claim_key(reference: &ObjectReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(""), reference.name.as_deref().unwrap_or(""))
}

/// The uid of the claim that a volume names; empty where the user set it aside for a name.
pub(super) fn claim_uid(reference: &ObjectReference) -> &str {
    reference.uid.as_deref().unwrap_or("")
}

/// Whether the volume is this claim's, or set aside for one of its name.
pub(super) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|r| {
        claim_key(r) == ObjectKey::of(claim) && (claim_uid(r).is_empty() || claim_uid(r) == claim.uid())
    })
}

pub(super) fn is_by_controller(meta: &ObjectMeta) -> bool {
    annotation(meta, BOUND_BY_CONTROLLER).is_some()
}

pub(super) fn phase_of(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn index_of_key(key: &ObjectKey) -> SmolStr {
    format_smolstr!("{}/{}", key.namespace, key.name)
}

/// The volumes, indexed.
pub(super) fn volumes(cx: &Context) -> Informer<PersistentVolume> {
    let informer = cx.informers().of::<PersistentVolume>();
    informer.add_index(FREE, |v: &PersistentVolume| match claim_ref(v) {
        Some(_) => Vec::new(),
        None => vec![volume_class(v).into()],
    });
    informer.add_index(OF_CLAIM, |v: &PersistentVolume| {
        claim_ref(v).map(|r| index_of_key(&claim_key(r))).into_iter().collect()
    });
    informer
}

/// The claims, indexed.
pub(super) fn claims(cx: &Context) -> Informer<PersistentVolumeClaim> {
    let informer = cx.informers().of::<PersistentVolumeClaim>();
    informer.add_index(PENDING, |c: &PersistentVolumeClaim| {
        let bound = !volume_name(c).is_empty() || annotation(&c.metadata, BIND_COMPLETED).is_some();
        if bound { Vec::new() } else { vec![claim_class(c).into()] }
    });
    informer.add_index(OF_VOLUME, |c: &PersistentVolumeClaim| match volume_name(c) {
        "" => Vec::new(),
        name => vec![name.into()],
    });
    informer
}

/// The volumes that name a claim.
pub(super) fn volumes_of(cx: &Context, claim: &ObjectKey) -> Vec<Arc<PersistentVolume>> {
    volumes(cx).by_index(OF_CLAIM, &index_of_key(claim))
}

/// A pod that waits for a node and uses the claim.
pub(super) fn waiting_pod(cx: &Context, claim: &ObjectKey) -> Option<Arc<Pod>> {
    let pods = cx.informers().of::<Pod>();
    pods.add_index(WAITING, |p: &Pod| {
        let Some(spec) = p.spec.as_ref().filter(|s| s.node_name.is_none()) else { return Vec::new() };
        let namespace = p.metadata.namespace.as_deref().unwrap_or("");
        let of_pod = |v: &k8s_openapi::api::core::v1::Volume| {
            let ephemeral = || v.ephemeral.as_ref().map(|_| crate::ephemeral_volume::claim_name(p, &v.name));
            let named = v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
            named.or_else(ephemeral).map(|name| index_of_key(&ObjectKey::new(namespace, &name)))
        };
        spec.volumes.iter().flatten().filter_map(of_pod).collect()
    });
    pods.by_index(WAITING, &index_of_key(claim)).into_iter().min_by(|a, b| a.name().cmp(b.name()))
}

/// The class that claims without one get: the youngest of those marked as default.
pub(super) fn default_class(cx: &Context) -> Option<Arc<StorageClass>> {
    let all = cx.informers().of::<StorageClass>().list();
    let marked =
        |c: &Arc<StorageClass>| DEFAULT_CLASS.iter().any(|a| annotation(&c.metadata, a) == Some("true"));
    let mut marked: Vec<_> = all.into_iter().filter(marked).collect();
    marked.sort_by(|a, b| {
        let created = |c: &StorageClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
        created(b).cmp(&created(a)).then_with(|| a.name().cmp(b.name()))
    });
    marked.into_iter().next()
}

/// Whether a claim's volume is chosen together with the node of its first pod.
pub(super) fn waits_for_consumer(cx: &Context, claim: &PersistentVolumeClaim) -> bool {
    let class = cx.informers().of::<StorageClass>().get("", claim_class(claim));
    class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}
