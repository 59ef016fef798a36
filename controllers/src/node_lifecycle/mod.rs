//! Nodes that stop renewing their lease become unknown, and what a node's conditions say becomes taints.
//!
//! When the pods of such a node go is the taint eviction's matter: [`crate::taint_eviction`].

mod taints;

use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use kubewright_core::{ApiError, ContentType, Resource};
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, Reconciler};
use serde_json::json;
use smol_str::SmolStr;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LEASES: &str = "kube-node-lease";
/// The conditions that a node agent reports, and that nobody knows once it is silent.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// How patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLifecycleOptions {
    /// Silence after which a node is unknown.
    pub grace: Duration,
    /// The same for a node that has never reported.
    pub startup_grace: Duration,
    /// Time between two looks at a node.
    pub period: Duration,
}

impl Default for NodeLifecycleOptions {
    /// 40 s, 60 s at the start, looking each 5 s.
    fn default() -> Self {
        NodeLifecycleOptions {
            grace: Duration::from_secs(40),
            startup_grace: Duration::from_secs(60),
            period: Duration::from_secs(5),
        }
    }
}

/// The node lifecycle controller.
pub fn controller(options: NodeLifecycleOptions) -> Controller {
    let reconciler = NodeLifecycle { options, seen: Mutex::default(), emptied: Mutex::default() };
    Controller::for_kind::<Node>("node-lifecycle")
        .reads::<Lease>()
        .reads::<Pod>()
        .concurrency(8)
        .reports_as("node-controller")
        .with(reconciler)
}

/// The last sign of life of a node, by this program's own clock: the node's clock may be wrong.
struct Seen {
    renewed: Option<Timestamp>,
    reported: Option<Timestamp>,
    at: Timestamp,
    /// Its pods still have to be marked as not ready.
    marks_pods: bool,
}

struct NodeLifecycle {
    options: NodeLifecycleOptions,
    seen: Mutex<HashMap<SmolStr, Seen>>,
    /// When a node of each zone was tainted for eviction last.
    emptied: Mutex<HashMap<(String, String), Timestamp>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

impl Reconciler<Node> for NodeLifecycle {
    type Error = ApiError;

    async fn reconcile(&self, node: Arc<Node>, cx: &Context) -> Result<Action, ApiError> {
        let again = Action::RequeueAfter(self.options.period);
        if node.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        if !lock(&self.seen).contains_key(node.name()) {
            let note = format!("Node {0} event: Registered Node {0} in Controller", node.name());
            cx.events().event(&*node, EventType::Normal, "RegisteredNode", "Registering", &note);
        }
        if self.is_silent(&node, cx)
            && let Some(conditions) = unknown(&node, cx)
        {
            let was_ready = taints::status(&node, "Ready") == "True";
            write_conditions(&node, &conditions, cx).await?;
            self.set_marks_pods(node.name(), was_ready);
            if was_ready {
                let note = format!("Node {} status is now: NodeNotReady", node.name());
                cx.events().event(&*node, EventType::Normal, "NodeNotReady", "Watching", &note);
            }
            // The pass that the write brings goes on from here.
            return Ok(Action::RequeueAfter(Duration::from_millis(1)));
        }
        if lock(&self.seen).get(node.name()).is_some_and(|s| s.marks_pods) {
            if taints::status(&node, "Ready") == "Unknown" {
                mark_pods(&node, cx).await?;
            }
            self.set_marks_pods(node.name(), false);
        }
        self.taint(&node, cx).await?;
        Ok(again)
    }

    async fn gone(&self, key: &ObjectKey, _: &Context) -> Result<Action, ApiError> {
        lock(&self.seen).remove(&key.name);
        Ok(Action::Done)
    }
}

impl NodeLifecycle {
    fn is_silent(&self, node: &Node, cx: &Context) -> bool {
        let lease = cx.informers().of::<Lease>().get(LEASES, node.name());
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        let ready = taints::condition(node, "Ready");
        let reported = ready.and_then(|c| c.last_heartbeat_time.as_ref().map(|t| t.0));
        let now = cx.now();
        let mut seen = lock(&self.seen);
        let fresh = || Seen { renewed, reported, at: now, marks_pods: false };
        let seen = seen.entry(SmolStr::new(node.name())).or_insert_with(fresh);
        if seen.renewed != renewed || seen.reported != reported {
            (seen.renewed, seen.reported, seen.at) = (renewed, reported, now);
        }
        let never = ready.is_none() && renewed.is_none();
        elapsed(seen.at, now) > if never { self.options.startup_grace } else { self.options.grace }
    }

    fn set_marks_pods(&self, node: &str, marks: bool) {
        if let Some(seen) = lock(&self.seen).get_mut(node) {
            seen.marks_pods = marks;
        }
    }

    async fn taint(&self, node: &Node, cx: &Context) -> Result<(), ApiError> {
        let now = cx.now();
        let evict = taints::lacks_evicting(node) && self.may_empty(node, cx);
        let wanted = taints::wanted(node, evict, now);
        if same(&wanted, taints::taints(node)) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": node.uid(), "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        cx.api::<Node>("").patch(node.name(), ContentType::MergePatch, patch).await?;
        if evict {
            lock(&self.emptied).insert(taints::zone(node), now);
        }
        Ok(())
    }

    /// Whether the pace of the node's zone lets one more node be emptied now.
    fn may_empty(&self, node: &Node, cx: &Context) -> bool {
        let zone = taints::zone(node);
        let nodes = cx.informers().of::<Node>().list();
        let Some(interval) = taints::eviction_interval(nodes.iter().map(|n| &**n), &zone) else {
            return false;
        };
        lock(&self.emptied).get(&zone).is_none_or(|last| elapsed(*last, cx.now()) >= interval)
    }
}

/// Whether two lists have the same taints; their order means nothing.
fn same(a: &[k8s_openapi::api::core::v1::Taint], b: &[k8s_openapi::api::core::v1::Taint]) -> bool {
    a.len() == b.len() && a.iter().all(|t| b.contains(t))
}

/// The conditions of a silent node; `None` where they say so already.
fn unknown(node: &Node, cx: &Context) -> Option<Vec<NodeCondition>> {
    let mut all = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for kind in REPORTED {
        let (reason, message) = match all.iter().find(|c| c.type_ == *kind) {
            Some(present) if present.status == "Unknown" => continue,
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        changed = true;
        let heartbeat = all.iter().find(|c| c.type_ == *kind).map(|c| c.last_heartbeat_time.clone());
        all.retain(|c| c.type_ != *kind);
        all.push(NodeCondition {
            type_: (*kind).to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat.unwrap_or_else(|| node.metadata.creation_timestamp.clone()),
            last_transition_time: Some(cx.time()),
        });
    }
    changed.then_some(all)
}

async fn write_conditions(node: &Node, conditions: &[NodeCondition], cx: &Context) -> Result<(), ApiError> {
    tracing::info!(node = node.name(), "the node is silent");
    let patch = json!({
        "metadata": {"uid": node.uid(), "resourceVersion": node.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let api = cx.api::<Node>("");
    api.patch_subresource(node.name(), "status", ContentType::MergePatch, patch).await.map(drop)
}

/// Nobody knows whether the pods of a silent node still answer: Services shall not send anyone there.
async fn mark_pods(node: &Node, cx: &Context) -> Result<(), ApiError> {
    for pod in pods::on_node(node.name(), cx).into_iter().filter(|p| pods::is_ready(p)) {
        let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        for ready in conditions.iter_mut().filter(|c| c.type_ == "Ready") {
            ready.status = "False".to_owned();
            ready.last_transition_time = Some(cx.time());
        }
        let patch = json!({
            "metadata": {"uid": pod.uid(), "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
        match api.patch_subresource(pod.name(), "status", ContentType::MergePatch, patch).await {
            Err(e) if e.is_not_found() => {}
            other => other.map(drop)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
