//! OpenAPI v3 documents, one for each group version.

use super::super::GIT_VERSION;
use super::super::catalogue::Version;
use super::operations::{Dialect, Place, Writer};
use super::schemas;
use serde_json::{Map, Value, json};

struct V3;

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

impl Dialect for V3 {
    fn query(&self, name: &str, kind: &str, description: &str) -> Value {
        let schema = json!({"type": kind, "uniqueItems": true});
        json!({"name": name, "in": "query", "description": description, "schema": schema})
    }

    fn path(&self, name: &str, description: &str) -> Value {
        let schema = json!({"type": "string", "uniqueItems": true});
        json!({"name": name, "in": "path", "description": description, "required": true, "schema": schema})
    }

    fn body(&self, operation: &mut Value, media: &[&str], schema: &str, required: bool) {
        let content: Map<String, Value> =
            media.iter().map(|m| ((*m).to_owned(), json!({"schema": reference(schema)}))).collect();
        operation["requestBody"] = json!({"content": content});
        if required {
            operation["requestBody"]["required"] = json!(true);
        }
    }

    fn answer(&self, description: &str, schema: Option<&str>) -> Value {
        let content = match schema {
            Some(schema) => json!({"application/json": {"schema": reference(schema)}}),
            None => json!({"text/plain": {"schema": {"type": "string"}}}),
        };
        json!({"description": description, "content": content})
    }
}

/// The document of a group version.
pub(super) fn document(group: &str, version: &Version) -> Value {
    let mut components = Map::new();
    let names = schemas::add(&mut components, group, version);
    let mut paths = Map::new();
    let place = Place::of(group, &version.name);
    for (resource, names) in version.resources.iter().zip(&names) {
        Writer { dialect: &V3, place: &place, group, version: &version.name, resource, names }
            .write(&mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": paths,
        "components": {"schemas": components},
    })
}
