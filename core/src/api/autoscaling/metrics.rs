//! What a HorizontalPodAutoscaler measures: its validation and how it is shown.

use super::horizontal_pod_autoscaler::validate_reference;
use crate::ErrorList;
use crate::api::kit::names::{label, path_segment};
use crate::api::kit::quantities::nanos;
use crate::api::kit::resource_names::validate_container;
use crate::api::kit::{ErrorSink, Path, get, int, list, sub, text};
use serde_json::Value;

/// The types of metrics with their fields, in the order in which upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// How many metrics a table shows.
const SHOWN: usize = 2;

/// Validates `metrics` of a spec.
pub(super) fn validate_metrics(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("metrics");
    let metrics = list(spec, "metrics");
    for (i, metric) in metrics.iter().enumerate() {
        validate_metric(metric, &at.index(i), errors);
    }
    let outside = metrics.iter().any(|m| matches!(text(m, "type"), "Object" | "External"));
    if int(spec, "minReplicas") == Some(0) && !outside {
        errors.forbidden(
            &at,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
}

fn validate_metric(metric: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| get(metric, field).is_some()).collect();
    if let Some(first) = present.first() {
        validate_source(first, sub(metric, first), &path.child(first), errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    match expected {
        None => errors.not_supported(&path.child("type"), kind, &TYPES),
        Some(field) if get(metric, field).is_none() => {
            errors.required(&path.child(field), "must populate information for the given metric source");
        }
        Some(_) => {}
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            errors.forbidden(&path.child(field), "must populate the given metric source only");
        }
    }
}

fn validate_source(field: &str, source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let target = sub(source, "target");
    let at_target = path.child("target");
    let set = |name: &str| get(target, name).is_some();
    let resource = matches!(field, "resource" | "containerResource");
    if field == "object" {
        validate_reference(sub(source, "describedObject"), &path.child("describedObject"), errors);
    }
    if resource {
        validate_resource(field, source, path, errors);
    } else {
        let metric = path.child("metric");
        let name = text(sub(source, "metric"), "name");
        if name.is_empty() {
            errors.required(&metric.child("name"), "must specify a metric name");
        }
        for problem in path_segment(name) {
            errors.invalid(&metric.child("name"), name, &problem);
        }
    }
    validate_target(target, &at_target, errors);
    let (value, average, share) = (set("value"), set("averageValue"), set("averageUtilization"));
    let mut required = |name: &str, detail: &str| errors.required(&at_target.child(name), detail);
    match field {
        "object" if !value && !average => {
            required("averageValue", "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            required("averageValue", "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => errors.forbidden(
            &at_target.child("value"),
            "may not set both a target value for metric and a per-pod target",
        ),
        "pods" if !average => required("averageValue", "must specify a positive target averageValue"),
        _ if resource && !share && !average => {
            required("averageUtilization", "must set either a target raw value or a target utilization");
        }
        _ if resource && share && average => errors.forbidden(
            &at_target.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn validate_resource(field: &str, source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(source, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    if field == "resource" {
        return;
    }
    if !name.is_empty() {
        validate_container(name, &path.child("name"), errors);
    }
    let container = text(source, "container");
    if container.is_empty() {
        errors.required(&path.child("container"), "must specify a container");
    } else {
        for problem in label(container) {
            errors.invalid(&path.child("container"), container, &problem);
        }
    }
}

fn validate_target(target: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid(&path.child("type"), kind, detail);
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = get(target, field).filter(|amount| nanos(amount).is_none_or(|n| n <= 0)) {
            errors.invalid(&path.child(field), amount.clone(), "must be positive");
        }
    }
    if let Some(share) = int(target, "averageUtilization").filter(|share| *share < 1) {
        errors.invalid(&path.child("averageUtilization"), share, "must be greater than 0");
    }
}

/// The metrics of an autoscaler as `cpu: 50%/80%`.
pub(super) fn format_metrics(autoscaler: &Value) -> String {
    let metrics = list(sub(autoscaler, "spec"), "metrics");
    let present = list(sub(autoscaler, "status"), "currentMetrics");
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = metrics
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(i, metric)| format_metric(metric, present.get(i).unwrap_or(&Value::Null)))
        .collect();
    match metrics.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn format_metric(metric: &Value, present: &Value) -> String {
    let kind = text(metric, "type");
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let (source, current) = (sub(metric, field), sub(sub(present, field), "current"));
    let target = sub(source, "target");
    let amount = |owner: &Value, name: &str, missing: &str| match get(owner, name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => missing.to_owned(),
    };
    let pair = |name: &str| format!("{}/{}", amount(current, name, "<unknown>"), amount(target, name, "0"));
    let averaged = get(target, "averageValue").is_some();
    match *field {
        "resource" | "containerResource" => {
            let name = text(source, "name");
            if averaged {
                return format!("{name}: {}", pair("averageValue"));
            }
            let share = |owner: &Value, missing: &str| {
                int(owner, "averageUtilization").map_or_else(|| missing.to_owned(), |n| format!("{n}%"))
            };
            format!("{name}: {}/{}", share(current, "<unknown>"), share(target, "<auto>"))
        }
        "pods" => pair("averageValue"),
        _ if averaged => format!("{} (avg)", pair("averageValue")),
        _ => pair("value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn metrics_are_refused_in_upstreams_words() {
        let check = |metric: Value, wanted: &[&str]| {
            let mut errors = ErrorList::new();
            validate_metrics(&json!({"metrics": [metric]}), &Path::Root.child("spec"), &mut errors);
            assert_eq!(texts(&errors), wanted);
        };
        let cpu = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        check(cpu(json!({"type": "Utilization", "averageUtilization": 50})), &[]);
        check(
            cpu(json!({"type": "Most"})),
            &[
                "spec.metrics[0].resource.target.type: Invalid value: \"Most\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ],
        );
        check(
            json!({"type": "Pods"}),
            &["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
        );
        check(
            json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "0"}}}),
            &["spec.metrics[0].external.target.value: Invalid value: \"0\": must be positive"],
        );
        check(
            json!({"type": "ContainerResource", "containerResource": {"name": "gpu", "target": {"type": "Value", "averageValue": "1"}}}),
            &[
                "spec.metrics[0].containerResource.name: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.metrics[0].containerResource.name: Invalid value: \"gpu\": must be a standard resource for containers",
                "spec.metrics[0].containerResource.container: Required value: must specify a container",
            ],
        );
        check(
            json!({"type": "Magic"}),
            &[
                "spec.metrics[0].type: Unsupported value: \"Magic\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ],
        );
    }

    #[test]
    fn metrics_are_shown_as_upstream_shows_them() {
        let check = |metrics: Value, present: Value, wanted: &str| {
            let object = json!({"spec": {"metrics": metrics}, "status": {"currentMetrics": present}});
            assert_eq!(format_metrics(&object), wanted);
        };
        let cpu =
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}});
        check(json!([]), json!([]), "<none>");
        check(json!([cpu]), json!([]), "cpu: <unknown>/80%");
        check(json!([cpu]), json!([{"resource": {"current": {"averageUtilization": 50}}}]), "cpu: 50%/80%");
        check(json!([cpu, cpu, cpu]), json!([]), "cpu: <unknown>/80%, cpu: <unknown>/80% + 1 more...");
        check(
            json!([{"type": "External", "external": {"target": {"averageValue": "10"}}}]),
            json!([{"external": {"current": {"averageValue": "3"}}}]),
            "3/10 (avg)",
        );
        check(json!([{"type": "Odd"}]), json!([]), "<unknown type>");
    }
}
