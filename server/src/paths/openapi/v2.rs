//! The OpenAPI v2 document of everything, for clients that know no v3.

use super::super::GIT_VERSION;
use super::super::catalogue::Catalogue;
use super::operations::{Dialect, Place, Writer};
use super::{addresses, schemas};
use serde_json::{Map, Value, json};

struct V2;

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

impl Dialect for V2 {
    fn query(&self, name: &str, kind: &str, description: &str) -> Value {
        json!({"name": name, "in": "query", "description": description, "type": kind, "uniqueItems": true})
    }

    fn path(&self, name: &str, description: &str) -> Value {
        json!({"name": name, "in": "path", "description": description, "required": true, "type": "string",
            "uniqueItems": true})
    }

    fn body(&self, operation: &mut Value, media: &[&str], schema: &str, required: bool) {
        operation["consumes"] = json!(media);
        let mut body = json!({"name": "body", "in": "body", "schema": reference(schema)});
        if required {
            body["required"] = json!(true);
        }
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.insert(0, body);
        }
    }

    fn answer(&self, description: &str, schema: Option<&str>) -> Value {
        let schema = schema.map_or_else(|| json!({"type": "string"}), reference);
        json!({"description": description, "schema": schema})
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

/// Takes the paths of a group out of another server's document, and the schemas that this one has not.
fn merge(schemas: &mut Map<String, Value>, paths: &mut Map<String, Value>, group: &str, document: &[u8]) {
    let Ok(mut document) = serde_json::from_slice::<Value>(document) else { return };
    let mut part = |field: &str| match document[field].take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let below = format!("/apis/{group}/");
    paths.extend(part("paths").into_iter().filter(|(path, _)| path.starts_with(&below)));
    for (name, schema) in part("definitions") {
        schemas.entry(name).or_insert(schema);
    }
}

/// The document of everything.
pub(super) fn document(catalogue: &Catalogue) -> Value {
    let (mut schemas, mut paths) = (Map::new(), Map::new());
    for group in &catalogue.groups {
        for version in &group.versions {
            if let Some(document) = version.remote.as_ref().and_then(|r| r.fetched.load().openapi_v2.clone())
            {
                merge(&mut schemas, &mut paths, &group.name, &document);
            }
            let names = schemas::add(&mut schemas, &group.name, version);
            let place = Place::of(&group.name, &version.name);
            for (resource, names) in version.resources.iter().zip(&names) {
                let (group, version) = (group.name.as_str(), version.name.as_str());
                Writer { dialect: &V2, place: &place, group, version, resource, names }.write(&mut paths);
            }
        }
    }
    addresses::write(&V2, catalogue, &mut paths);
    let mut definitions = Value::Object(schemas);
    downgrade(&mut definitions);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": paths,
        "definitions": definitions,
    })
}
