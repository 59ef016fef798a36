//! Pod templates inside other kinds.

use super::{defaults, spec, warnings};
use crate::ErrorList;
use crate::api::kit::selectors::{validate_label_key, validate_labels};
use crate::api::kit::{Path, at, entries, object_mut, sub};
use serde_json::Value;

/// The defaults of a template.
pub(crate) fn default_template(template: &mut Value) {
    if let Some(spec) = object_mut(template, "spec") {
        defaults::default_spec(spec);
    }
}

/// Validates the `template` of a spec.
pub(crate) fn validate_template(owner_spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_template_at(sub(owner_spec, "template"), &path.child("template"), errors);
}

/// Validates a template.
pub(crate) fn validate_template_at(template: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let metadata = sub(template, "metadata");
    validate_template_metadata(metadata, &path.child("metadata"), errors);
    spec::validate_spec(sub(template, "spec"), metadata, true, &path.child("spec"), errors);
}

/// Validates the metadata of what an object is made of: only labels and annotations count.
pub(crate) fn validate_template_metadata(metadata: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_labels(metadata, "labels", path, errors);
    let annotations = path.child("annotations");
    for (key, _) in entries(metadata, "annotations") {
        validate_label_key(&key.to_lowercase(), &annotations, errors);
    }
}

/// Warnings about the template of an object.
pub(crate) fn template_warnings(object: &Value) -> Vec<String> {
    warnings_at(at(object, &["spec", "template"]), "spec.template")
}

/// Warnings about a template that stands at a path.
pub(crate) fn warnings_at(template: &Value, path: &str) -> Vec<String> {
    warnings::of_spec(sub(template, "spec"), &format!("{path}.spec"))
}
