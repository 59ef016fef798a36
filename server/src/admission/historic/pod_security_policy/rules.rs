//! What a pod does that a policy does not allow, in upstream's words.

use super::{IdStrategy, PodSecurityPolicySpec};
use crate::admission::json::{at, flag, list, sub, text};
use kubewright_core::{ErrorList, FieldError, FieldPath};
use serde_json::{Value, json};

const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
];
const KINDS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Every rule that the pod breaks.
pub(super) fn broken(policy: &PodSecurityPolicySpec, pod: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (spec, path) = (sub(pod, "spec"), FieldPath::new("spec"));
    check_host(policy, spec, &path.child("securityContext"), &mut errors);
    check_volumes(policy, spec, &path.child("volumes"), &mut errors);
    let context = sub(spec, "securityContext");
    let at_context = path.child("securityContext");
    check_groups(&policy.fs_group, sub(context, "fsGroup"), &at_context.child("fsGroup"), &mut errors);
    for group in list(context, "supplementalGroups") {
        check_groups(
            &policy.supplemental_groups,
            group,
            &at_context.child("supplementalGroups"),
            &mut errors,
        );
    }
    if let Some(classes) = &policy.runtime_class {
        let name = text(spec, "runtimeClassName");
        let allowed = |c: &String| c == "*" || c == name;
        if !name.is_empty() && !classes.allowed_runtime_class_names.iter().any(allowed) {
            errors.push(FieldError::invalid(&path.child("runtimeClassName"), name, ""));
        }
    }
    for kind in KINDS {
        for (i, container) in list(spec, kind).iter().enumerate() {
            check_container(policy, container, context, &path.child(kind).index(i), &mut errors);
        }
    }
    errors
}

fn check_host(policy: &PodSecurityPolicySpec, spec: &Value, path: &FieldPath, errors: &mut ErrorList) {
    for (field, allowed, what) in [
        ("hostNetwork", policy.host_network, "Host network"),
        ("hostPID", policy.host_pid, "Host PID"),
        ("hostIPC", policy.host_ipc, "Host IPC"),
    ] {
        if flag(spec, field) && !allowed {
            let why = format!("{what} is not allowed to be used");
            errors.push(FieldError::invalid(&path.child(field), true, &why));
        }
    }
    let matches = |patterns: &[String], name: &str| {
        patterns.iter().any(|p| p.strip_suffix('*').map_or(p == name, |start| name.starts_with(start)))
    };
    for (i, sysctl) in list(sub(spec, "securityContext"), "sysctls").iter().enumerate() {
        let name = text(sysctl, "name");
        let at_sysctl = path.child("sysctls").index(i);
        if matches(&policy.forbidden_sysctls, name) {
            errors.push(FieldError::forbidden(&at_sysctl, &format!("sysctl {name:?} is not allowed")));
        } else if !SAFE_SYSCTLS.contains(&name) && !matches(&policy.allowed_unsafe_sysctls, name) {
            errors.push(FieldError::forbidden(&at_sysctl, &format!("unsafe sysctl {name:?} is not allowed")));
        }
    }
}

fn check_volumes(policy: &PodSecurityPolicySpec, spec: &Value, path: &FieldPath, errors: &mut ErrorList) {
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let at_volume = path.index(i);
        let mut kinds =
            volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
        let kind = kinds.next().map_or("", |(kind, _)| kind.as_str());
        let tokens_only =
            kind == "projected" && policy.volumes.iter().any(|v| v == "secret") && only_tokens(volume);
        if !policy.volumes.iter().any(|v| v == "*" || v == kind) && !tokens_only {
            let why = format!("{kind} volumes are not allowed to be used");
            errors.push(FieldError::invalid(&at_volume, kind, &why));
            continue;
        }
        let path_of_host = text(sub(volume, "hostPath"), "path");
        let below = |prefix: &str| {
            let rest = path_of_host.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let paths = &policy.allowed_host_paths;
        if kind == "hostPath" && !paths.is_empty() && !paths.iter().any(|p| below(&p.path_prefix)) {
            let at_path = at_volume.child("hostPath").child("pathPrefix");
            errors.push(FieldError::invalid(&at_path, path_of_host, "is not allowed to be used"));
        }
        let driver = text(sub(volume, kind), "driver");
        let (drivers, what) = match kind {
            "csi" => (&policy.allowed_csi_drivers, "Inline CSI driver is not allowed to be used"),
            "flexVolume" => (&policy.allowed_flex_volumes, "Flexvolume driver is not allowed to be used"),
            _ => continue,
        };
        if !drivers.is_empty() && !drivers.iter().any(|d| d.name == driver || d.driver == driver) {
            errors.push(FieldError::invalid(&at_volume.child("driver"), driver, what));
        }
    }
}

/// The volume of the service account's token, which counts as a secret.
fn only_tokens(volume: &Value) -> bool {
    list(sub(volume, "projected"), "sources").iter().all(|source| {
        ["serviceAccountToken", "configMap", "downwardAPI"].iter().any(|kind| !sub(source, kind).is_null())
    })
}

fn ranges(strategy: &IdStrategy) -> String {
    let all: Vec<String> = strategy.ranges.iter().map(|r| format!("{{{} {}}}", r.min, r.max)).collect();
    format!("must be in the ranges: [{}]", all.join(" "))
}

fn within(strategy: &IdStrategy, number: i64) -> bool {
    strategy.ranges.iter().any(|range| (range.min..=range.max).contains(&number))
}

fn check_groups(strategy: &IdStrategy, group: &Value, path: &FieldPath, errors: &mut ErrorList) {
    if !matches!(strategy.rule.as_str(), "MustRunAs" | "MayRunAs") {
        return;
    }
    match group.as_i64() {
        Some(group) if !within(strategy, group) => {
            let why = format!("group {group} {}", ranges(strategy));
            errors.push(FieldError::invalid(path, group, &why));
        }
        None if strategy.rule == "MustRunAs" => {
            errors.push(FieldError::invalid(
                path,
                json!([]),
                "unable to validate empty groups against required ranges",
            ));
        }
        _ => {}
    }
}

fn check_container(
    policy: &PodSecurityPolicySpec,
    container: &Value,
    of_pod: &Value,
    path: &FieldPath,
    errors: &mut ErrorList,
) {
    let own = sub(container, "securityContext");
    let at_context = path.child("securityContext");
    let get = |field: &str| if sub(own, field).is_null() { sub(of_pod, field) } else { sub(own, field) };
    check_user(policy, get("runAsUser"), get("runAsNonRoot"), &at_context, errors);
    if let Some(strategy) = &policy.run_as_group {
        check_groups(strategy, get("runAsGroup"), &at_context.child("runAsGroup"), errors);
    }
    let wanted = policy.se_linux.se_linux_options.as_ref().map(|options| json!(options));
    if let Some(wanted) = wanted.filter(|w| policy.se_linux.rule == "MustRunAs" && w != get("seLinuxOptions"))
    {
        let why = format!("must be {wanted}");
        let has = get("seLinuxOptions").clone();
        errors.push(FieldError::invalid(&at_context.child("seLinuxOptions"), has, &why));
    }
    let mut no = |field: &str, value: Value, why: &str| {
        errors.push(FieldError::invalid(&at_context.child(field), value, why));
    };
    if flag(own, "privileged") && !policy.privileged {
        no("privileged", json!(true), "Privileged containers are not allowed");
    }
    if policy.read_only_root_filesystem && !flag(own, "readOnlyRootFilesystem") {
        no("readOnlyRootFilesystem", json!(false), "ReadOnlyRootFilesystem must be set to true");
    }
    if policy.allow_privilege_escalation == Some(false) && *sub(own, "allowPrivilegeEscalation") != false {
        let why = "Allowing privilege escalation for containers is not allowed";
        no("allowPrivilegeEscalation", json!(true), why);
    }
    let mount = text(own, "procMount");
    let mounts = &policy.allowed_proc_mount_types;
    if !matches!(mount, "" | "Default") && !mounts.iter().any(|m| m == mount) {
        no("procMount", json!(mount), "ProcMountType is not allowed");
    }
    check_capabilities(policy, own, &at_context.child("capabilities"), errors);
    for port in list(container, "ports").iter().filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0) {
        let allowed = |r: &super::HostPortRange| (i64::from(r.min)..=i64::from(r.max)).contains(&port);
        if !policy.host_ports.iter().any(allowed) {
            let all: Vec<String> = policy.host_ports.iter().map(|r| format!("{}-{}", r.min, r.max)).collect();
            let why =
                format!("Host port {port} is not allowed to be used. Allowed ports: [{}]", all.join(","));
            errors.push(FieldError::invalid(&path.child("hostPort"), port, &why));
        }
    }
}

fn check_user(
    policy: &PodSecurityPolicySpec,
    user: &Value,
    non_root: &Value,
    path: &FieldPath,
    errors: &mut ErrorList,
) {
    let at_user = path.child("runAsUser");
    match (policy.run_as_user.rule.as_str(), user.as_i64()) {
        ("MustRunAs", None) => errors.push(FieldError::required(&at_user, "")),
        ("MustRunAs", Some(user)) if !within(&policy.run_as_user, user) => {
            errors.push(FieldError::invalid(&at_user, user, &ranges(&policy.run_as_user)));
        }
        ("MustRunAsNonRoot", Some(0)) => {
            errors.push(FieldError::invalid(&at_user, 0, "running with the root UID is forbidden"));
        }
        ("MustRunAsNonRoot", None) if *non_root != true => {
            let why = "must be true";
            errors.push(FieldError::invalid(&path.child("runAsNonRoot"), non_root.clone(), why));
        }
        _ => {}
    }
}

fn check_capabilities(policy: &PodSecurityPolicySpec, own: &Value, path: &FieldPath, errors: &mut ErrorList) {
    let of = |list: &str| {
        let all = at(own, &["capabilities", list]).as_array();
        all.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let allowed = |c: &String| {
        let lists = [&policy.allowed_capabilities, &policy.default_add_capabilities];
        policy.allowed_capabilities.iter().any(|a| a == "*") || lists.iter().any(|l| l.contains(c))
    };
    for capability in of("add").iter().filter(|c| !allowed(c)) {
        let why = "capability may not be added";
        errors.push(FieldError::invalid(&path.child("add"), capability.as_str(), why));
    }
    let dropped = of("drop");
    for capability in policy.required_drop_capabilities.iter().filter(|c| !dropped.contains(c)) {
        let why = format!("required drop capability {capability} was not found");
        errors.push(FieldError::invalid(&path.child("drop"), json!(dropped), &why));
    }
}
