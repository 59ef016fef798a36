//! What upstream has not: gangs, elastic quotas, advice, traces and what-if; and plugins that misbehave.

mod common;

use common::{Cluster, at, node, pod, with};
use jiff::SignedDuration;
use kubewright_sched::framework::{CycleContext, Locality, Plugin, Points, Verdict};
use kubewright_sched::plugins::{
    Amounts, ElasticQuota, GROUP_LABEL, Gang, NodeResourcesFit, Quota, SIZE_ANNOTATION, ScoringStrategy,
};
use kubewright_sched::{
    Decision, NodeIndex, PodKey, Profile, ProfileBuilder, QueueOptions, Refusal, Scheduler, Trace, what_if,
};
use serde_json::{Value, json};
use std::time::Duration;

fn scheduler(profile: ProfileBuilder) -> Scheduler {
    Scheduler::new(vec![profile.build().unwrap()], QueueOptions::default(), 1).unwrap()
}

fn cluster(profile: ProfileBuilder, nodes: &[Value]) -> Cluster {
    let mut cluster = Cluster { scheduler: scheduler(profile), now: 0 };
    nodes.iter().for_each(|n| cluster.node(n));
    cluster
}

fn defaults() -> ProfileBuilder {
    Profile::defaults("default-scheduler")
}

fn member(name: &str, size: usize) -> Value {
    let pod = with(pod(name, "3", json!({})), "metadata.labels", json!({GROUP_LABEL: "g"}));
    with(pod, "metadata.annotations", json!({SIZE_ANNOTATION: size.to_string()}))
}

#[test]
fn a_gang_is_bound_whole_or_not_at_all() {
    let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
    let gang = || defaults().plugin(Gang::new(Duration::from_secs(5)));
    let mut c = cluster(gang(), &nodes);
    assert_eq!(
        (c.place(&member("p0", 3)), c.place(&member("p1", 3))),
        ("waits".to_owned(), "waits".to_owned())
    );
    assert!(c.scheduler.take_prepared(at(0)).is_empty());
    assert!(
        ["a", "b", "c"].contains(&c.place(&member("p2", 3)).as_str()),
        "the last one completes the group"
    );
    let ready = c.scheduler.take_prepared(at(0));
    assert_eq!(ready.iter().filter(|d| matches!(d, Decision::Bind { .. })).count(), 2);
    // Where one finds no place, all give theirs back, so that others have them.
    let mut c = cluster(gang(), &nodes[..2]);
    for name in ["p0", "p1"] {
        assert_eq!(c.place(&member(name, 3)), "waits");
    }
    assert!(c.place(&member("p2", 3)).contains("2 Insufficient cpu"));
    c.pass(5);
    assert_eq!(c.scheduler.nodes().placed_count(), 0, "the places are free again");
    assert!(["a", "b"].contains(&c.place(&pod("q", "3", json!({"priority": 1}))).as_str()));
}

#[test]
fn a_gang_that_gave_up_backs_off_longer_each_time() {
    let gang = defaults().plugin(Gang::new(Duration::from_secs(5)));
    let mut c = cluster(gang, &[node("a", json!({})), node("b", json!({}))]);
    c.add(&member("p0", 3));
    // Two have a place or try; the third never comes.
    for wait in [10, 20, 40] {
        assert_eq!(c.next(), "waits");
        c.pass(5);
        assert_eq!(c.scheduler.nodes().placed_count(), 0, "it gave up");
        c.pass(wait - 1);
        assert_eq!(c.next(), "idle", "it leaves the room to others for {wait} s");
        c.pass(1);
    }
    assert_eq!(c.next(), "waits");
    c.add(&member("p1", 3));
    assert_eq!(c.next(), "waits");
    c.node(&node("c", json!({})));
    assert!(["a", "b", "c"].contains(&c.place(&member("p2", 3)).as_str()));
    c.scheduler.take_prepared(at(c.now));
}

#[test]
fn quotas_are_lent_but_never_exceeded() {
    let quota = |min: i64, max: i64| {
        let amounts = |cpu: i64| Amounts { milli_cpu: cpu * 1000, memory: i64::MAX / 4 };
        Quota { min: amounts(min), max: amounts(max) }
    };
    let plugin = ElasticQuota::new([("n".into(), quota(1, 3)), ("m".into(), quota(2, 4))]);
    let mut c = cluster(defaults().plugin(plugin), &[node("a", json!({})), node("b", json!({}))]);
    let in_m = |name: &str| with(pod(name, "1", json!({})), "metadata.namespace", json!("m"));
    for name in ["p0", "p1"] {
        assert_ne!(c.place(&pod(name, "1", json!({}))), "idle");
    }
    assert_ne!(c.place(&in_m("q0")), "idle");
    let said = c.place(&pod("p2", "1", json!({})));
    assert!(said.contains("2 namespace n can't borrow more quota from others"), "{said}");
    assert!(c.place(&pod("p3", "2", json!({}))).contains("namespace n would exceed its maximum quota"));
    c.scheduler.remove_pod(&PodKey::new("m", "q0"), at(0));
    c.pass(2);
    assert!(["a", "b"].contains(&c.next().as_str()), "what m does not use is lent");
}

#[test]
fn advice_moves_one_pod_out_of_the_way() {
    let mut c = Cluster::new(&[node("a", json!({})), node("b", json!({}))]);
    for (name, on, cpu) in [("x", "a", "3"), ("y", "b", "2"), ("z", "a", "1")] {
        c.add(&pod(name, cpu, json!({"nodeName": on})));
    }
    assert!(c.place(&pod("p", "3", json!({}))).contains("2 Insufficient cpu"));
    assert_eq!(c.scheduler.advise(&PodKey::new("n", "p")), None, "x fits nowhere else");
    assert!(
        c.place(&pod("q", "3", json!({"nodeSelector": {"kubernetes.io/hostname": "b"}})))
            .contains("Insufficient")
    );
    c.node(&node("c", json!({})));
    c.add(&pod("w", "2", json!({"nodeName": "c"})));
    let advice = c.scheduler.advise(&PodKey::new("n", "q")).unwrap();
    assert_eq!((advice.node.as_str(), advice.moves.name.as_str(), advice.to.as_str()), ("b", "y", "c"));
}

#[test]
fn a_trace_replays_alike_and_shows_what_another_profile_would_do() {
    let mut c = Cluster::new(&[]);
    c.scheduler.record_trace();
    for name in ["a", "b", "c"] {
        c.node(&node(name, json!({})));
    }
    let mut placed = Vec::new();
    for n in 0..6 {
        let name = format!("p{n}");
        placed.push((PodKey::new("n", &name), c.place(&pod(&name, "500m", json!({})))));
    }
    let text = c.scheduler.take_trace().unwrap().to_lines();
    let trace = Trace::from_lines(&text).unwrap();
    assert_eq!(trace.to_lines(), text);
    let again = trace.replay(&mut scheduler(defaults()), SignedDuration::ZERO).unwrap();
    let again: Vec<(PodKey, String)> = again.placed.into_iter().map(|(k, n)| (k, n.to_string())).collect();
    assert_eq!(again, placed, "the same facts and seed give the same placements");
    let packing = defaults()
        .without("NodeResourcesFit")
        .without("NodeResourcesBalancedAllocation")
        .plugin(NodeResourcesFit { strategy: ScoringStrategy::MostAllocated, ..NodeResourcesFit::default() });
    let mut packed = scheduler(packing);
    let differences = what_if(&trace, &mut scheduler(defaults()), &mut packed).unwrap();
    assert!(!differences.is_empty(), "pods are packed instead of spread");
    let used = (0..3).filter(|n| packed.nodes().pod_count(NodeIndex(*n)) > 0).count();
    assert_eq!(used, 1);
    assert_eq!(Trace::from_lines("{}\n").unwrap_err().line, 1);
}

/// Panics, or fails, for pods of these names.
struct Moody;

impl Plugin for Moody {
    fn name(&self) -> &'static str {
        "Moody"
    }
    fn points(&self) -> Points {
        Points::FILTER
    }
    fn locality(&self) -> Locality {
        Locality::Cluster
    }
    fn filter(&self, cx: CycleContext<'_>, _: NodeIndex) -> Verdict {
        assert!(cx.pod.key.name != "panics", "not in the mood");
        if cx.pod.key.name == "errs" { Err(Refusal::error("lost its mind")) } else { Ok(()) }
    }
}

#[test]
fn plugins_that_fail_cost_their_pod_a_try_and_nothing_else() {
    let mut c = cluster(defaults().plugin(Moody), &[node("a", json!({})), node("b", json!({}))]);
    assert!(c.place(&pod("panics", "1", json!({}))).contains("a plugin panicked: not in the mood"));
    assert!(c.place(&pod("errs", "1", json!({}))).contains("lost its mind"));
    assert!(["a", "b"].contains(&c.place(&pod("p", "1", json!({}))).as_str()));
    assert_eq!(c.next(), "idle", "both back off");
    c.pass(1);
    assert_ne!(c.next(), "idle", "and are tried again without an event");
}

#[test]
fn absurd_objects_do_no_harm() {
    let mut c = Cluster::new(&[node("a", json!({}))]);
    let huge = json!({"metadata": {"name": "huge"}, "status": {"allocatable": {"cpu": "9e18", "memory": "-1", "pods": "1e30"}}});
    c.node(&huge);
    let term = |key: &str| {
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": key, "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["x"]}]}}]}}})
    };
    assert!(
        c.place(&pod("p", "1", term("no/such/key"))).contains("2 node(s) didn't match pod affinity rules")
    );
    let contradictory = json!({"affinity": {
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}]},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}]},
    }});
    c.add(&with(pod("x", "1", json!({"nodeName": "a"})), "metadata.labels", json!({"app": "x"})));
    let said = c.place(&with(pod("q", "1", contradictory), "metadata.labels", json!({"app": "x"})));
    assert!(said.contains("1 node(s) didn't match pod anti-affinity rules"), "{said}");
    let spread = json!({"topologySpreadConstraints": [{"topologyKey": "nowhere", "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]});
    assert!(
        c.place(&pod("r", "1", spread))
            .contains("2 node(s) didn't match pod topology spread constraints (missing required label)")
    );
    c.scheduler.remove_node("huge", at(0));
    assert!(c.place(&pod("s", "999999999999999999999", json!({}))).contains("Insufficient cpu"));
    // A node that goes while pods wait there or hold a place.
    c.scheduler.remove_node("a", at(0));
    c.scheduler.remove_node("a", at(0));
    c.remove("x");
    c.node(&node("a", json!({})));
    assert_eq!(c.place(&pod("t", "1", json!({}))), "a");
}

#[test]
fn ten_thousand_hopeless_pods_do_not_starve_the_others() {
    let mut c = Cluster::new(&[node("a", json!({}))]);
    for n in 0..10_000 {
        c.add(&pod(&format!("never-{n}"), "9", json!({})));
    }
    c.add(&pod("p", "1", json!({"priority": 1})));
    assert_eq!(c.next(), "a");
    for _ in 0..10_000 {
        assert!(c.next().contains("Insufficient cpu"));
    }
    // An event that can't help wakes none of them.
    c.add(&pod("q", "1", json!({"nodeName": "a"})));
    c.pass(20);
    assert_eq!(c.next(), "idle");
    assert_eq!(c.place(&pod("r", "1", json!({}))), "a");
}
