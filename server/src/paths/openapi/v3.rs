//! OpenAPI v3 documents, one for each group version.

use super::operations::{self, Dialect};
use crate::paths::GIT_VERSION;
use kubewright_core::KindDescriptor;
use serde_json::{Map, Value, json};
use std::sync::Arc;

struct V3;

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

impl Dialect for V3 {
    fn query(&self, name: &str, kind: &str, description: &str) -> Value {
        json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
    }

    fn path(&self, name: &str) -> Value {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
    }

    fn body(&self, operation: &mut Value, media: &[&str], schema: &str) {
        let content: Map<String, Value> =
            media.iter().map(|m| ((*m).to_owned(), json!({"schema": reference(schema)}))).collect();
        operation["requestBody"] = json!({"content": content, "required": true});
    }

    fn answers(&self, schema: &str) -> Value {
        json!({"200": {"description": "OK", "content": {"application/json": {"schema": reference(schema)}}}})
    }
}

/// The name of a kind's schema among the components.
pub(super) fn name(kind: &KindDescriptor, published: &str) -> String {
    if !published.is_empty() {
        return published.to_owned();
    }
    let mut parts: Vec<&str> = kind.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), kind.version, kind.kind)
}

/// Every schema of some kinds by name, with the names of each kind's own schema and of its list's.
pub(super) fn schemas(kinds: &[Arc<KindDescriptor>]) -> (Map<String, Value>, Vec<(String, String)>) {
    let mut all = Map::new();
    let mut names = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let published = kind.schema.published();
        let own = name(kind, &published.name);
        all.extend(published.definitions);
        let mut schema = published.schema;
        if !schema.is_object() {
            schema = json!({"type": "object"});
        }
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
        all.insert(own.clone(), schema);
        let list = format!("{own}List");
        all.insert(list.clone(), list_schema(kind, &own));
        names.push((own, list));
    }
    for (name, description) in [
        ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "A patch; the content type says of which kind."),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "What a list says of itself."),
    ] {
        all.entry(name).or_insert_with(|| json!({"type": "object", "description": description}));
    }
    (all, names)
}

fn list_schema(kind: &KindDescriptor, own: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("A list of {}.", kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
            "items": {"type": "array", "items": reference(own)},
        },
        "x-kubernetes-group-version-kind":
            [{"group": kind.group, "version": kind.version, "kind": kind.list_kind}],
    })
}

pub(super) fn document(kinds: &[Arc<KindDescriptor>]) -> Value {
    let (schemas, names) = schemas(kinds);
    let mut all = Map::new();
    for (kind, (own, list)) in kinds.iter().zip(&names) {
        operations::add(&mut all, &V3, kind, own, list);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": all,
        "components": {"schemas": schemas},
    })
}
