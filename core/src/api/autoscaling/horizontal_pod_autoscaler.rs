//! HorizontalPodAutoscaler (autoscaling/v2): how many replicas something gets, by what is measured.

use super::metrics::{format_metrics, validate_metrics};
use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, none_negative, one_of};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, path_segment};
use crate::api::kit::quantities::nanos;
use crate::api::kit::{
    ErrorSink, Path, column, count, default_to, describe, ensure, get, int, list, name_column, names,
    object_mut, set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};
use std::sync::Arc;

const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// The descriptor of HorizontalPodAutoscaler.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["hpa"]),
        categories: names(&["all"]),
        status: true,
        strategy: Arc::new(AutoscalerRules),
        columns: columns(),
        ..describe::<HorizontalPodAutoscaler>(Scope::Namespaced)
    }
}

pub(super) fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Reference", "string", "What is scaled.", |o, _| {
            let target = sub(sub(o, "spec"), "scaleTargetRef");
            format!("{}/{}", text(target, "kind"), text(target, "name")).into()
        }),
        column("Targets", "string", "What is measured, against what is wanted.", |o, _| {
            format_metrics(o).into()
        }),
        column("MinPods", "string", "The fewest replicas.", |o, _| {
            match int(sub(o, "spec"), "minReplicas") {
                Some(least) => least.to_string().into(),
                None => "<unset>".into(),
            }
        }),
        column("MaxPods", "string", "The most replicas.", |o, _| {
            int(sub(o, "spec"), "maxReplicas").unwrap_or(0).into()
        }),
        column("Replicas", "string", "The replicas there are.", |o, _| {
            int(sub(o, "status"), "currentReplicas").unwrap_or(0).into()
        }),
        age_column(),
    ]
}

pub(super) struct AutoscalerRules;

impl Strategy for AutoscalerRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_to(spec, "minReplicas", 1);
        if count(spec, "metrics") == 0 {
            let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
            set(spec, "metrics", json!([{"type": "Resource", "resource": cpu}]));
        }
        let Some(behavior) = object_mut(spec, "behavior") else { return };
        if let Some(up) = ensure(behavior, "scaleUp") {
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            default_to(up, "stabilizationWindowSeconds", 0);
            default_to(up, "selectPolicy", "Max");
            default_to(up, "policies", json!([pods, whole_in_15_seconds()]));
        }
        if let Some(down) = ensure(behavior, "scaleDown") {
            default_to(down, "selectPolicy", "Max");
            default_to(down, "policies", json!([whole_in_15_seconds()]));
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
        validate_spec(sub(object, "spec"), 1, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        if cx.subresource == Some("status") {
            let path = Path::Root.child("status");
            let fields = ["currentReplicas", "desiredReplicas"];
            none_negative(sub(object, "status"), &fields, &path, &mut errors);
            return errors;
        }
        // One that may go down to nothing already may do so on.
        let least = if int(sub(old, "spec"), "minReplicas") == Some(0) { 0 } else { 1 };
        validate_spec(sub(object, "spec"), least, &mut errors);
        errors
    }
}

fn whole_in_15_seconds() -> Value {
    json!({"type": "Percent", "value": 100, "periodSeconds": 15})
}

fn validate_spec(spec: &Value, least: i64, errors: &mut ErrorList) {
    let path = Path::Root.child("spec");
    let (min, max) = (int(spec, "minReplicas"), int(spec, "maxReplicas").unwrap_or(0));
    if let Some(min) = min.filter(|min| *min < least) {
        let detail = format!("must be greater than or equal to {least}");
        errors.invalid(&path.child("minReplicas"), min, &detail);
    }
    if max < 1 {
        errors.invalid(&path.child("maxReplicas"), max, "must be greater than 0");
    }
    if min.is_some_and(|min| min > max) {
        errors.invalid(&path.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
    validate_reference(sub(spec, "scaleTargetRef"), &path.child("scaleTargetRef"), errors);
    validate_metrics(spec, &path, errors);
    let behavior = path.child("behavior");
    for field in ["scaleUp", "scaleDown"] {
        if let Some(rules) = get(sub(spec, "behavior"), field) {
            validate_rules(rules, &behavior.child(field), errors);
        }
    }
}

/// Validates the kind and name of another object.
pub(super) fn validate_reference(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["kind", "name"] {
        let name = text(reference, field);
        if name.is_empty() {
            errors.required(&path.child(field), "");
        }
        for problem in path_segment(name) {
            errors.invalid(&path.child(field), name, &problem);
        }
    }
}

fn validate_rules(rules: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(seconds) = int(rules, "stabilizationWindowSeconds") {
        let at = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&at, seconds, "must be greater than or equal to zero");
        }
        if seconds > WINDOW_MAX {
            errors.invalid(&at, seconds, &format!("must be less than or equal to {WINDOW_MAX}"));
        }
    }
    one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], path, errors);
    if let Some(tolerance) = get(rules, "tolerance").filter(|t| nanos(t).is_none_or(|n| n < 0)) {
        let detail = crate::api::kit::meta::NEGATIVE;
        errors.invalid(&path.child("tolerance"), tolerance.clone(), detail);
    }
    let at = path.child("policies");
    let policies = list(rules, "policies");
    if policies.is_empty() {
        errors.required(&at, "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let item = at.index(i);
        let kind = text(policy, "type");
        if !matches!(kind, "Pods" | "Percent") {
            errors.not_supported(&item.child("type"), kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let number = int(policy, field).unwrap_or(0);
            if number <= 0 {
                errors.invalid(&item.child(field), number, "must be greater than zero");
            }
            if field == "periodSeconds" && number > PERIOD_MAX {
                let detail = format!("must be less than or equal to {PERIOD_MAX}");
                errors.invalid(&item.child(field), number, &detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};

    fn autoscaler() -> Value {
        let mut object = json!({"metadata": {"name": "h"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 5, "behavior": {}}});
        AutoscalerRules.default(&mut object);
        object
    }

    #[test]
    fn defaults_are_upstreams() {
        let object = autoscaler();
        let spec = &object["spec"];
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(spec["behavior"]["scaleUp"]["policies"][0]["value"], 4);
        assert_eq!(
            spec["behavior"]["scaleDown"],
            json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
        );
        assert_eq!(
            row(&columns(), &object),
            json!(["h", "Deployment/d", "cpu: <unknown>/80%", "1", 5, 0, "<unknown>"])
        );
    }

    #[test]
    fn autoscalers_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = autoscaler();
            change(&mut object["spec"]);
            assert_eq!(texts(&AutoscalerRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |s| s["minReplicas"] = 0.into(),
            &[
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ],
        );
        check(
            |s| s["minReplicas"] = 6.into(),
            &["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
        );
        check(|s| s["scaleTargetRef"]["name"] = "".into(), &["spec.scaleTargetRef.name: Required value"]);
        check(
            |s| s["behavior"]["scaleUp"] = json!({"selectPolicy": "Any", "policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}),
            &[
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Any\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        );
        let status = json!({"status": {"currentReplicas": -1}});
        assert_eq!(AutoscalerRules.validate_update(&status, &status, write(Some("status"))).len(), 1);
    }
}
