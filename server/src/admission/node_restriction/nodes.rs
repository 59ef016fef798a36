//! A node's own Node: its labels and taints are not all its own to say.

use super::Case;
use crate::admission::Operation;
use crate::admission::json::sub;
use kubewright_core::{ApiError, meta};
use serde_json::Value;
use std::collections::BTreeSet;

const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const KUBELET_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED: &str = "node-restriction.kubernetes.io";

pub(super) fn judge(case: &Case<'_>) -> Result<(), ApiError> {
    let (node, name) = (case.node, case.name());
    if name != node {
        return case.refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let nothing = Value::Null;
    let old = match case.request.operation {
        Operation::Create => &nothing,
        Operation::Update => case.request.old.unwrap_or(&nothing),
        Operation::Delete | Operation::Connect => return Ok(()),
    };
    let config = |object| sub(sub(object, "spec"), "configSource");
    let create = case.request.operation == Operation::Create;
    if !config(case.object).is_null() && config(case.object) != config(old) {
        let what = if create {
            "create pods with a non-nil configSource"
        } else {
            "update configSource to a new non-nil configSource"
        };
        return case.refuse(format!("node {node:?} is not allowed to {what}"));
    }
    let taints = |object| sub(sub(object, "spec"), "taints").as_array().cloned().unwrap_or_default();
    if !create && taints(case.object) != taints(old) {
        return case.refuse(format!("node {node:?} is not allowed to modify taints"));
    }
    let forbidden: Vec<&str> =
        changed(case.object, old).into_iter().filter(|label| is_forbidden(label)).collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    let labels = forbidden.join(", ");
    if create {
        return case.refuse(format!("node {node:?} is not allowed to set the following labels: {labels}"));
    }
    case.refuse(format!("is not allowed to modify labels: {labels}"))
}

/// The labels that differ.
fn changed<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let (new, old) = (meta::labels(new), meta::labels(old));
    let keys = new.into_iter().chain(old).flat_map(|labels| labels.keys());
    let value =
        |labels: Option<&'a serde_json::Map<String, Value>>, key: &str| labels.and_then(|l| l.get(key));
    keys.filter(|key| value(new, key) != value(old, key)).map(String::as_str).collect()
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |wanted: &str| domain.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let ours = within("kubernetes.io") || within("k8s.io");
    let of_kubelets = KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.iter().any(|d| within(d));
    within(RESTRICTED) || (ours && !of_kubelets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_does_not_say_what_steers_pods_to_it() {
        for label in [
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
            "node-role.kubernetes.io/x",
            "k8s.io/x",
            "foo.k8s.io/x",
            "kubernetes.io/x",
        ] {
            assert!(is_forbidden(label), "{label}");
        }
        for label in [
            "x",
            "example.dev/x",
            "kubernetes.io/hostname",
            "node.kubernetes.io/x",
            "a.kubelet.kubernetes.io/x",
            "notk8s.io/x",
        ] {
            assert!(!is_forbidden(label), "{label}");
        }
    }
}
