//! Validation of metadata in upstream's words (`k8s.io/apimachinery/pkg/api/validation`).

use super::deletion::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use super::names::{
    NameRule, validate_annotation_key, validate_dns1123_label, validate_finalizer_name, validate_label_value,
    validate_qualified_name,
};
use super::{annotations, finalizers, generation, is_deleting, labels, name, namespace};
use crate::field::{ErrorList, FieldError, FieldPath};
use serde_json::{Map, Value};

/// How many bytes all annotations together may have.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Everything that the metadata of a new object breaks.
pub fn validate_metadata(object: &Value, rule: NameRule, namespaced: bool) -> ErrorList {
    let at = FieldPath::new("metadata");
    let mut errors = ErrorList::new();
    let base = object.pointer("/metadata/generateName").and_then(Value::as_str).unwrap_or("");
    if !base.is_empty() {
        invalid(&at.child("generateName"), base, rule.check(base, true), &mut errors);
    }
    if name(object).is_empty() {
        errors.push(FieldError::required(&at.child("name"), "name or generateName is required"));
    } else {
        invalid(&at.child("name"), name(object), rule.check(name(object), false), &mut errors);
    }
    let (path, value) = (at.child("namespace"), namespace(object));
    match (namespaced, value.is_empty()) {
        (true, true) => errors.push(FieldError::required(&path, "")),
        (true, false) => invalid(&path, value, validate_dns1123_label(value), &mut errors),
        (false, false) => errors.push(FieldError::forbidden(&path, "not allowed on this type")),
        (false, true) => {}
    }
    validate_rest(object, &mut errors);
    errors
}

/// What create and update check alike.
fn validate_rest(object: &Value, errors: &mut ErrorList) {
    let at = FieldPath::new("metadata");
    if generation(object) < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&at.child("generation"), generation(object), detail));
    }
    if let Some(labels) = labels(object) {
        errors.extend(validate_labels(labels, &at.child("labels")));
    }
    if let Some(annotations) = annotations(object) {
        errors.extend(validate_annotations(annotations, &at.child("annotations")));
    }
    if let Some(owners) = object.pointer("/metadata/ownerReferences").and_then(Value::as_array) {
        errors.extend(validate_owner_references(owners, &at.child("ownerReferences")));
    }
    let path = at.child("finalizers");
    for finalizer in finalizers(object) {
        invalid(&path, finalizer, validate_finalizer_name(finalizer), errors);
    }
    let has = |wanted: &str| finalizers(object).any(|f| f == wanted);
    if has(FOREGROUND_FINALIZER) && has(ORPHAN_FINALIZER) {
        let all: Vec<&str> = finalizers(object).collect();
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(&path, all, detail));
    }
}

fn invalid(at: &FieldPath, value: &str, found: Vec<String>, errors: &mut ErrorList) {
    errors.extend(found.into_iter().map(|why| FieldError::invalid(at, value, &why)));
}

/// Everything that a map of labels breaks.
pub fn validate_labels(labels: &Map<String, Value>, at: &FieldPath) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        invalid(at, key, validate_qualified_name(key), &mut errors);
        let value = value.as_str().unwrap_or("");
        invalid(at, value, validate_label_value(value), &mut errors);
    }
    errors
}

/// Everything that a map of annotations breaks.
pub fn validate_annotations(annotations: &Map<String, Value>, at: &FieldPath) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in annotations {
        invalid(at, key, validate_annotation_key(key), &mut errors);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(at, ANNOTATIONS_BYTES_MAX));
    }
    errors
}

/// Everything that a list of owner references breaks.
pub fn validate_owner_references(owners: &[Value], at: &FieldPath) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<String> = None;
    // Upstream's paths do not say which of the references it is.
    for owner in owners {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or("");
        let api_version = text("apiVersion");
        if api_version.rsplit('/').next().unwrap_or("").is_empty() {
            errors.push(FieldError::invalid(
                &at.child("apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(&at.child(field), text(field), "must not be empty"));
            }
        }
        if api_version == "v1" && text("kind") == "Event" {
            errors.push(FieldError::invalid(
                at,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let name = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.push(FieldError::invalid(at, owners.to_vec(), &detail));
                }
                None => controller = Some(name),
            }
        }
    }
    errors
}

/// Everything that a change of metadata breaks: what may not change, and finalizers added while deleting.
pub fn validate_metadata_update(object: &Value, old: &Value) -> ErrorList {
    let at = FieldPath::new("metadata");
    let mut errors = ErrorList::new();
    if is_deleting(old) {
        let new: Vec<String> = finalizers(object)
            .filter(|f| !finalizers(old).any(|o| o == *f))
            .map(|f| format!("{f:?}"))
            .collect();
        if !new.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.join(", ")
            );
            errors.push(FieldError::forbidden(&at.child("finalizers"), &detail));
        }
    }
    let (new_meta, old_meta) = (object.get("metadata"), old.get("metadata"));
    let value =
        |meta: Option<&Value>, field: &str| meta.and_then(|m| m.get(field)).cloned().unwrap_or(Value::Null);
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (new, old) = (value(new_meta, field), value(old_meta, field));
        if new != old {
            errors.push(FieldError::invalid(&at.child(field), new, "field is immutable"));
        }
    }
    if generation(object) < generation(old) {
        let detail = "must not be decremented";
        errors.push(FieldError::invalid(&at.child("generation"), generation(object), detail));
    }
    validate_rest(object, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metadata_is_checked_in_upstreams_words() {
        let check = |metadata: Value, namespaced: bool, want: &[&str]| {
            let found = texts(validate_metadata(&json!({"metadata": metadata}), NameRule::Label, namespaced));
            assert_eq!(found.len(), want.len(), "{found:?}");
            for (found, want) in found.iter().zip(want) {
                assert!(found.starts_with(want), "{found} is not {want}");
            }
        };
        check(json!({"name": "a", "namespace": "n"}), true, &[]);
        check(
            json!({}),
            true,
            &[
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value",
            ],
        );
        check(
            json!({"name": "a", "namespace": "n"}),
            false,
            &["metadata.namespace: Forbidden: not allowed on this type"],
        );
        check(
            json!({"name": "A"}),
            false,
            &["metadata.name: Invalid value: \"A\": a lowercase RFC 1123 label"],
        );
        check(
            json!({"name": "a", "labels": {"b": "x y"}}),
            false,
            &["metadata.labels: Invalid value: \"x y\": a valid label"],
        );
        check(
            json!({"name": "a", "annotations": {"b": "x".repeat(300_000)}}),
            false,
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        check(json!({"name": "a", "finalizers": ["x"]}), false, &[]);
        check(
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n"}]}),
            false,
            &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
        );
    }

    #[test]
    fn one_owner_controls() {
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let found = texts(validate_owner_references(&[owner("a"), owner("b")], &FieldPath::new("o")));
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("Found \"true\" in references for Pod/a and Pod/b"));
    }

    #[test]
    fn changes_are_checked() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "finalizers": ["a/b"], "deletionTimestamp": "2020-01-01T00:00:00Z"}});
        let new = json!({"metadata": {"name": "b", "uid": "u", "finalizers": ["c/d"], "deletionTimestamp": "2020-01-01T00:00:00Z"}});
        assert_eq!(
            texts(validate_metadata_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}",
                "metadata.name: Invalid value: \"b\": field is immutable"
            ]
        );
    }
}
