//! Scale (autoscaling/v1): the view of an object's replicas that its scale subresource serves.

use crate::api::kit::columns::age_column;
use crate::api::kit::selectors;
use crate::api::kit::{ErrorSink, Path, at, column, get, int, name_column, sub};
use crate::jsonpath::JsonPath;
use crate::resource::{PrinterColumn, ScalePaths};
use crate::{ApiError, ErrorList, KindDescriptor};
use serde_json::{Map, Value, json};

fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    JsonPath::parse(path).ok()?.first(object).filter(|v| !v.is_null())
}

/// The Scale of an object.
pub fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let replicas = |path: &str| lookup(object, path).and_then(Value::as_i64).unwrap_or(0);
    let metadata = sub(object, "metadata");
    let mut own = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = get(metadata, field) {
            own.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": replicas(&paths.status_replicas)});
    if let Some(selector) = paths.label_selector.as_deref().and_then(|p| lookup(object, p)) {
        status["selector"] = match selector {
            Value::String(text) => text.as_str().into(),
            selector => serialized(selector).into(),
        };
    }
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": own,
        "spec": {"replicas": replicas(&paths.spec_replicas)}, "status": status})
}

/// The columns of a Scale.
pub fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Desired", "integer", "How many are wanted.", |scale, _| {
            int(sub(scale, "spec"), "replicas").unwrap_or(0).into()
        }),
        column("Available", "integer", "How many there are.", |scale, _| {
            int(sub(scale, "status"), "replicas").unwrap_or(0).into()
        }),
        age_column(),
    ]
}

/// A LabelSelector as a list request takes it; empty for one that selects everything. That of a ReplicationController is labels alone.
fn serialized(selector: &Value) -> String {
    if selector.as_object().is_some_and(|labels| !labels.is_empty() && labels.values().all(Value::is_string))
    {
        return selectors::format_label_selector(&json!({"matchLabels": selector}));
    }
    if selectors::is_empty(selector) { String::new() } else { selectors::format_label_selector(selector) }
}

/// Puts the replicas of a written Scale into its object, which the server then updates as any other write. The caller has compared
/// `metadata.resourceVersion`.
///
/// # Errors
/// 422 `Scale.autoscaling` where the number is negative, 400 where the path to it cannot be set.
pub fn apply_scale(object: &mut Value, scale: &Value, kind: &KindDescriptor) -> Result<(), ApiError> {
    let Some(paths) = &kind.scale else {
        return Err(ApiError::bad_request(format!("{} has no scale subresource", kind.kind)));
    };
    let replicas = int(sub(scale, "spec"), "replicas").unwrap_or(0);
    let mut errors = ErrorList::new();
    if replicas < 0 {
        let spec = Path::Root.child("spec");
        errors.invalid(&spec.child("replicas"), replicas, crate::api::kit::meta::NEGATIVE);
    }
    if !errors.is_empty() {
        let name = at(scale, &["metadata", "name"]).as_str().unwrap_or("");
        return Err(ApiError::invalid("autoscaling", "Scale", name, &errors));
    }
    match place(object, &paths.spec_replicas) {
        Some(slot) => {
            *slot = replicas.into();
            Ok(())
        }
        None => Err(ApiError::bad_request(format!("cannot set {} of the object", paths.spec_replicas))),
    }
}

fn place<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').filter(|s| !s.is_empty()).try_fold(object, |value, step| {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        Some(value.as_object_mut()?.entry(step).or_insert(Value::Null))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BuiltinOptions;
    use crate::api::apps::deployment;

    #[test]
    fn a_deployment_scales() {
        let kind = deployment::descriptor(&BuiltinOptions::default());
        let mut object = json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}}, "status": {"replicas": 2}});
        let mut scale = scale_of(&object, kind.scale.as_ref().unwrap());
        assert_eq!(
            scale,
            json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=x"}})
        );
        scale["spec"]["replicas"] = 5.into();
        apply_scale(&mut object, &scale, &kind).unwrap();
        assert_eq!(object["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = (-1).into();
        let error = apply_scale(&mut object, &scale, &kind).unwrap_err();
        assert_eq!(error.code(), 422);
        assert!(
            error
                .message()
                .starts_with("Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1")
        );
    }
}
