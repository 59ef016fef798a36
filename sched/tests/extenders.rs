//! Extenders: asked about the pods that are their business, believed as far as upstream believes them.

mod common;

use common::{at, node, pod};
use kubewright_sched::{Configuration, Consultation, Decision, Registry, Scheduler};
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
    let arguments = s.extenders()[0].arguments(&pod, &nodes, &s);
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
fn pods_that_are_not_its_business_pass_by() {
    let mut with = extender();
    with["managedResources"] = json!([{"name": "example.com/gpu"}]);
    let mut s = scheduler(with);
    assert!(matches!(add(&mut s, &pod("p", "1", json!({}))), Some(Decision::Bind { .. })));
}
