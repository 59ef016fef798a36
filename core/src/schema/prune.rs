//! Pruning: takes out what a schema does not know, and says where it stood.

use super::node::{Node, Type};
use super::path::Path;
use serde_json::Value;

/// Takes unknown fields out of `value`, appending their paths.
pub(crate) fn prune(node: &Node, value: &mut Value, at: &Path<'_>, unknown: &mut Vec<String>) {
    if let Type::ObjectOr(definition) = node.ty {
        let node = definition.node();
        match value {
            Value::Object(_) => prune(node, value, at, unknown),
            Value::Array(list) => {
                list.iter_mut().enumerate().for_each(|(i, v)| prune(node, v, &at.index(i), unknown));
            }
            _ => {}
        }
        return;
    }
    match (&node.target().ty, value) {
        (Type::Struct(s), Value::Object(map)) => {
            let keep = node.preserves_unknown();
            map.retain(|name, value| {
                let (child, here) = match s.fields.get(name.as_str()) {
                    Some(field) => (field, at.field(name)),
                    None => match &s.additional {
                        Some(additional) => (&**additional, at.key(name)),
                        None if keep => return true,
                        None => {
                            unknown.push(at.field(name).dotted());
                            return false;
                        }
                    },
                };
                prune(child, value, &here, unknown);
                true
            });
        }
        (Type::Map(inner), Value::Object(map)) => {
            if matches!(inner.ty, Type::Struct(_) | Type::Map(_) | Type::List(_) | Type::Ref(_)) {
                for (key, value) in map.iter_mut() {
                    prune(inner, value, &at.key(key), unknown);
                }
            }
        }
        (Type::List(item), Value::Array(list)) => {
            if matches!(item.ty, Type::Struct(_) | Type::Map(_) | Type::List(_) | Type::Ref(_)) {
                for (i, value) in list.iter_mut().enumerate() {
                    prune(item, value, &at.index(i), unknown);
                }
            }
        }
        _ => {}
    }
}
