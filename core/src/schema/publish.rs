//! Schemas as OpenAPI v3 documents: upstream's prose and names from `k8s-openapi`, the extensions from the table of facts.

use super::facts::{self, Definition};
use super::node::{ListType, Node, Struct, Type};
use super::{Schema, Source};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const COMPONENTS: &str = "#/components/schemas/";

/// A schema with all that it refers to, for an OpenAPI document.
#[derive(Clone, Debug, Default)]
pub struct PublishedSchema {
    /// The name among the components, `io.k8s.api.core.v1.Pod`; empty for custom and host kinds.
    pub name: String,
    /// The schema itself.
    pub schema: Value,
    /// What it refers to (and itself, where it has a name), by name.
    pub definitions: BTreeMap<String, Value>,
}

/// The document of a Rust type with its definitions beside it.
pub(crate) fn prose<K: schemars::JsonSchema>() -> Value {
    let generator = schemars::generate::SchemaSettings::openapi3().into_generator();
    let root = generator.into_root_schema_for::<K>();
    root.to_value()
}

pub(crate) fn openapi_v3(schema: &Schema) -> PublishedSchema {
    match &schema.source {
        Source::Facts { definition, prose } => of_definition(definition, *prose),
        Source::Host { document } | Source::Custom { document } => of_document(document),
        Source::Open => PublishedSchema {
            schema: json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            ..PublishedSchema::default()
        },
    }
}

fn of_definition(definition: &'static Definition, prose: Option<fn() -> Value>) -> PublishedSchema {
    let name = definition.full_name();
    let mut texts = prose.map(components).unwrap_or_default();
    if let Some(mut document) = prose.map(|f| f()) {
        if let Some(map) = document.as_object_mut() {
            map.retain(|k, _| !matches!(k.as_str(), "$schema" | "title" | "components" | "definitions"));
        }
        texts.insert(name.clone(), document);
    }
    let mut definitions = BTreeMap::new();
    let mut queue = vec![definition];
    let mut specials = BTreeSet::new();
    while let Some(next) = queue.pop() {
        let full = next.full_name();
        if definitions.contains_key(&full) {
            continue;
        }
        let Some(s) = next.node().as_struct() else { continue };
        let document = document_of(next, s, texts.get(&full), &mut specials);
        definitions.insert(full, document);
        s.fields.values().for_each(|node| referred(node, &mut queue));
    }
    for special in specials {
        definitions.insert(special.to_owned(), special_document(special, texts.get(special)));
    }
    let schema = definitions.get(&name).cloned().unwrap_or_default();
    PublishedSchema { name, schema, definitions }
}

fn components(prose: fn() -> Value) -> BTreeMap<String, Value> {
    let mut document = prose();
    match document.pointer_mut("/components/schemas").map(Value::take) {
        Some(Value::Object(map)) => map.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn referred(node: &Node, queue: &mut Vec<&'static Definition>) {
    match &node.ty {
        Type::Ref(definition) => queue.push(definition),
        Type::List(inner) | Type::Map(inner) => referred(inner, queue),
        _ => {}
    }
}

fn document_of(
    definition: &'static Definition,
    s: &Struct,
    text: Option<&Value>,
    specials: &mut BTreeSet<&'static str>,
) -> Value {
    let mut out = Map::new();
    if let Some(description) = text.and_then(|t| t.get("description")) {
        out.insert("description".to_owned(), description.clone());
    }
    out.insert("type".to_owned(), json!("object"));
    let mut properties = Map::new();
    for (name, node) in &s.fields {
        let mut field = field_document(node, specials);
        let said = text.and_then(|t| t.get("properties")?.get(&**name)?.get("description"));
        if let (Some(map), Some(said)) = (field.as_object_mut(), said) {
            if let Some(reference) = map.remove("$ref") {
                map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            map.insert("description".to_owned(), said.clone());
        }
        properties.insert(name.to_string(), field);
    }
    if !properties.is_empty() {
        out.insert("properties".to_owned(), Value::Object(properties));
    }
    if !s.required.is_empty() {
        let required: Vec<&str> = s.required.iter().map(|r| &**r).collect();
        out.insert("required".to_owned(), json!(required));
    }
    if definition.node().is_atomic_map() {
        out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    let kinds: Vec<Value> =
        definition.kinds().map(|(g, v, k)| json!({"group": g, "version": v, "kind": k})).collect();
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
    Value::Object(out)
}

fn field_document(node: &Node, specials: &mut BTreeSet<&'static str>) -> Value {
    let mut document = type_document(&node.ty, specials);
    if let (Some(map), Some(facts)) = (document.as_object_mut(), node.merge.as_deref()) {
        match facts.list {
            ListType::Set => map.insert("x-kubernetes-list-type".to_owned(), json!("set")),
            ListType::Map => map.insert("x-kubernetes-list-type".to_owned(), json!("map")),
            ListType::Atomic if facts.said_atomic => {
                map.insert("x-kubernetes-list-type".to_owned(), json!("atomic"))
            }
            ListType::Atomic => None,
        };
        if !facts.keys.is_empty() {
            let keys: Vec<&str> = facts.keys.iter().map(|k| &**k).collect();
            map.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
        }
        if facts.atomic_map {
            map.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if let Some(key) = &facts.patch_key {
            map.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
        }
        let strategies: Vec<&str> = [(facts.patch_merge, "merge"), (facts.retain_keys, "retainKeys")]
            .into_iter()
            .filter_map(|(on, name)| on.then_some(name))
            .collect();
        if !strategies.is_empty() {
            map.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategies.join(",")));
        }
    }
    document
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

fn type_document(ty: &Type, specials: &mut BTreeSet<&'static str>) -> Value {
    let mut special = |name: &'static str| {
        specials.insert(name);
        json!({"$ref": format!("{COMPONENTS}{name}")})
    };
    match ty {
        Type::Any | Type::ObjectOr(_) => json!({}),
        Type::Boolean => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Number => json!({"type": "number", "format": "double"}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Time => special(TIME),
        Type::MicroTime => special(MICRO_TIME),
        Type::Quantity => special(QUANTITY),
        Type::IntOrString => special(INT_OR_STRING),
        Type::List(item) => json!({"type": "array", "items": type_document(&item.ty, specials)}),
        Type::Map(inner) if matches!(inner.ty, Type::Any) => json!({"type": "object"}),
        Type::Map(inner) => {
            json!({"type": "object", "additionalProperties": type_document(&inner.ty, specials)})
        }
        Type::Struct(_) => json!({"type": "object"}),
        Type::Ref(definition) => json!({"$ref": format!("{COMPONENTS}{}", definition.full_name())}),
    }
}

fn special_document(name: &str, text: Option<&Value>) -> Value {
    let mut document = match name {
        QUANTITY => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        INT_OR_STRING => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        _ => json!({"type": "string", "format": "date-time"}),
    };
    if let (Some(map), Some(said)) = (document.as_object_mut(), text.and_then(|t| t.get("description"))) {
        map.insert("description".to_owned(), said.clone());
    }
    document
}

/// A custom kind's document, with the fields that every object has.
fn of_document(document: &Value) -> PublishedSchema {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    let mut schema = document.clone();
    let mut definitions = BTreeMap::new();
    if let Some(meta) = facts::by_name(facts::OBJECT_META) {
        definitions = of_definition(meta, Some(prose::<ObjectMeta>)).definitions;
    }
    if let Some(map) = schema.as_object_mut() {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            for name in ["apiVersion", "kind"] {
                properties.entry(name).or_insert_with(|| json!({"type": "string"}));
            }
            let reference = format!("{COMPONENTS}{}", facts::OBJECT_META);
            properties.insert("metadata".to_owned(), json!({"allOf": [{"$ref": reference}]}));
        }
    }
    PublishedSchema { name: String::new(), schema, definitions }
}
