//! What objects use, which scopes hold them, and what names lead to.

use super::*;
use serde_json::json;

fn used(group: &str, resource: &str, object: Value) -> String {
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    Counter::of(group, resource).unwrap().usage(&object, now).without_zeros().to_string()
}

#[test]
fn usage_is_upstreams() {
    let check = |group: &str, resource: &str, object: Value, wanted: &str| {
        assert_eq!(used(group, resource, object), wanted);
    };
    check("", "configmaps", json!({}), "configmaps=1,count/configmaps=1");
    check("apps", "deployments", json!({}), "count/deployments.apps=1");
    let containers = json!([
        {"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi", "x.io/gpu": "2"}, "limits": {"cpu": "2"}}},
        {"name": "b", "resources": {"requests": {"cpu": "500m"}}}]);
    let pod = json!({"spec": {"containers": containers,
        "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2", "memory": "1Mi"}}}],
        "overhead": {"memory": "1Mi"}}});
    check(
        "",
        "pods",
        pod.clone(),
        "count/pods=1,cpu=2,limits.cpu=2,memory=1025Mi,pods=1,requests.cpu=2,requests.memory=1025Mi,requests.x.io/gpu=2",
    );
    let mut over = pod.clone();
    over["status"] = json!({"phase": "Succeeded"});
    check("", "pods", over, "count/pods=1");
    let mut stuck = pod;
    stuck["metadata"] =
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
    check("", "pods", stuck, "count/pods=1");
    check(
        "",
        "pods",
        json!({"spec": {"resources": {"requests": {"cpu": "3"}}, "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1", "memory": "1"}}},
            {"name": "i", "resources": {"requests": {"memory": "2"}}}],
            "containers": [{"name": "c", "resources": {"requests": {"memory": "1"}}}]}}),
        "count/pods=1,cpu=3,memory=3,pods=1,requests.cpu=3,requests.memory=3",
    );
    check(
        "",
        "services",
        json!({"spec": {"type": "ClusterIP", "ports": [{}]}}),
        "count/services=1,services=1",
    );
    check(
        "",
        "services",
        json!({"spec": {"type": "LoadBalancer", "ports": [{}, {"nodePort": 1}], "allocateLoadBalancerNodePorts": false}}),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1",
    );
    check(
        "",
        "persistentvolumeclaims",
        json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
    );
    check(
        "resource.k8s.io",
        "resourceclaims",
        json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "g", "count": 2}},
            {"name": "b", "firstAvailable": [{"deviceClassName": "g"}, {"deviceClassName": "h", "allocationMode": "All"}]}]}}}),
        "count/resourceclaims.resource.k8s.io=1,g.deviceclass.resource.k8s.io/devices=3,\
         h.deviceclass.resource.k8s.io/devices=32",
    );
    assert_eq!(Counter::of("events.k8s.io", "events"), None);
}

#[test]
fn scopes_select() {
    let check = |spec: Value, pod: Value, wanted: bool| {
        let terms = ScopeTerm::of(&spec);
        assert_eq!(Counter::Pods.in_scopes(&terms, &pod), wanted, "{spec} {pod}");
    };
    let scope = |name: &str| json!({"scopes": [name]});
    let plain = json!({"spec": {"containers": [{"name": "c"}]}});
    let sized = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
    check(json!({}), plain.clone(), true);
    check(scope("BestEffort"), plain.clone(), true);
    check(scope("BestEffort"), sized.clone(), false);
    check(scope("NotBestEffort"), sized, true);
    check(scope("Terminating"), plain.clone(), false);
    check(scope("NotTerminating"), plain.clone(), true);
    check(scope("Terminating"), json!({"spec": {"activeDeadlineSeconds": 5}}), true);
    check(scope("CrossNamespacePodAffinity"), plain.clone(), false);
    let term = json!({"podAffinityTerm": {"namespaceSelector": {}}});
    let across = json!({"spec": {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    check(scope("CrossNamespacePodAffinity"), across, true);
    let class = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let high = json!({"spec": {"priorityClassName": "high"}});
    check(class("In", json!(["high"])), high.clone(), true);
    check(class("NotIn", json!(["high"])), high.clone(), false);
    check(class("NotIn", json!(["high"])), plain.clone(), true);
    check(class("Exists", json!([])), high.clone(), true);
    check(class("DoesNotExist", json!([])), high, false);
    check(class("DoesNotExist", json!([])), plain, true);
    let claim = json!({"spec": {"volumeAttributesClassName": "a"}, "status": {"currentVolumeAttributesClassName": "b"}});
    let of = |values: Value| {
        ScopeTerm::of(&json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "VolumeAttributesClass", "operator": "In", "values": values}]}}))
    };
    assert!(Counter::VolumeClaims.in_scopes(&of(json!(["b"])), &claim));
    assert!(!Counter::VolumeClaims.in_scopes(&of(json!(["c"])), &claim));
    assert!(!Counter::Services.in_scopes(&of(json!(["c"])), &claim));
}

#[test]
fn names_lead_to_resources_and_gaps_are_told() {
    let names = [
        "requests.x.io/gpu",
        "count/jobs.batch",
        "secrets",
        "gold.storageclass.storage.k8s.io/requests.storage",
    ];
    let found: Vec<String> =
        counted_resources(names.into_iter()).into_iter().map(|(g, r)| format!("{g}/{r}")).collect();
    assert_eq!(found, ["/persistentvolumeclaims", "/pods", "/secrets", "batch/jobs"]);
    let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
    assert_eq!(
        Counter::Pods.unstated(&["cpu", "limits.memory", "pods"], &pod).unwrap(),
        "must specify cpu for: b; limits.memory for: a,b"
    );
    assert_eq!(Counter::Pods.unstated(&["pods", "requests.ephemeral-storage"], &pod), None);
}
