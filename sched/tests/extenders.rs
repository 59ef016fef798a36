//! Extenders: asked about the pods that are their business, believed as far as upstream believes them.

mod common;

use common::{at, node, pod};
use kubewright_sched::extender::{Candidate, preempted};
use kubewright_sched::{Configuration, Consultation, Decision, PodKey, Registry, Scheduler};
use serde_json::{Value, json};
use std::sync::Arc;

fn scheduler(extender: Value) -> Scheduler {
    let config = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "extenders": [extender],
    });
    let config = Configuration::from_value(config).unwrap();
    let mut scheduler = config.scheduler(&Registry::builtin(), 1).unwrap();
    for name in ["a", "b", "c"] {
        scheduler.apply_node(Arc::new(serde_json::from_value(node(name, json!({}))).unwrap()), at(0));
    }
    scheduler
}

fn add(scheduler: &mut Scheduler, pod: &Value) -> Option<Decision> {
    scheduler.apply_pod(Arc::new(serde_json::from_value(pod.clone()).unwrap()), at(0));
    scheduler.schedule_one(at(0))
}

fn extender() -> Value {
    json!({"urlPrefix": "http://x", "filterVerb": "filter", "prioritizeVerb": "score", "weight": 5, "nodeCacheCapable": true})
}

#[test]
fn an_extender_filters_and_scores() {
    let mut s = scheduler(extender());
    let Some(Decision::Consult { pod, extenders, nodes }) = add(&mut s, &pod("p", "1", json!({}))) else {
        panic!("the extender is asked")
    };
    assert_eq!((extenders.as_slice(), nodes.len()), (&[0][..], 3));
    let arguments = s.extenders()[0].arguments(&pod, &nodes, &[]);
    assert_eq!(arguments["nodenames"], json!(["a", "b", "c"]));
    assert_eq!(arguments["pod"]["metadata"]["name"], json!("p"));
    let mut answer = Consultation::of(&nodes);
    answer.filtered(&json!({"nodenames": ["b", "c"], "failedNodes": {"a": "not a"}})).unwrap();
    answer.prioritized(&json!([{"host": "b", "score": 1}, {"host": "c", "score": 9}]), 5).unwrap();
    let Some(Decision::Bind { node, .. }) = s.consulted(&pod.key, Ok(answer), at(0)) else {
        panic!("it is bound")
    };
    assert_eq!(node, "c");
}

#[test]
fn extenders_that_refuse_lie_or_fail_are_told_apart() {
    let mut s = scheduler(extender());
    let Some(Decision::Consult { pod: p, nodes, .. }) = add(&mut s, &pod("p", "1", json!({}))) else {
        panic!("the extender is asked")
    };
    let mut answer = Consultation::of(&nodes);
    assert!(answer.filtered(&json!({"nodenames": ["z"]})).unwrap_err().contains("z"));
    assert!(answer.filtered(&json!({"error": "on fire"})).unwrap_err().contains("on fire"));
    assert!(answer.filtered(&json!("no")).is_err());
    answer.filtered(&json!({"nodenames": [], "failedNodes": {"a": "no luck", "b": "no luck"}})).unwrap();
    let Some(Decision::Unschedulable { diagnosis, .. }) = s.consulted(&p.key, Ok(answer), at(0)) else {
        panic!("no node is left")
    };
    assert!(diagnosis.to_string().starts_with("0/3 nodes are available: 2 no luck."), "{diagnosis}");
    let Some(Decision::Consult { pod: q, .. }) = add(&mut s, &pod("q", "1", json!({}))) else {
        panic!("asked")
    };
    let decision = s.consulted(&q.key, Err("timed out".to_owned()), at(0));
    assert!(matches!(decision, Some(Decision::Unschedulable { diagnosis, .. }) if diagnosis.is_error()));
    assert!(s.consulted(&q.key, Err(String::new()), at(0)).is_none(), "it is not set aside any more");
}

#[test]
fn names_of_fields_are_read_in_any_case() {
    let mut answer = Consultation::of(&["a".into(), "b".into()]);
    answer.filtered(&json!({"NodeNames": ["b"], "FailedNodes": {"a": "no"}, "Error": ""})).unwrap();
    assert_eq!((answer.nodes.len(), answer.refused.len()), (1, 1));
    answer.prioritized(&json!([{"Host": "b", "Score": i64::MAX}]), 1).unwrap();
    assert_eq!(answer.scores["b"], 100, "more than ten is ten");
}

#[test]
fn what_an_extender_looks_after_is_not_counted_by_the_scheduler() {
    let mut with = extender();
    with["managedResources"] = json!([{"name": "example.com/gpu", "ignoredByScheduler": true}]);
    let mut s = scheduler(with);
    let mut gpu = pod("p", "1", json!({}));
    gpu["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = json!("1");
    assert!(matches!(add(&mut s, &gpu), Some(Decision::Consult { nodes, .. }) if nodes.len() == 3));
}

#[test]
fn a_preemption_is_left_with_what_the_extender_names() {
    let candidates: Vec<Candidate> = ["a", "b"]
        .iter()
        .map(|node| Candidate {
            node: (*node).into(),
            victims: vec![PodKey::new("n", &format!("one-{node}")), PodKey::new("n", &format!("two-{node}"))],
            violations: 0,
        })
        .collect();
    let uid = |key: &PodKey| Some(key.name.clone());
    let check =
        |answer: Value, wanted: Result<usize, &str>| match (preempted(&answer, &candidates, uid), wanted) {
            (Ok(left), Ok(n)) => assert_eq!(left.len(), n, "{answer}"),
            (Err(e), Err(text)) => assert!(e.contains(text), "{e}"),
            (got, _) => panic!("{answer}: {got:?}"),
        };
    check(json!({"nodeNameToMetaVictims": {"b": {"pods": [{"uid": "two-b"}]}}}), Ok(1));
    check(json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "two-b"}]}}}), Ok(1));
    check(json!({}), Ok(0));
    check(json!({"nodeNameToMetaVictims": {"z": {"pods": []}}}), Err("no candidate"));
    check(json!({"nodeNameToMetaVictims": {"a": {"pods": [{"uid": "x"}]}}}), Err("no victim"));
    check(json!([1]), Err("the extender's answer"));
}

#[test]
fn pods_that_are_not_its_business_pass_by() {
    let mut with = extender();
    with["managedResources"] = json!([{"name": "example.com/gpu"}]);
    let mut s = scheduler(with);
    assert!(matches!(add(&mut s, &pod("p", "1", json!({}))), Some(Decision::Bind { .. })));
}
