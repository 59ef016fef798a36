//! What a policy gives a pod that says nothing itself.

use super::{IdStrategy, PodSecurityPolicySpec};
use crate::admission::json::push;
use serde_json::{Value, json};

const KINDS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The pod with the policy's defaults.
pub(super) fn defaults(policy: &PodSecurityPolicySpec, pod: &Value) -> Value {
    let mut pod = pod.clone();
    let class = policy.runtime_class.as_ref().and_then(|c| c.default_runtime_class_name.as_ref());
    if let Some(class) = class.filter(|_| pod["spec"]["runtimeClassName"].is_null()) {
        pod["spec"]["runtimeClassName"] = json!(class);
    }
    if let Some(group) = first(&policy.fs_group) {
        set(&mut pod["spec"], "fsGroup", json!(group));
    }
    if let Some(group) = first(&policy.supplemental_groups) {
        set(&mut pod["spec"], "supplementalGroups", json!([group]));
    }
    if policy.se_linux.rule == "MustRunAs"
        && let Some(options) = &policy.se_linux.se_linux_options
    {
        set(&mut pod["spec"], "seLinuxOptions", json!(options));
    }
    let of_pod = pod["spec"]["securityContext"].clone();
    for kind in KINDS {
        let all = pod["spec"].get_mut(kind).and_then(Value::as_array_mut);
        for container in all.into_iter().flatten().filter(|c| c.is_object()) {
            default_container(policy, container, &of_pod);
        }
    }
    pod
}

fn first(strategy: &IdStrategy) -> Option<i64> {
    strategy.ranges.first().filter(|_| strategy.rule == "MustRunAs").map(|range| range.min)
}

/// Sets a field of the security context unless it is there.
fn set(owner: &mut Value, field: &str, value: Value) {
    if !owner["securityContext"].is_object() {
        owner["securityContext"] = json!({});
    }
    if owner["securityContext"][field].is_null() {
        owner["securityContext"][field] = value;
    }
}

fn default_container(policy: &PodSecurityPolicySpec, container: &mut Value, of_pod: &Value) {
    let unset = |container: &Value, field: &str| {
        container["securityContext"][field].is_null() && of_pod[field].is_null()
    };
    if let Some(user) = first(&policy.run_as_user).filter(|_| unset(container, "runAsUser")) {
        set(container, "runAsUser", json!(user));
    }
    let group = policy.run_as_group.as_ref().and_then(first);
    if let Some(group) = group.filter(|_| unset(container, "runAsGroup")) {
        set(container, "runAsGroup", json!(group));
    }
    let silent = unset(container, "runAsUser") && unset(container, "runAsNonRoot");
    if policy.run_as_user.rule == "MustRunAsNonRoot" && silent {
        set(container, "runAsNonRoot", json!(true));
    }
    if policy.read_only_root_filesystem {
        set(container, "readOnlyRootFilesystem", json!(true));
    }
    if let Some(allowed) = policy.default_allow_privilege_escalation {
        set(container, "allowPrivilegeEscalation", json!(allowed));
    }
    if policy.allow_privilege_escalation == Some(false) {
        set(container, "allowPrivilegeEscalation", json!(false));
    }
    let changes = [("add", &policy.default_add_capabilities), ("drop", &policy.required_drop_capabilities)];
    for (list, capabilities) in changes {
        for capability in capabilities {
            set(container, "capabilities", json!({}));
            let has = |list: &str| {
                let all = container["securityContext"]["capabilities"][list].as_array();
                all.is_some_and(|all| all.iter().any(|c| c == capability.as_str()))
            };
            // What the pod drops itself is not given to it.
            if !has(list) && (list == "drop" || !has("drop")) {
                push(&mut container["securityContext"]["capabilities"], list, json!(capability));
            }
        }
    }
}
