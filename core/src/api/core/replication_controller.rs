//! ReplicationController: so many pods of one template, as Kubernetes had it before ReplicaSets.

use super::pod::{default_template, template_warnings, validate_template};
use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, lasting, none_negative, replicas_scale};
use crate::api::kit::columns::{age_column, container_images, container_names, labels};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, at, column, computed, count, default_to, describe, entries, field_at, get, int,
    name_column, names, object_mut, set, sub,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of ReplicationController.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["rc"]),
        categories: names(&["all"]),
        status: true,
        scale: Some(replicas_scale()),
        generation: true,
        strategy: Arc::new(ControllerRules),
        columns: columns(),
        selectable_fields: vec![field_at("status.replicas", |o| {
            int(sub(o, "status"), "replicas").unwrap_or(0).to_string()
        })],
        ..describe::<ReplicationController>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Desired", "integer", "How many pods are wanted.", |o, _| number_of(o, "spec", "replicas")),
        column("Current", "integer", "How many pods there are.", |o, _| number_of(o, "status", "replicas")),
        column("Ready", "integer", "How many pods are ready.", |o, _| {
            number_of(o, "status", "readyReplicas")
        }),
        age_column(),
        computed("Containers", "string", "The names of the template's containers.", 1, |o, _| {
            container_names(at(o, &["spec", "template", "spec"])).into()
        }),
        computed("Images", "string", "The images of the template's containers.", 1, |o, _| {
            container_images(at(o, &["spec", "template", "spec"])).into()
        }),
        computed("Selector", "string", "Which pods belong to the object.", 1, |o, _| {
            labels(sub(o, "spec"), "selector").into()
        }),
    ]
}

fn number_of(object: &Value, half: &str, field: &str) -> Value {
    int(sub(object, half), field).unwrap_or(0).into()
}

struct ControllerRules;

impl Strategy for ControllerRules {
    fn default(&self, object: &mut Value) {
        let template_labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
        let labelled = template_labels.as_object().is_some_and(|labels| !labels.is_empty());
        if labelled
            && count(sub(object, "metadata"), "labels") == 0
            && let Some(metadata) = object_mut(object, "metadata")
        {
            set(metadata, "labels", template_labels.clone());
        }
        let Some(spec) = object_mut(object, "spec") else { return };
        if labelled && count(spec, "selector") == 0 {
            set(spec, "selector", template_labels);
        }
        default_to(spec, "replicas", 1);
        default_to(spec, "minReadySeconds", 0);
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") { validate_status(object) } else { self.validate(object) }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template_warnings(object)
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    none_negative(spec, &["minReadySeconds"], path, errors);
    if count(spec, "selector") == 0 {
        errors.required(&path.child("selector"), "");
    }
    none_negative(spec, &["replicas"], path, errors);
    if get(spec, "template").is_none() {
        errors.required(&path.child("template"), "");
        return;
    }
    let wanted = at(spec, &["template", "metadata", "labels"]);
    if !entries(spec, "selector").all(|(key, value)| wanted.get(key) == Some(value)) {
        let template = path.child("template");
        let metadata = template.child("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata.child("labels"), wanted.clone(), detail);
    }
    validate_template(spec, path, errors);
    lasting(spec, "ReplicationController", path, errors);
}

fn validate_status(object: &Value) -> ErrorList {
    const COUNTS: [&str; 3] = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = ErrorList::new();
    let (status, path) = (sub(object, "status"), Path::Root.child("status"));
    none_negative(status, &["replicas"], &path, &mut errors);
    none_negative(status, &COUNTS, &path, &mut errors);
    none_negative(status, &["observedGeneration"], &path, &mut errors);
    let value = |field: &str| int(status, field).unwrap_or(0);
    for field in COUNTS {
        if value(field) > value("replicas") {
            errors.invalid(&path.child(field), value(field), "cannot be greater than status.replicas");
        }
    }
    if value("availableReplicas") > value("readyReplicas") {
        let field = "availableReplicas";
        errors.invalid(&path.child(field), value(field), "cannot be greater than readyReplicas");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn controller() -> Value {
        let mut object = json!({"metadata": {"name": "r"}, "spec": {"template": {
            "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        ControllerRules.default(&mut object);
        object
    }

    #[test]
    fn labels_and_selector_come_from_the_template() {
        let object = controller();
        assert_eq!(object["metadata"]["labels"], json!({"app": "x"}));
        assert_eq!(object["spec"]["selector"], json!({"app": "x"}));
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(row(&columns(), &object), json!(["r", 1, 0, 0, "<unknown>", "c", "i:1", "app=x"]));
    }

    #[test]
    fn controllers_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = controller();
            change(&mut object["spec"]);
            assert_eq!(texts(&ControllerRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(|s| s["selector"] = json!({}), &["spec.selector: Required value"]);
        check(
            |s| s["selector"]["app"] = "y".into(),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            |s| s["replicas"] = (-1).into(),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        let status = json!({"status": {"replicas": 1, "readyReplicas": 2}});
        assert_eq!(ControllerRules.validate_update(&status, &status, write(Some("status"))).len(), 1);
    }
}
