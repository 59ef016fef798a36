//! Look-ups in JSON objects, where null and absent are one.

use serde_json::Value;

static NULL: Value = Value::Null;

/// A field, null when absent.
pub(super) fn sub<'a>(object: &'a Value, key: &str) -> &'a Value {
    object.get(key).unwrap_or(&NULL)
}

/// A field some steps down, null when absent.
pub(super) fn at<'a>(object: &'a Value, steps: &[&str]) -> &'a Value {
    steps.iter().fold(object, |value, step| sub(value, step))
}

/// The text of a field, empty when absent.
pub(super) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    sub(object, key).as_str().unwrap_or("")
}

/// The items of a list, none when absent.
pub(super) fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    sub(object, key).as_array().map_or(&[], Vec::as_slice)
}

/// Whether a field is true.
pub(super) fn flag(object: &Value, key: &str) -> bool {
    sub(object, key).as_bool().unwrap_or(false)
}

/// Adds an item to a list, which may not be there yet.
pub(super) fn push(owner: &mut Value, key: &str, item: Value) {
    match owner.get_mut(key).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => owner[key] = Value::Array(vec![item]),
    }
}

/// The containers of a pod's spec: init containers, containers, ephemeral ones.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |kind| list(spec, kind))
}
