//! Draws `data/kubernetes-1.36.facts` from the OpenAPI v2 document of a Kubernetes API server (`kubectl get --raw /openapi/v2`).
//!
//! `cargo run -p kubewright-core --example facts -- openapi-v2.json > core/data/kubernetes-1.36.facts`

use serde_json::{Map, Value};
use std::collections::BTreeMap;

const HEAD: &str = "# Facts about Kubernetes' built-in types, without prose: drawn by core/examples/facts.rs from the OpenAPI v2 document of 1.36.
# A definition is a line of `=name kinds flags`, then a line for each field: `name(! if required) type facts`.
# Types: s string, b boolean, i int32, l int64, d number, y base64, t time, u micro time, q quantity, x int or string, o object, * anything,
# [T] list, {T} map, @name another definition. Facts: set, map=keys, atomic, atomicmap (server-side apply); key=, merge, retain (strategic merge).";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: facts OPENAPI_V2.json")?;
    let document: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let definitions = document["definitions"].as_object().ok_or("no definitions in this document")?;
    let mut blocks = BTreeMap::new();
    for (name, definition) in definitions {
        if special(name).is_none() {
            blocks.insert(short(name).to_owned(), block(name, definition));
        }
    }
    println!("{HEAD}");
    for block in blocks.values() {
        print!("{block}");
    }
    Ok(())
}

fn short(name: &str) -> &str {
    name.strip_prefix("io.k8s.api.").unwrap_or(name)
}

/// Definitions whose JSON is no object of known fields.
fn special(name: &str) -> Option<&'static str> {
    Some(match name.rsplit('.').next()? {
        "Quantity" if name.contains("api.resource") => "q",
        "IntOrString" => "x",
        "Time" if name.contains("meta.v1") => "t",
        "MicroTime" => "u",
        "RawExtension" | "FieldsV1" => "o",
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => "*",
        _ => return None,
    })
}

fn block(name: &str, definition: &Value) -> String {
    let mut out = format!("={}", short(name));
    let kinds = definition["x-kubernetes-group-version-kind"].as_array().map_or(&[][..], Vec::as_slice);
    // Kinds of requests (DeleteOptions, WatchEvent) name every group; only the first is theirs.
    for kind in kinds.iter().take(if kinds.len() > 5 { 1 } else { 5 }) {
        out += &format!(" {}/{}/{}", text(kind, "group"), text(kind, "version"), text(kind, "kind"));
    }
    if text(definition, "x-kubernetes-map-type") == "atomic" {
        out += " atomic";
    }
    out.push('\n');
    let required: Vec<&str> =
        definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let empty = Map::new();
    for (field, schema) in definition["properties"].as_object().unwrap_or(&empty) {
        let mark = if required.contains(&field.as_str()) { "!" } else { "" };
        out += &format!("{field}{mark} {}{}\n", ty(schema), merge(schema));
    }
    out
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn ty(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/definitions/");
        return special(name).map_or_else(|| format!("@{}", short(name)), str::to_owned);
    }
    match (text(schema, "type"), text(schema, "format")) {
        ("string", "byte") => "y".to_owned(),
        ("string", _) => "s".to_owned(),
        ("boolean", _) => "b".to_owned(),
        ("integer", "int32") => "i".to_owned(),
        ("integer", _) => "l".to_owned(),
        ("number", _) => "d".to_owned(),
        ("array", _) => format!("[{}]", ty(&schema["items"])),
        ("object", _) if schema["additionalProperties"].is_object() => {
            format!("{{{}}}", ty(&schema["additionalProperties"]))
        }
        ("object", _) => "o".to_owned(),
        _ => "*".to_owned(),
    }
}

fn merge(schema: &Value) -> String {
    let mut out = String::new();
    match text(schema, "x-kubernetes-list-type") {
        "map" => {
            let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            out += &format!(" map={}", keys.join(","));
        }
        "" => {}
        other => out += &format!(" {other}"),
    }
    if text(schema, "x-kubernetes-map-type") == "atomic" {
        out += " atomicmap";
    }
    if !text(schema, "x-kubernetes-patch-merge-key").is_empty() {
        out += &format!(" key={}", text(schema, "x-kubernetes-patch-merge-key"));
    }
    for strategy in text(schema, "x-kubernetes-patch-strategy").split(',') {
        match strategy {
            "merge" => out += " merge",
            "retainKeys" => out += " retain",
            _ => {}
        }
    }
    out
}
