//! DynamicResources and NodeDeclaredFeatures: which devices claims get, on which nodes, and what is said where they can't.

mod common;

use common::{at, node, pod};
use kubewright_core::RequestBody;
use kubewright_sched::{ClusterObject, Decision, PodKey, Scheduler};
use serde_json::{Value, json};
use std::sync::Arc;

const DRIVER: &str = "gpu.example.com";

fn apply(s: &mut Scheduler, resource: &str, object: Value) {
    let object = ClusterObject::from_value(resource, &object).unwrap().expect("a kind that is followed");
    s.apply_object(&object, at(0));
}

/// Two nodes, a class of all devices of the driver.
fn scheduler() -> Scheduler {
    let mut s = Scheduler::with_defaults(1);
    for name in ["a", "b"] {
        s.apply_node(Arc::new(serde_json::from_value(node(name, json!({}))).unwrap()), at(0));
    }
    class(&mut s, "gpu", &format!("device.driver == '{DRIVER}'"));
    s
}

fn class(s: &mut Scheduler, name: &str, expression: &str) {
    apply(
        s,
        "deviceclasses",
        json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}],
        "config": [{"opaque": {"driver": DRIVER, "parameters": {"from": name}}}]}}),
    );
}

fn slice(s: &mut Scheduler, name: &str, over: Value) {
    let mut spec =
        json!({"driver": DRIVER, "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}});
    for (key, value) in over.as_object().unwrap() {
        spec[key] = value.clone();
    }
    apply(s, "resourceslices", json!({"metadata": {"name": name}, "spec": spec}));
}

fn gpu(name: &str, model: &str, numa: i64) -> Value {
    json!({"name": name, "attributes": {"model": {"string": model}, "numa": {"int": numa}}, "capacity": {"memory": {"value": "40Gi"}}})
}

fn claim(s: &mut Scheduler, name: &str, devices: Value) {
    apply(
        s,
        "resourceclaims",
        json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "7"},
        "spec": {"devices": devices}}),
    );
}

fn exactly(name: &str, over: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu"});
    for (key, value) in over.as_object().unwrap() {
        exactly[key] = value.clone();
    }
    json!({"name": name, "exactly": exactly})
}

fn uses(name: &str, claims: &[&str]) -> Value {
    let claims: Vec<Value> = claims.iter().map(|c| json!({"name": c, "resourceClaimName": c})).collect();
    pod(name, "1", json!({"resourceClaims": claims}))
}

fn add(s: &mut Scheduler, pod: &Value) -> Decision {
    s.apply_pod(Arc::new(serde_json::from_value(pod.clone()).unwrap()), at(0));
    tried(s, pod["metadata"]["name"].as_str().unwrap(), 0)
}

/// What becomes of a pod; others that were woken with it may come first.
fn tried(s: &mut Scheduler, name: &str, seconds: i64) -> Decision {
    s.advance(at(seconds));
    loop {
        let decision = s.schedule_one(at(seconds)).expect("it is tried");
        let (Decision::Bind { pod, .. }
        | Decision::Prepare { pod, .. }
        | Decision::Unschedulable { pod, .. }) = &decision
        else {
            continue;
        };
        if pod.key.name == name {
            return decision;
        }
    }
}

/// The node that a pod goes to, and the allocation that is written, if any.
fn bound(decision: Decision) -> (String, Value) {
    let Decision::Bind { node, requests, .. } = decision else { panic!("bound, not {decision:?}") };
    let status = |r: &kubewright_core::ApiRequest| match &r.body {
        RequestBody::Value { value, .. } => value.get("status")?.get("allocation").cloned(),
        _ => None,
    };
    let allocation = requests.iter().find_map(status);
    (node.to_string(), allocation.unwrap_or_default())
}

fn devices(allocation: &Value) -> Vec<(String, String)> {
    let results = allocation["devices"]["results"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    results.iter().map(|r| (text(&r["request"]), text(&r["device"]))).collect()
}

fn refused(decision: Decision) -> String {
    let Decision::Unschedulable { diagnosis, .. } = decision else { panic!("refused, not {decision:?}") };
    diagnosis.to_string()
}

/// What one claim gets on a cluster where node `a` has two old devices and node `b` has three new ones in two places.
fn check(request: Value, wanted: Result<(&str, &[&str]), &str>) {
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [gpu("a0", "old", 0), gpu("a1", "old", 0)]}));
    slice(
        &mut s,
        "of-b",
        json!({"nodeName": "b", "devices": [gpu("b0", "new", 0), gpu("b1", "new", 1), gpu("b2", "new", 1)]}),
    );
    claim(&mut s, "c", request.clone());
    let decision = add(&mut s, &uses("p", &["c"]));
    match wanted {
        Ok((node, names)) => {
            let (on, allocation) = bound(decision);
            let got: Vec<String> = devices(&allocation).into_iter().map(|(_, d)| d).collect();
            assert_eq!(
                (on.as_str(), got),
                (node, names.iter().map(|n| (*n).to_owned()).collect()),
                "{request}"
            );
            assert_eq!(
                allocation["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"],
                json!([node])
            );
        }
        Err(text) => {
            let said = refused(decision);
            assert!(said.contains(text), "{request}: {said}");
        }
    }
}

#[test]
fn claims_get_the_devices_that_they_ask_for() {
    let cel = |text: &str| json!([{"cel": {"expression": text}}]);
    let new = cel(&format!("device.attributes['{DRIVER}'].model == 'new'"));
    check(json!({"requests": [exactly("r", json!({"selectors": new}))]}), Ok(("b", &["b0"])));
    check(json!({"requests": [exactly("r", json!({"count": 3}))]}), Ok(("b", &["b0", "b1", "b2"])));
    check(json!({"requests": [exactly("r", json!({"count": 4}))]}), Err("2 cannot allocate all claims"));
    check(
        json!({"requests": [exactly("r", json!({"selectors": new, "allocationMode": "All"}))]}),
        Ok(("b", &["b0", "b1", "b2"])),
    );
    let big = cel(&format!("device.capacity['{DRIVER}'].memory.compareTo(quantity('80Gi')) >= 0"));
    check(
        json!({"requests": [exactly("r", json!({"selectors": big}))]}),
        Err("2 cannot allocate all claims"),
    );
    check(
        json!({"requests": [exactly("r", json!({"selectors": cel("device.nonsense")}))]}),
        Err("device.nonsense"),
    );
    let absent = cel(&format!("device.attributes['{DRIVER}'].absent == 1"));
    check(json!({"requests": [exactly("r", json!({"selectors": absent}))]}), Err("absent"));
    check(
        json!({"requests": [exactly("r", json!({"deviceClassName": "none"}))]}),
        Err("device class none does not exist"),
    );
}

#[test]
fn constraints_hold_over_requests() {
    let two = json!([exactly("x", json!({})), exactly("y", json!({}))]);
    let same = |attribute: &str| json!({"requests": two, "constraints": [{"matchAttribute": attribute}]});
    let counted = |n: i64| {
        json!({"requests": [exactly("x", json!({"count": n}))],
            "constraints": [{"matchAttribute": format!("{DRIVER}/numa"), "requests": ["x"]}]})
    };
    check(counted(3), Err("cannot allocate all claims"));
    let new = json!([{"cel": {"expression": format!("device.attributes['{DRIVER}'].model == 'new'")}}]);
    let apart = json!([exactly("x", json!({"selectors": new})), exactly("y", json!({"selectors": new}))]);
    check(
        json!({"requests": apart, "constraints": [{"matchAttribute": format!("{DRIVER}/numa")}]}),
        Ok(("b", &["b1", "b2"])),
    );
    check(
        json!({"requests": apart, "constraints": [{"distinctAttribute": format!("{DRIVER}/numa")}]}),
        Ok(("b", &["b0", "b1"])),
    );
    check(same("other.example.com/numa"), Err("cannot allocate all claims"));
}

#[test]
fn the_first_alternative_that_can_be_had_is_taken() {
    let sub = |name: &str, count: i64| json!({"name": name, "deviceClassName": "gpu", "count": count});
    let first = |list: Value| json!({"requests": [{"name": "r", "firstAvailable": list}]});
    check(first(json!([sub("many", 9), sub("three", 3)])), Ok(("b", &["b0", "b1", "b2"])));
    check(first(json!([sub("many", 9)])), Err("cannot allocate all claims"));
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [gpu("a0", "old", 0)]}));
    let mut devices_of = first(json!([sub("many", 9), sub("one", 1)]));
    devices_of["config"] = json!([{"requests": ["r/many"], "opaque": {"driver": DRIVER}}, {"requests": ["r"], "opaque": {"driver": DRIVER}}]);
    claim(&mut s, "c", devices_of);
    let (_, allocation) = bound(add(&mut s, &uses("p", &["c"])));
    assert_eq!(devices(&allocation), [("r/one".to_owned(), "a0".to_owned())]);
    let config = allocation["devices"]["config"].as_array().unwrap();
    let of: Vec<_> = config.iter().map(|c| (c["source"].clone(), c["requests"].clone())).collect();
    assert_eq!(of, [(json!("FromClass"), json!(["r/one"])), (json!("FromClaim"), json!(["r"]))]);
}

#[test]
fn a_device_is_given_once_until_it_is_free_again() {
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [gpu("a0", "old", 0)]}));
    let one = json!({"requests": [exactly("r", json!({}))]});
    for name in ["c", "d"] {
        claim(&mut s, name, one.clone());
    }
    let (_, allocation) = bound(add(&mut s, &uses("p", &["c"])));
    assert!(
        refused(add(&mut s, &uses("q", &["d"]))).contains("cannot allocate all claims"),
        "it is on its way to the other"
    );
    s.bound(&PodKey::new("n", "p"));
    let shown = json!({"metadata": {"namespace": "n", "name": "c", "uid": "c", "resourceVersion": "8"}, "spec": {"devices": one},
        "status": {"allocation": allocation, "reservedFor": [{"resource": "pods", "name": "p", "uid": "p"}]}});
    apply(&mut s, "resourceclaims", shown.clone());
    assert!(refused(tried(&mut s, "q", 100)).contains("cannot allocate all claims"));
    // Administrators look at devices that others have.
    claim(&mut s, "admin", json!({"requests": [exactly("r", json!({"adminAccess": true}))]}));
    let (_, watched) = bound(add(&mut s, &uses("w", &["admin"])));
    assert_eq!(watched["devices"]["results"][0]["adminAccess"], true);
    // A second pod may share the claim where its devices are.
    let (node, allocation) = bound(add(&mut s, &uses("r", &["c"])));
    assert_eq!((node.as_str(), allocation), ("a", Value::Null), "it is reserved and not allocated anew");
    let mut freed = shown;
    freed["status"] = json!({});
    freed["metadata"]["resourceVersion"] = json!("9");
    apply(&mut s, "resourceclaims", freed);
    let decision = tried(&mut s, "q", 200);
    assert_eq!(bound(decision).0, "a");
}

#[test]
fn parts_of_a_device_share_its_counters() {
    let mut s = scheduler();
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "gpu-0", "counters": {"memory": {"value": memory}}}]});
    slice(
        &mut s,
        "of-a",
        json!({"nodeName": "a", "sharedCounters": [{"name": "gpu-0", "counters": {"memory": {"value": "40Gi"}}}],
        "devices": [part("whole", "40Gi"), part("half-0", "20Gi"), part("half-1", "20Gi")]}),
    );
    let half = json!([{"cel": {"expression": "true"}}]);
    for name in ["c", "d", "e"] {
        claim(&mut s, name, json!({"requests": [exactly("r", json!({"selectors": half}))]}));
    }
    let (_, first) = bound(add(&mut s, &uses("p", &["c"])));
    assert_eq!(devices(&first)[0].1, "whole");
    assert!(
        refused(add(&mut s, &uses("q", &["d"]))).contains("cannot allocate all claims"),
        "nothing is left of it"
    );
    let mut s = scheduler();
    slice(
        &mut s,
        "of-a",
        json!({"nodeName": "a", "sharedCounters": [{"name": "gpu-0", "counters": {"memory": {"value": "40Gi"}}}],
        "devices": [part("half-0", "20Gi"), part("half-1", "20Gi"), part("whole", "40Gi")]}),
    );
    claim(&mut s, "c", json!({"requests": [exactly("r", json!({"count": 2}))]}));
    claim(&mut s, "d", json!({"requests": [exactly("r", json!({}))]}));
    let (_, both) = bound(add(&mut s, &uses("p", &["c"])));
    assert_eq!(devices(&both).into_iter().map(|(_, d)| d).collect::<Vec<_>>(), ["half-0", "half-1"]);
    assert!(refused(add(&mut s, &uses("q", &["d"]))).contains("cannot allocate all claims"));
}

#[test]
fn pools_and_taints_are_looked_at() {
    let one = json!({"requests": [exactly("r", json!({}))]});
    let mut s = scheduler();
    slice(
        &mut s,
        "new",
        json!({"nodeName": "a", "devices": [gpu("n0", "x", 0)], "pool": {"name": "p", "generation": 2, "resourceSliceCount": 2}}),
    );
    slice(
        &mut s,
        "old",
        json!({"nodeName": "a", "devices": [gpu("o0", "x", 0)], "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}),
    );
    claim(&mut s, "c", one.clone());
    assert!(
        refused(add(&mut s, &uses("p", &["c"]))).contains("cannot allocate all claims"),
        "the pool is not whole"
    );
    slice(
        &mut s,
        "more",
        json!({"nodeName": "a", "devices": [], "pool": {"name": "p", "generation": 2, "resourceSliceCount": 2}}),
    );
    let (_, allocation) = bound(tried(&mut s, "p", 100));
    assert_eq!(devices(&allocation)[0].1, "n0");
    let mut s = scheduler();
    let mut broken = gpu("t0", "x", 0);
    broken["taints"] = json!([{"key": "example.com/broken", "effect": "NoSchedule"}]);
    slice(&mut s, "all", json!({"allNodes": true, "devices": [broken]}));
    claim(&mut s, "c", one);
    claim(&mut s, "d", json!({"requests": [exactly("r", json!({"tolerations": [{"operator": "Exists"}]}))]}));
    assert!(refused(add(&mut s, &uses("p", &["c"]))).contains("cannot allocate all claims"));
    let (_, allocation) = bound(add(&mut s, &uses("q", &["d"])));
    assert_eq!(allocation.get("nodeSelector"), None, "it is reached from every node");
}

#[test]
fn a_claim_that_is_not_ready_holds_the_pod() {
    let mut s = scheduler();
    assert!(refused(add(&mut s, &uses("p", &["c"]))).contains("resourceclaim \"c\" not found"));
    let from_template =
        pod("t", "1", json!({"resourceClaims": [{"name": "r", "resourceClaimTemplateName": "tmpl"}]}));
    let text = refused(add(&mut s, &from_template));
    assert!(
        text.contains("waiting for resource claim controller to create the resourceclaim for \"r\""),
        "{text}"
    );
    // The controller made it and says so in the pod.
    slice(&mut s, "of-b", json!({"nodeName": "b", "devices": [gpu("b0", "new", 0)]}));
    let owner =
        |uid: &str| json!([{"apiVersion": "v1", "kind": "Pod", "name": "t", "uid": uid, "controller": true}]);
    let made = |uid: &str| {
        json!({"metadata": {"namespace": "n", "name": "t-r-x", "uid": "m", "ownerReferences": owner(uid)},
        "spec": {"devices": {"requests": [exactly("r", json!({}))]}}})
    };
    apply(&mut s, "resourceclaims", made("another"));
    let mut pod = from_template;
    pod["status"] = json!({"resourceClaimStatuses": [{"name": "r", "resourceClaimName": "t-r-x"}]});
    s.apply_pod(Arc::new(serde_json::from_value(pod).unwrap()), at(50));
    let text = refused(tried(&mut s, "t", 50));
    assert!(text.contains("was not created for pod"), "{text}");
    let uid = "t";
    apply(&mut s, "resourceclaims", made(uid));
    assert_eq!(bound(tried(&mut s, "t", 100)).0, "b");
}

#[test]
fn a_search_without_end_is_given_up() {
    let mut s = scheduler();
    let many: Vec<Value> = (0..40).map(|n| gpu(&format!("d{n}"), "x", n)).collect();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": many}));
    let requests: Vec<Value> = (0..16).map(|n| exactly(&format!("r{n}"), json!({}))).collect();
    let constraints = json!([{"matchAttribute": format!("{DRIVER}/model")}, {"matchAttribute": format!("{DRIVER}/numa"), "requests": ["r14", "r15"]}]);
    claim(&mut s, "c", json!({"requests": requests, "constraints": constraints}));
    assert!(refused(add(&mut s, &uses("p", &["c"]))).contains("took too long"));
}

#[test]
fn features_that_a_pod_needs_are_declared_by_its_node() {
    let mut s = Scheduler::with_defaults(1);
    let mut able = node("able", json!({}));
    able["status"]["declaredFeatures"] = json!(["RestartAllContainersOnContainerExits"]);
    s.apply_node(Arc::new(serde_json::from_value(node("plain", json!({}))).unwrap()), at(0));
    let mut needs = pod("p", "1", json!({}));
    needs["spec"]["containers"][0]["restartPolicyRules"] =
        json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let text = refused(add(&mut s, &needs));
    assert!(text.contains("unsatisfied requirements: RestartAllContainersOnContainerExits"), "{text}");
    s.apply_node(Arc::new(serde_json::from_value(able).unwrap()), at(100));
    assert_eq!(bound(tried(&mut s, "p", 100)).0, "able");
}

#[test]
fn what_a_claim_showed_is_free_when_the_claim_goes() {
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [gpu("a0", "old", 0)]}));
    let one = json!({"requests": [exactly("r", json!({}))]});
    for name in ["c", "d"] {
        claim(&mut s, name, one.clone());
    }
    let (_, allocation) = bound(add(&mut s, &uses("p", &["c"])));
    s.bound(&PodKey::new("n", "p"));
    let mut shown = json!({"metadata": {"namespace": "n", "name": "c", "uid": "c", "resourceVersion": "8"}, "spec": {"devices": one},
        "status": {"allocation": allocation}});
    apply(&mut s, "resourceclaims", shown.clone());
    assert!(refused(add(&mut s, &uses("q", &["d"]))).contains("cannot allocate all claims"));
    shown["status"] = json!({});
    apply(&mut s, "resourceclaims", shown);
    assert_eq!(bound(tried(&mut s, "q", 100)).0, "a");
}

/// A device that claims share.
fn link(name: &str, policy: Value) -> Value {
    json!({"name": name, "allowMultipleAllocations": true, "capacity": {"bandwidth": {"value": "10", "requestPolicy": policy}}})
}

fn shares(s: &mut Scheduler, name: &str, bandwidth: Option<&str>) -> Result<Value, String> {
    let over = bandwidth.map_or(json!({}), |b| json!({"capacity": {"requests": {"bandwidth": b}}}));
    claim(s, name, json!({"requests": [exactly("r", over)]}));
    match add(s, &uses(name, &[name])) {
        decision @ Decision::Bind { .. } => Ok(bound(decision).1["devices"]["results"][0].clone()),
        other => Err(refused(other)),
    }
}

#[test]
fn claims_share_a_device_as_far_as_its_capacity_goes() {
    let policy = json!({"default": "1", "validRange": {"min": "2", "max": "8", "step": "2"}});
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [link("l0", policy)]}));
    // Three is rounded up to four; what asks for nothing gets the default.
    let first = shares(&mut s, "c", Some("3")).unwrap();
    assert_eq!(first["consumedCapacity"], json!({"bandwidth": "4"}));
    let second = shares(&mut s, "d", None).unwrap();
    assert_eq!(second["consumedCapacity"], json!({"bandwidth": "1"}));
    assert!(first["shareID"].is_string() && first["shareID"] != second["shareID"]);
    let more_than_allowed = shares(&mut s, "e", Some("9")).unwrap_err();
    assert!(more_than_allowed.contains("cannot allocate all claims"), "{more_than_allowed}");
    assert!(shares(&mut s, "f", Some("6")).is_err(), "five are left");
    assert!(shares(&mut s, "g", Some("5")).is_err(), "which would be six");
    assert_eq!(shares(&mut s, "h", Some("4")).unwrap()["device"], "l0");
    // What the claims show counts like what is on its way.
    for (name, result) in [("c", first), ("d", second)] {
        let shown = json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "8"},
            "spec": {"devices": {"requests": [exactly("r", json!({}))]}},
            "status": {"allocation": {"devices": {"results": [result]}}}});
        apply(&mut s, "resourceclaims", shown);
    }
    assert!(shares(&mut s, "i", Some("2")).is_err());
    assert_eq!(shares(&mut s, "j", None).unwrap()["device"], "l0");
    assert!(shares(&mut s, "k", None).is_err(), "all is given away");
}

#[test]
fn shares_of_one_device_are_not_distinct() {
    let values = json!({"default": "1", "validValues": ["1", "5"]});
    let two = json!({"requests": [exactly("r", json!({"count": 2, "capacity": {"requests": {"bandwidth": "2"}}}))]});
    let mut apart = two.clone();
    apart["constraints"] = json!([{"distinctAttribute": "gpu.example.com/id"}]);
    let with_id = |name: &str| {
        let mut device = link(name, values.clone());
        device["attributes"] = json!({"id": {"string": name}});
        device
    };
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [with_id("l0")]}));
    claim(&mut s, "apart", apart.clone());
    assert!(refused(add(&mut s, &uses("apart", &["apart"]))).contains("cannot allocate all claims"));
    claim(&mut s, "both", two);
    let (_, allocation) = bound(add(&mut s, &uses("both", &["both"])));
    assert_eq!(devices(&allocation), [("r".to_owned(), "l0".to_owned()), ("r".to_owned(), "l0".to_owned())]);
    assert_eq!(allocation["devices"]["results"][0]["consumedCapacity"], json!({"bandwidth": "5"}));
    slice(&mut s, "of-b", json!({"nodeName": "b", "devices": [with_id("l1"), with_id("l2")]}));
    assert_eq!(bound(tried(&mut s, "apart", 100)).0, "b");
}

#[test]
fn attributes_may_be_lists() {
    let of =
        |name: &str, fabrics: Value| json!({"name": name, "attributes": {"fabric": {"strings": fabrics}}});
    let devices_of_a = [of("x", json!(["f1", "f2"])), of("y", json!(["f3"])), of("z", json!(["f2", "f4"]))];
    let wanted = |constraint: &str| {
        let mut s = scheduler();
        slice(&mut s, "of-a", json!({"nodeName": "a", "devices": devices_of_a}));
        claim(
            &mut s,
            "c",
            json!({"requests": [exactly("r", json!({"count": 2}))],
            "constraints": [{constraint: "gpu.example.com/fabric"}]}),
        );
        let (_, allocation) = bound(add(&mut s, &uses("p", &["c"])));
        devices(&allocation).into_iter().map(|(_, d)| d).collect::<Vec<_>>()
    };
    assert_eq!(wanted("matchAttribute"), ["x", "z"], "they have one value in common");
    assert_eq!(wanted("distinctAttribute"), ["x", "y"], "they have none in common");
}

#[test]
fn the_node_with_the_better_alternative_is_preferred() {
    let sub = |name: &str, class: &str| json!({"name": name, "deviceClassName": class});
    let request =
        json!({"requests": [{"name": "r", "firstAvailable": [sub("best", "new"), sub("good", "old")]}]});
    for (new_on, old_on) in [("a", "b"), ("b", "a")] {
        let mut s = scheduler();
        class(&mut s, "new", &format!("device.attributes['{DRIVER}'].model == 'new'"));
        class(&mut s, "old", &format!("device.attributes['{DRIVER}'].model == 'old'"));
        slice(&mut s, "1", json!({"nodeName": new_on, "devices": [gpu("x", "new", 0)]}));
        slice(&mut s, "2", json!({"nodeName": old_on, "devices": [gpu("y", "old", 0)]}));
        claim(&mut s, "c", request.clone());
        let (node, allocation) = bound(add(&mut s, &uses("p", &["c"])));
        assert_eq!(
            (node.as_str(), devices(&allocation)),
            (new_on, vec![("r/best".to_owned(), "x".to_owned())])
        );
    }
}

/// A claim that shows an allocation.
fn shown(name: &str, version: &str, allocation: &Value, users: &[&str], statuses: Value) -> Value {
    let users: Vec<Value> = users.iter().map(|u| json!({"resource": "pods", "name": u, "uid": u})).collect();
    json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": version},
        "spec": {"devices": {"requests": [exactly("r", json!({}))]}},
        "status": {"allocation": allocation, "reservedFor": users, "devices": statuses}})
}

#[test]
fn a_pod_waits_until_its_devices_are_ready() {
    let fabric = |name: &str, plain: bool| {
        let mut device = gpu(name, "old", 0);
        if !plain {
            device["bindingConditions"] = json!(["Attached"]);
            device["bindingFailureConditions"] = json!(["Broken"]);
        }
        device
    };
    let prepared = |s: &mut Scheduler| {
        let Decision::Prepare { requests, node, .. } = add(s, &uses("p", &["c"])) else { panic!("it waits") };
        let RequestBody::Value { value, .. } = &requests[1].body else { panic!("a patch") };
        (node.to_string(), value["status"]["allocation"].clone())
    };
    let condition = |kind: &str| {
        json!([{"driver": DRIVER, "pool": "of-a", "device": "a0", "conditions": [{"type": kind, "status": "True",
            "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}])
    };
    for (kind, good) in [("Attached", true), ("Broken", false)] {
        let mut s = scheduler();
        slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [fabric("a0", false)]}));
        claim(&mut s, "c", json!({"requests": [exactly("r", json!({}))]}));
        let (node, allocation) = prepared(&mut s);
        assert_eq!(node, "a");
        assert_eq!(allocation["devices"]["results"][0]["bindingConditions"], json!(["Attached"]));
        assert!(s.prepared(&PodKey::new("n", "p"), at(1)).is_none(), "nothing is attached yet");
        apply(&mut s, "resourceclaims", shown("c", "8", &allocation, &["p"], json!([])));
        assert!(s.take_prepared(at(2)).is_empty());
        apply(&mut s, "resourceclaims", shown("c", "9", &allocation, &["p"], condition(kind)));
        match s.take_prepared(at(3)).as_slice() {
            [Decision::Bind { node, .. }] => assert!(good && *node == "a"),
            [Decision::Unschedulable { diagnosis, requests, .. }] => {
                assert!(!good && diagnosis.to_string().contains("binding condition failed"), "{diagnosis}");
                let RequestBody::Value { value, .. } = &requests[0].body else { panic!("a patch") };
                assert_eq!(value["status"]["allocation"], Value::Null, "the device is given back");
            }
            other => panic!("{other:?}"),
        }
    }
    // Devices that need nothing come first.
    let mut s = scheduler();
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [fabric("a0", false), fabric("a1", true)]}));
    claim(&mut s, "c", json!({"requests": [exactly("r", json!({}))]}));
    assert_eq!(devices(&bound(add(&mut s, &uses("p", &["c"]))).1), [("r".to_owned(), "a1".to_owned())]);
}

#[test]
fn an_idle_claim_elsewhere_is_given_back() {
    let there = |node: &str| {
        json!({"devices": {"results": [{"request": "r", "driver": DRIVER, "pool": "of-a", "device": "a0"}]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}})
    };
    let on_b = |name: &str| {
        common::with(uses(name, &["c"]), "spec.nodeSelector", json!({"kubernetes.io/hostname": "b"}))
    };
    for (users, asked) in [(&["other"][..], 0), (&["p"][..], 1), (&[][..], 1)] {
        let mut s = scheduler();
        slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [gpu("a0", "old", 0)]}));
        slice(&mut s, "of-b", json!({"nodeName": "b", "devices": [gpu("b0", "old", 0)]}));
        apply(&mut s, "resourceclaims", shown("c", "8", &there("a"), users, json!([])));
        let decision = add(&mut s, &on_b("p"));
        let Decision::Unschedulable { requests, diagnosis, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(requests.len(), asked, "{users:?}: {diagnosis}");
        let said = diagnosis.to_string().contains("deallocation of ResourceClaim completed");
        assert_eq!(said, asked > 0, "{diagnosis}");
        claim(&mut s, "c", json!({"requests": [exactly("r", json!({}))]}));
        assert_eq!(bound(tried(&mut s, "p", 100)).0, "b", "and allocated anew");
    }
}

#[test]
fn two_profiles_do_not_give_away_one_device() {
    let profiles =
        ["default-scheduler", "other"].map(|name| kubewright_sched::Profile::defaults(name).build().unwrap());
    let mut s = Scheduler::new(profiles.into(), Default::default(), 1).unwrap();
    s.apply_node(Arc::new(serde_json::from_value(node("a", json!({}))).unwrap()), at(0));
    class(&mut s, "gpu", &format!("device.driver == '{DRIVER}'"));
    slice(&mut s, "of-a", json!({"nodeName": "a", "devices": [gpu("a0", "old", 0)]}));
    for name in ["c", "d"] {
        claim(&mut s, name, json!({"requests": [exactly("r", json!({}))]}));
    }
    assert_eq!(bound(add(&mut s, &uses("p", &["c"]))).0, "a");
    let other = common::with(uses("q", &["d"]), "spec.schedulerName", json!("other"));
    assert!(refused(add(&mut s, &other)).contains("cannot allocate all claims"));
    s.remove_pod(&PodKey::new("n", "p"), at(1));
    assert_eq!(bound(tried(&mut s, "q", 100)).0, "a", "the place was given back");
}
