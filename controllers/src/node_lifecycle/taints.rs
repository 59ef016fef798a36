//! Which taints a node's conditions ask for, and how fast nodes may be emptied. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that taint a node while they are true.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const NO_SCHEDULE: &str = "NoSchedule";
pub(super) const NO_EXECUTE: &str = "NoExecute";

/// A condition of a node.
pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The status of a condition, empty where it was never reported.
pub(super) fn status<'a>(node: &'a Node, kind: &str) -> &'a str {
    condition(node, kind).map_or("", |c| c.status.as_str())
}

/// The taints of a node.
pub(super) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[])
}

/// The taint that empties a node of this readiness.
pub(super) fn evicting_key(node: &Node) -> Option<&'static str> {
    match status(node, "Ready") {
        "True" | "" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        NO_EXECUTE => key == NOT_READY || key == UNREACHABLE,
        NO_SCHEDULE => {
            key == NOT_READY
                || key == UNREACHABLE
                || key == UNSCHEDULABLE
                || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
        }
        _ => false,
    }
}

fn unschedulable_keys(node: &Node) -> Vec<&'static str> {
    let mut keys = Vec::new();
    match status(node, "Ready") {
        "True" => {}
        // A node that has never reported is as little ready as one that says so.
        "False" | "" => keys.push(NOT_READY),
        _ => keys.push(UNREACHABLE),
    }
    let under = |(kind, _): &&(&str, &'static str)| status(node, kind) == "True";
    keys.extend(PRESSURES.iter().filter(under).map(|(_, key)| *key));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        keys.push(UNSCHEDULABLE);
    }
    keys
}

/// The taints that a node shall have, others' first. `evict` says whether it may get an evicting taint that it has not yet.
pub(super) fn wanted(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let present = taints(node);
    let since = |key: &str, effect: &str| {
        let same = present.iter().find(|t| t.key == key && t.effect == effect);
        // A node that turns from not ready to unreachable is not given its pods' patience anew.
        let evicting = |t: &&Taint| effect == NO_EXECUTE && t.effect == NO_EXECUTE && is_ours(t);
        let found = same.or_else(|| present.iter().find(evicting));
        found.map_or_else(|| Some(Time(seconds(now))), |t| t.time_added.clone())
    };
    let taint = |key: &str, effect: &str| Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        time_added: since(key, effect),
        value: None,
    };
    let mut all: Vec<Taint> = present.iter().filter(|t| !is_ours(t)).cloned().collect();
    all.extend(unschedulable_keys(node).into_iter().map(|key| taint(key, NO_SCHEDULE)));
    let has_evicting = present.iter().any(|t| t.effect == NO_EXECUTE && is_ours(t));
    let evicting = evicting_key(node).filter(|_| evict || has_evicting);
    all.extend(evicting.map(|key| taint(key, NO_EXECUTE)));
    all
}

/// Whether a node waits for an evicting taint.
pub(super) fn lacks_evicting(node: &Node) -> bool {
    let has = taints(node).iter().any(|t| t.effect == NO_EXECUTE && is_ours(t));
    evicting_key(node).is_some() && !has
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Region and zone of a node.
pub(super) fn zone(node: &Node) -> (String, String) {
    let label =
        |key: &str| node.metadata.labels.iter().flatten().find(|(k, _)| *k == key).map(|(_, v)| v.clone());
    (
        label("topology.kubernetes.io/region").unwrap_or_default(),
        label("topology.kubernetes.io/zone").unwrap_or_default(),
    )
}

/// The least time between two nodes of a zone that start being emptied; `None` for never: where most of a small zone, or everything,
/// looks dead, rather the view is broken than the nodes.
pub(super) fn eviction_interval<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    of: &(String, String),
) -> Option<Duration> {
    let mut zones: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for node in nodes {
        let (ready, unready) = zones.entry(zone(node)).or_default();
        match status(node, "Ready") {
            "True" => *ready += 1,
            _ => *unready += 1,
        }
    }
    if zones.values().all(|(ready, _)| *ready == 0) {
        return None;
    }
    let (ready, unready) = zones.get(of).copied().unwrap_or_default();
    let disrupted = ready > 0 && unready > 2 && unready * 100 >= (ready + unready) * 55;
    match (disrupted, ready + unready > 50) {
        (false, _) => Some(Duration::from_secs(10)),
        (true, true) => Some(Duration::from_secs(100)),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(ready: &str, more: Value) -> Node {
        let mut conditions = more["conditions"].as_array().cloned().unwrap_or_default();
        if !ready.is_empty() {
            conditions.push(json!({"type": "Ready", "status": ready}));
        }
        let spec = json!({"taints": more["taints"], "unschedulable": more["unschedulable"]});
        serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).expect("a node")
    }

    #[test]
    fn conditions_become_taints() {
        let check = |ready: &str, more: Value, evict: bool, want: &str| {
            let all = wanted(&node(ready, more), evict, Timestamp::UNIX_EPOCH);
            let short =
                |t: &Taint| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect);
            assert_eq!(all.iter().map(short).collect::<Vec<_>>().join(" "), want);
        };
        let tainted = json!({"taints": [
            {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
            {"key": "mine", "effect": "NoExecute"}]});
        check("True", json!({}), true, "");
        check("True", tainted.clone(), true, "mine:NoExecute");
        check("", json!({}), true, "not-ready:NoSchedule");
        check("False", json!({}), false, "not-ready:NoSchedule");
        check("False", json!({}), true, "not-ready:NoSchedule not-ready:NoExecute");
        check("Unknown", tainted, false, "mine:NoExecute unreachable:NoSchedule unreachable:NoExecute");
        let pressed = json!({"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}],
            "unschedulable": true});
        check("True", pressed, true, "disk-pressure:NoSchedule unschedulable:NoSchedule");
    }

    #[test]
    fn a_taint_keeps_its_time() {
        let old = json!({"taints": [
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2020-01-01T00:00:00Z"}]});
        let all = wanted(&node("Unknown", old), true, Timestamp::UNIX_EPOCH);
        let times: Vec<String> =
            all.iter().filter_map(|t| t.time_added.as_ref().map(|t| t.0.to_string())).collect();
        assert_eq!(times, ["1970-01-01T00:00:00Z", "2020-01-01T00:00:00Z"]);
    }

    #[test]
    fn many_dead_nodes_slow_the_eviction_down() {
        let check = |ready: usize, unready: usize, want: Option<u64>| {
            let some = |status: &'static str, n: usize| (0..n).map(move |_| node(status, json!({})));
            let nodes: Vec<Node> = some("True", ready).chain(some("Unknown", unready)).collect();
            let got = eviction_interval(nodes.iter(), &Default::default());
            assert_eq!(got.map(|d| d.as_secs()), want, "{ready} ready, {unready} not");
        };
        check(1, 1, Some(10));
        check(1, 2, Some(10));
        check(1, 3, None);
        check(0, 1, None);
        check(20, 40, Some(100));
        check(40, 20, Some(10));
    }
}
