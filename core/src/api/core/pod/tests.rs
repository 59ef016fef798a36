//! Pods against upstream's words, on create and on update.

use super::*;

fn pod() -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "containers": [{"name": "c", "image": "i:1"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    PodRules.default(&mut pod);
    pod
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_are_refused_in_upstreams_words() {
    let check = |change: fn(&mut Value), wanted: &[&str]| {
        let mut pod = pod();
        change(&mut pod["spec"]);
        assert_eq!(texts(&PodRules.validate(&pod)), wanted);
    };
    check(|_| {}, &[]);
    check(|s| s["containers"] = json!([]), &["spec.containers: Required value"]);
    check(|s| s["containers"][0]["image"] = "".into(), &["spec.containers[0].image: Required value"]);
    check(
        |s| s["restartPolicy"] = "Maybe".into(),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ],
    );
    check(
        |s| s["containers"][0]["volumeMounts"] = json!([{"name": "w", "mountPath": "/w"}]),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
    );
    check(
        |s| s["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        |s| s["containers"][0]["livenessProbe"] = json!({"successThreshold": 1}),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check(
        |s| s["volumes"][0]["hostPath"] = json!({"path": "/", "type": ""}),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        |s| s["tolerations"] = json!([{"key": "a", "operator": "Exists", "effect": "No"}]),
        &[
            "spec.tolerations[0].effect: Unsupported value: \"No\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"",
        ],
    );
    check(
        |s| {
            s["containers"][0]["env"] =
                json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "x"}}}])
        },
        &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"x\": \
           error converting fieldPath: field label not supported: x"],
    );
}

#[test]
fn few_fields_change() {
    let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
    let check = |change: fn(&mut Value), wanted: &[&str]| {
        let old = pod();
        let mut new = old.clone();
        change(&mut new["spec"]);
        let found = texts(&PodRules.validate_update(&new, &old, cx));
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (text, wanted) in found.iter().zip(wanted) {
            assert!(text.starts_with(wanted), "{text}");
        }
    };
    check(|_| {}, &[]);
    check(|s| s["containers"][0]["image"] = "i:2".into(), &[]);
    check(|s| s["tolerations"] = json!([{"key": "a", "operator": "Exists"}]), &[]);
    check(|s| s["activeDeadlineSeconds"] = 5.into(), &[]);
    check(
        |s| s["containers"][0]["command"] = json!(["x"]),
        &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"],
    );
    check(|s| s["nodeName"] = "n".into(), &["spec: Forbidden: pod updates may not change fields other than"]);
    check(
        |s| {
            s["containers"] = json!([s["containers"][0], {"name": "d", "image": "i:1", "imagePullPolicy": "Always",
            "terminationMessagePolicy": "File"}])
        },
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
}

#[test]
fn ended_containers_stay_ended() {
    let cx = WriteContext::new(Some("status"), jiff::Timestamp::UNIX_EPOCH);
    let mut old = pod();
    old["spec"]["restartPolicy"] = "Never".into();
    old["status"] = json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]});
    let mut new = old.clone();
    new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    assert_eq!(
        texts(&PodRules.validate_update(&new, &old, cx)),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

/// What a write of `new` through a subresource makes of `old`, and what is wrong with it.
fn through(subresource: &'static str, old: &Value, mut new: Value) -> (Value, Vec<String>) {
    let cx = WriteContext::new(Some(subresource), jiff::Timestamp::UNIX_EPOCH);
    PodRules.default(&mut new);
    PodRules.prepare_for_update(&mut new, old, cx);
    let errors = texts(&PodRules.validate_update(&new, old, cx));
    (new, errors)
}

#[test]
fn ephemeral_containers_only_come() {
    let check = |ephemeral: Value, wanted: &[&str]| {
        let mut old = pod();
        old["spec"]["ephemeralContainers"] = json!([{"name": "first", "image": "i:1",
            "imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "File",
            "terminationMessagePath": "/dev/termination-log"}]);
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "other:2".into();
        new["metadata"]["labels"] = json!({"a": "b"});
        new["spec"]["ephemeralContainers"] = ephemeral;
        let (kept, errors) = through("ephemeralcontainers", &old, new);
        assert_eq!(errors, wanted);
        assert_eq!(kept["spec"]["containers"], old["spec"]["containers"], "nothing else changes");
        assert_eq!(kept["metadata"], old["metadata"]);
    };
    let first = json!({"name": "first", "image": "i:1"});
    check(json!([first]), &[]);
    check(json!([first, {"name": "d", "image": "i:1", "targetContainerName": "c", "stdin": true}]), &[]);
    check(
        json!([{"name": "d", "image": "i:1"}]),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"first\" may not be removed"],
    );
    check(
        json!([{"name": "first", "image": "i:2"}]),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"first\" may not be changed"],
    );
    check(
        json!([first, {"name": "c", "image": ""}]),
        &[
            "spec.ephemeralContainers[1].image: Required value",
            "spec.ephemeralContainers[1].name: Duplicate value: \"c\"",
        ],
    );
    check(
        json!([first, {"name": "d", "image": "i:1", "targetContainerName": "x", "ports": [{"containerPort": 1}]}]),
        &[
            "spec.ephemeralContainers[1].targetContainerName: Not found: \"x\"",
            "spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
        ],
    );
}

#[test]
fn new_pods_have_no_ephemeral_containers() {
    let mut new = pod();
    new["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i:1"}]);
    assert_eq!(
        texts(&PodRules.validate(&new)),
        ["spec.ephemeralContainers: Forbidden: cannot be set on create"]
    );
}

#[test]
fn a_resize_changes_amounts_alone() {
    let check = |change: fn(&mut Value), cpu: &str, wanted: &[&str]| {
        let mut old = pod();
        old["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let (kept, errors) = through("resize", &old, new);
        assert_eq!(errors, wanted);
        assert_eq!(kept["spec"]["containers"][0]["image"], old["spec"]["containers"][0]["image"]);
        assert_eq!(kept["spec"]["containers"][0]["resources"]["requests"]["cpu"], cpu);
    };
    check(|s| s["containers"][0]["resources"]["requests"]["cpu"] = "1500m".into(), "1500m", &[]);
    check(|s| s["containers"][0]["image"] = "other:2".into(), "1", &[]);
    check(
        |s| drop(s["containers"][0]["resources"].as_object_mut().unwrap().remove("limits")),
        "1",
        &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
    );
    check(
        |s| {
            s["containers"][0]["resources"] = json!({"requests": {"cpu": "1", "memory": "1Gi"},
                "limits": {"cpu": "1", "memory": "1Gi"}})
        },
        "1",
        &["spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing"],
    );
    check(
        |s| s["containers"][0]["resources"]["requests"]["ephemeral-storage"] = "1Gi".into(),
        "1",
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
}
