//! An apply configuration merged into an object by what admission makes of it, without managers.

use super::merge::merge;
use super::walk::{field, is_atomic};
use crate::Schema;
use crate::schema::Node;
use serde_json::Value;

/// The object with a configuration merged in, by the rules of server-side apply.
///
/// # Errors
/// Where the configuration would replace a list, map or object as a whole, which upstream does not let it.
pub fn merge_configuration(schema: &Schema, object: &Value, configuration: &Value) -> Result<Value, String> {
    let root = schema.root();
    let mut atomic = Vec::new();
    find_atomic(Some(root), configuration, "", &mut atomic);
    if !atomic.is_empty() {
        let places = atomic.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {places}"
        ));
    }
    let mut configuration = configuration.clone();
    if let Some(map) = configuration.as_object_mut() {
        // What an object is cannot be changed.
        map.remove("apiVersion");
        map.remove("kind");
    }
    Ok(merge(Some(root), object, &configuration))
}

fn find_atomic(node: Option<&Node>, value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(_) | Value::Array(_) if node.is_some() && is_atomic(node, value) => {
            found.push(at.to_owned());
        }
        Value::Object(map) => {
            for (name, value) in map {
                find_atomic(field(node, name), value, &format!("{at}.{name}"), found);
            }
        }
        Value::Array(items) => {
            let item = node.and_then(Node::items);
            items.iter().for_each(|v| find_atomic(item, v, at, found));
        }
        _ => {}
    }
}
