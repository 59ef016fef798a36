//! What an update of a pod may change.

use super::spec::validate_spec;
use crate::ErrorList;
use crate::api::kit::{ErrorSink, Path, at, get, int, list, same, sub, text};
use serde_json::Value;

/// Upstream's sentence, which goes on with the difference.
const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself.
pub(super) fn validate_update(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (spec, old_spec) = (sub(pod, "spec"), sub(old, "spec"));
    let path = Path::Root.child("spec");
    validate_spec(spec, sub(pod, "metadata"), false, &path, &mut errors);
    if same(spec, old_spec) {
        return errors;
    }
    for field in ["containers", "initContainers"] {
        let at = path.child(field);
        if list(spec, field).len() != list(old_spec, field).len() {
            errors.forbidden(&at, "pod updates may not add or remove containers");
            return errors;
        }
    }
    validate_deadline(spec, old_spec, &path, &mut errors);
    validate_tolerations(spec, old_spec, &path, &mut errors);
    validate_gates(spec, old_spec, &path, &mut errors);
    if let Some(changed) = other_change(spec, old_spec) {
        errors.forbidden(&path, &format!("{ONLY}\n{changed}"));
    }
    errors
}

fn validate_deadline(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let field = "activeDeadlineSeconds";
    let at = path.child(field);
    match (int(spec, field), int(old, field)) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(&at, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(&at, Value::Null, "must not update from a positive integer to nil value")
        }
        _ => {}
    }
}

/// Tolerations only grow, but the seconds of one may change.
fn validate_tolerations(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const FIELDS: [&str; 4] = ["key", "operator", "value", "effect"];
    let kept = |toleration: &Value| {
        list(spec, "tolerations").iter().any(|t| FIELDS.iter().all(|f| text(t, f) == text(toleration, f)))
    };
    if !list(old, "tolerations").iter().all(kept) {
        errors.forbidden(
            &path.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn validate_gates(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let gates = |spec| list(spec, "schedulingGates");
    for gate in gates(spec) {
        if !gates(old).iter().any(|g| text(g, "name") == text(gate, "name")) {
            errors.forbidden(
                &path.child("schedulingGates"),
                "only deletion is allowed, but found new scheduling gate",
            );
        }
    }
}

/// The first field that changed beyond what may, described.
fn other_change(spec: &Value, old: &Value) -> Option<String> {
    const FREE: [&str; 3] = ["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let gated = !list(old, "schedulingGates").is_empty();
    let names = |v: &Value| v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut fields = names(spec);
    fields.extend(names(old));
    fields.sort();
    fields.dedup();
    for field in &fields {
        let (new, old_value) = (sub(spec, field), sub(old, field));
        let allowed = FREE.contains(&field.as_str())
            || same(new, old_value)
            || match field.as_str() {
                "terminationGracePeriodSeconds" => {
                    new.as_i64() == Some(1) && old_value.as_i64().is_some_and(|s| s < 0)
                }
                "containers" | "initContainers" => same_but_image(new, old_value),
                // While a pod is held back, where it may run can still be narrowed.
                "nodeSelector" => gated && narrows(new, old_value),
                "affinity" => gated && narrows_affinity(new, old_value),
                _ => false,
            };
        if !allowed {
            return Some(format!("  core.PodSpec{{ {field}: {old_value} -> {new} }}"));
        }
    }
    None
}

fn same_but_image(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_array(), old.as_array()) else { return false };
    new.len() == old.len()
        && new.iter().zip(old).all(|(n, o)| {
            let keys = n.as_object().into_iter().chain(o.as_object()).flat_map(|m| m.keys());
            keys.into_iter().all(|key| key == "image" || same(sub(n, key), sub(o, key)))
        })
}

fn narrows(new: &Value, old: &Value) -> bool {
    old.as_object().is_none_or(|old| old.iter().all(|(k, v)| new.get(k) == Some(v)))
}

fn narrows_affinity(new: &Value, old: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let others = ["podAffinity", "podAntiAffinity"].iter().all(|f| same(sub(new, f), sub(old, f)));
    let terms = |v| list(at(v, &["nodeAffinity", REQUIRED]), "nodeSelectorTerms");
    if !others || terms(old).is_empty() {
        return others;
    }
    terms(new).len() == terms(old).len()
        && terms(new).iter().zip(terms(old)).all(|(n, o)| {
            ["matchExpressions", "matchFields"]
                .iter()
                .all(|f| list(o, f).iter().all(|wanted| list(n, f).contains(wanted)))
        })
}

/// A write of the status.
pub(super) fn validate_status(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (status, old_status) = (sub(pod, "status"), sub(old, "status"));
    let path = Path::Root.child("status");
    let (node, old_node) = (text(sub(pod, "spec"), "nodeName"), text(sub(old, "spec"), "nodeName"));
    if node != old_node {
        errors.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let class = text(status, "qosClass");
    let old_class = text(old_status, "qosClass");
    if !old_class.is_empty() && class != old_class {
        errors.invalid(&path.child("qosClass"), class, "field is immutable");
    }
    for (field, containers) in
        [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")]
    {
        validate_no_resurrection(pod, old, (field, containers), &path, &mut errors);
    }
    let ips = list(status, "podIPs");
    let at_ips = path.child("podIPs");
    for (i, ip) in ips.iter().enumerate() {
        crate::api::kit::network::parse_ip(text(ip, "ip"), &at_ips.index(i).child("ip"), &mut errors);
    }
    errors
}

/// A container that ended for good does not run again.
fn validate_no_resurrection(
    pod: &Value,
    old: &Value,
    (field, containers): (&str, &str),
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let spec = sub(pod, "spec");
    let policy = text(spec, "restartPolicy");
    if policy == "Always" {
        return;
    }
    let path = path.child(field);
    for status in list(sub(old, "status"), field) {
        let name = text(status, "name");
        let Some(ended) = get(sub(status, "state"), "terminated") else { continue };
        let own = list(spec, containers).iter().find(|c| text(c, "name") == name);
        let failed = int(ended, "exitCode").unwrap_or(0) != 0;
        let restarts =
            own.is_some_and(|c| get(c, "restartPolicy").is_some() || get(c, "restartPolicyRules").is_some());
        if restarts || (failed && policy == "OnFailure") {
            continue;
        }
        let now = list(sub(pod, "status"), field).iter().position(|s| text(s, "name") == name);
        if let Some(i) = now
            && get(sub(&list(sub(pod, "status"), field)[i], "state"), "terminated").is_none()
        {
            errors
                .forbidden(&path.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}
