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
    let template = sub(owner_spec, "template");
    let path = path.child("template");
    let metadata = sub(template, "metadata");
    let at_metadata = path.child("metadata");
    validate_labels(metadata, "labels", &at_metadata, errors);
    let annotations = at_metadata.child("annotations");
    for (key, _) in entries(metadata, "annotations") {
        validate_label_key(&key.to_lowercase(), &annotations, errors);
    }
    spec::validate_spec(sub(template, "spec"), metadata, true, &path.child("spec"), errors);
}

/// Warnings about the template of an object.
pub(crate) fn template_warnings(object: &Value) -> Vec<String> {
    warnings::of_spec(at(object, &["spec", "template", "spec"]), "spec.template.spec")
}
