//! Upstream's validation of security contexts, as far as every runtime knows them.

use crate::ErrorList;
use crate::api::kit::names::between;
use crate::api::kit::{ErrorSink, Path, flag, get, int, list, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// The highest user or group id.
const ID_MAX: i64 = i32::MAX as i64;

fn validate_id(owner: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(id) = int(owner, field).filter(|id| !(0..=ID_MAX).contains(id)) {
        errors.invalid(&path.child(field), id, &between(0, ID_MAX));
    }
}

pub(super) fn validate_pod(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let context = sub(spec, "securityContext");
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        validate_id(context, field, &path, errors);
    }
    let at = path.child("supplementalGroups");
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        if let Some(id) = group.as_i64().filter(|id| !(0..=ID_MAX).contains(id)) {
            errors.invalid(&at.index(i), id, &between(0, ID_MAX));
        }
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        errors.invalid(
            &path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    let policy = text(context, "fsGroupChangePolicy");
    if !policy.is_empty() && !matches!(policy, "Always" | "OnRootMismatch") {
        errors.not_supported(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    validate_profile(context, &path, errors);
    validate_sysctls(context, &path, errors);
}

fn validate_sysctls(context: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("sysctls");
    let mut seen = BTreeSet::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let name = text(sysctl, "name");
        let item = at.index(i);
        if name.is_empty() {
            errors.required(&item.child("name"), "");
        } else if !is_sysctl(name) {
            errors.invalid(
                &item.child("name"),
                name,
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if !seen.insert(name) {
            errors.duplicate(&item.child("name"), name);
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let part = |p: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = p.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

fn validate_profile(context: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["seccompProfile", "appArmorProfile"] {
        let Some(profile) = get(context, field) else { continue };
        let at = path.child(field);
        let local = get(profile, "localhostProfile").is_some();
        match text(profile, "type") {
            "Localhost" if !local => {
                errors.required(&at.child("localhostProfile"), "must be set when seccomp type is Localhost");
            }
            "Localhost" => {}
            "RuntimeDefault" | "Unconfined" => {
                if local {
                    let detail = "can only be set when seccomp type is Localhost";
                    errors.invalid(
                        &at.child("localhostProfile"),
                        sub(profile, "localhostProfile").clone(),
                        detail,
                    );
                }
            }
            "" => errors.required(&at.child("type"), "type is required when seccompProfile is set"),
            other => {
                errors.not_supported(
                    &at.child("type"),
                    other,
                    &["Localhost", "RuntimeDefault", "Unconfined"],
                );
            }
        }
    }
}

pub(super) fn validate_container(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let context = sub(container, "securityContext");
    if context.is_null() {
        return;
    }
    let path = path.child("securityContext");
    validate_id(context, "runAsUser", &path, errors);
    validate_id(context, "runAsGroup", &path, errors);
    validate_profile(context, &path, errors);
    let mount = text(context, "procMount");
    if !mount.is_empty() && !matches!(mount, "Default" | "Unmasked") {
        errors.not_supported(&path.child("procMount"), mount, &["Default", "Unmasked"]);
    }
    if get(context, "allowPrivilegeEscalation").is_some_and(|v| v == false) {
        if flag(context, "privileged") {
            errors.invalid(
                &path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = list(sub(context, "capabilities"), "add");
        if added.iter().any(|c| c == "CAP_SYS_ADMIN" || c == "SYS_ADMIN") {
            errors.invalid(
                &path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}
