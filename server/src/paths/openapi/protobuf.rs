//! The OpenAPI v2 document as the protobuf message of gnostic, the only form that kubectl up to 1.28 and older Go clients ask for.
//!
//! It is written from the JSON document, so both say the same. Only what our documents contain is translated.

use super::wire::Message;
use serde_json::{Map, Value};

/// The media type as it is told; clients ask for it under this and an older name.
pub(super) const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
pub(super) const OLD_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The message of a document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, text(document, "swagger"));
    out.message(2, |m| {
        m.text(1, text(&document["info"], "title"));
        m.text(2, text(&document["info"], "version"));
    });
    out.message(8, |m| {
        for (path, item) in entries(document, "paths") {
            m.message(2, |m| named(m, path, |m| path_item(m, item)));
        }
    });
    out.message(9, |m| named_schemas(m, document, "definitions"));
    out.into_bytes()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn texts(out: &mut Message, field: u32, value: &Value, key: &str) {
    for text in items(value, key).filter_map(Value::as_str) {
        out.item(field, text);
    }
}

/// A map's entry.
fn named(out: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    out.text(1, name);
    out.message(2, fill);
}

/// Any value, as YAML; JSON is YAML.
fn any(out: &mut Message, value: &Value) {
    out.text(2, &format!("{value}\n"));
}

fn extensions(out: &mut Message, field: u32, value: &Value) {
    let all = value.as_object().into_iter().flatten();
    for (name, value) in all.filter(|(name, _)| name.starts_with("x-")) {
        out.message(field, |m| named(m, name, |m| any(m, value)));
    }
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        if let Some(operation) = item.get(method) {
            out.message(field, |m| self::operation(m, operation));
        }
    }
    items(item, "parameters").for_each(|p| out.message(9, |m| parameter(m, p)));
    extensions(out, 10, item);
}

fn operation(out: &mut Message, operation: &Value) {
    texts(out, 1, operation, "tags");
    out.text(3, text(operation, "description"));
    out.text(5, text(operation, "operationId"));
    texts(out, 6, operation, "produces");
    texts(out, 7, operation, "consumes");
    items(operation, "parameters").for_each(|p| out.message(8, |m| parameter(m, p)));
    out.message(9, |m| {
        for (code, response) in entries(operation, "responses") {
            m.message(1, |m| named(m, code, |m| m.message(1, |m| self::response(m, response))));
        }
    });
    texts(out, 10, operation, "schemes");
    extensions(out, 13, operation);
}

fn response(out: &mut Message, response: &Value) {
    out.text(1, text(response, "description"));
    if let Some(schema) = response.get("schema") {
        out.message(2, |m| m.message(1, |m| self::schema(m, schema)));
    }
}

fn parameter(out: &mut Message, parameter: &Value) {
    out.message(1, |m| match text(parameter, "in") {
        "body" => m.message(1, |m| {
            m.text(1, text(parameter, "description"));
            m.text(2, text(parameter, "name"));
            m.text(3, "body");
            m.flag(4, flag(parameter, "required"));
            if let Some(schema) = parameter.get("schema") {
                m.message(5, |m| self::schema(m, schema));
            }
        }),
        place => {
            let (choice, shift) = if place == "path" { (4, 0) } else { (3, 1) };
            m.message(2, |m| m.message(choice, |m| plain_parameter(m, parameter, place, shift)));
        }
    });
}

/// A path or query parameter; a query parameter's fields stand one further from the fifth on.
fn plain_parameter(out: &mut Message, parameter: &Value, place: &str, shift: u32) {
    out.flag(1, flag(parameter, "required"));
    out.text(2, place);
    out.text(3, text(parameter, "description"));
    out.text(4, text(parameter, "name"));
    out.text(5 + shift, text(parameter, "type"));
    out.flag(19 + shift, flag(parameter, "uniqueItems"));
    extensions(out, 22 + shift, parameter);
}

fn named_schemas(out: &mut Message, value: &Value, key: &str) {
    for (name, schema) in entries(value, key) {
        out.message(1, |m| named(m, name, |m| self::schema(m, schema)));
    }
}

fn schema(out: &mut Message, schema: &Value) {
    let Some(map) = schema.as_object() else { return };
    for (field, key) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description"), (13, "pattern")] {
        out.text(field, text(schema, key));
    }
    if let Some(default) = map.get("default") {
        out.message(5, |m| any(m, default));
    }
    numbers(out, map);
    texts(out, 19, schema, "required");
    items(schema, "enum").for_each(|v| out.message(20, |m| any(m, v)));
    match map.get("additionalProperties") {
        Some(Value::Bool(open)) => out.message(21, |m| m.choice(2, *open)),
        Some(inner) => out.message(21, |m| m.message(1, |m| self::schema(m, inner))),
        None => {}
    }
    if let Some(kind) = map.get("type").and_then(Value::as_str) {
        out.message(22, |m| m.item(1, kind));
    }
    if let Some(inner) = map.get("items") {
        out.message(23, |m| m.message(1, |m| self::schema(m, inner)));
    }
    items(schema, "allOf").for_each(|inner| out.message(24, |m| self::schema(m, inner)));
    if map.contains_key("properties") {
        out.message(25, |m| named_schemas(m, schema, "properties"));
    }
    if let Some(example) = map.get("example") {
        out.message(30, |m| any(m, example));
    }
    extensions(out, 31, schema);
}

fn numbers(out: &mut Message, map: &Map<String, Value>) {
    for (field, key) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        if let Some(number) = map.get(key).and_then(Value::as_f64) {
            out.double(field, number);
        }
    }
    for (field, key) in [(8, "exclusiveMaximum"), (10, "exclusiveMinimum"), (16, "uniqueItems")] {
        out.flag(field, map.get(key).and_then(Value::as_bool).unwrap_or(false));
    }
    let counts = [
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
        (17, "maxProperties"),
        (18, "minProperties"),
    ];
    for (field, key) in counts {
        if let Some(number) = map.get(key).and_then(Value::as_i64) {
            out.integer(field, number);
        }
    }
}
