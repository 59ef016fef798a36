//! The default roles and bindings within `kube-system` and `kube-public`: what the control plane's own parts need there and nowhere else.

use super::bootstrap::AUTOUPDATE;
use super::policy::GROUP;
use crate::auth::authenticated;
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, Verb};
use serde_json::{Value, json};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const READER: &str = "extension-apiserver-authentication-reader";

fn rule(verbs: &str, resources: &str, names: &[&str]) -> Value {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut rule = json!({"apiGroups": [""], "resources": list(resources), "verbs": list(verbs)});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

fn events() -> Value {
    json!({"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]})
}

fn user(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "User", "name": name})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": SYSTEM})
}

/// Namespace, name and rules of each role.
fn roles() -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let leader =
        |name: &str| vec![rule("watch", "configmaps", &[]), rule("get,update", "configmaps", &[name])];
    vec![
        (SYSTEM, READER, vec![rule("get,list,watch", "configmaps", &["extension-apiserver-authentication"])]),
        (SYSTEM, "system:controller:bootstrap-signer", vec![rule("get,list,watch", "secrets", &[])]),
        (SYSTEM, "system:controller:cloud-provider", vec![rule("create,get,list,watch", "configmaps", &[])]),
        (
            SYSTEM,
            "system:controller:token-cleaner",
            vec![rule("get,list,watch,delete", "secrets", &[]), events()],
        ),
        (SYSTEM, "system::leader-locking-kube-controller-manager", leader("kube-controller-manager")),
        (SYSTEM, "system::leader-locking-kube-scheduler", leader("kube-scheduler")),
        (
            PUBLIC,
            "system:controller:bootstrap-signer",
            vec![
                rule("get,list,watch", "configmaps", &[]),
                rule("update", "configmaps", &["cluster-info"]),
                events(),
            ],
        ),
    ]
}

/// Namespace, name, role and subjects of each binding.
fn bindings() -> Vec<(&'static str, &'static str, &'static str, Vec<Value>)> {
    let same = |namespace, name, subjects| (namespace, name, name, subjects);
    let manager = || user("system:kube-controller-manager");
    vec![
        (
            SYSTEM,
            "system::extension-apiserver-authentication-reader",
            READER,
            vec![manager(), user("system:kube-scheduler")],
        ),
        same(
            SYSTEM,
            "system::leader-locking-kube-controller-manager",
            vec![manager(), account("kube-controller-manager")],
        ),
        same(
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            vec![user("system:kube-scheduler"), account("kube-scheduler")],
        ),
        same(SYSTEM, "system:controller:bootstrap-signer", vec![account("bootstrap-signer")]),
        same(SYSTEM, "system:controller:cloud-provider", vec![account("cloud-provider")]),
        same(SYSTEM, "system:controller:token-cleaner", vec![account("token-cleaner")]),
        same(PUBLIC, "system:controller:bootstrap-signer", vec![account("bootstrap-signer")]),
    ]
}

/// The writes that make them; those that are there already stay as they are.
pub(super) fn creates() -> Vec<ApiRequest> {
    let create = |plural: &str, namespace: &str, name: &str, mut object: Value| {
        object["metadata"] = json!({"name": name, "namespace": namespace, "annotations": {AUTOUPDATE: "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}});
        let resource = GroupVersionResource::new(GROUP, "v1", plural);
        let mut request = ApiRequest::resource(Verb::Create, resource, Some(namespace), None);
        request.user = authenticated("system:apiserver", &[super::MASTERS]).into();
        request.user_agent = "kube-apiserver".into();
        request.body(ContentType::Json, object)
    };
    let roles = roles().into_iter();
    let mut all: Vec<ApiRequest> =
        roles.map(|(at, name, rules)| create("roles", at, name, json!({"rules": rules}))).collect();
    all.extend(bindings().into_iter().map(|(at, name, role, subjects)| {
        let role = json!({"apiGroup": GROUP, "kind": "Role", "name": role});
        create("rolebindings", at, name, json!({"roleRef": role, "subjects": subjects}))
    }));
    all
}
