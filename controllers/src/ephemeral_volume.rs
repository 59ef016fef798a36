//! Generic ephemeral volumes: a pod's volume with a claim template gets a claim that lives and dies with the pod.

use crate::pods;
use crate::refusal::in_ending_namespace;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, owner};
use std::sync::Arc;

/// The name of the claim of a pod's ephemeral volume.
pub(crate) fn claim_name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.metadata.name.as_deref().unwrap_or(""))
}

/// The controller of generic ephemeral volumes.
pub fn controller() -> Controller {
    Controller::for_kind::<Pod>("ephemeral-volume")
        .filter(|pod: &Pod| ephemeral(pod).next().is_some())
        // A claim that went is made anew while its pod lives.
        .watches::<PersistentVolumeClaim>(|claim, _| {
            owner::controller_key::<Pod, _>(claim).into_iter().collect::<Vec<ObjectKey>>()
        })
        .with(|pod: Arc<Pod>, cx: Context| async move { ensure(&pod, &cx).await })
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.ephemeral.is_some())
}

async fn ensure(pod: &Pod, cx: &Context) -> Result<Action, ApiError> {
    if pods::is_terminating(pod) || pods::is_terminal(pod) {
        return Ok(Action::Done);
    }
    let namespace = pod.namespace().unwrap_or("");
    let known = cx.informers().of::<PersistentVolumeClaim>();
    for volume in ephemeral(pod) {
        let name = claim_name(pod, &volume.name);
        if let Some(claim) = known.get(namespace, &name) {
            if !owner::is_controlled_by(&claim.metadata, pod) {
                return foreign(pod, namespace, &name, cx);
            }
            continue;
        }
        match cx.api::<PersistentVolumeClaim>(namespace).create(&claim(pod, volume, name)).await {
            Err(e) if in_ending_namespace(&e) => return Ok(Action::Done),
            Err(e) if e.is_already_exists() => return Err(e),
            Err(e) => {
                let note = format!("ephemeral volume {}: create PVC: {e}", volume.name);
                cx.events().event(
                    pod,
                    EventType::Warning,
                    "EphemeralVolumeCreationFailed",
                    "Creating",
                    &note,
                );
                return Err(e);
            }
            Ok(_) => {}
        }
    }
    Ok(Action::Done)
}

/// The name is taken by a claim of somebody else: the pod must not use it.
fn foreign(pod: &Pod, namespace: &str, name: &str, cx: &Context) -> Result<Action, ApiError> {
    let note = format!(
        "PVC \"{namespace}/{name}\" was not created for pod \"{namespace}/{}\" (pod is not owner)",
        pod.name()
    );
    cx.events().event(pod, EventType::Warning, "EphemeralVolumeCreationFailed", "Creating", &note);
    Ok(Action::RequeueAfter(std::time::Duration::from_secs(60)))
}

fn claim(pod: &Pod, volume: &Volume, name: String) -> PersistentVolumeClaim {
    let template =
        volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![owner::controller_ref(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    }
}
