//! Makes the JSON Schema of a host's Rust type structural, as a CustomResourceDefinition needs it.

use serde_json::{Map, Value, json};

/// The JSON Schema of a Rust type, made structural: references put in place, `null` alternatives turned into `nullable`.
pub fn from_schemars<K: schemars::JsonSchema>() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut document = settings.into_generator().into_root_schema_for::<K>().to_value();
    if let Some(map) = document.as_object_mut() {
        map.remove("title");
    }
    rewrite(&mut document);
    if let Some(properties) = document.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties.insert("metadata".to_owned(), json!({"type": "object"}));
    }
    if let Some(required) = document.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "metadata");
    }
    if document.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        document.as_object_mut().map(|map| map.remove("required"));
    }
    document
}

fn rewrite(schema: &mut Value) {
    match schema {
        Value::Bool(true) => *schema = json!({"x-kubernetes-preserve-unknown-fields": true}),
        Value::Object(map) => rewrite_map(map),
        _ => {}
    }
}

fn rewrite_map(map: &mut Map<String, Value>) {
    map.retain(|k, _| !matches!(k.as_str(), "$schema" | "$defs" | "definitions" | "examples" | "deprecated"));
    for key in ["items", "additionalProperties", "not"] {
        map.get_mut(key).filter(|v| v.is_object() || key == "items").map(rewrite);
    }
    for value in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        rewrite(value.1);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(rewrite);
    }
    plain_words(map);
    lift_nullable(map);
    lift_constants(map);
    lift_single(map);
    lift_variants(map);
    let said = ["type", "$ref", "x-kubernetes-int-or-string", "allOf", "anyOf", "oneOf", "not"];
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        map.remove("type");
    } else if !said.iter().any(|k| map.contains_key(*k)) && !map.contains_key("enum") {
        map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
}

/// Words that OpenAPI v3 spells otherwise than JSON Schema.
fn plain_words(map: &mut Map<String, Value>) {
    if let Some(value) = map.remove("const") {
        map.insert("enum".to_owned(), json!([value]));
    }
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if let Some(number) = map.get(exclusive).filter(|v| v.is_number()).cloned() {
            map.insert(bound.to_owned(), number);
            map.insert(exclusive.to_owned(), json!(true));
        }
    }
    if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint") || f == "int") {
        map.remove("format");
    }
    if map.get("additionalProperties") == Some(&Value::Bool(false)) {
        map.remove("additionalProperties");
    }
    if map.get("default") == Some(&Value::Null) {
        map.remove("default");
    }
    if let Some(types) = map.get("type").and_then(Value::as_array).cloned() {
        let rest: Vec<Value> = types.iter().filter(|t| **t != "null").cloned().collect();
        if rest.len() < types.len() {
            map.insert("nullable".to_owned(), json!(true));
        }
        match rest.as_slice() {
            [one] => map.insert("type".to_owned(), one.clone()),
            _ => map.remove("type"),
        };
    }
    if let Some(values) = map.get_mut("enum").and_then(Value::as_array_mut) {
        let before = values.len();
        values.retain(|v| !v.is_null());
        let nullable = values.len() < before;
        let text = !values.is_empty() && values.iter().all(Value::is_string);
        if nullable {
            map.insert("nullable".to_owned(), json!(true));
        }
        if text {
            map.entry("type").or_insert(json!("string"));
        }
    }
}

/// `anyOf: [X, null]` becomes X, nullable.
fn lift_nullable(map: &mut Map<String, Value>) {
    for key in ["anyOf", "oneOf"] {
        let Some(list) = map.get_mut(key).and_then(Value::as_array_mut) else { continue };
        let before = list.len();
        list.retain(|v| v.get("type").and_then(Value::as_str) != Some("null"));
        if list.len() < before {
            map.insert("nullable".to_owned(), json!(true));
        }
    }
}

/// Alternatives that are all constants become one `enum`.
fn lift_constants(map: &mut Map<String, Value>) {
    for key in ["anyOf", "oneOf"] {
        let Some(list) = map.get(key).and_then(Value::as_array) else { continue };
        let constant = |v: &Value| v.get("enum").and_then(Value::as_array).is_some_and(|e| !e.is_empty());
        if list.is_empty() || !list.iter().all(constant) {
            continue;
        }
        let values: Vec<Value> =
            list.iter().filter_map(|v| v["enum"].as_array()).flatten().cloned().collect();
        let ty = list.iter().find_map(|v| v.get("type")).cloned().unwrap_or(json!("string"));
        map.remove(key);
        map.insert("enum".to_owned(), Value::Array(values));
        map.insert("type".to_owned(), ty);
    }
}

/// A junctor of one is no junctor.
fn lift_single(map: &mut Map<String, Value>) {
    for key in ["allOf", "anyOf", "oneOf"] {
        let single = map.get(key).and_then(Value::as_array).is_some_and(|list| list.len() <= 1);
        if !single {
            continue;
        }
        if let Some(Value::Array(list)) = map.remove(key) {
            for (name, value) in list.into_iter().filter_map(|v| v.as_object().cloned()).flatten() {
                map.entry(name).or_insert(value);
            }
        }
    }
}

/// Alternatives that are objects: their fields belong to the object, the alternatives keep what they require.
fn lift_variants(map: &mut Map<String, Value>) {
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(list)) = map.get(key) else { continue };
        if list.is_empty() || !list.iter().all(|v| v.get("type").and_then(Value::as_str) == Some("object")) {
            continue;
        }
        let list = list.clone();
        let mut kept = Vec::new();
        let mut merged = map.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        for variant in &list {
            for (name, schema) in variant["properties"].as_object().into_iter().flatten() {
                merge_field(&mut merged, name, schema);
            }
            kept.push(json!({"required": variant.get("required").cloned().unwrap_or(json!([]))}));
        }
        map.insert("type".to_owned(), json!("object"));
        map.insert("properties".to_owned(), Value::Object(merged));
        // Internally tagged variants all require the tag: they no longer differ, so the alternatives go.
        let distinct = kept.iter().enumerate().all(|(i, v)| !kept[..i].contains(v));
        if distinct && key == "oneOf" {
            map.insert(key.to_owned(), Value::Array(kept));
        } else {
            map.remove(key);
        }
    }
}

fn merge_field(fields: &mut Map<String, Value>, name: &str, schema: &Value) {
    let Some(present) = fields.get_mut(name) else {
        fields.insert(name.to_owned(), schema.clone());
        return;
    };
    // The tag of an internally tagged enum: one value from each variant.
    if let (Some(a), Some(b)) =
        (present.get_mut("enum").and_then(Value::as_array_mut), schema.get("enum").and_then(Value::as_array))
    {
        for value in b {
            if !a.contains(value) {
                a.push(value.clone());
            }
        }
    }
}
