//! A node, its pods and what they use, and everything else.

use super::*;
use crate::auth::authenticated;
use crate::auth::objects::tests::Objects;
use serde_json::{Value, json};
use std::borrow::Cow;

fn world() -> (Arc<Objects>, NodeAuthorizer) {
    let objects = Arc::new(Objects::default());
    let pod = |name: &str, node: &str, spec: Value, annotations: Value| {
        let mut pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name, "annotations": annotations,
            "resourceVersion": "1"}, "spec": spec});
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    let spec = json!({"serviceAccountName": "robot", "volumes": [
        {"name": "s", "secret": {"secretName": "mine"}}, {"name": "c", "configMap": {"name": "settings"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        "resourceClaims": [{"name": "g", "resourceClaimName": "gpu"}]});
    objects.put("", "pods", &pod("p", "n1", spec.clone(), json!({})));
    objects.put("", "pods", &pod("mirror", "n2", spec, json!({"kubernetes.io/config.mirror": "x"})));
    objects.put(
        "",
        "persistentvolumeclaims",
        &json!({"metadata": {"name": "data", "namespace": "a"}, "spec": {"volumeName": "v"}}),
    );
    objects.put("", "persistentvolumes", &json!({"metadata": {"name": "v"}, "spec": {
        "claimRef": {"namespace": "a", "name": "data"}, "csi": {"nodeStageSecretRef": {"name": "stage", "namespace": "b"}}}}));
    objects.put(
        "storage.k8s.io",
        "volumeattachments",
        &json!({"metadata": {"name": "att"}, "spec": {"nodeName": "n1"}}),
    );
    objects.put(
        "resource.k8s.io",
        "resourceslices",
        &json!({"metadata": {"name": "slice"}, "spec": {"nodeName": "n1"}}),
    );
    let nodes = NodeAuthorizer::new(objects.clone());
    (objects, nodes)
}

/// `verb resource[.group][/subresource] [namespace/]name [?selector]` as a node.
fn ask(nodes: &NodeAuthorizer, node: &str, what: &str) -> Decision {
    let user = authenticated(&format!("system:node:{node}"), &["system:nodes"]);
    let words: Vec<&str> = what.split(' ').collect();
    let (resource, subresource) = words[1].split_once('/').unwrap_or((words[1], ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (namespace, name) = words[2].split_once('/').unwrap_or(("", words[2]));
    let attributes = Attributes {
        user: Cow::Owned(user),
        verb: words[0],
        group,
        resource,
        subresource,
        namespace,
        name: if name == "-" { "" } else { name },
        field_selector: words.get(3).map(|s| s.trim_start_matches('?')),
        ..Attributes::default()
    };
    nodes.decide(&attributes)
}

#[test]
fn a_node_reads_what_its_pods_use() {
    let (objects, nodes) = world();
    let all = [
        "get secrets a/mine",
        "watch secrets a/mine",
        "get secrets b/stage",
        "list configmaps a/settings",
        "get persistentvolumeclaims a/data",
        "patch persistentvolumeclaims/status a/data",
        "get persistentvolumes v",
        "get resourceclaims.resource.k8s.io a/gpu",
        "get volumeattachments.storage.k8s.io att",
        "create serviceaccounts/token a/robot",
        "get pods a/p",
        "update resourceslices.resource.k8s.io slice",
    ];
    for what in all {
        assert_eq!(ask(&nodes, "n1", what), Decision::Allow, "{what}");
        let refused = ask(&nodes, "n2", what);
        let why = "no relationship found between node 'n2' and this object".to_owned();
        assert_eq!(refused, Decision::NoOpinion(why), "{what}");
    }
    objects.remove("", "pods", "a", "p");
    assert_ne!(ask(&nodes, "n1", "get secrets a/mine"), Decision::Allow);
    assert_eq!(ask(&nodes, "n1", "get volumeattachments.storage.k8s.io att"), Decision::Allow);
}

#[test]
fn a_node_has_what_is_its_own() {
    let (_, nodes) = world();
    let check = |what: &str, want: Option<&str>| {
        let want = want.map_or(Decision::Allow, |why| Decision::NoOpinion(why.to_owned()));
        assert_eq!(ask(&nodes, "n1", what), want, "{what}");
    };
    check("get nodes n1", None);
    check("watch nodes n1", None);
    check("get nodes n2", Some("node 'n1' cannot read 'n2', only its own Node object"));
    check("list nodes -", Some("node 'n1' cannot read all nodes, only its own Node object"));
    check("delete nodes n1", Some(""));
    check("patch nodes/status n1", None);
    check("list pods -", Some("can only list/watch pods with spec.nodeName field selector"));
    check("watch pods - ?spec.nodeName=n1,status.phase=Running", None);
    check(
        "watch pods - ?spec.nodeName=n2",
        Some("can only list/watch pods with spec.nodeName field selector"),
    );
    check("create pods/eviction a/p", None);
    check("create pods/exec a/p", Some(""));
    check("update leases.coordination.k8s.io kube-node-lease/n1", None);
    check(
        "update leases.coordination.k8s.io kube-node-lease/n2",
        Some("can only access node lease with the same name as the requesting node"),
    );
    check(
        "update leases.coordination.k8s.io a/n1",
        Some("can only access leases in the \"kube-node-lease\" system namespace"),
    );
    check(
        "list leases.coordination.k8s.io kube-node-lease/-",
        Some("can only get, create, update, patch, or delete a node lease"),
    );
    check(
        "get csinodes.storage.k8s.io n2",
        Some("can only access CSINode with the same name as the requesting node"),
    );
    check("create csinodes.storage.k8s.io -", None);
    check("list secrets a/-", Some("No Object name found"));
    check("delete secrets a/mine", Some("can only read resources of this type"));
    check("list persistentvolumes -", Some("can only get individual resources of this type"));
    check("get serviceaccounts a/robot", Some("can only create tokens for individual service accounts"));
    check(
        "list resourceslices.resource.k8s.io -",
        Some("can only list/watch/deletecollection resourceslices with nodeName field selector"),
    );
    check("list resourceslices.resource.k8s.io - ?spec.nodeName=n1", None);
    check("list services -", None);
    check("create deployments.apps a/-", Some(""));
    let outsider = Attributes {
        user: Cow::Owned(authenticated("system:node:n1", &[])),
        verb: "list",
        resource: "services",
        ..Attributes::default()
    };
    assert_eq!(nodes.decide(&outsider), Decision::NoOpinion(String::new()));
}
