//! When a container is restarted: the pod's policy, the container's own, and its rules.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// `spec.restartPolicy`, `Always` by default.
pub fn pod_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().filter(|p| !p.is_empty()).unwrap_or("Always")
}

/// Whether an init container goes on beside the pod's containers (a sidecar).
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that ended with this code is started again.
pub fn restarts_after(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| pod_policy(spec)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The pod's spec; a pod without one behaves as an empty one.
pub fn spec(pod: &Pod) -> std::borrow::Cow<'_, PodSpec> {
    pod.spec.as_ref().map_or_else(|| std::borrow::Cow::Owned(PodSpec::default()), std::borrow::Cow::Borrowed)
}

/// Whether the pod runs at the node's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// Whether the pod's status says that it ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The seconds that a pod has to end: of its deletion, else of its spec, else 30.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let of_spec = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    pod.metadata.deletion_grace_period_seconds.or(of_spec).unwrap_or(30).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn policies_and_rules_decide() {
        let check = |pod: &str, container: Value, code: i32, wanted: bool| {
            let spec: PodSpec =
                serde_json::from_value(json!({"containers": [], "restartPolicy": pod})).unwrap();
            let mut c = json!({"name": "c"});
            c.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
            let c: Container = serde_json::from_value(c).unwrap();
            assert_eq!(restarts_after(&spec, &c, code), wanted, "{pod} {container} {code}");
        };
        check("Always", json!({}), 0, true);
        check("OnFailure", json!({}), 0, false);
        check("OnFailure", json!({}), 1, true);
        check("Never", json!({}), 1, false);
        check("Never", json!({"restartPolicy": "OnFailure"}), 1, true);
        let rule = |op: &str| {
            json!({"restartPolicy": "Never", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": op, "values": [42]}}]})
        };
        check("Always", rule("In"), 42, true);
        check("Always", rule("In"), 1, false);
        check("Always", rule("NotIn"), 1, true);
    }
}
