//! Objects in the representation that the client accepts: themselves, rows of a table, or their metadata alone.

use crate::handlers::Call;
use crate::kinds::Served;
use bytes::Bytes;
use jiff::Timestamp;
use kubewright_core::api::human_duration;
use kubewright_core::resource::{Cell, PrinterColumn};
use kubewright_core::{
    ApiError, ApiObject, ApiResponse, ObjectList, Representation, ResponseBody, SharedClock, WatchEvent,
    WatchEventType, meta,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a row of a table carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    fn of(call: &Call) -> Result<Self, ApiError> {
        match call.include_object.as_deref().unwrap_or("") {
            "" | "Metadata" => Ok(Include::Metadata),
            "None" => Ok(Include::None),
            "Object" => Ok(Include::Object),
            other => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// One object.
pub(crate) fn object(call: &Call, code: u16, object: Arc<ApiObject>) -> Result<ApiResponse, ApiError> {
    let body = match call.representation {
        Representation::Object => ResponseBody::Object(object),
        Representation::PartialObjectMetadata => ResponseBody::Object(Arc::new(partial(&object)?)),
        Representation::Table => {
            let version = object.resource_version();
            let rows = vec![row(&call.kind, &object, call.now, Include::of(call)?)?];
            ResponseBody::Value(table(
                json!({"resourceVersion": version.to_string()}),
                Some(&call.kind.descriptor.columns),
                rows,
            ))
        }
    };
    Ok(ApiResponse::new(code, body))
}

/// A collection.
pub(crate) fn list(call: &Call, mut list: ObjectList) -> Result<ApiResponse, ApiError> {
    let body = match call.representation {
        Representation::Object => ResponseBody::List(list),
        Representation::PartialObjectMetadata => {
            for object in &mut list.items {
                *object = Arc::new(partial(object)?);
            }
            list.api_version = "meta.k8s.io/v1".to_owned();
            list.kind = "PartialObjectMetadataList".to_owned();
            ResponseBody::List(list)
        }
        Representation::Table => {
            let include = Include::of(call)?;
            let rows: Result<Vec<Value>, ApiError> =
                list.items.iter().map(|o| row(&call.kind, o, call.now, include)).collect();
            let mut metadata = json!({"resourceVersion": list.resource_version.to_string()});
            if let Some(token) = list.continue_token {
                metadata["continue"] = json!(token);
            }
            if let Some(remaining) = list.remaining {
                metadata["remainingItemCount"] = json!(remaining);
            }
            ResponseBody::Value(table(metadata, Some(&call.kind.descriptor.columns), rows?))
        }
    };
    Ok(ApiResponse::new(200, body))
}

fn partial_value(value: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": value.get("metadata").cloned().unwrap_or_default()})
}

fn partial(object: &ApiObject) -> Result<ApiObject, ApiError> {
    let value = partial_value(&object.value()?);
    let bytes = Bytes::from(serde_json::to_vec(&value).map_err(ApiError::internal)?);
    Ok(ApiObject::from_parts(bytes, object.header().clone(), object.resource_version()))
}

/// A computed document, in the columns that it has where a table is asked for.
pub(crate) fn document(
    call: &Call,
    value: Value,
    columns: &[PrinterColumn],
) -> Result<ApiResponse, ApiError> {
    let value = match call.representation {
        Representation::Table => {
            let metadata = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
            let row = row_of(columns, &value, call.now, Include::of(call)?);
            table(metadata, Some(columns), vec![row])
        }
        Representation::PartialObjectMetadata => partial_value(&value),
        Representation::Object => value,
    };
    Ok(ApiResponse::new(200, ResponseBody::Value(value)))
}

/// What a table says of its columns; a kind that brings none has two.
fn definitions(columns: &[PrinterColumn]) -> Vec<Value> {
    if columns.is_empty() {
        return vec![
            json!({"name": "Name", "type": "string", "format": "name", "description": "The name of the object.", "priority": 0}),
            json!({"name": "Age", "type": "string", "format": "", "description": "The time since the object was created.", "priority": 0}),
        ];
    }
    let define = |c: &PrinterColumn| json!({"name": c.name, "type": c.data_type, "format": c.format, "description": c.description, "priority": c.priority});
    columns.iter().map(define).collect()
}

fn cells(columns: &[PrinterColumn], value: &Value, now: Timestamp) -> Vec<Value> {
    if columns.is_empty() {
        let created = &value["metadata"]["creationTimestamp"];
        return vec![value["metadata"]["name"].clone(), age(created, now)];
    }
    columns
        .iter()
        .map(|column| match &column.cell {
            Cell::Computed(cell) => cell(value, now),
            Cell::Path(path) => match path.first(value) {
                None | Some(Value::Null) => Value::Null,
                Some(found) if column.data_type == "date" => age(found, now),
                Some(found @ (Value::Object(_) | Value::Array(_))) if column.data_type == "string" => {
                    Value::String(found.to_string())
                }
                Some(found) => found.clone(),
            },
        })
        .collect()
}

fn age(time: &Value, now: Timestamp) -> Value {
    match time.as_str().and_then(meta::parse_time) {
        Some(from) => Value::String(human_duration(from, now)),
        None => json!("<unknown>"),
    }
}

fn row(kind: &Served, object: &ApiObject, now: Timestamp, include: Include) -> Result<Value, ApiError> {
    let value = object.value()?;
    let mut row = row_of(&kind.descriptor.columns, &value, now, include);
    let conditions = kind.descriptor.strategy.row_conditions(&value);
    if !conditions.is_empty() {
        row["conditions"] = Value::Array(conditions);
    }
    Ok(row)
}

fn row_of(columns: &[PrinterColumn], value: &Value, now: Timestamp, include: Include) -> Value {
    let cells = cells(columns, value, now);
    match include {
        Include::None => json!({"cells": cells, "object": null}),
        Include::Metadata => json!({"cells": cells, "object": partial_value(value)}),
        Include::Object => json!({"cells": cells, "object": value}),
    }
}

fn table(metadata: Value, columns: Option<&[PrinterColumn]>, rows: Vec<Value>) -> Value {
    let columns = columns.map(definitions).unwrap_or_default();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

/// How the events of a watch look.
pub(crate) struct EventShape {
    pub(crate) representation: Representation,
    include: Include,
    clock: SharedClock,
    /// Whether the columns were told: only the first table of a watch does.
    told: bool,
}

impl EventShape {
    /// # Errors
    /// 400 for an `includeObject` that is none.
    pub(crate) fn of(call: &Call) -> Result<Self, ApiError> {
        Ok(EventShape {
            representation: call.representation,
            include: Include::of(call)?,
            clock: call.server.clock.clone(),
            told: false,
        })
    }

    /// An event in the representation asked for.
    pub(crate) fn event(
        &mut self,
        kind: &Served,
        event: WatchEventType,
        object: Arc<ApiObject>,
    ) -> Result<WatchEvent, ApiError> {
        let object = match self.representation {
            Representation::Object => object,
            Representation::PartialObjectMetadata => Arc::new(partial(&object)?),
            Representation::Table => {
                let rows = vec![row(kind, &object, self.clock.now(), self.include)?];
                let told = std::mem::replace(&mut self.told, true);
                let metadata = json!({"resourceVersion": object.resource_version().to_string()});
                let value = table(metadata, (!told).then_some(&kind.descriptor.columns[..]), rows);
                let bytes = Bytes::from(serde_json::to_vec(&value).map_err(ApiError::internal)?);
                Arc::new(ApiObject::from_parts(bytes, object.header().clone(), object.resource_version()))
            }
        };
        Ok(WatchEvent { event, object })
    }
}
