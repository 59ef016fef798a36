//! In-place resize: what a write through `resize` may say.

use super::spec::validate_spec;
use crate::ErrorList;
use crate::api::kit::{ErrorSink, Path, at, carry, count, get, list, list_mut, remove, same, sub, text};
use serde_json::Value;

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Takes from a write the resources of containers alone, and which pod is meant.
pub(super) fn keep_only(pod: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for field in LISTS {
        let wanted = list(sub(pod, "spec"), field);
        for container in list_mut(&mut kept["spec"], field) {
            let Some(own) = wanted.iter().find(|c| text(c, "name") == text(container, "name")) else {
                continue;
            };
            for part in ["resources", "resizePolicy"] {
                carry(container, own, part);
            }
        }
    }
    for field in ["resourceVersion", "uid", "managedFields"] {
        carry(&mut kept["metadata"], sub(pod, "metadata"), field);
    }
    *pod = kept;
}

/// A write through `resize`: amounts of processor and memory may change, but neither go nor change the pod's class.
pub(super) fn validate_update(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::Root.child("spec");
    let (spec, old_spec) = (sub(pod, "spec"), sub(old, "spec"));
    validate_spec(spec, sub(pod, "metadata"), false, &path, &mut errors);
    if get(sub(old, "metadata"), "annotations")
        .is_some_and(|a| get(a, "kubernetes.io/config.mirror").is_some())
    {
        errors.forbidden(&Path::Root, "static pods cannot be resized");
    }
    if text(sub(old_spec, "os"), "name") == "windows" {
        errors.forbidden(&Path::Root, "windows pods cannot be resized");
    }
    if super::qos_class(pod) != super::qos_class(old) {
        errors.invalid(&path, super::qos_class(pod), "Pod QOS Class may not change as a result of resizing");
    }
    for field in LISTS {
        let items = path.child(field);
        for (i, (container, former)) in list(spec, field).iter().zip(list(old_spec, field)).enumerate() {
            validate_amounts(container, former, &items.index(i), &mut errors);
        }
    }
    if !same(&without_amounts(spec), &without_amounts(old_spec)) {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
    errors
}

/// What a container asks for may change, but not be taken back.
fn validate_amounts(container: &Value, former: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if !same(sub(container, "resizePolicy"), sub(former, "resizePolicy")) {
        errors.invalid(
            &path.child("resizePolicy"),
            sub(container, "resizePolicy").clone(),
            "field is immutable",
        );
    }
    for (part, noun) in [("limits", "limits"), ("requests", "requests")] {
        let (now, before) = (at(container, &["resources", part]), at(former, &["resources", part]));
        for resource in ["cpu", "memory"] {
            if get(before, resource).is_some() && get(now, resource).is_none() {
                let at = path.child("resources");
                errors.forbidden(&at.child(part), &format!("resource {noun} cannot be removed"));
            }
        }
    }
}

/// The spec without what a resize may change.
fn without_amounts(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for field in LISTS {
        for container in list_mut(&mut spec, field) {
            remove(container, "resizePolicy");
            let Some(resources) = container.get_mut("resources") else { continue };
            for part in ["limits", "requests"] {
                if let Some(amounts) = resources.get_mut(part) {
                    remove(amounts, "cpu");
                    remove(amounts, "memory");
                }
                if count(resources, part) == 0 {
                    remove(resources, part);
                }
            }
            if resources.as_object().is_some_and(serde_json::Map::is_empty) {
                remove(container, "resources");
            }
        }
    }
    spec
}
