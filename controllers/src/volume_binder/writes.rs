//! What the binder writes: both sides of a binding, its undoing, and phases. Nothing is sent where nothing would change.

use super::objects::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, annotation, claim_key, claim_ref, is_by_controller, is_for,
    phase_of, volume_name,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus};
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Context, ObjectKey};
use serde_json::{Value, json};
use std::sync::Arc;

/// Binds a volume and a claim to each other, from wherever an earlier pass came to a halt.
///
/// # Errors
/// The server's; 409 where one of both changed meanwhile.
pub(super) async fn bind(
    cx: &Context,
    volume: &Arc<PersistentVolume>,
    claim: &Arc<PersistentVolumeClaim>,
) -> Result<(), ApiError> {
    let volume = bind_volume(cx, volume, claim).await?;
    set_phase(cx, &volume, "Bound", "").await?;
    let claim = bind_claim(cx, claim, &volume).await?;
    set_claim_status(cx, &claim, "Bound", Some(&volume)).await.map(drop)
}

async fn bind_volume(
    cx: &Context,
    volume: &Arc<PersistentVolume>,
    claim: &PersistentVolumeClaim,
) -> Result<Arc<PersistentVolume>, ApiError> {
    let same = |r: &k8s_openapi::api::core::v1::ObjectReference| {
        claim_key(r) == ObjectKey::of(claim) && r.uid.as_deref() == Some(claim.uid())
    };
    if claim_ref(volume).is_some_and(same) {
        return Ok(volume.clone());
    }
    let mut patch = json!({
        "metadata": {"resourceVersion": volume.metadata.resource_version},
        "spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        }},
    });
    if !is_for(volume, claim) {
        patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    cx.merge(&**volume, patch).await
}

async fn bind_claim(
    cx: &Context,
    claim: &Arc<PersistentVolumeClaim>,
    volume: &PersistentVolume,
) -> Result<Arc<PersistentVolumeClaim>, ApiError> {
    let named = volume_name(claim) == volume.name();
    if named && annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        return Ok(claim.clone());
    }
    let mut annotations = json!({BIND_COMPLETED: "yes"});
    if !named {
        annotations[BOUND_BY_CONTROLLER] = json!("yes");
    }
    let mut patch = json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version, "annotations": annotations},
    });
    if !named {
        patch["spec"] = json!({"volumeName": volume.name()});
    }
    cx.merge(&**claim, patch).await
}

/// Undoes the binding of a volume whose claim has another one; a volume that its user set aside stays set aside for the name.
///
/// # Errors
/// The server's; 409 where it changed meanwhile.
pub(super) async fn unbind(cx: &Context, volume: &PersistentVolume) -> Result<(), ApiError> {
    let version = &volume.metadata.resource_version;
    let patch = match is_by_controller(&volume.metadata) {
        true => json!({
            "metadata": {"resourceVersion": version, "annotations": {BOUND_BY_CONTROLLER: Value::Null}},
            "spec": {"claimRef": Value::Null},
        }),
        false => {
            json!({"metadata": {"resourceVersion": version}, "spec": {"claimRef": {"uid": Value::Null}}})
        }
    };
    let volume = cx.merge(volume, patch).await?;
    set_phase(cx, &volume, "Available", "").await.map(drop)
}

/// Writes a volume's phase; says whether it had to.
///
/// # Errors
/// The server's; 409 where the volume changed meanwhile.
pub(super) async fn set_phase(
    cx: &Context,
    volume: &PersistentVolume,
    phase: &str,
    message: &str,
) -> Result<bool, ApiError> {
    if phase_of(volume) == phase {
        return Ok(false);
    }
    let message = if message.is_empty() { Value::Null } else { json!(message) };
    let patch = json!({
        "metadata": {"uid": volume.uid(), "resourceVersion": volume.metadata.resource_version},
        "status": {"phase": phase, "message": message},
    });
    let api = cx.api::<PersistentVolume>("");
    api.patch_subresource(volume.name(), "status", kubewright_core::ContentType::MergePatch, patch).await?;
    Ok(true)
}

/// Writes a claim's phase, and its access modes and capacity as its volume has them; says whether it had to.
///
/// # Errors
/// The server's.
pub(super) async fn set_claim_status(
    cx: &Context,
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Result<bool, ApiError> {
    let old = claim.status.clone().unwrap_or_default();
    let spec = volume.and_then(|v| v.spec.as_ref());
    let mut new = PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        access_modes: spec.and_then(|s| s.access_modes.clone()),
        ..old.clone()
    };
    let was_bound = old.phase.as_deref() == Some("Bound");
    match spec {
        None => new.capacity = None,
        // The capacity of a bound claim is the resizer's.
        Some(spec) if !was_bound || old.capacity.is_none() => {
            new.capacity = spec.capacity.clone();
            new.current_volume_attributes_class_name = spec.volume_attributes_class_name.clone();
        }
        Some(_) => {}
    }
    cx.patch_status(claim, &old, &new).await
}
