//! IngressClass: who takes care of Ingresses.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::{domain_prefixed_path, stay};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule, path_segment};
use crate::api::kit::{
    ErrorSink, Path, column, default_text, describe, get, name_column, object_mut, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;
use std::sync::Arc;

const CONTROLLER_BYTES_MAX: usize = 250;

/// The descriptor of IngressClass.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        generation: true,
        strategy: Arc::new(IngressClassRules),
        columns: vec![
            name_column(),
            column("Controller", "string", "Who takes care of the class.", |o, _| {
                text(sub(o, "spec"), "controller").into()
            }),
            column("Parameters", "string", "What says more about the class.", |o, _| parameters(o).into()),
            age_column(),
        ],
        ..describe::<IngressClass>(Scope::Cluster)
    }
}

fn parameters(class: &Value) -> String {
    let Some(reference) = get(sub(class, "spec"), "parameters") else { return "<none>".to_owned() };
    let (kind, name) = (text(reference, "kind"), text(reference, "name"));
    match get(reference, "apiGroup").and_then(Value::as_str) {
        Some(group) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

struct IngressClassRules;

impl Strategy for IngressClassRules {
    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        if let Some(parameters) = spec.and_then(|spec| object_mut(spec, "parameters")) {
            default_text(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        let controller = text(spec, "controller");
        if controller.len() > CONTROLLER_BYTES_MAX {
            errors.too_long(&path.child("controller"), CONTROLLER_BYTES_MAX);
        }
        domain_prefixed_path(controller, &path.child("controller"), &mut errors);
        if let Some(reference) = get(spec, "parameters") {
            validate_parameters(reference, &path.child("parameters"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        stay(&["controller"], object, old, &mut errors);
        errors.extend(self.validate(object));
        errors
    }
}

/// Validates the group, kind and name of an object.
pub(super) fn validate_reference(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(group) = get(reference, "apiGroup").and_then(Value::as_str) {
        for problem in names::subdomain(group) {
            errors.invalid(&path.child("apiGroup"), group, &problem);
        }
    }
    for field in ["kind", "name"] {
        let value = text(reference, field);
        if value.is_empty() {
            errors.required(&path.child(field), &format!("{field} is required"));
        }
        for problem in path_segment(value) {
            errors.invalid(&path.child(field), value, &problem);
        }
    }
}

fn validate_parameters(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_reference(reference, path, errors);
    let namespace = get(reference, "namespace").and_then(Value::as_str);
    let at_namespace = path.child("namespace");
    match (text(reference, "scope"), namespace) {
        ("", _) => errors.required(&path.child("scope"), ""),
        ("Namespace", None) => errors.required(&at_namespace, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(name)) => {
            for problem in names::label(name) {
                errors.invalid(&at_namespace, name, &problem);
            }
        }
        ("Cluster", Some(_)) => {
            errors.forbidden(&at_namespace, "`parameters.scope` is set to 'Cluster'");
        }
        ("Cluster", None) => {}
        (other, _) => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    #[test]
    fn classes_are_defaulted_and_checked() {
        let class = |spec: Value| {
            let mut object = json!({"metadata": {"name": "c"}, "spec": spec});
            IngressClassRules.default(&mut object);
            object
        };
        let check = |spec: Value, wanted: &[&str]| {
            assert_eq!(texts(&IngressClassRules.validate(&class(spec))), wanted);
        };
        check(json!({"controller": "example.com/in"}), &[]);
        check(json!({}), &["spec.controller: Required value"]);
        let with = |parameters: Value| json!({"controller": "example.com/in", "parameters": parameters});
        check(with(json!({"kind": "K", "name": "n"})), &[]);
        check(
            with(json!({"kind": "K", "name": "n", "scope": "Namespace"})),
            &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        );
        check(
            with(json!({"kind": "K", "name": "n", "namespace": "x"})),
            &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        );
        let (old, new) = (class(json!({"controller": "a.io/b"})), class(json!({"controller": "a.io/c"})));
        assert_eq!(
            texts(&IngressClassRules.validate_update(&new, &old, write(None))),
            ["spec.controller: Invalid value: \"a.io/c\": field is immutable"]
        );
        let columns = descriptor(&BuiltinOptions::default()).columns;
        let object = class(with(json!({"apiGroup": "g.io", "kind": "K", "name": "n"})));
        assert_eq!(row(&columns, &object), json!(["c", "example.com/in", "K.g.io/n", "<unknown>"]));
    }
}
