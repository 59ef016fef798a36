//! Upstream's validation of containers.

use super::columns::is_sidecar;
use super::volumes::Volumes;
use super::{env, probes, resources, security};
use crate::ErrorList;
use crate::api::kit::names;
use crate::api::kit::{ErrorSink, Path, count, get, int, list, text};
use serde_json::Value;
use std::collections::BTreeSet;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Init,
    Sidecar,
}

/// Validates the containers of a pod spec.
pub(super) fn validate(spec: &Value, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("containers");
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let item = at.index(i);
        validate_container(container, Role::Main, spec, volumes, &item, errors);
        unique_name(container, &mut seen, &item, errors);
        unique_host_ports(container, &mut host_ports, &item, errors);
    }
    let at = path.child("initContainers");
    for (i, container) in list(spec, "initContainers").iter().enumerate() {
        let item = at.index(i);
        let role = if is_sidecar(container) { Role::Sidecar } else { Role::Init };
        validate_container(container, role, spec, volumes, &item, errors);
        unique_name(container, &mut seen, &item, errors);
        if role == Role::Sidecar {
            unique_host_ports(container, &mut host_ports, &item, errors);
        } else {
            // An init container has ended before the others start, so only its own ports must differ.
            unique_host_ports(container, &mut BTreeSet::new(), &item, errors);
        }
    }
}

fn unique_name<'a>(
    container: &'a Value,
    seen: &mut BTreeSet<&'a str>,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let name = text(container, "name");
    if !name.is_empty() && !seen.insert(name) {
        errors.duplicate(&path.child("name"), name);
    }
}

/// An address, a port and a protocol of the machine.
type HostPort<'a> = (&'a str, i64, &'a str);

fn unique_host_ports<'a>(
    container: &'a Value,
    seen: &mut BTreeSet<HostPort<'a>>,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let at = path.child("ports");
    for (i, port) in list(container, "ports").iter().enumerate() {
        let number = int(port, "hostPort").unwrap_or(0);
        let (address, protocol) = (text(port, "hostIP"), text(port, "protocol"));
        if number != 0 && !seen.insert((address, number, protocol)) {
            let shown = format!("{protocol}/{address}/{number}");
            errors.duplicate(&at.index(i).child("hostPort"), shown);
        }
    }
}

fn validate_container(
    container: &Value,
    role: Role,
    spec: &Value,
    volumes: &Volumes<'_>,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    validate_identity(container, path, errors);
    validate_role(container, role, path, errors);
    validate_ports(container, path, errors);
    env::validate(container, path, errors);
    volumes.validate_mounts(container, path, errors);
    validate_policies(container, path, errors);
    probes::validate(container, spec, path, errors);
    resources::validate(container, path, errors);
    security::validate_container(container, path, errors);
}

fn validate_identity(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        for problem in names::label(name) {
            errors.invalid(&path.child("name"), name, &problem);
        }
    }
    let image = text(container, "image");
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

/// An ephemeral container, as far as it is like any other.
pub(super) fn validate_ephemeral(
    container: &Value,
    volumes: &Volumes<'_>,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    validate_identity(container, path, errors);
    env::validate(container, path, errors);
    volumes.validate_mounts(container, path, errors);
    validate_policies(container, path, errors);
    security::validate_container(container, path, errors);
}

fn validate_role(container: &Value, role: Role, path: &Path<'_>, errors: &mut ErrorList) {
    let policy = text(container, "restartPolicy");
    if !policy.is_empty() && !matches!(policy, "Always" | "Never" | "OnFailure") {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    }
    if role != Role::Init {
        return;
    }
    if get(container, "lifecycle").is_some() {
        errors.forbidden(
            &path.child("lifecycle"),
            "may not be set for init containers without restartPolicy=Always",
        );
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if get(container, probe).is_some() {
            errors.forbidden(
                &path.child(probe),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
}

fn validate_ports(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let item = at.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            for problem in &problems {
                errors.invalid(&item.child("name"), name, problem);
            }
            if problems.is_empty() && !seen.insert(name) {
                errors.duplicate(&item.child("name"), name);
            }
        }
        let number = int(port, "containerPort").unwrap_or(0);
        if number == 0 {
            errors.required(&item.child("containerPort"), "");
        } else if let Some(problem) = names::port_number(number) {
            errors.invalid(&item.child("containerPort"), number, &problem);
        }
        let host = int(port, "hostPort").unwrap_or(0);
        if let Some(problem) = names::port_number(host).filter(|_| host != 0) {
            errors.invalid(&item.child("hostPort"), host, &problem);
        }
        super::spec::known(port, "protocol", &PROTOCOLS, &item, errors);
    }
}

fn validate_policies(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    super::spec::known(container, "imagePullPolicy", &PULL_POLICIES, path, errors);
    super::spec::known(
        container,
        "terminationMessagePolicy",
        &["FallbackToLogsOnError", "File"],
        path,
        errors,
    );
    if count(container, "resizePolicy") > 0 {
        let at = path.child("resizePolicy");
        for (i, policy) in list(container, "resizePolicy").iter().enumerate() {
            let resource = text(policy, "resourceName");
            if !matches!(resource, "cpu" | "memory") {
                errors.not_supported(&at.index(i), resource, &["cpu", "memory"]);
            }
            let restart = text(policy, "restartPolicy");
            if !matches!(restart, "NotRequired" | "RestartContainer") {
                errors.not_supported(&at.index(i), restart, &["NotRequired", "RestartContainer"]);
            }
        }
    }
}
