//! Admission policies over Deployments, as upstream's suite puts them up.

use super::definitions::eventually;
use super::site::{Site, in_process};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

async fn home(site: &Site) -> String {
    site.make("/api/v1/namespaces", json!({"metadata": {"name": "vap", "labels": {"vap": "yes"}}})).await;
    "/apis/apps/v1/namespaces/vap/deployments".to_owned()
}

fn constraints() -> Value {
    json!({"namespaceSelector": {"matchLabels": {"vap": "yes"}}, "resourceRules": [{
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]})
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// Puts up a policy with its binding.
async fn put(site: &Site, sort: &str, spec: Value, binding: Value) {
    let mut policy = json!({"metadata": {"name": "p"}, "spec": spec});
    policy["spec"]["matchConstraints"] = constraints();
    site.make(&format!("{GROUP}/{sort}admissionpolicies"), policy).await;
    let mut spec = binding;
    spec["policyName"] = json!("p");
    site.make(
        &format!("{GROUP}/{sort}admissionpolicybindings"),
        json!({"metadata": {"name": "b"}, "spec": spec}),
    )
    .await;
}

#[tokio::test]
async fn a_policy_checks_deployments() {
    let site = in_process().await;
    let path = home(&site).await;
    let spec = json!({
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [
            {"expression": "variables.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
            {"expression": "variables.oddReplicas"},
            {"expression": "namespaceObject.metadata.name == 'vap'", "message": "other namespaces should not be asked about"}]});
    put(&site, "validating", spec, json!({"validationActions": ["Deny"]})).await;
    let dry = format!("{path}?dryRun=All");
    eventually("the policy counts", async || site.post(&dry, &deployment("marker", 1)).await.code == 422)
        .await;
    let check = async |replicas: i64, words: &str| {
        let got = site.post(&path, &deployment(&format!("d-{replicas}"), replicas)).await;
        if words.is_empty() {
            assert_eq!(got.code, 201, "{}", got.text);
            return;
        }
        got.refused(422, "Invalid");
        got.says(422, &format!("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {words}"));
    };
    check(1, "wants replicas > 1, got 1").await;
    check(2, "failed expression: variables.oddReplicas").await;
    check(3, "").await;
    site.merge(&format!("{path}/d-3"), json!({"spec": {"replicas": 4}})).await.refused(422, "Invalid");
    let elsewhere = "/apis/apps/v1/namespaces/default/deployments";
    site.make(elsewhere, deployment("d", 2)).await;
}

#[tokio::test]
async fn a_policy_changes_deployments() {
    let site = in_process().await;
    let path = home(&site).await;
    let spec = json!({"reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{replicas: object.spec.replicas % 2 == 0 ? object.spec.replicas + 1 : object.spec.replicas}}"}},
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'mutated': 'yes'}}]"}}]});
    put(&site, "mutating", spec, json!({})).await;
    let dry = format!("{path}?dryRun=All");
    eventually("the policy counts", async || {
        site.post(&dry, &deployment("marker", 2)).await.ok()["spec"]["replicas"] == 3
    })
    .await;
    for (replicas, wanted) in [(1, 1), (2, 3), (4, 5)] {
        let made = site.make(&path, deployment(&format!("d-{replicas}"), replicas)).await;
        assert_eq!(made["spec"]["replicas"], wanted);
        assert_eq!(made["metadata"]["annotations"]["my-foo-annotation"], "myAnnotationValue");
        assert_eq!(made["metadata"]["labels"]["mutated"], "yes");
    }
    let elsewhere = site.make("/apis/apps/v1/namespaces/default/deployments", deployment("d", 2)).await;
    assert_eq!(elsewhere["spec"]["replicas"], 2);
}
