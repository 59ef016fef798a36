//! Preemption as upstream does it: whom it evicts, where, and when it does not.

mod common;

use common::{Cluster, at, node, pod, with};
use kubewright_sched::{ClusterObject, Decision, PodKey, Scheduler};
use serde_json::{Value, json};
use std::sync::Arc;

/// A pod that runs on a node since so many seconds.
fn running(name: &str, on: &str, cpu: &str, priority: i32, since: i64) -> Value {
    let pod = pod(name, cpu, json!({"nodeName": on, "priority": priority}));
    let time = jiff::Timestamp::from_second(since).unwrap().to_string();
    with(pod, "status", json!({"startTime": time, "phase": "Running"}))
}

fn cluster(running: &[Value]) -> Cluster {
    let mut cluster = Cluster::new(&[node("a", json!({})), node("b", json!({}))]);
    running.iter().for_each(|p| cluster.add(p));
    cluster
}

fn urgent(cpu: &str) -> Value {
    pod("p", cpu, json!({"priority": 10}))
}

#[track_caller]
fn check(pods: &[Value], urgent: &Value, expected: &str) {
    assert_eq!(cluster(pods).place(urgent), expected);
}

#[test]
fn the_least_is_lost() {
    let r = running;
    // The fewest budget violations aside: the lowest of the highest priorities.
    check(&[r("x", "a", "4", 5, 0), r("y", "b", "4", 3, 0)], &urgent("1"), "b < y");
    // Then the smallest sum of priorities, which favours few victims.
    check(&[r("x1", "a", "2", 3, 0), r("x2", "a", "2", 3, 0), r("y", "b", "4", 3, 0)], &urgent("4"), "b < y");
    // Then the latest start of the most important victims.
    check(&[r("x", "a", "4", 3, 100), r("y", "b", "4", 3, 50)], &urgent("1"), "a < x");
    // Only as many go as must, the least important first, the youngest of equals first.
    check(
        &[r("x1", "a", "1", 1, 0), r("x2", "a", "1", 2, 0), r("x3", "a", "2", 2, 9), r("y", "b", "4", 9, 0)],
        &urgent("2"),
        "a < x3",
    );
}

#[test]
fn what_can_not_help_is_said() {
    let full = [running("x", "a", "4", 10, 0), running("y", "b", "4", 10, 0)];
    check(
        &full,
        &urgent("1"),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
    );
    let low = [running("x", "a", "4", 0, 0), running("y", "b", "4", 0, 0)];
    check(
        &low,
        &urgent("5"),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    let polite = pod("p", "1", json!({"priority": 10, "preemptionPolicy": "Never"}));
    check(
        &low,
        &polite,
        "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
    );
}

#[test]
fn disruption_budgets_are_spared() {
    let labelled = |pod: Value| with(pod, "metadata.labels", json!({"app": "x"}));
    let mut c = cluster(&[labelled(running("x", "a", "4", 0, 0)), running("y", "b", "4", 5, 0)]);
    let budget = json!({
        "metadata": {"namespace": "n", "name": "x"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    c.object(ClusterObject::PodDisruptionBudget, budget.clone());
    assert_eq!(c.place(&urgent("1")), "b < y", "a budget weighs more than a priority");
    c.remove("p");
    c.object(ClusterObject::PodDisruptionBudget, with(budget, "status.disruptionsAllowed", json!(1)));
    assert_eq!(c.place(&urgent("1")), "a < x");
}

#[test]
fn the_node_is_kept_for_the_pod_that_it_was_cleared_for() {
    let (x, z) = (running("x", "a", "2", 0, 0), running("z", "a", "2", 0, 0));
    let mut c = cluster(&[x, z, running("y", "b", "4", 9, 0)]);
    assert_eq!(c.place(&urgent("4")), "a < x z");
    let attempt = c.scheduler.attempts().of(&PodKey::new("n", "p")).cloned().unwrap();
    let considered = attempt.diagnosis.unwrap().considered.unwrap();
    assert_eq!((considered.nodes, considered.victims.len(), considered.violations), (2, 2, 0));
    // While a victim is still there, nobody else is evicted for the pod.
    c.pass(400);
    assert!(c.next().contains("not eligible due to a terminating pod on the nominated node"));
    c.remove("x");
    // Others of its priority and below leave the room alone.
    c.add(&pod("q", "1", json!({"priority": 1})));
    assert!(c.next().contains("2 Insufficient cpu"), "the room is taken");
    c.remove("z");
    assert_eq!(c.next(), "a");
    assert_eq!(c.scheduler.attempts().of(&PodKey::new("n", "p")).unwrap().feasible, 1);
}

#[test]
fn pods_that_are_in_the_way_by_affinity_are_evicted() {
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}]}});
    let labelled = |pod: Value| with(pod, "metadata.labels", json!({"app": "x"}));
    let mut c = cluster(&[labelled(running("x", "a", "1", 0, 0)), labelled(running("y", "b", "1", 20, 0))]);
    let wish = pod("p", "1", json!({"priority": 10, "affinity": anti}));
    assert_eq!(c.place(&wish), "a < x");
    c.remove("x");
    c.pass(20);
    assert_eq!(c.next(), "a");
}

#[test]
fn whom_room_was_made_for_is_tried_when_the_last_victim_is_gone() {
    let mut scheduler = Scheduler::with_defaults(1);
    scheduler.apply_node(Arc::new(serde_json::from_value(node("a", json!({}))).unwrap()), at(0));
    let apply =
        |s: &mut Scheduler, pod: Value| s.apply_pod(Arc::new(serde_json::from_value(pod).unwrap()), at(0));
    for name in ["one", "two"] {
        apply(&mut scheduler, pod(name, "2", json!({"nodeName": "a"})));
    }
    apply(&mut scheduler, pod("urgent", "4", json!({"priority": 100})));
    let decision = scheduler.schedule_one(at(0));
    let Some(Decision::Unschedulable { nominated: Some((node, victims)), .. }) = decision else {
        panic!("room is made, not {decision:?}")
    };
    assert_eq!((node.as_str(), victims.len()), ("a", 2));
    scheduler.remove_pod(&victims[0], at(0));
    assert!(scheduler.schedule_one(at(0)).is_none(), "one is still there");
    scheduler.remove_pod(&victims[1], at(0));
    let decision = scheduler.schedule_one(at(0));
    assert!(
        matches!(decision, Some(Decision::Bind { .. })),
        "without waiting for its back-off: {decision:?}"
    );
}

#[test]
fn a_more_urgent_pod_displaces_the_one_that_room_was_made_for() {
    let mut s = Scheduler::with_defaults(1);
    s.apply_node(Arc::new(serde_json::from_value(node("a", json!({}))).unwrap()), at(0));
    let apply =
        |s: &mut Scheduler, pod: Value| s.apply_pod(Arc::new(serde_json::from_value(pod).unwrap()), at(0));
    apply(&mut s, pod("running", "4", json!({"nodeName": "a"})));
    for (name, priority, wanted) in [("first", 10, &[][..]), ("second", 20, &["first"])] {
        apply(&mut s, pod(name, "4", json!({"priority": priority})));
        let decision = s.schedule_one(at(0));
        let Some(Decision::Unschedulable { nominated: Some((node, _)), displaced, .. }) = decision else {
            panic!("room is made for {name}, not {decision:?}")
        };
        let names: Vec<&str> = displaced.iter().map(|key| key.name.as_str()).collect();
        assert_eq!((node.as_str(), names.as_slice()), ("a", wanted));
    }
}
