//! Structural defaulting: fills in the defaults of a schema, also inside lists and maps.

use super::node::{Node, Struct, Type};
use serde_json::{Map, Value};

/// Fills in defaults below `value`. A `null` that its schema does not allow counts as absent.
pub(crate) fn apply(node: &Node, value: &mut Value) {
    match (&node.target().ty, value) {
        (Type::Struct(s), Value::Object(map)) => apply_struct(s, map),
        (Type::Map(inner), Value::Object(map)) => map.values_mut().for_each(|v| fill(inner, v)),
        (Type::List(item), Value::Array(list)) => list.iter_mut().for_each(|v| fill(item, v)),
        _ => {}
    }
}

fn apply_struct(s: &Struct, map: &mut Map<String, Value>) {
    for name in &s.defaulted {
        let Some(node) = s.fields.get(name) else { continue };
        match (map.get_mut(&**name), &node.default) {
            (Some(value), _) => fill(node, value),
            (None, Some(default)) => {
                let mut value = (**default).clone();
                apply(node, &mut value);
                map.insert(name.to_string(), value);
            }
            (None, None) => {}
        }
    }
    if let Some(additional) = s.additional.as_deref().filter(|a| a.has_defaults) {
        for (name, value) in map.iter_mut() {
            if !s.fields.contains_key(name.as_str()) {
                fill(additional, value);
            }
        }
    }
}

fn fill(node: &Node, value: &mut Value) {
    match &node.default {
        Some(default) if value.is_null() && !node.nullable => {
            *value = (**default).clone();
            apply(node, value);
        }
        _ if node.has_defaults => apply(node, value),
        _ => {}
    }
}

/// Takes out each `null` that its schema neither allows nor replaces by a default, as upstream does of custom objects before defaulting.
pub(crate) fn drop_nulls(node: &Node, value: &mut Value) {
    match (&node.target().ty, value) {
        (Type::Struct(s), Value::Object(map)) => {
            map.retain(|name, value| {
                let Some(child) = s.fields.get(name.as_str()).or(s.additional.as_deref()) else {
                    return true;
                };
                let droppable = value.is_null() && !child.nullable && child.default.is_none();
                if !droppable {
                    drop_nulls(child, value);
                }
                !droppable
            });
        }
        (Type::Map(inner), Value::Object(map)) => {
            map.retain(|_, value| {
                let droppable = value.is_null() && !inner.nullable && inner.default.is_none();
                if !droppable {
                    drop_nulls(inner, value);
                }
                !droppable
            });
        }
        (Type::List(item), Value::Array(list)) => list.iter_mut().for_each(|v| drop_nulls(item, v)),
        _ => {}
    }
}
