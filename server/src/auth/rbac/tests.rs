//! Decisions over objects, and the default policy.

use super::*;
use crate::auth::authenticated;
use crate::auth::objects::tests::Objects;
use serde_json::{Value, json};
use std::borrow::Cow;

const GROUP: &str = "rbac.authorization.k8s.io";

fn put(objects: &Objects, resource: &str, value: &impl serde::Serialize) {
    objects.put(GROUP, resource, &serde_json::to_value(value).unwrap());
}

fn defaults_in(objects: &Objects) {
    for role in defaults::cluster_roles() {
        put(objects, "clusterroles", &role);
    }
    for binding in defaults::cluster_role_bindings() {
        put(objects, "clusterrolebindings", &binding);
    }
}

fn role_binding(namespace: &str, role_kind: &str, role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": format!("{role}-{}", subject["name"].as_str().unwrap()), "namespace": namespace},
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
        "subjects": [subject],
    })
}

fn decide(rbac: &RbacAuthorizer, user: &UserInfo, verb: &str, what: &str, namespace: &str) -> bool {
    let mut a = Attributes { user: Cow::Borrowed(user), verb, namespace, ..Attributes::default() };
    if what.starts_with('/') {
        a.path = Some(what);
    } else {
        let (group, resource) = what.split_once(':').unwrap();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        (a.group, a.resource, a.subresource) = (group, resource, subresource);
    }
    rbac.decide(&a) == Decision::Allow
}

#[test]
fn the_default_policy_lets_in_who_should_be() {
    let objects = Arc::new(Objects::default());
    defaults_in(&objects);
    let rbac = RbacAuthorizer::new(objects.clone());
    let jane = authenticated("jane", &[]);
    let admin = authenticated("root", &["system:masters"]);
    let anonymous = crate::auth::anonymous();
    let scheduler = authenticated("system:kube-scheduler", &[]);
    let deployments = authenticated("system:serviceaccount:kube-system:deployment-controller", &[]);
    let check = |user: &UserInfo, verb: &str, what: &str, want: bool| {
        assert_eq!(decide(&rbac, user, verb, what, ""), want, "{:?} {verb} {what}", user.username);
    };
    check(&admin, "delete", "any:thing", true);
    check(&jane, "list", ":pods", false);
    check(&jane, "get", "/apis/apps", true);
    check(&jane, "get", "/metrics", false);
    check(&jane, "create", "authorization.k8s.io:selfsubjectaccessreviews", true);
    check(&anonymous, "get", "/readyz", true);
    check(&anonymous, "get", "/version", true);
    check(&anonymous, "get", "/apis", false);
    check(&scheduler, "create", ":pods/binding", true);
    check(&scheduler, "create", ":pods", false);
    check(&deployments, "create", "apps:replicasets", true);
    check(&deployments, "create", ":pods", false);
}

#[test]
fn bindings_grant_in_their_namespace_until_they_go() {
    let objects = Arc::new(Objects::default());
    defaults_in(&objects);
    let rbac = RbacAuthorizer::new(objects.clone());
    let jane = authenticated("jane", &["dev"]);
    let robot = authenticated("system:serviceaccount:a:robot", &[]);
    assert!(!decide(&rbac, &jane, "list", ":pods", "a"));

    put(
        &objects,
        "rolebindings",
        &role_binding("a", "ClusterRole", "edit", json!({"kind": "Group", "apiGroup": GROUP, "name": "dev"})),
    );
    put(
        &objects,
        "rolebindings",
        &role_binding("a", "ClusterRole", "view", json!({"kind": "ServiceAccount", "name": "robot"})),
    );
    let check = |user: &UserInfo, verb: &str, what: &str, namespace: &str, want: bool| {
        assert_eq!(decide(&rbac, user, verb, what, namespace), want, "{:?} {verb} {what}", user.username);
    };
    check(&jane, "list", ":pods", "a", true);
    check(&jane, "create", "apps:deployments", "a", true);
    check(&jane, "create", ":pods/exec", "a", true);
    check(&jane, "create", "rbac.authorization.k8s.io:roles", "a", false);
    check(&jane, "list", ":pods", "b", false);
    check(&jane, "list", ":pods", "", false);
    check(&robot, "get", ":pods/log", "a", true);
    check(&robot, "get", ":secrets", "a", false);
    check(&robot, "delete", ":pods", "a", false);
    objects.remove(GROUP, "rolebindings", "a", "edit-dev");
    check(&jane, "list", ":pods", "a", false);

    // A role of another's making joins the aggregated one at once.
    put(
        &objects,
        "clusterroles",
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "toys-view", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["toys"]}],
        }),
    );
    check(&robot, "get", "example.com:toys", "a", true);
    assert!(
        rbac.rules(&robot, "a").rules.iter().any(|r| r.resources.as_ref().is_some_and(|r| r[0] == "toys"))
    );
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let objects = Arc::new(Objects::default());
    defaults_in(&objects);
    put(
        &objects,
        "rolebindings",
        &role_binding(
            "a",
            "ClusterRole",
            "admin",
            json!({"kind": "User", "apiGroup": GROUP, "name": "jane"}),
        ),
    );
    let rbac = Arc::new(RbacAuthorizer::new(objects.clone()));
    let escalation = Escalation::new(rbac.clone(), rbac);
    let jane = authenticated("jane", &[]);
    let check = async |user: &UserInfo, resource: &str, object: Value, want: Option<&str>| {
        let got = escalation.check(user, resource, "a", "x", &object, None).await;
        match (got, want) {
            (Ok(()), None) => {}
            (Err(e), Some(text)) => assert!(e.code() == 403 && e.message().contains(text), "{e}"),
            (got, want) => panic!("{resource}: {got:?} is not {want:?}"),
        }
    };
    let rules = |verb: &str, group: &str, resource: &str| json!({"rules": [{"verbs": [verb], "apiGroups": [group], "resources": [resource]}]});
    check(&jane, "roles", rules("get", "", "pods"), None).await;
    check(&jane, "roles", rules("get", "", "nodes"), Some("attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}")).await;
    check(&authenticated("root", &["system:masters"]), "roles", rules("get", "", "nodes"), None).await;
    let refer = |kind: &str, name: &str| json!({"roleRef": {"apiGroup": GROUP, "kind": kind, "name": name}, "subjects": []});
    check(&jane, "rolebindings", refer("ClusterRole", "view"), None).await;
    check(&jane, "rolebindings", refer("ClusterRole", "cluster-admin"), Some("not currently held")).await;
    let missing = escalation.check(&jane, "rolebindings", "a", "x", &refer("Role", "none"), None).await;
    assert_eq!(missing.unwrap_err().code(), 404);
}
