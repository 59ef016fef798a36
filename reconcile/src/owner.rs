//! Owner references: who an object belongs to.

use crate::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kubewright_core::{ObjectMeta, Resource};

/// The reference that marks `owner` as the controller of an object, and holds up its foreground deletion.
pub fn controller_ref<K: Resource>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference of an object's controller, if it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|r| r.controller == Some(true))
}

/// Whether `owner` controls the object with this metadata.
pub fn is_controlled_by<K: Resource>(meta: &ObjectMeta, owner: &K) -> bool {
    controller_of(meta).is_some_and(|r| r.uid == owner.uid())
}

/// The key of the `K` that controls a child, judged by group and kind; `None` where something else does, or nothing.
pub fn controller_key<K: Resource, C: Resource>(child: &C) -> Option<ObjectKey> {
    let reference = controller_of(child.metadata()).filter(|r| r.kind == K::KIND)?;
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    (group == K::GROUP).then(|| ObjectKey::new(child.namespace().unwrap_or(""), &reference.name))
}
