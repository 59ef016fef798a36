//! The entries of `metadata.managedFields`.

use super::set::FieldSet;
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManagerOperation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The workflow's name.
    pub name: String,
    /// How it wrote.
    pub operation: ManagerOperation,
    /// The version of its paths.
    pub api_version: String,
    /// The subresource that it wrote through; empty for the object itself.
    pub subresource: String,
    /// When it last changed something, RFC 3339.
    pub time: Option<String>,
    /// What it owns.
    pub fields: FieldSet,
}

impl Manager {
    /// Whether both are the same workflow.
    pub(super) fn is(&self, other: &Manager) -> bool {
        (&self.name, self.operation, &self.api_version, &self.subresource)
            == (&other.name, other.operation, &other.api_version, &other.subresource)
    }

    /// As messages name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == ManagerOperation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn order(&self, other: &Manager) -> Ordering {
        let key = |m: &Manager| {
            (m.operation, m.time.clone(), m.name.clone(), m.api_version.clone(), m.subresource.clone())
        };
        key(self).cmp(&key(other))
    }

    fn decode(entry: &Value) -> Option<Self> {
        let text = |field: &str| match entry.get(field) {
            None | Some(Value::Null) => Some(String::new()),
            Some(value) => value.as_str().map(str::to_owned),
        };
        let operation = match text("operation")?.as_str() {
            "Apply" => ManagerOperation::Apply,
            "Update" => ManagerOperation::Update,
            _ => return None,
        };
        let api_version = text("apiVersion").filter(|v| !v.is_empty())?;
        if text("fieldsType")? != "FieldsV1" {
            return None;
        }
        let fields = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_wire(fields)?,
        };
        let time = text("time").filter(|t| !t.is_empty());
        Some(Manager {
            name: text("manager")?,
            operation,
            api_version,
            subresource: text("subresource")?,
            time,
            fields,
        })
    }

    fn encode(&self) -> Value {
        let operation = match self.operation {
            ManagerOperation::Apply => "Apply",
            ManagerOperation::Update => "Update",
        };
        let mut entry = Map::new();
        let mut put = |name: &str, value: Value| drop(entry.insert(name.to_owned(), value));
        put("apiVersion", self.api_version.as_str().into());
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", self.fields.to_wire());
        put("manager", self.name.as_str().into());
        put("operation", operation.into());
        if !self.subresource.is_empty() {
            put("subresource", self.subresource.as_str().into());
        }
        if let Some(time) = &self.time {
            put("time", time.as_str().into());
        }
        Value::Object(entry)
    }
}

/// Reads `metadata.managedFields`; `None` where an entry is malformed.
pub(super) fn decode(managed: Option<&Value>) -> Option<Vec<Manager>> {
    match managed {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(entries)) => entries.iter().map(Manager::decode).collect(),
        Some(_) => None,
    }
}

/// Whether a client asks to forget all managers: a list of one empty entry.
pub(super) fn is_reset(managed: Option<&Value>) -> bool {
    let entries = managed.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    matches!(entries, [Value::Object(only)] if only.is_empty())
}

/// Writes `metadata.managedFields`, in upstream's order; no entries take the field out.
pub(super) fn put(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.fields.is_empty());
    managers.sort_by(Manager::order);
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managers.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), managers.iter().map(Manager::encode).collect());
    }
}
