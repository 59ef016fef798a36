//! Upstream's validation of a container's environment.

use crate::ErrorList;
use crate::api::kit::names;
use crate::api::kit::{ErrorSink, Path, get, list, sub, text};
use serde_json::Value;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub(super) fn validate(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("env");
    for (i, variable) in list(container, "env").iter().enumerate() {
        let item = at.index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(&item.child("name"), "");
        } else {
            for problem in names::env_var(name) {
                errors.invalid(&item.child("name"), name, &problem);
            }
        }
        if let Some(source) = get(variable, "valueFrom") {
            validate_source(source, text(variable, "value"), &item.child("valueFrom"), errors);
        }
    }
    validate_from(container, path, errors);
}

fn validate_source(source: &Value, value: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let given = SOURCES.iter().filter(|s| get(source, s).is_some()).count();
    if let Some(field) = get(source, "fieldRef") {
        validate_field_ref(field, &ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = get(source, "resourceFieldRef") {
        validate_resource_ref(resource, false, &path.child("resourceFieldRef"), errors);
    }
    for key_ref in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = get(source, key_ref) {
            validate_key_ref(reference, &path.child(key_ref), errors);
        }
    }
    if given == 0 {
        errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !value.is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if given > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn validate_key_ref(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(reference, "name");
    for problem in names::subdomain(name) {
        errors.invalid(&path.child("name"), name, &problem);
    }
    let key = text(reference, "key");
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        for problem in names::config_map_key(key) {
            errors.invalid(&path.child("key"), key, &problem);
        }
    }
}

/// Validates a reference to a field of the pod. Entries of the labels and annotations are always allowed.
pub(super) fn validate_field_ref(field: &Value, allowed: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    let version = text(field, "apiVersion");
    if version.is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    let wanted = text(field, "fieldPath");
    let at = path.child("fieldPath");
    if wanted.is_empty() {
        errors.required(&at, "");
        return;
    }
    if version != "v1" {
        errors.invalid(
            &at,
            wanted,
            &format!("error converting fieldPath: field label does not exist: {wanted}"),
        );
        return;
    }
    match subscript(wanted) {
        Some((map @ ("metadata.labels" | "metadata.annotations"), key)) => {
            let key = if map == "metadata.annotations" { key.to_lowercase() } else { key.to_owned() };
            for problem in names::qualified(&key) {
                errors.invalid(path, key.as_str(), &problem);
            }
        }
        Some((map, _)) => {
            errors.invalid(
                &at,
                map,
                &format!("error converting fieldPath: field label does not support subscript: {map}"),
            );
        }
        None if allowed.contains(&wanted) => {}
        None if KNOWN_LABELS.contains(&wanted) || ENV_FIELDS.contains(&wanted) => {
            errors.not_supported(&at, wanted, allowed);
        }
        None => {
            errors.invalid(
                &at,
                wanted,
                &format!("error converting fieldPath: field label not supported: {wanted}"),
            );
        }
    }
}

/// Field labels of a pod that convert, but are not for every use.
const KNOWN_LABELS: [&str; 7] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.hostNetwork",
    "status.phase",
    "status.nominatedNodeName",
];

/// `metadata.labels['a']` as its map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// Validates a reference to an amount of a container; in a volume the container must be named.
pub(super) fn validate_resource_ref(
    reference: &Value,
    volume: bool,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    if volume && text(reference, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
        return;
    }
    let resource = text(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&path.child("resource"), resource, &RESOURCES);
    }
}

fn validate_from(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("envFrom");
    for (i, source) in list(container, "envFrom").iter().enumerate() {
        let item = at.index(i);
        let prefix = text(source, "prefix");
        for problem in names::env_var(prefix).iter().filter(|_| !prefix.is_empty()) {
            errors.invalid(&item.child("prefix"), prefix, problem);
        }
        let given = ["configMapRef", "secretRef"].into_iter().filter(|s| get(source, s).is_some());
        for field in given.clone() {
            let name = text(sub(source, field), "name");
            for problem in names::subdomain(name) {
                errors.invalid(&item.child(field).child("name"), name, &problem);
            }
        }
        match given.count() {
            0 => errors.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&at, "", "may not have more than one field specified at a time"),
        }
    }
}
