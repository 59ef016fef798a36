//! Binding a pod to a node.

use crate::api::kit::{ErrorSink, Path, entries, get, list, set, sub, text};
use crate::{ApiError, ErrorList};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Validates a Binding that a client sent.
pub fn validate_binding(binding: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::Root.child("target");
    let target = sub(binding, "target");
    let kind = text(target, "kind");
    if !kind.is_empty() && kind != "Node" {
        errors.not_supported(&path.child("kind"), kind, &["Node", "<empty>"]);
    }
    if text(target, "name").is_empty() {
        errors.required(&path.child("name"), "");
    }
    errors
}

/// Binds a pod to the target of a Binding: sets its node, takes over the Binding's annotations and labels, and notes the condition
/// `PodScheduled`.
///
/// # Errors
/// 409 where the pod is being deleted, is bound already, or is held by scheduling gates, or where the Binding names another uid; the
/// messages are upstream's.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), ApiError> {
    let name = text(sub(pod, "metadata"), "name").to_owned();
    let conflict = |detail: String| Err(ApiError::conflict("", "pods/binding", &name, &detail));
    let wanted = text(sub(binding, "metadata"), "uid");
    let uid = text(sub(pod, "metadata"), "uid");
    if !wanted.is_empty() && wanted != uid {
        return conflict(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if get(sub(pod, "metadata"), "deletionTimestamp").is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(sub(pod, "spec"), "nodeName");
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if !list(sub(pod, "spec"), "schedulingGates").is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    if let Some(spec) = crate::api::kit::ensure(pod, "spec") {
        set(spec, "nodeName", text(sub(binding, "target"), "name"));
    }
    copy_metadata(pod, binding);
    set_scheduled(pod, now);
    Ok(())
}

fn copy_metadata(pod: &mut Value, binding: &Value) {
    for field in ["annotations", "labels"] {
        let given = sub(binding, "metadata");
        if entries(given, field).next().is_none() {
            continue;
        }
        if let Some(own) =
            crate::api::kit::ensure(pod, "metadata").and_then(|m| crate::api::kit::ensure(m, field))
        {
            for (key, value) in entries(given, field) {
                set(own, key, value.clone());
            }
        }
    }
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let Some(status) = crate::api::kit::ensure(pod, "status") else { return };
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) => match conditions.iter_mut().find(|c| text(c, "type") == "PodScheduled") {
            Some(old) => *old = condition,
            None => conditions.push(condition),
        },
        None => set(status, "conditions", json!([condition])),
    }
    crate::api::kit::remove(status, "nominatedNodeName");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(node: &str) -> Value {
        json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": node}})
    }

    #[test]
    fn a_pod_is_bound_once() {
        let now = Timestamp::UNIX_EPOCH;
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Pending"}});
        bind(&mut pod, &binding("n"), now).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        let error = bind(&mut pod, &binding("m"), now).unwrap_err();
        assert_eq!(error.code(), 409);
        assert!(error.message().contains("pod p is already assigned to node \"n\""), "{}", error.message());
    }

    #[test]
    fn what_may_not_run_is_not_bound() {
        let check = |pod: Value, wanted: &str| {
            let error = bind(&mut pod.clone(), &binding("n"), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(error.message().contains(wanted), "{}", error.message());
        };
        check(json!({"metadata": {"name": "p", "deletionTimestamp": "x"}}), "is being deleted");
        check(
            json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
            "schedulingGates",
        );
        let fields: Vec<String> =
            validate_binding(&json!({"target": {"kind": "X"}})).iter().map(|e| e.field.to_string()).collect();
        assert_eq!(fields, ["target.kind", "target.name"]);
    }
}
