//! Deployment: pods of one template, replaced step by step when it changes.

use super::replica_set::{validate_replica_spec, validate_selector_stays};
use crate::api::BuiltinOptions;
use crate::api::core::pod::{default_template, validate_template};
use crate::api::kit::checks::replicas_scale;
use crate::api::kit::columns::{age_column, template_columns};
use crate::api::kit::meta::{non_negative, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, carry, column, default_text, default_to, describe, ensure, get, int, name_column, names,
    object_mut, remove, sub, text,
};
use crate::api::policy::pod_disruption_budget::{percent, validate_int_or_percent};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of Deployment.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["deploy"]),
        categories: names(&["all"]),
        status: true,
        scale: Some(replicas_scale()),
        generation: true,
        strategy: Arc::new(DeploymentRules),
        columns: columns(),
        ..describe::<Deployment>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    let mut columns = vec![
        name_column(),
        column("Ready", "string", "Ready pods of those wanted.", |o, _| {
            format!("{}/{}", in_status(o, "readyReplicas"), int(sub(o, "spec"), "replicas").unwrap_or(0))
                .into()
        }),
        column("Up-to-date", "string", "Pods of the present template.", |o, _| {
            in_status(o, "updatedReplicas").into()
        }),
        column("Available", "string", "Pods ready for long enough.", |o, _| {
            in_status(o, "availableReplicas").into()
        }),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

fn in_status(object: &Value, field: &str) -> i64 {
    int(sub(object, "status"), field).unwrap_or(0)
}

struct DeploymentRules;

impl Strategy for DeploymentRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_to(spec, "replicas", 1);
        if let Some(strategy) = ensure(spec, "strategy") {
            default_text(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = ensure(strategy, "rollingUpdate")
            {
                default_to(rolling, "maxUnavailable", "25%");
                default_to(rolling, "maxSurge", "25%");
            }
        }
        default_to(spec, "revisionHistoryLimit", 10);
        default_to(spec, "progressDeadlineSeconds", 600);
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
        validate_template(spec, &path, &mut errors);
        validate_spec(spec, &path, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validate_status(object, old);
        }
        let mut errors = self.validate(object);
        validate_selector_stays(object, old, &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::api::core::pod::template_warnings(object)
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    non_negative(spec, "revisionHistoryLimit", path, errors);
    non_negative(spec, "progressDeadlineSeconds", path, errors);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds")
        && deadline <= int(spec, "minReadySeconds").unwrap_or(0)
    {
        errors.invalid(
            &path.child("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    let strategy = sub(spec, "strategy");
    let at = path.child("strategy");
    let rolling = get(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                errors.forbidden(
                    &at.child("rollingUpdate"),
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => match rolling {
            Some(rolling) => validate_rolling(rolling, &at.child("rollingUpdate"), errors),
            None => errors.required(&at.child("rollingUpdate"), "this should be defaulted and never be nil"),
        },
        other => errors.not_supported(&at, other, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_rolling(rolling: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["maxUnavailable", "maxSurge"] {
        let value = sub(rolling, field);
        // Only what may be missing is bounded by the whole; more pods may surge than there are.
        if field == "maxSurge" && value.as_str().and_then(percent).is_some_and(|p| p > 100) {
            continue;
        }
        validate_int_or_percent(value, &path.child(field), errors);
    }
    if is_zero(sub(rolling, "maxUnavailable")) && is_zero(sub(rolling, "maxSurge")) {
        errors.invalid(
            &path.child("maxUnavailable"),
            sub(rolling, "maxUnavailable").clone(),
            "may not be 0 when `maxSurge` is 0",
        );
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => percent(text) == Some(0),
        other => other.as_i64() == Some(0),
    }
}

fn validate_status(object: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = sub(object, "status");
    let path = Path::Root.child("status");
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ] {
        non_negative(status, field, &path, &mut errors);
    }
    let value = |field: &str| int(status, field).unwrap_or(0);
    let above = "cannot be greater than status.replicas";
    for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        if value(field) > value("replicas") {
            errors.invalid(&path.child(field), value(field), above);
        }
    }
    if value("availableReplicas") > value("readyReplicas") {
        errors.invalid(
            &path.child("availableReplicas"),
            value("availableReplicas"),
            "cannot be greater than readyReplicas",
        );
    }
    let count = |o: &Value| int(sub(o, "status"), "collisionCount").unwrap_or(0);
    if count(object) < count(old) {
        errors.invalid(&path.child("collisionCount"), count(object), "cannot be decremented");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        DeploymentRules.default(&mut object);
        object
    }

    #[test]
    fn defaults_are_upstreams() {
        let object = deployment();
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(
            (&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(10), &json!(600))
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        let mut twice = object.clone();
        DeploymentRules.default(&mut twice);
        assert_eq!(twice, object);
    }

    #[test]
    fn deployments_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = deployment();
            change(&mut object["spec"]);
            let texts: Vec<String> =
                DeploymentRules.validate(&object).iter().map(ToString::to_string).collect();
            assert_eq!(texts, wanted);
        };
        check(|_| {}, &[]);
        check(
            |s| s["template"]["metadata"]["labels"] = json!({"app": "y"}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            |s| s["selector"] = json!({}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        check(
            |s| s["replicas"] = (-1).into(),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            |s| s["strategy"] = json!({"type": "X"}),
            &["spec.strategy: Unsupported value: \"X\": supported values: \"Recreate\", \"RollingUpdate\""],
        );
        check(
            |s| s["strategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": "0%"}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            |s| s["template"]["spec"]["restartPolicy"] = "Never".into(),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        );
    }

    #[test]
    fn the_selector_stays() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let old = deployment();
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["app"] = "y".into();
        new["spec"]["template"]["metadata"]["labels"]["app"] = "y".into();
        let texts: Vec<String> =
            DeploymentRules.validate_update(&new, &old, cx).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"]
        );
    }
}
