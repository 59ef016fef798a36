//! Which pods go first when there are too many: upstream's order, so that the least is lost.

use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubewright_core::Resource;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

/// The annotation by which a user says what losing a pod costs.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What the order looks at; the smallest goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    scheduled: bool,
    /// Pending, unknown, running.
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    /// Pods of the same owner on the same node: the more, the sooner.
    crowded: Reverse<usize>,
    /// Shortest ready first, in steps that double: pods of about one age are alike.
    ready_for: u32,
    restarts: Reverse<i32>,
    age: u32,
    uid: String,
}

/// The `count` pods that go first.
pub(super) fn victims(
    active: &[Arc<Pod>],
    siblings: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in siblings {
        *on_node.entry(pods::node_name(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(Rank, &Arc<Pod>)> =
        active.iter().map(|pod| (rank(pod, &on_node, now), pod)).collect();
    let order = |a: &(Rank, _), b: &(Rank, _)| -> Ordering { a.0.cmp(&b.0) };
    if count < ranked.len() && count > 0 {
        ranked.select_nth_unstable_by(count - 1, order);
    }
    ranked.truncate(count);
    ranked.sort_by(order);
    ranked.into_iter().map(|(_, pod)| pod.clone()).collect()
}

fn rank(pod: &Pod, on_node: &HashMap<&str, usize>, now: Timestamp) -> Rank {
    let node = pods::node_name(pod);
    let cost = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    Rank {
        scheduled: !node.is_empty(),
        phase: match pods::phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        },
        ready: pods::is_ready(pod),
        deletion_cost: cost.and_then(|c| c.parse().ok()).unwrap_or(0),
        crowded: Reverse(if node.is_empty() { 0 } else { on_node.get(node).copied().unwrap_or(0) }),
        ready_for: magnitude(pods::ready_since(pod), now),
        restarts: Reverse(statuses.map(|s| s.restart_count).max().unwrap_or(0)),
        age: magnitude(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now),
        uid: pod.uid().to_owned(),
    }
}

/// The logarithm of the time since then, in seconds.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let seconds = since.map_or(0, |s| now.duration_since(s).as_secs());
    u64::try_from(seconds).unwrap_or(0).checked_ilog2().map_or(0, |log| log + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, cost: &str, age: i64) -> Arc<Pod> {
        let at = Timestamp::from_second(1_000_000 - age).unwrap().to_string();
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": at, "annotations": {(DELETION_COST): cost}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at}]},
            }))
            .unwrap(),
        )
    }

    fn check(pods: &[Arc<Pod>], count: usize, want: &[&str]) {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let got = victims(pods, pods, count, now);
        let names: Vec<&str> = got.iter().map(|p| p.name()).collect();
        assert_eq!(names, want);
    }

    #[test]
    fn what_is_least_lost_goes_first() {
        let all = [
            pod("steady", "n1", "Running", true, "0", 5000),
            pod("fresh", "n2", "Running", true, "0", 10),
            pod("crowded", "n3", "Running", true, "0", 5000),
            pod("crowd", "n3", "Running", true, "9", 5000),
            pod("cheap", "n4", "Running", true, "-5", 5000),
            pod("unready", "n5", "Running", false, "0", 5000),
            pod("pending", "n6", "Pending", false, "0", 5000),
            pod("unbound", "", "Pending", false, "0", 5000),
        ];
        check(&all, 0, &[]);
        check(&all, 1, &["unbound"]);
        check(&all, 3, &["unbound", "pending", "unready"]);
        check(&all, 8, &["unbound", "pending", "unready", "cheap", "crowded", "fresh", "steady", "crowd"]);
        check(&all[..1], 5, &["steady"]);
    }
}
