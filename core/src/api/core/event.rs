//! Event: something that happened to an object, in the core group's shape, which is also the stored one.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::{CellFn, computed, name};
use crate::api::kit::duration::age_of;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, at, column, describe, field_at, get, int, names, sub, text};
use crate::resource::{PrinterColumn, Scope, SelectableField, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;
use std::sync::Arc;

/// How many bytes the message of an event in the newer shape may have.
const NOTE_BYTES_MAX: usize = 1024;

/// The descriptor of the core group's Event.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["ev"]),
        strategy: Arc::new(EventRules),
        columns: columns(),
        selectable_fields: selectable_fields("involvedObject", "reportingComponent"),
        ..describe::<Event>(Scope::Namespaced)
    }
}

/// The columns of an event in the core shape.
pub(crate) fn columns() -> Vec<PrinterColumn> {
    let wide =
        |name: &str, kind: &str, description: &str, cell: CellFn| computed(name, kind, description, 1, cell);
    let mut name_column = wide("Name", "string", "The name of the event.", name);
    name_column.format = "name".to_owned();
    vec![
        column("Last Seen", "string", "When it happened last.", |o, now| last_seen(o, now).into()),
        column("Type", "string", "Normal or Warning.", |o, _| text(o, "type").into()),
        column("Reason", "string", "Why, in one word.", |o, _| text(o, "reason").into()),
        column("Object", "string", "The object that it happened to.", |o, _| target(o).into()),
        wide("Subobject", "string", "The part of the object.", |o, _| {
            text(sub(o, "involvedObject"), "fieldPath").into()
        }),
        wide("Source", "string", "Who reports it.", |o, _| source(o).into()),
        column("Message", "string", "What happened.", |o, _| text(o, "message").trim().into()),
        wide("First Seen", "string", "When it happened first.", |o, now| first_seen(o, now).into()),
        wide("Count", "string", "How often it happened.", |o, _| times(o).into()),
        name_column,
    ]
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    let first = get(event, "firstTimestamp").or_else(|| get(event, "eventTime"));
    age_of(first.unwrap_or(&Value::Null), now)
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    if let Some(series) = get(event, "series") {
        return age_of(sub(series, "lastObservedTime"), now);
    }
    match get(event, "lastTimestamp") {
        Some(last) => age_of(last, now),
        None => first_seen(event, now),
    }
}

fn times(event: &Value) -> i64 {
    match get(event, "series") {
        Some(series) => int(series, "count").unwrap_or(0),
        None => int(event, "count").unwrap_or(0).max(1),
    }
}

fn target(event: &Value) -> String {
    let object = sub(event, "involvedObject");
    let kind = text(object, "kind").to_lowercase();
    match text(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let source = sub(event, "source");
    let first = |a: &'static str, b: &'static str| {
        let own = text(source, a);
        if own.is_empty() { text(event, b) } else { own }
    };
    let (component, instance) =
        (first("component", "reportingComponent"), first("host", "reportingInstance"));
    if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") }
}

/// The fields that selectors may name, under the names of one of the two shapes.
pub(crate) fn selectable_fields(object: &str, reporter: &str) -> Vec<SelectableField> {
    type Field = (&'static str, fn(&Value) -> String);
    const OBJECT: [Field; 7] = [
        ("kind", |o| of_object(o, "kind")),
        ("namespace", |o| of_object(o, "namespace")),
        ("name", |o| of_object(o, "name")),
        ("uid", |o| of_object(o, "uid")),
        ("apiVersion", |o| of_object(o, "apiVersion")),
        ("resourceVersion", |o| of_object(o, "resourceVersion")),
        ("fieldPath", |o| of_object(o, "fieldPath")),
    ];
    let mut fields: Vec<SelectableField> =
        OBJECT.iter().map(|(name, value)| field_at(&format!("{object}.{name}"), *value)).collect();
    fields.push(field_at("reason", |o| text(o, "reason").to_owned()));
    fields.push(field_at(reporter, |o| first_text(o, &["reportingComponent", "reportingController"])));
    fields.push(field_at("source", |o| {
        let component = text(sub(o, "source"), "component");
        if component.is_empty() { text(o, "reportingComponent") } else { component }.to_owned()
    }));
    fields.push(field_at("type", |o| text(o, "type").to_owned()));
    fields
}

fn of_object(event: &Value, field: &str) -> String {
    let object = get(event, "involvedObject").or_else(|| get(event, "regarding"));
    object.map_or("", |o| text(o, field)).to_owned()
}

fn first_text(event: &Value, fields: &[&str]) -> String {
    fields.iter().map(|f| text(event, f)).find(|t| !t.is_empty()).unwrap_or("").to_owned()
}

/// The rules of an event in the core shape; the newer one asks for more.
pub(crate) struct EventRules;

impl Strategy for EventRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_namespace(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, _: WriteContext<'_>) -> ErrorList {
        self.validate(object)
    }
}

/// An event lies in its object's namespace; those of cluster-wide objects lie in `default` (or `kube-system`).
fn validate_namespace(event: &Value, errors: &mut ErrorList) {
    let own = text(sub(event, "metadata"), "namespace");
    let involved = Path::Root.child("involvedObject");
    let path = involved.child("namespace");
    match text(sub(event, "involvedObject"), "namespace") {
        "" if !own.is_empty() && own != "default" && own != "kube-system" => {
            errors.invalid(&path, "", "does not match event.namespace");
        }
        "" => {}
        object if object != own => errors.invalid(&path, object, "does not match event.namespace"),
        _ => {}
    }
}

/// The rules of an event written in the newer shape, on the core one.
pub(crate) fn validate_new_event(event: &Value, errors: &mut ErrorList) {
    let root = Path::Root;
    if at(event, &["eventTime"]).is_null() {
        errors.required(&root.child("eventTime"), "");
    }
    let controller = root.child("reportingController");
    match text(event, "reportingComponent") {
        "" => errors.required(&controller, ""),
        name => {
            for problem in crate::api::kit::names::qualified(name) {
                errors.invalid(&controller, name, &problem);
            }
        }
    }
    for (field, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let path = root.child(field);
        match text(event, field) {
            "" => errors.required(&path, ""),
            value if value.len() > max => {
                errors.invalid(&path, "", &format!("can have at most {max} characters"));
            }
            _ => {}
        }
    }
    if text(event, "message").len() > NOTE_BYTES_MAX {
        errors.invalid(&root.child("message"), "", "can have at most 1024 characters");
    }
    match text(event, "type") {
        "Normal" | "Warning" => {}
        other => errors.invalid(&root.child("type"), "", &format!("has invalid value: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Cell;
    use serde_json::json;

    #[test]
    fn columns_read_both_ways_of_counting() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let check = |event: Value, wanted: Value| {
            let cells: Vec<Value> = columns()
                .iter()
                .map(|c| match &c.cell {
                    Cell::Computed(cell) => cell(&event, now),
                    Cell::Path(_) => panic!("no path"),
                })
                .collect();
            assert_eq!(Value::from(cells), wanted);
        };
        check(
            json!({
                "metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " done ", "count": 3,
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
                "source": {"component": "kubelet", "host": "n"},
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"}),
            json!([
                "60s",
                "Normal",
                "Pulled",
                "pod/p",
                "spec.containers{a}",
                "kubelet, n",
                "done",
                "10m",
                3,
                "e"
            ]),
        );
        check(
            json!({
                "metadata": {"name": "e"}, "involvedObject": {"kind": "Node"}, "eventTime": "2026-01-01T00:05:00.000001Z",
                "reportingComponent": "c", "series": {"count": 7, "lastObservedTime": "2026-01-01T00:09:30Z"}}),
            json!(["30s", "", "", "node", "", "c", "", "4m59s", 7, "e"]),
        );
    }

    #[test]
    fn namespaces_must_agree() {
        let check = |own: &str, object: &str, wanted: usize| {
            let event =
                json!({"metadata": {"name": "e", "namespace": own}, "involvedObject": {"namespace": object}});
            assert_eq!(EventRules.validate(&event).len(), wanted, "{own} {object}");
        };
        check("a", "a", 0);
        check("a", "b", 1);
        check("default", "", 0);
        check("a", "", 1);
    }
}
