//! Node: a machine that runs pods.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::{age_column, or};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::network::parse_cidr;
use crate::api::kit::{
    ErrorSink, Path, at, column, computed, describe, entries, field_at, flag, get, list, name_column, remove,
    set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The descriptor of Node.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["no"]),
        status: true,
        strategy: Arc::new(NodeRules),
        columns: columns(),
        selectable_fields: vec![field_at("spec.unschedulable", |o| {
            flag(sub(o, "spec"), "unschedulable").to_string()
        })],
        ..describe::<Node>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Status", "string", "Whether the node is ready and takes pods.", |o, _| status(o).into()),
        column("Roles", "string", "The roles of the node by its labels.", |o, _| roles(o).into()),
        age_column(),
        column("Version", "string", "The version of the node's agent.", |o, _| {
            info(o, "kubeletVersion").into()
        }),
        computed("Internal-IP", "string", "The node's address in the cluster.", 1, |o, _| {
            address(o, "InternalIP").into()
        }),
        computed("External-IP", "string", "The node's address outside.", 1, |o, _| {
            address(o, "ExternalIP").into()
        }),
        computed("OS-Image", "string", "The operating system.", 1, |o, _| {
            or(info(o, "osImage"), "<unknown>").into()
        }),
        computed("Kernel-Version", "string", "The kernel.", 1, |o, _| {
            or(info(o, "kernelVersion"), "<unknown>").into()
        }),
        computed("Container-Runtime", "string", "The container runtime.", 1, |o, _| {
            or(info(o, "containerRuntimeVersion"), "<unknown>").into()
        }),
    ]
}

fn info<'a>(node: &'a Value, field: &str) -> &'a str {
    text(at(node, &["status", "nodeInfo"]), field)
}

fn status(node: &Value) -> String {
    let ready = list(sub(node, "status"), "conditions").iter().find(|c| text(c, "type") == "Ready");
    let word = match ready.map(|c| text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if flag(sub(node, "spec"), "unschedulable") {
        format!("{word},SchedulingDisabled")
    } else {
        word.to_owned()
    }
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in entries(sub(node, "metadata"), "labels") {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.insert(role);
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str().filter(|v| !v.is_empty()));
        }
    }
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(node: &'a Value, wanted: &str) -> &'a str {
    let addresses = list(sub(node, "status"), "addresses");
    addresses.iter().find(|a| text(a, "type") == wanted).map_or("<none>", |a| text(a, "address"))
}

struct NodeRules;

impl Strategy for NodeRules {
    fn default(&self, object: &mut Value) {
        let Some(status) = object.get_mut("status") else { return };
        if get(status, "allocatable").is_none()
            && let Some(capacity) = get(status, "capacity").cloned()
        {
            set(status, "allocatable", capacity);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        // Nodes register themselves with their status, so it stays. The spec fields below were never the node's to set.
        if let Some(spec) = object.get_mut("spec") {
            remove(spec, "configSource");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        let spec = Path::Root.child("spec");
        let (new_id, old_id) =
            (text(sub(object, "spec"), "providerID"), text(sub(old, "spec"), "providerID"));
        if !old_id.is_empty() && new_id != old_id {
            errors.forbidden(
                &spec.child("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            );
        }
        let (new_cidrs, old_cidrs) =
            (list(sub(object, "spec"), "podCIDRs"), list(sub(old, "spec"), "podCIDRs"));
        if !old_cidrs.is_empty() && new_cidrs != old_cidrs {
            errors.forbidden(
                &spec.child("podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
        validate_addresses(object, &mut errors);
        errors
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let taints = path.child("taints");
    let mut seen = BTreeSet::new();
    for (i, taint) in list(spec, "taints").iter().enumerate() {
        let at = taints.index(i);
        validate_taint(taint, &at, errors);
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        if !seen.insert((key, effect)) {
            let shown = taint.clone();
            errors.duplicate(&at, shown);
        }
    }
    let cidrs = path.child("podCIDRs");
    for (i, cidr) in list(spec, "podCIDRs").iter().enumerate() {
        parse_cidr(cidr.as_str().unwrap_or(""), &cidrs.index(i), errors);
    }
}

fn validate_taint(taint: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (key, value) = (text(taint, "key"), text(taint, "value"));
    for problem in names::qualified(key) {
        errors.invalid(&path.child("key"), key, &problem);
    }
    for problem in names::label_value(value) {
        errors.invalid(&path.child("value"), value, &problem);
    }
    match text(taint, "effect") {
        "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
        "" => errors.required(&path.child("effect"), ""),
        other => {
            errors.not_supported(
                &path.child("effect"),
                other,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
    }
}

fn validate_addresses(node: &Value, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    let status = Path::Root.child("status");
    let path = status.child("addresses");
    for (i, address) in list(sub(node, "status"), "addresses").iter().enumerate() {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            errors.duplicate(&path.index(i), address.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_and_roles_come_from_conditions_and_labels() {
        let check = |node: Value, wanted: [&str; 3]| {
            assert_eq!([status(&node), roles(&node), address(&node, "InternalIP").to_owned()], wanted);
        };
        check(json!({}), ["Unknown", "<none>", "<none>"]);
        check(
            json!({
                "metadata": {"labels": {
                    "node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge", "node-role.kubernetes.io/": ""}},
                "spec": {"unschedulable": true},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}]}}),
            ["Ready,SchedulingDisabled", "edge,worker", "10.0.0.1"],
        );
        check(
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            ["NotReady", "<none>", "<none>"],
        );
    }

    #[test]
    fn taints_are_checked() {
        let node = json!({"spec": {"taints": [
            {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "No"}, {"key": "c"}]}});
        let fields: Vec<String> =
            NodeRules.validate(&node).iter().map(|e| format!("{} {}", e.field, e.kind.as_str())).collect();
        assert_eq!(
            fields,
            [
                "spec.taints[1] FieldValueDuplicate",
                "spec.taints[2].effect FieldValueNotSupported",
                "spec.taints[3].effect FieldValueRequired"
            ]
        );
    }

    #[test]
    fn pod_cidrs_stay_once_set() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}});
        assert!(NodeRules.validate_update(&old, &json!({}), cx).is_empty());
        let errors = NodeRules.validate_update(&json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}}), &old, cx);
        assert_eq!(errors.len(), 2);
    }
}
