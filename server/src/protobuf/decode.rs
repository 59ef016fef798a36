//! Messages into JSON, as Go would write the same object.

use super::table::{self, Field, Message, Shape, Type};
use super::wire::{Fields, Wire};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kubewright_core::meta;
use serde_json::{Map, Value, json};

/// How deep messages may stand in one another; JSON schemas are the deepest.
const DEPTH_MAX: usize = 100;

/// Decodes a message.
///
/// # Errors
/// A sentence about what is wrong.
pub(super) fn message(message: &Message, bytes: &[u8]) -> Result<Value, String> {
    let mut into = Map::new();
    fields(message, bytes, &mut into, 0)?;
    Ok(Value::Object(into))
}

fn fields(
    message: &Message,
    bytes: &[u8],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("messages are nested deeper than {DEPTH_MAX} levels"));
    }
    let mut all = Fields::new(bytes);
    while let Some((number, wire)) = all.next()? {
        // A field from a newer version is left out, as protobuf has it.
        let Some(field) = message.get(&number) else { continue };
        put(field, wire, into, depth)?;
    }
    Ok(())
}

fn put(field: &Field, wire: Wire<'_>, into: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    match field.shape {
        Shape::Inline => {
            let Type::Message(name) = field.kind else { return Ok(()) };
            let inner = table::message(name).ok_or("an inlined message is unknown")?;
            return fields(inner, wire.bytes()?, into, depth + 1);
        }
        Shape::List => {
            let item = value(field.kind, wire, depth)?;
            let list = into.entry(field.name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(item);
            }
        }
        Shape::Map => {
            let (key, item) = entry(field.kind, wire.bytes()?, depth)?;
            let map = into.entry(field.name).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                map.insert(key, item);
            }
        }
        Shape::One => {
            let value = value(field.kind, wire, depth)?;
            let zero = match &value {
                Value::Null => true,
                Value::String(text) => field.drop_zero && text.is_empty(),
                Value::Bool(flag) => field.drop_zero && !flag,
                Value::Number(number) => field.drop_zero && number.as_f64() == Some(0.0),
                _ => false,
            };
            if !zero {
                into.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn entry(kind: Type, bytes: &[u8], depth: usize) -> Result<(String, Value), String> {
    let (mut key, mut item) = (String::new(), None);
    let mut all = Fields::new(bytes);
    while let Some((number, wire)) = all.next()? {
        match number {
            1 => wire.text()?.clone_into(&mut key),
            2 => item = Some(value(kind, wire, depth)?),
            _ => {}
        }
    }
    let item = match item {
        Some(item) => item,
        None => value(kind, if kind == Type::Integer { Wire::Varint(0) } else { Wire::Bytes(b"") }, depth)?,
    };
    Ok((key, item))
}

fn value(kind: Type, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match kind {
        Type::Text => json!(wire.text()?),
        Type::Boolean => json!(wire.integer()? != 0),
        Type::Integer => json!(wire.integer()?),
        Type::Number => match wire {
            Wire::Fixed64(bits) => json!(f64::from_bits(bits)),
            Wire::Fixed32(bits) => json!(f32::from_bits(bits)),
            other => json!(other.integer()?),
        },
        Type::Base64 => json!(STANDARD.encode(wire.bytes()?)),
        Type::Time => time(wire.bytes()?)?.map_or(Value::Null, |t| json!(meta::format_time(t))),
        Type::MicroTime => time(wire.bytes()?)?.map_or(Value::Null, |t| json!(meta::format_micro_time(t))),
        Type::Duration => json!(duration(number(wire.bytes()?, 1)?)),
        Type::Quantity => json!(text(wire.bytes()?, 1)?),
        Type::IntOrString => int_or_string(wire.bytes()?)?,
        Type::Document => {
            let raw = text(wire.bytes()?, 1)?;
            if raw.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&raw).map_err(|e| e.to_string())?
            }
        }
        Type::Texts => {
            let mut list = Vec::new();
            let mut all = Fields::new(wire.bytes()?);
            while let Some((_, item)) = all.next()? {
                list.push(json!(item.text()?));
            }
            Value::Array(list)
        }
        Type::Message(name) => nested(name, wire, depth)?,
        Type::OneOrMany(name) => one_or_many(name, wire.bytes()?, depth, |w| nested(name, w, depth))?,
        Type::OrTexts(name) => one_or_many(name, wire.bytes()?, depth, |w| Ok(json!(w.text()?)))?,
        Type::OrBoolean(name) => or_boolean(name, wire.bytes()?, depth)?,
    })
}

fn nested(name: &str, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    let inner = table::message(name).ok_or_else(|| format!("the message {name} is unknown"))?;
    let mut into = Map::new();
    fields(inner, wire.bytes()?, &mut into, depth + 1)?;
    Ok(Value::Object(into))
}

/// A message in field 1; in field 2 several, each read by `item`.
fn one_or_many(
    name: &str,
    bytes: &[u8],
    depth: usize,
    item: impl Fn(Wire<'_>) -> Result<Value, String>,
) -> Result<Value, String> {
    let (mut one, mut many) = (Value::Null, Vec::new());
    let mut all = Fields::new(bytes);
    while let Some((number, wire)) = all.next()? {
        match number {
            1 => one = nested(name, wire, depth)?,
            2 => many.push(item(wire)?),
            _ => {}
        }
    }
    Ok(if many.is_empty() { one } else { Value::Array(many) })
}

/// A boolean in field 1, or a schema in field 2.
fn or_boolean(name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let (mut allows, mut schema) = (false, None);
    let mut all = Fields::new(bytes);
    while let Some((number, wire)) = all.next()? {
        match number {
            1 => allows = wire.integer()? != 0,
            2 => schema = Some(nested(name, wire, depth)?),
            _ => {}
        }
    }
    Ok(schema.unwrap_or(json!(allows)))
}

fn number(bytes: &[u8], wanted: u64) -> Result<i64, String> {
    let (mut found, mut all) = (0, Fields::new(bytes));
    while let Some((number, wire)) = all.next()? {
        if number == wanted {
            found = wire.integer()?;
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], wanted: u64) -> Result<String, String> {
    let (mut found, mut all) = (String::new(), Fields::new(bytes));
    while let Some((number, wire)) = all.next()? {
        if number == wanted {
            wire.text()?.clone_into(&mut found);
        }
    }
    Ok(found)
}

/// An empty message is the zero time, which JSON leaves out.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (seconds, nanos) = (number(bytes, 1)?, number(bytes, 2)?);
    let nanos = i32::try_from(nanos).map_err(|_| "a time has too many nanoseconds")?;
    Timestamp::new(seconds, nanos).map(Some).map_err(|e| e.to_string())
}

/// Nanoseconds as Go writes durations that are whole in some unit; others in seconds with a fraction.
fn duration(nanos: i64) -> String {
    for (unit, size) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if nanos % size == 0 {
            return format!("{}{unit}", nanos / size);
        }
    }
    format!("{nanos}ns")
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    Ok(match number(bytes, 1)? {
        0 => json!(number(bytes, 2)?),
        _ => json!(text(bytes, 3)?),
    })
}
