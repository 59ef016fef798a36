//! Judgements about pods that several controllers share.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kubewright_reconcile::Context;
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;

/// A condition of a pod.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// `status.phase`, empty when unset.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Whether it has come to its end.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it is being deleted.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as a replica: neither at its end nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// Whether its `Ready` condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// The node that it is bound to, empty when none.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

/// The pods that are bound to a node, by an index of the shared informer.
pub(crate) fn on_node(node: &str, cx: &Context) -> Vec<Arc<Pod>> {
    const BY_NODE: &str = "controllers: node of a pod";
    let pods = cx.informers().of::<Pod>();
    pods.add_index(BY_NODE, |pod: &Pod| {
        Some(node_name(pod)).filter(|n| !n.is_empty()).map(SmolStr::new).into_iter().collect()
    });
    pods.by_index(BY_NODE, node)
}

/// When it became ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// How long until it has been ready for `min_ready_seconds`: zero once it is available, `None` while it is not ready.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    let wait = u64::try_from(min_ready_seconds).unwrap_or(0);
    if wait == 0 {
        return Some(Duration::ZERO);
    }
    let ready_for = Duration::try_from(now.duration_since(ready_since(pod)?)).unwrap_or_default();
    Some(Duration::from_secs(wait).saturating_sub(ready_for))
}
