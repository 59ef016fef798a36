//! What is decided for a pod, by tables.

use super::*;
use crate::testing::{instance, observed, pod};
use serde_json::json;

/// (kill_pod, create_sandbox, killed, init started, started)
type Seen = (bool, bool, Vec<String>, Vec<usize>, Vec<usize>);

fn decide(spec: serde_json::Value, observed: &Observed, probes: &ProbeStates) -> Seen {
    let a = compute(&pod(spec), observed, probes);
    (a.kill_pod, a.create_sandbox, a.kill.into_iter().map(|k| k.name).collect(), a.start_init, a.start)
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_new_pod_gets_sandbox_and_containers() {
    let check = |spec: serde_json::Value, observed: Observed, wanted: Seen| {
        assert_eq!(decide(spec.clone(), &observed, &ProbeStates::default()), wanted, "{spec}");
    };
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check(two.clone(), Observed::default(), (true, true, none(), vec![], vec![0, 1]));
    let with_init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
    check(with_init, Observed::default(), (true, true, none(), vec![0], vec![]));
    check(two.clone(), observed(&[]), (false, false, none(), vec![], vec![0, 1]));
    check(two.clone(), observed(&[instance("a", "running", 0)]), (false, false, none(), vec![], vec![1]));
    let mut dead = observed(&[instance("a", "exited", 0), instance("b", "exited", 1)]);
    dead.sandboxes[0].state = kubewright_runtime::port::PodSandboxState::NotReady;
    check(two, dead.clone(), (true, true, none(), vec![], vec![0, 1]));
    let policy = |p: &str| json!({"restartPolicy": p, "containers": [{"name": "a"}, {"name": "b"}]});
    check(policy("OnFailure"), dead.clone(), (true, true, none(), vec![], vec![1]));
    check(policy("Never"), dead, (true, false, none(), vec![], vec![]));
}

#[test]
fn ended_containers_restart_as_their_policy_says() {
    let check = |policy: &str, a: i32, b: i32, start: Vec<usize>, kill_pod: bool| {
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
        let seen = observed(&[instance("a", "exited", a), instance("b", "exited", b)]);
        assert_eq!(decide(spec, &seen, &ProbeStates::default()), (kill_pod, false, none(), vec![], start));
    };
    check("Always", 0, 1, vec![0, 1], false);
    check("OnFailure", 0, 1, vec![1], false);
    check("OnFailure", 0, 0, vec![], true);
    check("Never", 1, 0, vec![], true);
}

#[test]
fn init_containers_come_in_order() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}]})
    };
    let check =
        |policy: &str, containers: &[Instance], init: Vec<usize>, start: Vec<usize>, kill_pod: bool| {
            let seen = observed(containers);
            let got = decide(spec(policy), &seen, &ProbeStates::default());
            assert_eq!(got, (kill_pod, false, none(), init, start), "{policy} {containers:?}");
        };
    check("Always", &[], vec![0], vec![], false);
    check("Always", &[instance("i", "running", 0)], vec![], vec![], false);
    check("Always", &[instance("i", "exited", 1)], vec![0], vec![], false);
    check("Never", &[instance("i", "exited", 1)], vec![], vec![], true);
    let done = instance("i", "exited", 0);
    check("Never", std::slice::from_ref(&done), vec![1], vec![], false);
    let sidecar = instance("s", "running", 0);
    check("Never", &[done.clone(), sidecar.clone()], vec![2], vec![], false);
    let both = [done.clone(), sidecar.clone(), instance("j", "exited", 0)];
    check("Never", &both, vec![], vec![0], false);
    // A sidecar that ended comes back while the pod's containers run, and its end holds nothing up.
    let run =
        [done.clone(), instance("s", "exited", 1), instance("j", "exited", 0), instance("a", "running", 0)];
    check("Never", &run, vec![1], vec![], false);
    let over = [done, sidecar, instance("j", "exited", 0), instance("a", "exited", 0)];
    check("Never", &over, vec![], vec![], true);
}

#[test]
fn probes_end_containers() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a", "livenessProbe": {}, "startupProbe": {}}]});
    let check = |policy: &str, probes: ContainerProbes, killed: bool, start: Vec<usize>| {
        let mut states = ProbeStates::default();
        states.set("id-a", probes);
        let got = decide(spec(policy), &observed(&[instance("a", "running", 0)]), &states);
        let names = if killed { vec!["a".to_owned()] } else { none() };
        assert_eq!((got.2, got.4), (names, start), "{policy} {probes:?}");
    };
    let ok = ContainerProbes::default();
    check("Always", ok, false, vec![]);
    check("Always", ContainerProbes { liveness: Some(true), ..ok }, false, vec![]);
    check("Always", ContainerProbes { liveness: Some(false), ..ok }, true, vec![0]);
    check("Always", ContainerProbes { startup: Some(false), ..ok }, true, vec![0]);
    check("Never", ContainerProbes { liveness: Some(false), ..ok }, true, vec![]);
    check("Always", ContainerProbes { readiness: Some(false), ..ok }, false, vec![]);
}

#[test]
fn ephemeral_containers_start_once_and_keep_no_pod() {
    let check = |containers: &[Instance], wanted: Vec<usize>, kill_pod: bool| {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
            "ephemeralContainers": [{"name": "d"}, {"name": "e"}]});
        let got = compute(&pod(spec), &observed(containers), &ProbeStates::default());
        assert_eq!((got.start_ephemeral, got.kill_pod), (wanted, kill_pod));
    };
    let a = instance("a", "running", 0);
    check(std::slice::from_ref(&a), vec![0, 1], false);
    check(&[a.clone(), instance("d", "running", 0)], vec![1], false);
    check(&[a, instance("d", "exited", 1), instance("e", "exited", 0)], vec![], false);
    check(&[instance("a", "exited", 0), instance("d", "running", 0)], vec![], true);
}
