//! HorizontalPodAutoscaler in its first version: the stored ones of autoscaling/v2, with a target for the CPU as a field and all else in
//! annotations, as upstream has it.

use super::horizontal_pod_autoscaler::{AutoscalerRules, columns as v2_columns};
use crate::api::BuiltinOptions;
use crate::api::kit::{
    at, default_to, describe, ensure, get, int, names, object_mut, remove, set, sub, text,
};
use crate::resource::{Cell, PrinterColumn, Scope, StoredAs, Strategy, WriteContext};
use crate::{ErrorList, GroupVersionResource, KindDescriptor};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The descriptor of the `autoscaling/v1` HorizontalPodAutoscaler.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["hpa"]),
        categories: names(&["all"]),
        status: true,
        strategy: Arc::new(FirstVersionRules),
        columns: columns(),
        stored_as: Some(StoredAs {
            resource: GroupVersionResource::new("autoscaling", "v2", "horizontalpodautoscalers"),
            to_stored: Arc::new(to_v2),
            from_stored: Arc::new(from_v2),
        }),
        ..describe::<HorizontalPodAutoscaler>(Scope::Namespaced)
    }
}

/// A field of a v2 metric and its place in the shape that the annotations have: `target` or `current` stands before it.
fn flat_name(source: &str, word: &str, field: &str) -> String {
    match (source, field) {
        ("object", "averageValue") => "averageValue".to_owned(),
        _ => format!("{word}{}{}", field[..1].to_uppercase(), &field[1..]),
    }
}

const AMOUNTS: [&str; 3] = ["value", "averageValue", "averageUtilization"];
const SOURCES: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

fn selector_name(source: &str) -> &'static str {
    if source == "external" { "metricSelector" } else { "selector" }
}

/// What both shapes call alike.
fn same_fields(source: &Value) -> Map<String, Value> {
    let named = ["name", "container"].into_iter().filter_map(|field| Some((field, get(source, field)?)));
    named.map(|(field, value)| (field.to_owned(), value.clone())).collect()
}

/// A v2 metric (`word` is `target`) or its present state (`current`) in the flat shape of the first version.
fn flatten(metric: &Value, word: &str) -> Value {
    let mut out = json!({"type": sub(metric, "type")});
    for source in SOURCES {
        let Some(from) = get(metric, source) else { continue };
        let mut to = same_fields(from);
        if let Some(object) = get(from, "describedObject") {
            to.insert("target".to_owned(), object.clone());
        }
        if let Some(metric) = get(from, "metric") {
            to.insert("metricName".to_owned(), sub(metric, "name").clone());
            if let Some(selector) = get(metric, "selector") {
                to.insert(selector_name(source).to_owned(), selector.clone());
            }
        }
        for field in AMOUNTS {
            if let Some(amount) = get(sub(from, word), field) {
                to.insert(flat_name(source, word, field), amount.clone());
            }
        }
        set(&mut out, source, to);
    }
    out
}

/// The other way of [`flatten`].
fn unflatten(metric: &Value, word: &str) -> Value {
    let mut out = json!({"type": sub(metric, "type")});
    for source in SOURCES {
        let Some(from) = get(metric, source) else { continue };
        let mut to = same_fields(from);
        if let Some(object) = get(from, "target") {
            to.insert("describedObject".to_owned(), object.clone());
        }
        if let Some(name) = get(from, "metricName") {
            let mut metric = json!({"name": name});
            if let Some(selector) = get(from, selector_name(source)) {
                set(&mut metric, "selector", selector.clone());
            }
            to.insert("metric".to_owned(), metric);
        }
        let mut amounts = Map::new();
        for (field, kind) in AMOUNTS.into_iter().zip(["Value", "AverageValue", "Utilization"]) {
            if let Some(amount) = get(from, &flat_name(source, word, field)) {
                amounts.insert(field.to_owned(), amount.clone());
                if word == "target" {
                    amounts.insert("type".to_owned(), kind.into());
                }
            }
        }
        to.insert(word.to_owned(), amounts.into());
        set(&mut out, source, to);
    }
    out
}

fn is_cpu(metric: &Value) -> bool {
    text(sub(metric, "resource"), "name") == "cpu" && text(metric, "type") == "Resource"
}

fn cpu_target(metric: &Value) -> Option<i64> {
    int(at(metric, &["resource", "target"]), "averageUtilization").filter(|_| is_cpu(metric))
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    if let Some(annotations) = ensure(object, "metadata").and_then(|m| ensure(m, "annotations")) {
        set(annotations, key, value.to_string());
    }
}

/// Takes an annotation out and reads it; `None` where it is absent or unreadable.
fn annotated(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = object_mut(object, "metadata")?;
    let annotations = object_mut(metadata, "annotations")?;
    let text = remove(annotations, key)?;
    if annotations.as_object().is_some_and(Map::is_empty) {
        remove(metadata, "annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

/// Turns an autoscaler of v2 into one of v1.
pub fn from_v2(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v1");
    let Some(spec) = object_mut(object, "spec") else { return };
    let metrics = remove(spec, "metrics").unwrap_or_default();
    let metrics = metrics.as_array().cloned().unwrap_or_default();
    let behavior = remove(spec, "behavior").filter(|b| !b.is_null());
    // The first target of the CPU has a field of its own.
    let cpu = metrics.iter().position(|m| cpu_target(m).is_some());
    if let Some(target) = cpu.and_then(|i| cpu_target(&metrics[i])) {
        set(spec, "targetCPUUtilizationPercentage", target);
    }
    let others: Vec<Value> = metrics
        .iter()
        .enumerate()
        .filter(|(i, _)| Some(*i) != cpu)
        .map(|(_, m)| flatten(m, "target"))
        .collect();
    if !others.is_empty() {
        annotate(object, METRICS, &others.into());
    }
    if let Some(behavior) = behavior {
        annotate(object, BEHAVIOR, &behavior);
    }
    status_from_v2(object);
}

fn status_from_v2(object: &mut Value) {
    let Some(status) = object_mut(object, "status") else { return };
    let current = remove(status, "currentMetrics").unwrap_or_default();
    let conditions = remove(status, "conditions").unwrap_or_default();
    let current = current.as_array().cloned().unwrap_or_default();
    let share = current
        .iter()
        .filter(|m| is_cpu(m))
        .find_map(|m| int(at(m, &["resource", "current"]), "averageUtilization"));
    if let Some(share) = share {
        set(status, "currentCPUUtilizationPercentage", share);
    }
    if !current.is_empty() {
        let flat: Vec<Value> = current.iter().map(|m| flatten(m, "current")).collect();
        annotate(object, CURRENT, &flat.into());
    }
    if conditions.as_array().is_some_and(|c| !c.is_empty()) {
        annotate(object, CONDITIONS, &conditions);
    }
}

/// Turns an autoscaler of v1 into one of v2.
pub fn to_v2(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v2");
    let others = annotated(object, METRICS);
    let current = annotated(object, CURRENT);
    let conditions = annotated(object, CONDITIONS);
    let behavior = annotated(object, BEHAVIOR);
    if let Some(spec) = object_mut(object, "spec") {
        let others = others.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        let mut metrics: Vec<Value> = others.iter().map(|m| unflatten(m, "target")).collect();
        if let Some(share) = remove(spec, "targetCPUUtilizationPercentage").filter(|s| !s.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": share});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            set(spec, "metrics", metrics);
        }
        if let Some(behavior) = behavior.filter(Value::is_object) {
            set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = object_mut(object, "status") {
        remove(status, "currentCPUUtilizationPercentage");
        if let Some(current) = current.as_ref().and_then(Value::as_array) {
            let current: Vec<Value> = current.iter().map(|m| unflatten(m, "current")).collect();
            set(status, "currentMetrics", current);
        }
        if let Some(conditions) = conditions.filter(Value::is_array) {
            set(status, "conditions", conditions);
        }
    }
    AutoscalerRules.default(object);
}

/// The columns of v2, over the autoscaler in that shape.
fn columns() -> Vec<PrinterColumn> {
    const CELLS: [fn(&Value, Timestamp) -> Value; 7] = [
        |o, now| cell(o, now, 0),
        |o, now| cell(o, now, 1),
        |o, now| cell(o, now, 2),
        |o, now| cell(o, now, 3),
        |o, now| cell(o, now, 4),
        |o, now| cell(o, now, 5),
        |o, now| cell(o, now, 6),
    ];
    v2_columns()
        .into_iter()
        .zip(CELLS)
        .map(|(column, cell)| PrinterColumn { cell: Cell::Computed(cell), ..column })
        .collect()
}

fn cell(object: &Value, now: Timestamp, column: usize) -> Value {
    let mut object = object.clone();
    to_v2(&mut object);
    match v2_columns().swap_remove(column).cell {
        Cell::Computed(cell) => cell(&object, now),
        Cell::Path(path) => path.first(&object).cloned().unwrap_or_default(),
    }
}

struct FirstVersionRules;

fn stored(object: &Value) -> Value {
    let mut object = object.clone();
    to_v2(&mut object);
    object
}

impl Strategy for FirstVersionRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_to(spec, "minReplicas", 1);
        let others = at(object, &["metadata", "annotations", METRICS]).is_string();
        if let Some(spec) = object_mut(object, "spec").filter(|_| !others) {
            default_to(spec, "targetCPUUtilizationPercentage", 80);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        AutoscalerRules.prepare_for_create(object, cx);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        AutoscalerRules.prepare_for_update(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        AutoscalerRules.validate(&stored(object))
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        AutoscalerRules.validate_update(&stored(object), &stored(old), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts};

    fn second() -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "annotations": {"a": "b"}},
            "spec": {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "behavior": {"scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"x": "y"}}},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"metric": {"name": "r"}, "describedObject": {"kind": "Service", "name": "s"},
                        "target": {"type": "Value", "value": "5"}}}]},
            "status": {"currentReplicas": 2, "desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "4m"}}}]}})
    }

    #[test]
    fn autoscalers_survive_the_round_trip() {
        let mut object = second();
        from_v2(&mut object);
        assert_eq!(object["apiVersion"], "autoscaling/v1");
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 40);
        assert!(object["spec"].get("metrics").is_none());
        let metrics = object["metadata"]["annotations"][METRICS].as_str().unwrap();
        assert!(metrics.contains("\"targetAverageValue\":\"10\""), "{metrics}");
        let cells = row(&columns(), &object);
        assert_eq!(cells[2], "cpu: 40%/50%, <unknown>/10 (avg) + 1 more...");
        to_v2(&mut object);
        assert_eq!(object, second());
    }

    #[test]
    fn the_rules_are_those_of_the_second() {
        let mut object = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 0, "scaleTargetRef": {"kind": "D", "name": "d"}}});
        FirstVersionRules.default(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(
            texts(&FirstVersionRules.validate(&object)),
            [
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`"
            ]
        );
    }
}
