//! Pod: containers that share a machine, an address and volumes.

mod affinity;
mod binding;
mod columns;
mod containers;
mod defaults;
mod env;
mod ephemeral;
mod probes;
mod qos;
mod resize;
mod resources;
mod security;
mod spec;
mod template;
#[cfg(test)]
mod tests;
mod update;
mod volumes;
mod warnings;

pub use binding::{bind, validate_binding};
pub use qos::qos_class;

pub(crate) use affinity::validate_tolerations;
pub(crate) use template::{
    default_template, template_warnings, validate_template, validate_template_at, validate_template_metadata,
    warnings_at,
};

use crate::api::BuiltinOptions;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, at, carry, describe, field_at, flag, list, names, set, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

/// The descriptor of Pod.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["po"]),
        categories: names(&["all"]),
        status: true,
        generation: true,
        strategy: Arc::new(PodRules),
        columns: columns::columns(),
        selectable_fields: vec![
            field_at("spec.nodeName", |o| text(sub(o, "spec"), "nodeName").to_owned()),
            field_at("spec.restartPolicy", |o| text(sub(o, "spec"), "restartPolicy").to_owned()),
            field_at("spec.schedulerName", |o| text(sub(o, "spec"), "schedulerName").to_owned()),
            field_at("spec.serviceAccountName", |o| text(sub(o, "spec"), "serviceAccountName").to_owned()),
            field_at("spec.hostNetwork", |o| flag(sub(o, "spec"), "hostNetwork").to_string()),
            field_at("status.phase", |o| text(sub(o, "status"), "phase").to_owned()),
            field_at("status.podIP", |o| text(sub(o, "status"), "podIP").to_owned()),
            field_at("status.nominatedNodeName", |o| text(sub(o, "status"), "nominatedNodeName").to_owned()),
        ],
        ..describe::<Pod>(Scope::Namespaced)
    }
}

/// The rules of Pod.
struct PodRules;

impl Strategy for PodRules {
    fn default(&self, object: &mut Value) {
        defaults::default_pod(object);
    }

    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        columns::row_conditions(object)
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        let class = qos_class(object);
        set(object, "status", json!({"phase": "Pending", "qosClass": class}));
        let gated = !list(sub(object, "spec"), "schedulingGates").is_empty();
        if gated {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "observedGeneration": 1});
            object["status"]["conditions"] = json!([condition]);
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        match cx.subresource {
            Some("status") => {
                carry(object, old, "spec");
                // Computed once, at the create; a status that says nothing of it keeps it.
                if text(sub(object, "status"), "qosClass").is_empty() {
                    let class = at(old, &["status", "qosClass"]).clone();
                    if let Some(status) = object.get_mut("status").filter(|_| !class.is_null()) {
                        set(status, "qosClass", class);
                    }
                }
            }
            Some("ephemeralcontainers") => ephemeral::keep_only(object, old),
            Some("resize") => resize::keep_only(object, old),
            _ => carry(object, old, "status"),
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let path = Path::Root.child("spec");
        spec::validate_spec(sub(object, "spec"), sub(object, "metadata"), false, &path, &mut errors);
        if !list(sub(object, "spec"), "ephemeralContainers").is_empty() {
            errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
        }
        if !errors.iter().any(|e| e.field.as_str().contains("resources")) {
            qos::validate(object, &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        match cx.subresource {
            Some("status") => update::validate_status(object, old),
            Some("ephemeralcontainers") => ephemeral::validate_update(object, old),
            Some("resize") => resize::validate_update(object, old),
            _ => update::validate_update(object, old),
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::of_spec(sub(object, "spec"), "spec")
    }
}
