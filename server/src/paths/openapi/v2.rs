//! The OpenAPI v2 document of everything, for clients that know no v3.

use super::operations::{self, Dialect};
use super::v3;
use crate::paths::GIT_VERSION;
use kubewright_core::KindDescriptor;
use serde_json::{Map, Value, json};
use std::sync::Arc;

struct V2;

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

impl Dialect for V2 {
    fn query(&self, name: &str, kind: &str, description: &str) -> Value {
        json!({"name": name, "in": "query", "description": description, "type": kind, "uniqueItems": true})
    }

    fn path(&self, name: &str) -> Value {
        json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true})
    }

    fn body(&self, operation: &mut Value, media: &[&str], schema: &str) {
        operation["consumes"] = json!(media);
        operation["parameters"] =
            json!([{"name": "body", "in": "body", "required": true, "schema": reference(schema)}]);
    }

    fn answers(&self, schema: &str) -> Value {
        json!({"200": {"description": "OK", "schema": reference(schema)}})
    }
}

/// Turns a v3 schema into v2: references, and what v2 has no word for.
fn downgrade(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(downgrade),
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/components/schemas/")
            {
                *target = format!("#/definitions/{name}");
            }
            // v3 wraps a reference to give it a default or a description; v2 has the bare reference.
            if let Some(Value::Array(all)) = map.get("allOf")
                && let [Value::Object(one)] = all.as_slice()
                && let Some(target) = one.get("$ref").cloned()
            {
                map.remove("allOf");
                map.remove("default");
                map.insert("$ref".to_owned(), target);
                return downgrade(value);
            }
            for word in ["oneOf", "anyOf", "allOf", "not", "nullable"] {
                // A property may have such a name; its value is then a schema, not a list or a flag.
                if map.get(word).is_some_and(|v| v.is_array() || v.is_boolean()) {
                    map.remove(word);
                }
            }
            map.values_mut().for_each(downgrade);
        }
        _ => {}
    }
}

pub(super) fn document(kinds: &[Arc<KindDescriptor>]) -> Value {
    let (schemas, names) = v3::schemas(kinds);
    let mut definitions = Value::Object(schemas);
    downgrade(&mut definitions);
    let mut all = Map::new();
    for (kind, (own, list)) in kinds.iter().zip(&names) {
        operations::add(&mut all, &V2, kind, own, list);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": all,
        "definitions": definitions,
    })
}
