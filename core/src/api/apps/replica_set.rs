//! ReplicaSet: so many pods of one template.

use crate::api::BuiltinOptions;
use crate::api::core::pod::{default_template, validate_template};
use crate::api::kit::checks::{lasting, owner_selector, replicas_scale};
use crate::api::kit::columns::{age_column, template_columns};
use crate::api::kit::meta::{immutable, non_negative, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, carry, column, default_to, describe, field_at, get, int, name_column, names, object_mut,
    remove, sub,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of ReplicaSet.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["rs"]),
        categories: names(&["all"]),
        status: true,
        scale: Some(replicas_scale()),
        generation: true,
        strategy: Arc::new(ReplicaSetRules),
        columns: columns(),
        selectable_fields: vec![field_at("status.replicas", |o| {
            int(sub(o, "status"), "replicas").unwrap_or(0).to_string()
        })],
        ..describe::<ReplicaSet>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    let mut columns = vec![
        name_column(),
        column("Desired", "integer", "How many pods are wanted.", |o, _| {
            int(sub(o, "spec"), "replicas").unwrap_or(0).into()
        }),
        column("Current", "integer", "How many pods there are.", |o, _| {
            int(sub(o, "status"), "replicas").unwrap_or(0).into()
        }),
        column("Ready", "integer", "How many pods are ready.", |o, _| {
            int(sub(o, "status"), "readyReplicas").unwrap_or(0).into()
        }),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

struct ReplicaSetRules;

impl Strategy for ReplicaSetRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_to(spec, "replicas", 1);
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        remove(object, "status");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        carry(object, old, if cx.subresource == Some("status") { "spec" } else { "status" });
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let spec = sub(object, "spec");
        let path = Path::Root.child("spec");
        validate_replica_spec(spec, "deployment", &path, &mut errors);
        if get(spec, "template").is_none() {
            errors.required(&path.child("template"), "");
        } else {
            validate_template(spec, &path, &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validate_status(object);
        }
        let mut errors = self.validate(object);
        validate_selector_stays(object, old, &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::api::core::pod::template_warnings(object)
    }
}

/// The rules that kinds with replicas of a template share: numbers, the selector, and the template that must fit it and live forever.
pub(super) fn validate_replica_spec(spec: &Value, noun: &str, path: &Path<'_>, errors: &mut ErrorList) {
    non_negative(spec, "replicas", path, errors);
    non_negative(spec, "minReadySeconds", path, errors);
    owner_selector(spec, noun, path, errors);
    lasting(spec, "ReplicaSet", path, errors);
}

/// A selector never changes.
pub(super) fn validate_selector_stays(object: &Value, old: &Value, errors: &mut ErrorList) {
    let selector = |o| sub(sub(o, "spec"), "selector");
    let spec = Path::Root.child("spec");
    immutable(selector(object), selector(old), &spec.child("selector"), errors);
}

fn validate_status(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = sub(object, "status");
    let path = Path::Root.child("status");
    for field in
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
    {
        non_negative(status, field, &path, &mut errors);
    }
    let value = |field: &str| int(status, field).unwrap_or(0);
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if value(field) > value("replicas") {
            errors.invalid(&path.child(field), value(field), "cannot be greater than status.replicas");
        }
    }
    if value("availableReplicas") > value("readyReplicas") {
        errors.invalid(
            &path.child("availableReplicas"),
            value("availableReplicas"),
            "cannot be greater than readyReplicas",
        );
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_counts_must_fit() {
        let check = |status: Value, wanted: usize| {
            assert_eq!(validate_status(&json!({"status": status})).len(), wanted, "{status}");
        };
        check(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}), 0);
        check(json!({"replicas": 1, "readyReplicas": 2}), 1);
        check(json!({"replicas": -1}), 4);
    }

    #[test]
    fn a_template_is_needed() {
        let set = json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let fields: Vec<String> =
            ReplicaSetRules.validate(&set).iter().map(|e| e.field.to_string()).collect();
        assert_eq!(fields, ["spec.template"]);
    }
}
