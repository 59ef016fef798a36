//! The binding seen from a volume: which phase it is in, and what becomes of it when its claim is gone.

use super::matching::Wish;
use super::objects::{self, *};
use super::writes::{set_phase, unbind};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, Reconciler};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn controller() -> Controller {
    Controller::for_kind::<PersistentVolume>("persistentvolume-phases")
        .reports_as("persistentvolume-controller")
        .watches::<PersistentVolumeClaim>(|claim, cx| {
            let named = match volume_name(claim) {
                "" => None,
                name => Some(ObjectKey::new("", name)),
            };
            let of = volumes_of(cx, &ObjectKey::of(claim));
            of.iter().map(|v| ObjectKey::of(&**v)).chain(named).collect()
        })
        .concurrency(8)
        .with(Volumes)
}

struct Volumes;

impl Reconciler<PersistentVolume> for Volumes {
    type Error = ApiError;

    async fn reconcile(&self, volume: Arc<PersistentVolume>, cx: &Context) -> Result<Action, ApiError> {
        match sync(&volume, cx).await {
            Err(e) if e.is_not_found() => Ok(Action::Done),
            Err(e) if e.is_conflict() => Ok(Action::RequeueAfter(Duration::from_millis(50))),
            other => other.map(|()| Action::Done),
        }
    }
}

/// The claim that a volume is bound to, asked of the server where the informer does not know it: a volume must not be given up because an
/// informer lags.
async fn claim_of(
    volume: &PersistentVolume,
    cx: &Context,
) -> Result<Option<Arc<PersistentVolumeClaim>>, ApiError> {
    let Some(reference) = claim_ref(volume) else { return Ok(None) };
    let key = claim_key(reference);
    let ours = |c: &Arc<PersistentVolumeClaim>| c.uid() == claim_uid(reference);
    if let Some(claim) = objects::claims(cx).get_key(&key).filter(ours) {
        return Ok(Some(claim));
    }
    let claim = cx.api::<PersistentVolumeClaim>(&key.namespace).get_opt(&key.name).await?;
    Ok(claim.filter(ours))
}

async fn sync(volume: &PersistentVolume, cx: &Context) -> Result<(), ApiError> {
    // Unused, or set aside for a claim that is not bound to it yet.
    if claim_ref(volume).is_none_or(|r| claim_uid(r).is_empty()) {
        return set_phase(cx, volume, "Available", "").await.map(drop);
    }
    let Some(claim) = claim_of(volume, cx).await? else {
        return release(volume, cx).await;
    };
    match volume_name(&claim) {
        "" => {
            tell_of_modes(volume, &claim, cx);
            Ok(())
        }
        name if name == volume.name() => set_phase(cx, volume, "Bound", "").await.map(drop),
        // The claim has another volume. One that was made for it is needed no longer; any other is free again.
        _ if annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == "Delete" => {
            release(volume, cx).await
        }
        _ => unbind(cx, volume).await,
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn tell_of_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim, cx: &Context) {
    if !Wish::of(claim).is_other_mode(volume) {
        return;
    }
    let note = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
        claim.name()
    );
    cx.events().event(volume, EventType::Warning, "VolumeMismatch", "VolumeMismatch", &note);
    let note = format!(
        "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
        volume.name()
    );
    cx.events().event(claim, EventType::Warning, "VolumeMismatch", "VolumeMismatch", &note);
}

/// The claim is gone: the volume is released, and its reclaim policy takes its course.
async fn release(volume: &PersistentVolume, cx: &Context) -> Result<(), ApiError> {
    if phase_of(volume) == "Failed" {
        return Ok(());
    }
    // The change of phase brings the pass that reclaims.
    if set_phase(cx, volume, "Released", "").await? {
        return Ok(());
    }
    match policy(volume) {
        "Retain" => Ok(()),
        "Delete" if is_deleted_elsewhere(volume) => Ok(()),
        "Delete" => {
            let name = volume.name();
            let note = format!(
                "error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"
            );
            fail(volume, "VolumeFailedDelete", &note, cx).await
        }
        "Recycle" => {
            fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!", cx).await
        }
        _ => {
            let note = "Volume has an unrecognized PersistentVolumeReclaimPolicy";
            fail(volume, "VolumeUnknownReclaimPolicy", note, cx).await
        }
    }
}

/// Whether the provisioner that made the volume deletes it.
fn is_deleted_elsewhere(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|by| !by.starts_with("kubernetes.io/"))
}

async fn fail(volume: &PersistentVolume, reason: &str, note: &str, cx: &Context) -> Result<(), ApiError> {
    if set_phase(cx, volume, "Failed", note).await? {
        cx.events().event(volume, EventType::Warning, reason, reason, note);
    }
    Ok(())
}
