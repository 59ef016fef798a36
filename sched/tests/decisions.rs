//! What the scheduler decides, seen from outside: nodes and pods in, decisions out.

use jiff::Timestamp;
use kubewright_core::Target;
use kubewright_sched::framework::{CycleContext, Permit, Plugin, Points};
use kubewright_sched::{Decision, NodeIndex, PodKey, Profile, QueueOptions, Refusal, Scheduler, SteadyTime};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn node(name: &str, spec: Value, labels: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "3", "example.com/gpu": "1"}},
    })
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"namespace": "n", "name": name, "uid": name}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn asking(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": resources}}]})
}

fn scheduler(nodes: &[Value]) -> Scheduler {
    let mut scheduler = Scheduler::with_defaults(1);
    for node in nodes {
        scheduler.apply_node(Arc::new(serde_json::from_value(node.clone()).unwrap()), at(0));
    }
    scheduler
}

fn add(scheduler: &mut Scheduler, pod: &Value, now: i64) {
    scheduler.apply_pod(Arc::new(serde_json::from_value(pod.clone()).unwrap()), at(now));
}

/// Schedules the next pod; the node's name, or the message.
fn next(scheduler: &mut Scheduler, now: i64) -> String {
    match scheduler.schedule_one(at(now)) {
        Some(Decision::Bind { node, pod, .. }) => {
            scheduler.bound(&pod.key);
            node.to_string()
        }
        Some(Decision::Unschedulable { diagnosis, .. }) => diagnosis.to_string(),
        Some(Decision::Wait { .. }) => "waits".to_owned(),
        Some(Decision::Consult { .. }) => "consults".to_owned(),
        Some(Decision::Prepare { .. }) => "prepares".to_owned(),
        None => "idle".to_owned(),
    }
}

#[track_caller]
fn check(nodes: &[Value], spec: Value, expected: &str) {
    let mut scheduler = scheduler(nodes);
    add(&mut scheduler, &pod("p", spec.clone()), 0);
    let got = next(&mut scheduler, 0);
    assert!(got == expected || got.starts_with(&format!("{expected} preemption:")), "{spec}: {got}");
}

#[test]
fn filters_say_why_in_upstreams_words() {
    let plain = node("a", json!({}), json!({"zone": "1", "size": "7"}));
    let other = node("b", json!({}), json!({"zone": "2"}));
    let cordoned = node("c", json!({"unschedulable": true}), json!({}));
    let tainted =
        node("d", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}), json!({}));
    check(&[], json!({}), "no nodes available to schedule pods");
    check(std::slice::from_ref(&plain), json!({}), "a");
    check(
        &[cordoned.clone(), tainted.clone()],
        json!({}),
        "0/2 nodes are available: 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.",
    );
    check(std::slice::from_ref(&tainted), json!({"tolerations": [{"key": "k", "operator": "Exists"}]}), "d");
    check(&[tainted], json!({"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]}), "d");
    check(
        &[cordoned],
        json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
        "c",
    );
    check(&[plain.clone(), other.clone()], json!({"nodeSelector": {"zone": "2"}}), "b");
    check(
        &[plain.clone(), other.clone()],
        json!({"nodeSelector": {"zone": "3"}}),
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
    );
    let affinity = |operator: &str, values: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}]}}}})
    };
    check(&[plain.clone(), other.clone()], affinity("Gt", json!(["6"])), "a");
    check(&[plain.clone(), other.clone()], affinity("DoesNotExist", json!([])), "b");
    check(&[plain.clone(), other.clone()], affinity("NotIn", json!(["7"])), "b");
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["2"]}]}}]}}});
    check(&[plain.clone(), other.clone()], preferred, "b");
    check(
        std::slice::from_ref(&plain),
        asking(json!({"cpu": "5", "memory": "9Gi", "example.com/gpu": "2"})),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory.",
    );
    check(&[plain], asking(json!({"cpu": "4", "example.com/gpu": "1"})), "a");
}

#[test]
fn pods_spread_over_nodes_and_stop_when_all_is_full() {
    let nodes: Vec<Value> = ["a", "b", "c"].iter().map(|n| node(n, json!({}), json!({}))).collect();
    let mut s = scheduler(&nodes);
    for n in 0..10 {
        add(&mut s, &pod(&format!("p{n}"), asking(json!({"cpu": "1"}))), n);
    }
    let mut names: Vec<String> = (0..9).map(|_| next(&mut s, 20)).collect();
    let mut first: Vec<String> = names[..3].to_vec();
    first.sort();
    assert_eq!(first, ["a", "b", "c"], "the emptiest node comes first");
    names.sort();
    assert_eq!(names, ["a", "a", "a", "b", "b", "b", "c", "c", "c"]);
    assert!(next(&mut s, 20).starts_with("0/3 nodes are available: 3 Too many pods."), "all is full");
    // Room comes back: the hint lets the waiting pod try again after its back-off.
    s.remove_pod(&PodKey::new("n", "p0"), at(20));
    assert_eq!(next(&mut s, 20), "idle", "still backing off");
    assert_eq!(s.next_wake(), Some(at(21)));
    s.advance(at(21));
    assert!(["a", "b", "c"].contains(&next(&mut s, 21).as_str()));
}

#[test]
fn host_ports_do_not_collide() {
    let mut s = scheduler(&[node("a", json!({}), json!({}))]);
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": "TCP"}]}]});
    add(&mut s, &pod("p", port("127.0.0.1")), 0);
    add(&mut s, &pod("q", port("127.0.0.2")), 1);
    add(&mut s, &pod("r", port("")), 2);
    assert_eq!((next(&mut s, 2), next(&mut s, 2)), ("a".to_owned(), "a".to_owned()));
    assert!(next(&mut s, 2).contains("1 node(s) didn't have free ports for the requested pod ports"));
}

#[test]
fn a_failed_binding_gives_the_place_back() {
    let mut s = scheduler(&[node("a", json!({}), json!({}))]);
    add(&mut s, &pod("p", asking(json!({"cpu": "4"}))), 0);
    let Some(Decision::Bind { requests, .. }) = s.schedule_one(at(0)) else { panic!("it fits") };
    let Target::Resource { subresource, name, .. } = &requests[0].target else { panic!("a resource") };
    assert_eq!((subresource.as_deref(), name.as_deref()), (Some("binding"), Some("p")));
    let key = PodKey::new("n", "p");
    assert!(s.nodes().placed(&key).is_some());
    s.failed(&key, at(0));
    assert!(s.nodes().placed(&key).is_none());
    s.advance(at(1));
    assert_eq!(next(&mut s, 1), "a");
    // The bound pod comes back through a watch and stays where it is.
    let mut bound = pod("p", asking(json!({"cpu": "4"})));
    bound["spec"]["nodeName"] = json!("a");
    add(&mut s, &bound, 2);
    assert_eq!((s.nodes().pod_count(NodeIndex(0)), s.queue().len()), (1, 0));
}

#[test]
fn a_gated_pod_is_held_until_its_gates_are_gone() {
    let mut s = scheduler(&[node("a", json!({}), json!({}))]);
    add(&mut s, &pod("p", json!({"schedulingGates": [{"name": "example.com/wait"}]})), 0);
    assert_eq!(next(&mut s, 0), "idle");
    add(&mut s, &pod("p", json!({})), 1);
    assert_eq!(next(&mut s, 1), "a");
}

#[test]
fn other_schedulers_pods_are_left_alone_but_counted() {
    let mut s = scheduler(&[node("a", json!({}), json!({}))]);
    add(&mut s, &pod("p", json!({"schedulerName": "other"})), 0);
    assert_eq!(next(&mut s, 0), "idle");
    let mut bound = pod("q", json!({"schedulerName": "other", "nodeName": "a"}));
    bound["spec"]["containers"] = asking(json!({"cpu": "4"}))["containers"].clone();
    add(&mut s, &bound, 0);
    add(&mut s, &pod("r", asking(json!({"cpu": "1"}))), 0);
    assert!(next(&mut s, 0).contains("Insufficient cpu"));
}

/// Holds every pod for a second, and refuses those named `no`.
struct Gatekeeper;

impl Plugin for Gatekeeper {
    fn name(&self) -> &'static str {
        "Gatekeeper"
    }
    fn points(&self) -> Points {
        Points::PERMIT | Points::RESERVE
    }
    fn reserve(&mut self, cx: CycleContext<'_>, _: NodeIndex) -> Result<(), Refusal> {
        if cx.pod.key.name == "no" { Err(Refusal::new("not this one")) } else { Ok(()) }
    }
    fn permit(&self, _: CycleContext<'_>, _: NodeIndex) -> Permit {
        Permit::Wait(Duration::from_secs(1))
    }
}

#[test]
fn permit_and_reserve_can_hold_and_refuse() {
    let profile = Profile::defaults("default-scheduler").plugin(Gatekeeper).build().unwrap();
    let mut s = Scheduler::new(vec![profile], QueueOptions::default(), 1).unwrap();
    s.apply_node(Arc::new(serde_json::from_value(node("a", json!({}), json!({}))).unwrap()), at(0));
    add(&mut s, &pod("no", json!({})), 0);
    assert!(next(&mut s, 0).contains("not this one"));
    add(&mut s, &pod("p", json!({})), 0);
    add(&mut s, &pod("q", json!({})), 0);
    assert_eq!((next(&mut s, 0), next(&mut s, 0)), ("waits".to_owned(), "waits".to_owned()));
    assert_eq!(s.next_wake(), Some(at(1)));
    assert!(matches!(s.allow(&PodKey::new("n", "p"), at(0)), Some(Decision::Bind { .. })));
    let given_up = s.advance(at(1));
    let [Decision::Unschedulable { pod, diagnosis, .. }] = given_up.as_slice() else {
        panic!("one is given up, not {given_up:?}")
    };
    assert_eq!(pod.key.name, "q");
    assert!(diagnosis.to_string().contains("timeout while waiting on permit"), "{diagnosis}");
}

#[test]
fn a_node_that_goes_while_a_pod_is_on_its_way_is_noticed() {
    let profile = Profile::defaults("default-scheduler").plugin(Gatekeeper).build().unwrap();
    let mut s = Scheduler::new(vec![profile], QueueOptions::default(), 1).unwrap();
    for name in ["a", "b"] {
        s.apply_node(Arc::new(serde_json::from_value(node(name, json!({}), json!({}))).unwrap()), at(0));
    }
    add(&mut s, &pod("p", json!({})), 0);
    let Some(Decision::Wait { .. }) = s.schedule_one(at(0)) else { panic!("it is held") };
    let chosen =
        ["a", "b"].into_iter().find(|n| s.nodes().find(n).is_some_and(|i| s.nodes().pod_count(i) == 1));
    s.remove_node(chosen.expect("it has a place"), at(0));
    assert!(s.allow(&PodKey::new("n", "p"), at(0)).is_none(), "its node is gone");
    s.advance(at(1));
    let Some(Decision::Wait { .. }) = s.schedule_one(at(1)) else { panic!("it is tried again") };
    assert!(
        matches!(s.allow(&PodKey::new("n", "p"), at(1)), Some(Decision::Bind { node, .. }) if Some(node.as_str()) != chosen)
    );
}

#[test]
fn clocks_that_jump_cost_nobody_a_day() {
    let mut time = SteadyTime::default();
    let mut s = scheduler(&[node("a", json!({}), json!({}))]);
    add(&mut s, &pod("p", json!({})), 0);
    let day = 86_400;
    let now = time.of(at(day));
    let Some(Decision::Bind { pod, .. }) = s.schedule_one(now) else { panic!("it is bound") };
    s.failed(&pod.key, now);
    // The clock is set back by a day, and a second passes: the back-off is over.
    let now = time.of(at(0));
    s.advance(now);
    assert!(s.schedule_one(now).is_none(), "it backs off");
    let now = time.of(at(1));
    s.advance(now);
    assert!(matches!(s.schedule_one(now), Some(Decision::Bind { .. })));
    // Set forward by a year, nothing is lost either.
    assert_eq!(time.of(at(365 * day)), at(365 * day + day));
}

#[test]
fn nodes_come_and_go() {
    let mut s = scheduler(&[node("a", json!({}), json!({}))]);
    s.remove_node("a", at(0));
    add(&mut s, &pod("p", json!({})), 0);
    assert_eq!(next(&mut s, 0), "no nodes available to schedule pods");
    // Pods may be seen before their node is.
    add(&mut s, &pod("q", json!({"nodeName": "b"})), 0);
    s.apply_node(Arc::new(serde_json::from_value(node("b", json!({}), json!({}))).unwrap()), at(1));
    s.advance(at(1));
    assert_eq!(next(&mut s, 1), "b");
    let b = s.nodes().find("b").unwrap();
    assert_eq!(s.nodes().pod_count(b), 2);
}
