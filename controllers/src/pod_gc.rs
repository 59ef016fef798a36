//! Pods that nobody will clean up: too many that have ended, those of nodes that are gone, and those deleted before they had a node.

use crate::pods;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kubewright_core::{ApiError, ContentType, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Context, Controller};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodGcOptions {
    /// Pods that have ended and are kept; the oldest above go. 0 keeps all.
    pub terminated_pods_max: usize,
    /// Time between two rounds.
    pub period: Duration,
    /// How long a node has to be gone before its pods go.
    pub quarantine: Duration,
}

impl Default for PodGcOptions {
    /// Upstream's: 12,500 pods, a round each 20 s, 40 s of quarantine.
    fn default() -> Self {
        PodGcOptions {
            terminated_pods_max: 12_500,
            period: Duration::from_secs(20),
            quarantine: Duration::from_secs(40),
        }
    }
}

/// Deletes in flight.
const IN_FLIGHT_MAX: usize = 32;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The pod garbage collector.
pub fn controller(options: PodGcOptions) -> Controller {
    Controller::from_fn("pod-garbage-collector", move |cx| async move {
        let cancel = cx.cancel().clone();
        cancel.run_until_cancelled(run(options, &cx)).await;
    })
}

async fn run(options: PodGcOptions, cx: &Context) {
    let (all, nodes) = (cx.informers().of::<Pod>(), cx.informers().of::<Node>());
    if !all.synced().await || !nodes.synced().await {
        return;
    }
    let mut missing = FxHashMap::default();
    loop {
        round(options, &all.list(), &mut missing, cx).await;
        tokio::time::sleep(options.period).await;
    }
}

/// Why a pod goes, and what its last condition says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    TooMany,
    NodeGone,
    NeverScheduled,
    OutOfService,
}

async fn round(
    options: PodGcOptions,
    all: &[Arc<Pod>],
    missing: &mut FxHashMap<String, Timestamp>,
    cx: &Context,
) {
    let gone = gone_nodes(options.quarantine, all, missing, cx).await;
    let mut victims: Vec<(Arc<Pod>, Cause)> = Vec::new();
    victims
        .extend(surplus(all, options.terminated_pods_max).into_iter().map(|p| (p.clone(), Cause::TooMany)));
    for pod in all {
        let node = pods::node_name(pod);
        if gone.iter().any(|g| g == node) {
            victims.push((pod.clone(), Cause::NodeGone));
        } else if pods::is_terminating(pod) && node.is_empty() {
            victims.push((pod.clone(), Cause::NeverScheduled));
        } else if pods::is_terminating(pod) && !pods::is_ready(pod) && out_of_service(node, cx) {
            victims.push((pod.clone(), Cause::OutOfService));
        }
    }
    let calls = victims.into_iter().map(|(pod, cause)| async move {
        if let Err(error) = remove(&pod, cause, cx).await {
            tracing::info!(pod = pod.name(), %error, "the pod stays for now");
        }
    });
    stream::iter(calls).buffer_unordered(IN_FLIGHT_MAX).collect::<()>().await;
}

/// The oldest of the pods that have ended, evicted ones first.
fn surplus(all: &[Arc<Pod>], max: usize) -> Vec<&Arc<Pod>> {
    if max == 0 {
        return Vec::new();
    }
    let ended = |p: &&Arc<Pod>| pods::is_terminal(p) && !pods::is_terminating(p);
    let mut ended: Vec<&Arc<Pod>> = all.iter().filter(ended).collect();
    let count = ended.len().saturating_sub(max);
    let evicted = |p: &Pod| p.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
    if count > 0 {
        ended.sort_by_cached_key(|p| {
            let created = p.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (!evicted(p), created, p.name().to_owned())
        });
    }
    ended.truncate(count);
    ended
}

/// The nodes that pods name and that have been gone for the whole quarantine, asked of the server and not of the informer.
async fn gone_nodes(
    quarantine: Duration,
    all: &[Arc<Pod>],
    missing: &mut FxHashMap<String, Timestamp>,
    cx: &Context,
) -> Vec<String> {
    let nodes = cx.informers().of::<Node>();
    let absent = |name: &str| !name.is_empty() && nodes.get("", name).is_none();
    missing.retain(|name, _| absent(name));
    let now = cx.now();
    let mut named: FxHashMap<&str, ()> = FxHashMap::default();
    for pod in all {
        let node = pods::node_name(pod);
        if named.insert(node, ()).is_none() && absent(node) {
            missing.entry(node.to_owned()).or_insert(now);
        }
    }
    let mut gone = Vec::new();
    for (name, since) in missing.iter().filter(|(name, _)| named.contains_key(name.as_str())) {
        let absent_for = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
        if absent_for >= quarantine && matches!(cx.api::<Node>("").get_opt(name).await, Ok(None)) {
            gone.push(name.clone());
        }
    }
    gone
}

fn out_of_service(node: &str, cx: &Context) -> bool {
    let node = cx.informers().of::<Node>().get("", node);
    node.is_some_and(|n| {
        n.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|t| t.key == OUT_OF_SERVICE)
    })
}

/// Says why, then deletes without grace: no node agent is there to do it.
async fn remove(pod: &Pod, cause: Cause, cx: &Context) -> Result<(), ApiError> {
    if matches!(cause, Cause::NodeGone | Cause::OutOfService) && !pods::is_terminal(pod) {
        fail(pod, cause, cx).await?;
    }
    let options = DeleteOptions { uid: Some(pod.uid().to_owned()), ..DeleteOptions::now() };
    match cx.api::<Pod>(pod.namespace().unwrap_or("")).delete(pod.name(), &options).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

/// Marks the pod as failed, so that whoever counts its end does not wait for a node that will never tell.
async fn fail(pod: &Pod, cause: Cause, cx: &Context) -> Result<(), ApiError> {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    if cause == Cause::NodeGone {
        conditions.retain(|c| c.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("DeletionByPodGC".to_owned()),
            message: Some("PodGC: node no longer exists".to_owned()),
            last_transition_time: Some(cx.time()),
            ..PodCondition::default()
        });
    }
    let patch = json!({
        "metadata": {"uid": pod.uid(), "resourceVersion": pod.metadata.resource_version},
        "status": {"phase": "Failed", "conditions": conditions},
    });
    let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
    match api.patch_subresource(pod.name(), "status", ContentType::MergePatch, patch).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_reconcile::client::Api;
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::Value;

    fn pod(name: &str, node: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase},
        }))
        .expect("a pod")
    }

    /// What is left of these pods, where only the node `here` exists.
    async fn left(pods: Vec<Pod>, max: usize) -> Vec<String> {
        let server = FakeApi::new();
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "here"}})).expect("a node");
        Api::<Node>::all(server.client()).create(&node).await.expect("created");
        let api = Api::<Pod>::namespaced(server.client(), "default");
        for pod in pods {
            api.create(&pod).await.expect("created");
        }
        let options = PodGcOptions {
            terminated_pods_max: max,
            period: Duration::from_millis(20),
            quarantine: Duration::ZERO,
        };
        converges(&server, [controller(options)], || true).await.expect("converges");
        api.list(Default::default())
            .await
            .expect("a list")
            .items
            .iter()
            .map(|p| p.name().to_owned())
            .collect()
    }

    #[tokio::test]
    async fn pods_of_nodes_that_are_gone_go() {
        let pods =
            vec![pod("a", "here", "Running"), pod("b", "away", "Running"), pod("c", "away", "Succeeded")];
        assert_eq!(left(pods, 10).await, ["a"]);
    }

    #[tokio::test]
    async fn the_oldest_ended_pods_go_evicted_ones_first() {
        let mut evicted = pod("z", "here", "Failed");
        evicted.status.as_mut().expect("status").reason = Some("Evicted".to_owned());
        let pods = || {
            vec![
                pod("a", "here", "Succeeded"),
                pod("b", "here", "Failed"),
                evicted.clone(),
                pod("r", "here", "Running"),
            ]
        };
        assert_eq!(left(pods(), 2).await, ["a", "b", "r"]);
        assert_eq!(left(pods(), 1).await, ["b", "r"]);
        assert_eq!(left(pods(), 0).await, ["a", "b", "r", "z"]);
    }

    #[tokio::test]
    async fn a_pod_that_dies_with_its_node_says_so() {
        let server = FakeApi::new();
        let api = Api::<Pod>::namespaced(server.client(), "default");
        let mut held = pod("a", "away", "Running");
        held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
        api.create(&held).await.expect("created");
        let options = PodGcOptions {
            quarantine: Duration::ZERO,
            period: Duration::from_millis(20),
            ..PodGcOptions::default()
        };
        let deleting = || server.writes() >= 3;
        converges(&server, [controller(options)], deleting).await.expect("converges");
        let pod = serde_json::to_value(&*api.get("a").await.expect("a pod")).expect("json");
        assert_eq!(pod["status"]["phase"], "Failed");
        assert_eq!(pod["status"]["conditions"][0]["reason"], "DeletionByPodGC");
        assert_ne!(pod["metadata"]["deletionTimestamp"], Value::Null);
    }
}
