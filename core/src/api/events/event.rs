//! Event in the newer shape: another view of the core group's events, which are the stored ones.

use crate::api::BuiltinOptions;
use crate::api::core::event::{EventRules, columns as core_columns, selectable_fields, validate_new_event};
use crate::api::kit::{describe, get, names, set, text};
use crate::resource::{Cell, PrinterColumn, Scope, StoredAs, Strategy, WriteContext};
use crate::{ErrorList, GroupVersionResource, KindDescriptor};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The descriptor of the `events.k8s.io` Event.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["ev"]),
        strategy: Arc::new(NewEventRules),
        columns: columns(),
        selectable_fields: selectable_fields("regarding", "reportingController"),
        stored_as: Some(StoredAs {
            resource: GroupVersionResource::new("", "v1", "events"),
            to_stored: Arc::new(to_core),
            from_stored: Arc::new(from_core),
        }),
        ..describe::<Event>(Scope::Namespaced)
    }
}

/// Fields whose names differ: in this group, in the core group.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Turns an event of this group into one of the core group.
pub fn to_core(event: &mut Value) {
    rename(event, "v1", |name| RENAMED.iter().find(|(new, _)| *new == name).map(|(_, core)| *core));
}

/// Turns an event of the core group into one of this group.
pub fn from_core(event: &mut Value) {
    rename(event, "events.k8s.io/v1", |name| {
        RENAMED.iter().find(|(_, core)| *core == name).map(|(new, _)| *new)
    });
}

fn rename(event: &mut Value, version: &str, to: impl Fn(&str) -> Option<&'static str>) {
    let Some(map) = event.as_object_mut() else { return };
    let renamed: Map<String, Value> = std::mem::take(map)
        .into_iter()
        .map(|(name, value)| (to(&name).map_or(name, str::to_owned), value))
        .collect();
    *map = renamed;
    set(event, "apiVersion", version);
    set(event, "kind", "Event");
}

/// The core group's columns, over the event in the core shape.
fn columns() -> Vec<PrinterColumn> {
    core_columns()
        .into_iter()
        .map(|column| PrinterColumn { cell: Cell::Computed(cell_of(&column.name)), ..column })
        .collect()
}

/// Plain functions, so one for each column: each looks its cell up in the converted event.
fn cell_of(name: &str) -> fn(&Value, Timestamp) -> Value {
    match name {
        "Last Seen" => |o, now| core_cell(o, now, 0),
        "Type" => |o, now| core_cell(o, now, 1),
        "Reason" => |o, now| core_cell(o, now, 2),
        "Object" => |o, now| core_cell(o, now, 3),
        "Subobject" => |o, now| core_cell(o, now, 4),
        "Source" => |o, now| core_cell(o, now, 5),
        "Message" => |o, now| core_cell(o, now, 6),
        "First Seen" => |o, now| core_cell(o, now, 7),
        "Count" => |o, now| core_cell(o, now, 8),
        _ => |o, now| core_cell(o, now, 9),
    }
}

fn core_cell(event: &Value, now: Timestamp, column: usize) -> Value {
    let mut event = event.clone();
    to_core(&mut event);
    match core_columns().swap_remove(column).cell {
        Cell::Computed(cell) => cell(&event, now),
        Cell::Path(path) => path.first(&event).cloned().unwrap_or_default(),
    }
}

struct NewEventRules;

impl Strategy for NewEventRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut core = object.clone();
        to_core(&mut core);
        let mut errors = EventRules.validate(&core);
        validate_new_event(&core, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut core = object.clone();
        to_core(&mut core);
        let mut errors = EventRules.validate(&core);
        // Events made in the core shape lack what this one asks for; they may still change.
        if get(old, "eventTime").is_some() && !text(old, "reportingController").is_empty() {
            validate_new_event(&core, &mut errors);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_survive_the_round_trip() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "R", "action": "A",
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reportingComponent": "c", "reportingInstance": "i",
            "source": {"component": "k"}, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": null, "count": 2,
            "eventTime": "2026-01-01T00:00:00.000000Z", "related": {"kind": "Node"}});
        let mut event = core.clone();
        from_core(&mut event);
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        assert_eq!(event["regarding"]["name"], "p");
        assert_eq!(event["note"], "m");
        assert_eq!(event["deprecatedCount"], 2);
        assert!(event.get("message").is_none());
        to_core(&mut event);
        assert_eq!(event, core);
    }

    #[test]
    fn new_events_ask_for_more() {
        let fields = |event: Value| -> Vec<String> {
            NewEventRules.validate(&event).iter().map(|e| e.field.to_string()).collect()
        };
        assert_eq!(
            fields(json!({"metadata": {"name": "e", "namespace": "a"}, "regarding": {"namespace": "a"}})),
            ["eventTime", "reportingController", "reportingInstance", "action", "reason", "type"]
        );
        assert_eq!(
            fields(json!({
                "metadata": {"name": "e", "namespace": "a"}, "regarding": {"namespace": "a"}, "type": "Normal", "reason": "R",
                "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "x/y",
                "reportingInstance": "i"})),
            Vec::<String>::new()
        );
    }

    #[test]
    fn columns_agree_with_the_core_groups() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p"}, "note": "n",
            "eventTime": "2026-01-01T00:00:30.000000Z"});
        let cells: Vec<Value> = columns()
            .iter()
            .map(|c| match &c.cell {
                Cell::Computed(cell) => cell(&event, now),
                Cell::Path(_) => Value::Null,
            })
            .collect();
        assert_eq!(Value::from(cells), json!(["30s", "", "", "pod/p", "", "", "n", "30s", 1, "e"]));
    }
}
