//! The schemas of the resources of a group version, and what they are called.

use super::super::catalogue::{Resource, Version};
use super::addresses::ANSWERS;
use super::operations::{DELETE_OPTIONS, PATCH, STATUS, WATCH_EVENT};
use kubewright_core::{KindDescriptor, Schema};
use serde_json::{Map, Value, json};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// What the schemas of a resource are called.
pub(super) struct Names {
    pub(super) own: String,
    /// `None` for a resource that is not listed.
    pub(super) list: Option<String>,
    /// Of each subresource; `None` where its kind has no schema.
    pub(super) below: Vec<Option<String>>,
}

/// Adds the schemas of a version's resources, with all that they refer to; gives their names in the resources' order.
pub(super) fn add(all: &mut Map<String, Value>, group: &str, version: &Version) -> Vec<Names> {
    for name in [DELETE_OPTIONS, LIST_META, PATCH, STATUS, WATCH_EVENT].into_iter().chain(ANSWERS) {
        if !all.contains_key(name)
            && let Some(schema) = Schema::definition(name)
        {
            all.extend(schema.published().definitions);
        }
    }
    version.resources.iter().map(|r| resource(all, group, &version.name, r)).collect()
}

fn resource(all: &mut Map<String, Value>, group: &str, version: &str, r: &Resource) -> Names {
    let own = match &r.stored {
        Some(kind) => stored(all, kind),
        None => builtin(all, group, version, &r.kind).unwrap_or_else(|| open(all, group, version, &r.kind)),
    };
    let list = r.stored.as_ref().map(|kind| {
        builtin(all, group, version, &kind.list_kind).unwrap_or_else(|| {
            let name = format!("{}{}", own.strip_suffix(kind.kind.as_str()).unwrap_or(""), kind.list_kind);
            all.insert(name.clone(), list_of(kind, &own));
            name
        })
    });
    let below = r.subresources.iter().map(|s| {
        let same = s.group == group && s.version == version && s.kind == r.kind;
        if same { Some(own.clone()) } else { builtin(all, &s.group, &s.version, &s.kind) }
    });
    let below = below.collect();
    Names { own, list, below }
}

/// A built-in kind by its names, where there is such a kind.
fn builtin(all: &mut Map<String, Value>, group: &str, version: &str, kind: &str) -> Option<String> {
    let published = Schema::builtin(group, version, kind)?.published();
    for (name, schema) in published.definitions {
        // What came with the descriptions of a Rust type stays.
        all.entry(name).or_insert(schema);
    }
    Some(published.name)
}

fn stored(all: &mut Map<String, Value>, kind: &KindDescriptor) -> String {
    let published = kind.schema.published();
    all.extend(published.definitions);
    let own = match published.name.as_str() {
        "" => made_up(&kind.group, &kind.version, &kind.kind),
        name => name.to_owned(),
    };
    let mut schema = published.schema;
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    if schema.get("x-kubernetes-group-version-kind").is_none() {
        schema["x-kubernetes-group-version-kind"] = gvk(&kind.group, &kind.version, &kind.kind);
    }
    all.insert(own.clone(), schema);
    own
}

/// A computed kind of the host's own, of which nothing is known.
fn open(all: &mut Map<String, Value>, group: &str, version: &str, kind: &str) -> String {
    let name = made_up(group, version, kind);
    all.insert(
        name.clone(),
        json!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-group-version-kind": gvk(group, version, kind),
        }),
    );
    name
}

/// `dev.example.v1.Widget`, as upstream calls the schemas of custom kinds.
fn made_up(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().filter(|p| !p.is_empty()).collect();
    parts.extend([version, kind]);
    parts.join(".")
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!([{"group": group, "version": version, "kind": kind}])
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn list_of(kind: &KindDescriptor, own: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": reference(LIST_META),
            "items": {"type": "array", "items": reference(own)},
        },
        "x-kubernetes-group-version-kind": gvk(&kind.group, &kind.version, &kind.list_kind),
    })
}
