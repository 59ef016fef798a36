//! The check that an object fits the types of its kind, in the words of Go's decoder.
//!
//! Upstream decodes built-in kinds into Go structs; a wrong type there is a 400 whose message names the struct, the path and the Go type.

use super::node::{Node, Struct, Type};
use super::path::Path;
use crate::quantity::Quantity;
use serde_json::{Number, Value};
use std::fmt;

/// The first place where an object does not fit its types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMismatch {
    message: String,
}

impl TypeMismatch {
    /// What Go's decoder says, `json: cannot unmarshal string into Go struct field ...`.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TypeMismatch {}

/// Checks `value` against `node`; `owner` is the name of the struct that the path's last field belongs to.
pub(crate) fn check(node: &Node, value: &Value, at: &Path<'_>, owner: &str) -> Result<(), TypeMismatch> {
    let target = node.target();
    match (&target.ty, value) {
        (_, Value::Null) | (Type::Any | Type::Ref(_), _) => Ok(()),
        (Type::ObjectOr(definition), Value::Object(_)) => check(definition.node(), value, at, owner),
        (Type::ObjectOr(definition), Value::Array(list)) => {
            let node = definition.node();
            let mut objects = list.iter().enumerate().filter(|(_, v)| v.is_object());
            objects.try_for_each(|(i, v)| check(node, v, &at.index(i), owner))
        }
        (Type::ObjectOr(_), _) => Ok(()),
        (Type::Struct(s), Value::Object(map)) => check_struct(s, map, at),
        (Type::Map(inner), Value::Object(map)) => {
            map.iter().try_for_each(|(k, v)| check(inner, v, &at.key(k), owner))
        }
        (Type::List(item), Value::Array(list)) => {
            list.iter().enumerate().try_for_each(|(i, v)| check(item, v, &at.index(i), owner))
        }
        (Type::Boolean, Value::Bool(_)) | (Type::String, Value::String(_)) => Ok(()),
        (Type::Number, Value::Number(_)) => Ok(()),
        (Type::Int32, Value::Number(n)) if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => Ok(()),
        (Type::Int64, Value::Number(n)) if n.as_i64().is_some() => Ok(()),
        (Type::IntOrString, value) => check_int_or_string(value),
        (Type::Quantity, value) => check_quantity(value),
        (Type::Bytes, Value::String(text)) => check_base64(text),
        (Type::Time | Type::MicroTime, Value::String(text)) => check_time(text, &target.ty),
        _ => Err(mismatch(node, value, at, owner)),
    }
}

fn check_struct(s: &Struct, map: &serde_json::Map<String, Value>, at: &Path<'_>) -> Result<(), TypeMismatch> {
    for (name, value) in map {
        if let Some(field) = s.fields.get(name.as_str()) {
            check(field, value, &at.field(name), &s.name)?;
        } else if let Some(additional) = &s.additional {
            check(additional, value, &at.key(name), &s.name)?;
        }
    }
    Ok(())
}

fn mismatch(node: &Node, value: &Value, at: &Path<'_>, owner: &str) -> TypeMismatch {
    let (found, path) = (found(value, &node.target().ty), at.fields_only());
    let place =
        if path.is_empty() { "Go value".to_owned() } else { format!("Go struct field {owner}.{path}") };
    TypeMismatch { message: format!("json: cannot unmarshal {found} into {place} of type {}", go_type(node)) }
}

fn found(value: &Value, wanted: &Type) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // Go shows the number itself only where a number was wanted and this one does not fit.
        Value::Number(n) if matches!(wanted, Type::Int32 | Type::Int64) => format!("number {}", number(n)),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn number(n: &Number) -> String {
    n.to_string()
}

fn go_type(node: &Node) -> String {
    match &node.ty {
        Type::Any | Type::IntOrString | Type::ObjectOr(_) => "interface {}".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::String | Type::Quantity | Type::Time | Type::MicroTime => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::List(item) => format!("[]{}", go_type(item)),
        Type::Map(inner) => format!("map[string]{}", go_type(inner)),
        Type::Struct(s) if s.name.is_empty() => "struct {}".to_owned(),
        Type::Struct(s) => s.name.to_string(),
        Type::Ref(definition) => definition.go_name().to_owned(),
    }
}

fn fail(message: impl Into<String>) -> Result<(), TypeMismatch> {
    Err(TypeMismatch { message: message.into() })
}

fn check_int_or_string(value: &Value) -> Result<(), TypeMismatch> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(n) if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => Ok(()),
        other => {
            fail(format!("json: cannot unmarshal {} into Go value of type int32", found(other, &Type::Int32)))
        }
    }
}

fn check_quantity(value: &Value) -> Result<(), TypeMismatch> {
    let parsed = match value {
        Value::String(text) => Quantity::parse(text.trim()),
        Value::Number(n) => Quantity::parse(&n.to_string()),
        other => Quantity::parse(&other.to_string()),
    };
    parsed.map(drop).or_else(|e| fail(e.to_string()))
}

fn check_base64(text: &str) -> Result<(), TypeMismatch> {
    use base64::{DecodeError, Engine};
    // Go's decoder skips line ends.
    let clean: std::borrow::Cow<'_, str> =
        if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "").into() } else { text.into() };
    let at = match base64::engine::general_purpose::STANDARD.decode(clean.as_bytes()) {
        Ok(_) => return Ok(()),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol { offset: at, .. }) => at,
        Err(_) => clean.len(),
    };
    fail(format!("illegal base64 data at input byte {at}"))
}

fn check_time(text: &str, ty: &Type) -> Result<(), TypeMismatch> {
    if crate::meta::parse_time(text).is_some() {
        return Ok(());
    }
    let layout = if matches!(ty, Type::MicroTime) {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    fail(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
}
