//! What the scheduler tells the API of its decisions: conditions, events, and the eviction of victims.

use super::pod_request;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use kubewright_core::{ApiError, ContentType, Reason, Verb};
use kubewright_reconcile::{Context, EventType};
use kubewright_sched::{Diagnosis, PodInfo, PodKey};
use serde_json::{Value, json};
use smol_str::SmolStr;

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace.to_string()),
        name: Some(pod.key.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// A pod was bound.
pub(super) fn scheduled(cx: &Context, pod: &PodInfo, node: &str) {
    tracing::debug!(pod = %pod.key, %node, "bound");
    let note = format!("Successfully assigned {} to {node}", pod.key);
    let events = cx.events().named(pod.scheduler_name());
    events.event_about(reference(pod), EventType::Normal, "Scheduled", "Binding", &note);
}

/// No node would do: writes why into the pod's status, where it does not stand there yet, and evicts what stands in its way. Whether
/// every victim is gone or going.
pub(super) async fn unschedulable(
    cx: &Context,
    pod: &PodInfo,
    diagnosis: &Diagnosis,
    nominated: Option<(SmolStr, Vec<PodKey>)>,
) -> bool {
    if nominated.is_none() && diagnosis.awaits_victims() {
        // Told when room was made.
        return true;
    }
    let message = diagnosis.to_string();
    let events = cx.events().named(pod.scheduler_name());
    let regarding = reference(pod);
    events.event_about(regarding, EventType::Warning, "FailedScheduling", "Scheduling", &message);
    let (node, victims) = nominated.unzip();
    let reason = if diagnosis.is_error() { "SchedulerError" } else { "Unschedulable" };
    let condition = async {
        if let Err(e) = write_condition(cx, pod, reason, &message, node.as_deref()).await {
            tracing::debug!(pod = %pod.key, error = %e, "the pod's condition was not written");
        }
    };
    // All at once, so that the store can commit them together.
    let evictions = victims.iter().flatten().map(|victim| async move {
        let evicted = evict(cx, pod, victim).await;
        if let Err(e) = &evicted {
            tracing::warn!(pod = %victim, error = %e, "preemption: the victim was not deleted");
        }
        evicted.is_ok()
    });
    let ((), evicted) = tokio::join!(condition, join_all(evictions));
    evicted.into_iter().all(|gone| gone)
}

/// Clears the nominations of pods that have to look for another node.
pub(super) async fn displaced(cx: &Context, pods: &[PodKey]) {
    let clear = pods.iter().map(|pod| async move {
        let patch = json!({"status": {"nominatedNodeName": Value::Null}});
        let request = pod_request(Verb::Patch, pod).subresource("status");
        let sent = cx.client().send(request.body(ContentType::MergePatch, patch)).await;
        if let Err(e) = sent.map(drop) {
            tracing::debug!(%pod, error = %e, "the pod's nomination was not cleared");
        }
    });
    join_all(clear).await;
}

/// Says why a pod has to go, and deletes it.
async fn evict(cx: &Context, preemptor: &PodInfo, victim: &PodKey) -> Result<(), ApiError> {
    let gone = |result: Result<(), ApiError>| match result {
        Err(e) if e.reason() == Reason::NotFound => Ok(()),
        other => other,
    };
    let message = format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler_name());
    let condition = condition(cx, "DisruptionTarget", "True", "PreemptionByScheduler", &message);
    let patch = json!({"status": {"conditions": [condition]}});
    let request = pod_request(Verb::Patch, victim).subresource("status");
    let request = request.body(ContentType::StrategicMergePatch, patch);
    gone(cx.client().send(request).await.map(drop))?;
    gone(cx.client().send(pod_request(Verb::Delete, victim)).await.map(drop))
}

fn condition(cx: &Context, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": Value::Null,
        "lastTransitionTime": cx.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

async fn write_condition(
    cx: &Context,
    pod: &PodInfo,
    reason: &str,
    message: &str,
    node: Option<&str>,
) -> Result<(), ApiError> {
    let status = pod.pod.as_ref().and_then(|p| p.status.as_ref());
    let known = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let same = known
        .into_iter()
        .any(|c| c.type_ == "PodScheduled" && c.status == "False" && c.message.as_deref() == Some(message));
    if same && (node.is_none() || node == status.and_then(|s| s.nominated_node_name.as_deref())) {
        return Ok(());
    }
    let mut patch =
        json!({"status": {"conditions": [condition(cx, "PodScheduled", "False", reason, message)]}});
    if let Some(node) = node {
        patch["status"]["nominatedNodeName"] = json!(node);
    }
    let request = pod_request(Verb::Patch, &pod.key).subresource("status");
    cx.client().send(request.body(ContentType::StrategicMergePatch, patch)).await.map(drop)
}
