//! One step of a field path, in the text that stands in `FieldsV1`: `f:name`, `k:{"name":"web"}`, `v:"x"`, `i:0`.
//!
//! The text itself is kept: two elements are the same when their canonical texts are.

use crate::schema::Node;
use serde_json::{Map, Value};
use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};
use std::fmt::Write;

/// The field of an object.
pub(super) fn field(name: &str) -> SmolStr {
    let mut text = SmolStrBuilder::new();
    text.push_str("f:");
    text.push_str(name);
    text.finish()
}

/// The canonical form of an element that a client wrote; `None` where it is none.
pub(super) fn canonical(text: &str) -> Option<SmolStr> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "f" => Some(text.into()),
        "i" => rest.parse::<i64>().ok().map(|n| format_smolstr!("i:{n}")),
        "v" => serde_json::from_str::<Value>(rest).ok().map(|v| format_smolstr!("v:{v}")),
        "k" => serde_json::from_str::<Map<String, Value>>(rest).ok().map(|keys| of_keys(&keys)),
        _ => None,
    }
}

/// Keys of a map stand sorted by name, which the object of `serde_json` does by itself.
fn of_keys(keys: &Map<String, Value>) -> SmolStr {
    let mut sorted: Vec<(&String, &Value)> = keys.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut text = String::from("k:{");
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{}:{value}", Value::from(name.as_str()));
    }
    text.push('}');
    text.into()
}

/// The element of a list's item: its keys in a list of type map, itself in a set.
///
/// # Errors
/// In upstream's words, where the item has no key or is no value of a set.
pub(super) fn of_item(list: &Node, item: &Value) -> Result<SmolStr, String> {
    let mut names = list.map_keys().peekable();
    if names.peek().is_none() {
        return match item {
            Value::Object(_) | Value::Array(_) => {
                Err("list element is not a scalar, which a set requires".to_owned())
            }
            scalar => Ok(format_smolstr!("v:{scalar}")),
        };
    }
    let Value::Object(object) = item else {
        return Err("associative list with keys may not have non-map elements".to_owned());
    };
    // Nearly every keyed list has one key.
    if let (Some(name), None) = (list.map_keys().next(), list.map_keys().nth(1))
        && let Some(value) = object.get(name).filter(|v| !v.is_null())
    {
        return Ok(format_smolstr!("k:{{{}:{value}}}", Value::from(name)));
    }
    let mut keys = Map::new();
    let mut missing = None;
    for name in names {
        match object.get(name).filter(|v| !v.is_null()).cloned().or_else(|| default(list, name)) {
            Some(value) => drop(keys.insert(name.to_owned(), value)),
            None => missing = Some(name),
        }
    }
    match missing {
        Some(name) if keys.is_empty() => Err(format!(
            "associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
        )),
        _ => Ok(of_keys(&keys)),
    }
}

/// The default of a key: the schema's, or what upstream's published schema says of built-in kinds.
fn default(list: &Node, name: &str) -> Option<Value> {
    let stated =
        list.items().and_then(|item| item.field(name)).and_then(|key| key.default.as_deref().cloned());
    stated.or_else(|| match name {
        "protocol" => Some("TCP".into()),
        "name" => Some("".into()),
        _ => None,
    })
}

/// Appends the element as it stands in messages: `.name`, `[name="web"]`, `[="x"]`, `[0]`.
pub(super) fn print(element: &str, into: &mut String) {
    let (kind, rest) = element.split_once(':').unwrap_or(("f", element));
    match kind {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let texts: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let _ = write!(into, "[{}]", texts.join(","));
        }
        "v" => drop(write!(into, "[={rest}]")),
        "i" => drop(write!(into, "[{rest}]")),
        _ => drop(write!(into, ".{rest}")),
    }
}
