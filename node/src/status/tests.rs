//! Which status follows from what runs, by tables.

use super::*;
use crate::probe::ContainerProbes;
use crate::testing::{instance, observed, pod};
use kubewright_runtime::port::Container;
use serde_json::{Value, json};

struct Case {
    spec: Value,
    old: Value,
    containers: Vec<Container>,
    waits: Waits,
    probes: ProbeStates,
    ended: bool,
    failed: Option<(&'static str, &'static str)>,
}

fn case(spec: Value, containers: &[Container]) -> Case {
    Case {
        spec,
        old: json!({}),
        containers: containers.to_vec(),
        waits: Waits::new(),
        probes: ProbeStates::default(),
        ended: false,
        failed: None,
    }
}

fn status(case: &Case) -> Value {
    let mut p = pod(case.spec.clone());
    p.status = serde_json::from_value(case.old.clone()).unwrap();
    let seen = observed(&case.containers);
    let input = StatusInput {
        observed: &seen,
        probes: &case.probes,
        waits: &case.waits,
        runtime: "fake",
        host_ips: &["10.0.0.1".to_owned()],
        ending: case.ended,
        ended: case.ended,
        failed: case.failed,
        now: Timestamp::from_second(1000).unwrap(),
    };
    serde_json::to_value(compute(&p, &input)).unwrap()
}

fn condition<'a>(status: &'a Value, name: &str) -> (&'a str, &'a str, &'a str) {
    let all = status["conditions"].as_array().unwrap();
    let c = all.iter().find(|c| c["type"] == name).unwrap();
    (c["status"].as_str().unwrap(), c["reason"].as_str().unwrap_or(""), c["message"].as_str().unwrap_or(""))
}

#[test]
fn phases_follow_the_containers() {
    let check = |spec: Value, containers: &[Container], ended: bool, wanted: &str| {
        let s = status(&Case { ended, ..case(spec.clone(), containers) });
        assert_eq!(s["phase"], wanted, "{spec} {containers:?}");
    };
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
    let (run_a, run_b) = (instance("a", "running", 0), instance("b", "running", 0));
    let (ok_a, ok_b, bad_b) =
        (instance("a", "exited", 0), instance("b", "exited", 0), instance("b", "exited", 1));
    check(spec("Always"), &[], false, "Pending");
    check(spec("Always"), std::slice::from_ref(&run_a), false, "Pending");
    check(spec("Always"), &[run_a.clone(), run_b], false, "Running");
    check(spec("Always"), &[ok_a.clone(), ok_b.clone()], false, "Running");
    check(spec("Always"), &[ok_a.clone(), ok_b.clone()], true, "Succeeded");
    check(spec("Never"), &[ok_a.clone(), ok_b], false, "Succeeded");
    check(spec("Never"), &[ok_a.clone(), bad_b.clone()], false, "Failed");
    check(spec("OnFailure"), &[ok_a, bad_b.clone()], false, "Running");
    check(spec("Never"), &[run_a, bad_b], false, "Running");
    let init = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
    check(init("Always"), &[instance("i", "running", 0)], false, "Pending");
    check(init("Always"), &[instance("i", "exited", 1)], false, "Pending");
    check(init("Never"), &[instance("i", "exited", 1)], false, "Failed");
    check(init("Never"), &[instance("i", "exited", 0)], false, "Pending");
}

#[test]
fn a_running_pod_is_ready() {
    let s =
        status(&case(json!({"containers": [{"name": "c", "image": "i"}]}), &[instance("c", "running", 0)]));
    let c = &s["containerStatuses"][0];
    assert_eq!(c["containerID"], "fake://id-c");
    assert_eq!((&c["ready"], &c["started"], &c["restartCount"]), (&json!(true), &json!(true), &json!(0)));
    assert_eq!(c["state"]["running"]["startedAt"], "1970-01-01T00:00:02Z");
    assert_eq!(
        (&s["podIP"], &s["hostIP"], &s["qosClass"]),
        (&json!("10.0.0.9"), &json!("10.0.0.1"), &json!("BestEffort"))
    );
    for name in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&s, name).0, "True", "{name}");
    }
}

#[test]
fn waiting_containers_say_why() {
    let mut c = case(json!({"containers": [{"name": "c"}]}), &[instance("c", "exited", 1)]);
    c.waits.insert("c".to_owned(), ("CrashLoopBackOff".to_owned(), "back-off 10s".to_owned()));
    let s = status(&c);
    let c = &s["containerStatuses"][0];
    assert_eq!(c["state"]["waiting"], json!({"reason": "CrashLoopBackOff", "message": "back-off 10s"}));
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(c["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(s["phase"], "Running");
    assert_eq!(
        condition(&s, "Ready"),
        ("False", "ContainersNotReady", "containers with unready status: [c]")
    );
    let s = status(&case(json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}), &[]));
    assert_eq!(s["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        condition(&s, "Initialized"),
        ("False", "ContainersNotInitialized", "containers with incomplete status: [i]")
    );
    let s = status(&case(json!({"containers": [{"name": "c"}]}), &[]));
    assert_eq!(s["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
}

#[test]
fn probes_and_gates_hold_readiness_back() {
    let spec = json!({"containers": [{"name": "c", "readinessProbe": {}, "startupProbe": {}}],
        "readinessGates": [{"conditionType": "x/y"}]});
    let check = |probes: ContainerProbes, gate: Option<&str>, containers: &str, reason: &str| {
        let mut c = case(spec.clone(), &[instance("c", "running", 0)]);
        c.probes.set("id-c", probes);
        if let Some(status) = gate {
            c.old = json!({"conditions": [{"type": "x/y", "status": status}]});
        }
        let s = status(&c);
        assert_eq!(condition(&s, "ContainersReady").0, containers, "{probes:?}");
        assert_eq!(condition(&s, "Ready").1, reason, "{probes:?} {gate:?}");
    };
    let none = ContainerProbes::default();
    let started = ContainerProbes { startup: Some(true), ..none };
    let ready = ContainerProbes { readiness: Some(true), ..started };
    check(none, None, "False", "ContainersNotReady");
    check(started, None, "False", "ContainersNotReady");
    check(ContainerProbes { readiness: Some(true), ..none }, None, "False", "ContainersNotReady");
    check(ready, None, "True", "ReadinessGatesNotReady");
    check(ready, Some("False"), "True", "ReadinessGatesNotReady");
    check(ready, Some("True"), "True", "");
}

#[test]
fn what_ended_stays_ended() {
    let old = json!({"phase": "Failed", "reason": "Evicted", "containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2, "containerID": "fake://x",
         "state": {"running": {}}}]});
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c"}]});
    let s = status(&Case { old, ended: true, ..case(spec.clone(), &[]) });
    assert_eq!((&s["phase"], &s["reason"]), (&json!("Failed"), &json!("Evicted")));
    assert_eq!(s["containerStatuses"][0]["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    let s = status(&Case { failed: Some(("OutOfcpu", "no room")), ..case(spec.clone(), &[]) });
    assert_eq!(
        (&s["phase"], &s["reason"], &s["message"]),
        (&json!("Failed"), &json!("OutOfcpu"), &json!("no room"))
    );
    let running = case(spec.clone(), &[instance("c", "running", 0)]);
    let s = status(&Case { failed: Some(("DeadlineExceeded", "late")), ..running });
    assert_eq!((&s["phase"], &s["reason"]), (&json!("Running"), &Value::Null));
    let s = status(&case(spec, &[instance("c", "exited", 0)]));
    assert_eq!(condition(&s, "Ready").1, "PodCompleted");
}

#[test]
fn patches_hold_only_what_differs() {
    let of = |v: Value| -> PodStatus { serde_json::from_value(v).unwrap() };
    let check = |old: Value, new: Value, wanted: Value| {
        let patch = status_patch("u", &of(old), &of(new));
        assert_eq!(patch.map_or(Value::Null, |p| p["status"].clone()), wanted);
    };
    check(json!({"phase": "Running"}), json!({"phase": "Running"}), Value::Null);
    check(
        json!({"phase": "Pending", "reason": "x"}),
        json!({"phase": "Running"}),
        json!({"phase": "Running", "reason": null}),
    );
    check(
        json!({}),
        json!({"podIPs": [{"ip": "1"}]}),
        json!({"podIPs": [{"$patch": "replace"}, {"ip": "1"}]}),
    );
    let ready =
        |status: &str, reason: Option<&str>| json!({"type": "Ready", "status": status, "reason": reason});
    let foreign = json!({"type": "x/y", "status": "True"});
    check(
        json!({"conditions": [foreign, ready("False", Some("r"))]}),
        json!({"conditions": [ready("True", None)]}),
        json!({"conditions": [{"type": "Ready", "status": "True", "reason": null}]}),
    );
}
