//! Ephemeral containers: what a write through `ephemeralcontainers` may say.

use super::containers::validate_ephemeral;
use super::volumes;
use crate::ErrorList;
use crate::api::kit::{ErrorSink, Path, carry, get, list, same, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// What an ephemeral container may have; all else belongs to containers that are planned for.
const FIELDS: [&str; 17] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// Takes from a write the ephemeral containers alone, and which pod is meant.
pub(super) fn keep_only(pod: &mut Value, old: &Value) {
    let mut kept = old.clone();
    carry(&mut kept["spec"], sub(pod, "spec"), "ephemeralContainers");
    for field in ["resourceVersion", "uid", "managedFields"] {
        carry(&mut kept["metadata"], sub(pod, "metadata"), field);
    }
    *pod = kept;
}

/// A write through `ephemeralcontainers`: new ones may appear, and that is all.
pub(super) fn validate_update(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::Root.child("spec");
    let (spec, old_spec) = (sub(pod, "spec"), sub(old, "spec"));
    let at = path.child("ephemeralContainers");
    let volumes = volumes::validate(spec, sub(pod, "metadata"), &path, &mut errors);
    let mut seen: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| list(spec, field))
        .map(|container| text(container, "name"))
        .collect();
    for (i, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let item = at.index(i);
        validate_ephemeral(container, &volumes, &item, &mut errors);
        let name = text(container, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&item.child("name"), name);
        }
        validate_target(container, spec, &item, &mut errors);
        validate_fields(container, &item, &mut errors);
    }
    if get(sub(old, "metadata"), "annotations")
        .is_some_and(|a| get(a, "kubernetes.io/config.mirror").is_some())
    {
        errors.forbidden(&Path::Root, "static pods do not support ephemeral containers");
    }
    let now = list(spec, "ephemeralContainers");
    for former in list(old_spec, "ephemeralContainers") {
        let name = text(former, "name");
        match now.iter().find(|c| text(c, "name") == name) {
            None => {
                errors.forbidden(&at, &format!("existing ephemeral containers \"{name}\" may not be removed"))
            }
            Some(present) if !same(present, former) => {
                errors.forbidden(&at, &format!("existing ephemeral containers \"{name}\" may not be changed"))
            }
            Some(_) => {}
        }
    }
    errors
}

fn validate_target(container: &Value, spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let target = text(container, "targetContainerName");
    let mut known = ["containers", "initContainers"].iter().flat_map(|field| list(spec, field));
    if !target.is_empty() && !known.any(|c| text(c, "name") == target) {
        errors.not_found(&path.child("targetContainerName"), target);
    }
}

fn validate_fields(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let set = container.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value));
    for (field, _) in set.filter(|(field, _)| !FIELDS.contains(&field.as_str())) {
        errors.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
    }
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !text(mount, field).is_empty() {
                let at = path.child("volumeMounts");
                errors.forbidden(&at.index(i).child(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
