//! Look-ups in JSON objects with the reading of Go's decoder: null, and often the zero value, mean absent.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The field, `None` when absent or null.
pub(crate) fn get<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|v| !v.is_null())
}

/// The field, null when absent.
pub(crate) fn sub<'a>(object: &'a Value, key: &str) -> &'a Value {
    object.get(key).unwrap_or(&NULL)
}

/// The field some steps down, null when absent.
pub(crate) fn at<'a>(object: &'a Value, steps: &[&str]) -> &'a Value {
    steps.iter().fold(object, |v, step| sub(v, step))
}

/// The text of a field, empty when absent.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The number in a field.
pub(crate) fn int(object: &Value, key: &str) -> Option<i64> {
    object.get(key).and_then(Value::as_i64)
}

/// Whether a field is true.
pub(crate) fn flag(object: &Value, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The items of a list, none when absent.
pub(crate) fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of a map, in their order, none when absent.
pub(crate) fn entries<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// How many entries a map has.
pub(crate) fn count(object: &Value, key: &str) -> usize {
    match object.get(key) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// The items of a list to change, none when absent.
pub(crate) fn list_mut<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The object in a field to change, `None` when absent or of another type.
pub(crate) fn object_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    object.get_mut(key).filter(|v| v.is_object())
}

/// The object in a field, made when absent or null; `None` where the parent or the field has another type.
pub(crate) fn ensure<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let slot = slot(object.as_object_mut()?, key);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    Some(slot).filter(|v| v.is_object())
}

fn slot<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Value {
    map.entry(key).or_insert(Value::Null)
}

/// Sets a field that is absent or null.
pub(crate) fn default_to(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        match map.get_mut(key) {
            Some(slot) if slot.is_null() => *slot = value.into(),
            Some(_) => {}
            None => {
                map.insert(key.to_owned(), value.into());
            }
        }
    }
}

/// Sets a text that is absent or empty.
pub(crate) fn default_text(object: &mut Value, key: &str, value: &str) {
    if object.is_object()
        && (text(object, key).is_empty()
            && !matches!(object.get(key), Some(v) if !v.is_string() && !v.is_null()))
    {
        set(object, key, value);
    }
}

/// Sets a number that is absent or zero.
pub(crate) fn default_int(object: &mut Value, key: &str, value: i64) {
    let unset = match object.get(key) {
        None | Some(Value::Null) => true,
        Some(v) => v.as_i64() == Some(0),
    };
    if unset {
        set(object, key, value);
    }
}

/// Sets a field, whatever stood there.
pub(crate) fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value.into());
    }
}

/// Takes a field out.
pub(crate) fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.as_object_mut()?.remove(key)
}

/// Makes a field what it is in another object: copied, or taken out where that has none.
pub(crate) fn carry(object: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => {
            if object.get(key) != Some(value) {
                set(object, key, value.clone());
            }
        }
        None => {
            remove(object, key);
        }
    }
}

/// Whether two fields are equal as Go's semantic equality has it: absent, null, empty list, empty map and empty text are one.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL)))
                && y.iter().all(|(k, v)| x.contains_key(k) || is_zero(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(v, w)),
        _ => a == b || (is_zero(a) && is_zero(b)),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sameness_overlooks_empty_values() {
        let check = |a: Value, b: Value, equal: bool| assert_eq!(same(&a, &b), equal, "{a} {b}");
        check(json!({"a": 1, "b": ""}), json!({"a": 1}), true);
        check(json!({"a": []}), json!({"a": null}), true);
        check(json!({"a": 0}), json!({}), false);
        check(json!([1, 2]), json!([2, 1]), false);
        check(json!({"a": {"b": "c"}}), json!({"a": {"b": "d"}}), false);
    }

    #[test]
    fn defaults_leave_set_fields_alone() {
        let mut v = json!({"a": "x", "b": "", "c": 0, "d": null, "e": 5});
        default_text(&mut v, "a", "y");
        default_text(&mut v, "b", "y");
        default_int(&mut v, "c", 7);
        default_to(&mut v, "d", true);
        default_int(&mut v, "e", 7);
        assert_eq!(v, json!({"a": "x", "b": "y", "c": 7, "d": true, "e": 5}));
    }
}
