//! Compiles an OpenAPI v3 document, as a CustomResourceDefinition carries it, and tells what keeps it from being structural.

use super::facts;
use super::node::{ListType, MergeFacts, Node, Struct, Type, seal};
use super::rules::{Branch, Rules};
use crate::field::{ErrorList, FieldError, FieldPath};
use regex::Regex;
use serde_json::{Map, Value};
use std::sync::OnceLock;

/// Deeper schemas are refused: every pass walks them by recursion.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Compiles a whole document and gives the root the fields that every object has.
pub(crate) fn compile_root(document: &Value) -> Result<Node, ErrorList> {
    let mut errors = ErrorList::new();
    let root = FieldPath::root();
    let mut node = compile(document, &root, Level::Root, 0, &mut errors);
    check_metadata(document, &root, &mut errors);
    if document.get("additionalProperties").is_some() {
        errors
            .push(FieldError::forbidden(&root.child("additionalProperties"), "must not be used at the root"));
    }
    add_resource_fields(&mut node);
    errors.sort_by_key(ToString::to_string);
    if errors.is_empty() { Ok(node) } else { Err(errors) }
}

/// `apiVersion`, `kind` and `metadata` belong to every resource, whatever its schema says of them.
fn add_resource_fields(node: &mut Node) {
    if let Type::Map(_) | Type::Any = node.ty {
        let additional = match std::mem::take(&mut node.ty) {
            Type::Map(inner) => Some(inner),
            _ => None,
        };
        node.ty = Type::Struct(Box::new(Struct { additional, ..Struct::default() }));
    }
    if let Type::Struct(s) = &mut node.ty {
        let meta = facts::by_name(facts::OBJECT_META).map_or(Type::Any, Type::Ref);
        s.fields.insert("metadata".into(), Node::of(meta));
        for name in ["apiVersion", "kind"] {
            s.fields.entry(name.into()).or_insert_with(|| Node::of(Type::String));
        }
        seal(s);
    }
}

fn check_metadata(document: &Value, at: &FieldPath, errors: &mut ErrorList) {
    let Some(metadata) = document.pointer("/properties/metadata").and_then(Value::as_object) else { return };
    let at = at.child("properties").key("metadata");
    if metadata.get("type").and_then(Value::as_str).is_some_and(|t| t != "object") {
        errors.push(FieldError::invalid(&at.child("type"), metadata["type"].clone(), "must be object"));
    }
    let foreign = metadata
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|p| p.keys().any(|k| k != "name" && k != "generateName"));
    if foreign {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(&at, detail));
    }
}

fn compile(schema: &Value, at: &FieldPath, level: Level, depth: usize, errors: &mut ErrorList) -> Node {
    let Some(map) = schema.as_object() else {
        errors.push(FieldError::invalid(at, schema.clone(), "must be a schema"));
        return Node::default();
    };
    if depth > DEPTH_MAX {
        errors.push(FieldError::forbidden(at, "the schema is nested too deeply"));
        return Node::default();
    }
    let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let mut node = Node {
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        nullable: flag("nullable"),
        default: map.get("default").cloned().map(Box::new),
        merge: merge_facts(map, at, errors),
        ..Node::default()
    };
    node.ty = compile_type(map, at, level, depth, errors);
    node.rules = compile_rules(map, at, depth, errors).map(Box::new);
    check_extensions(map, at, errors);
    if node.embedded {
        add_resource_fields(&mut node);
    }
    node.has_defaults = node.default.is_some() || defaults_below(&node);
    node.rules_below = rules_below(&node);
    node
}

fn rules_below(node: &Node) -> bool {
    let own = node.rules.as_ref().is_some_and(|r| !r.expressions.is_empty());
    own || match &node.ty {
        Type::List(inner) | Type::Map(inner) => inner.rules_below,
        Type::Struct(s) => {
            s.fields.values().any(|f| f.rules_below) || s.additional.as_ref().is_some_and(|a| a.rules_below)
        }
        _ => false,
    }
}

fn defaults_below(node: &Node) -> bool {
    match &node.ty {
        Type::List(inner) | Type::Map(inner) => inner.has_defaults,
        Type::Struct(s) => !s.defaulted.is_empty() || s.additional.as_ref().is_some_and(|a| a.has_defaults),
        _ => false,
    }
}

fn compile_type(
    map: &Map<String, Value>,
    at: &FieldPath,
    level: Level,
    depth: usize,
    errors: &mut ErrorList,
) -> Type {
    let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let ty = map.get("type").and_then(Value::as_str).unwrap_or("");
    if flag("x-kubernetes-int-or-string") {
        if !ty.is_empty() {
            let detail = "must be empty if x-kubernetes-int-or-string is true";
            errors.push(FieldError::forbidden(&at.child("type"), detail));
        }
        return Type::IntOrString;
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(FieldError::invalid(&at.child("type"), ty, "must be object at the root"));
    }
    match ty {
        "object" => compile_object(map, at, depth, errors),
        "array" => match map.get("items") {
            Some(Value::Array(_)) => {
                errors.push(FieldError::forbidden(
                    &at.child("items"),
                    "items must be a schema object and not an array",
                ));
                Type::Any
            }
            Some(items) => {
                Type::List(Box::new(compile(items, &at.child("items"), Level::Item, depth + 1, errors)))
            }
            None => {
                errors.push(FieldError::required(&at.child("items"), "must be specified"));
                Type::Any
            }
        },
        "string" => Type::String,
        "boolean" => Type::Boolean,
        "number" => Type::Number,
        "integer" if map.get("format").and_then(Value::as_str) == Some("int32") => Type::Int32,
        "integer" => Type::Int64,
        "" => {
            if !flag("x-kubernetes-preserve-unknown-fields") {
                let detail = match level {
                    Level::Root => "must not be empty at the root",
                    Level::Field => "must not be empty for specified object fields",
                    Level::Item => "must not be empty for specified array items",
                };
                errors.push(FieldError::required(&at.child("type"), detail));
            }
            if map.contains_key("properties") { compile_object(map, at, depth, errors) } else { Type::Any }
        }
        other => {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            errors.push(FieldError::not_supported(&at.child("type"), other, &known));
            Type::Any
        }
    }
}

fn compile_object(map: &Map<String, Value>, at: &FieldPath, depth: usize, errors: &mut ErrorList) -> Type {
    let properties = map.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty());
    let additional = match map.get("additionalProperties") {
        Some(Value::Bool(true)) => Some(Box::new(Node { preserve: true, ..Node::default() })),
        Some(Value::Bool(false)) => {
            let at = at.child("additionalProperties");
            errors.push(FieldError::forbidden(&at, "additionalProperties cannot be set to false"));
            None
        }
        Some(schema) => {
            let at = at.child("additionalProperties");
            Some(Box::new(compile(schema, &at, Level::Field, depth + 1, errors)))
        }
        None => None,
    };
    if properties.is_some() && additional.is_some() {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(&at.child("additionalProperties"), detail));
    }
    let required = strings(map, "required");
    match (properties, additional) {
        (None, Some(inner)) if required.is_empty() => Type::Map(inner),
        (properties, additional) => {
            let mut s = Struct { required, additional, ..Struct::default() };
            for (name, schema) in properties.into_iter().flatten() {
                let at = at.child("properties").key(name);
                let node = compile(schema, &at, Level::Field, depth + 1, errors);
                s.fields.insert(name.as_str().into(), node);
            }
            seal(&mut s);
            Type::Struct(Box::new(s))
        }
    }
}

fn strings(map: &Map<String, Value>, key: &str) -> Vec<Box<str>> {
    let list = map.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(Box::from).collect()
}

fn merge_facts(map: &Map<String, Value>, at: &FieldPath, errors: &mut ErrorList) -> Option<Box<MergeFacts>> {
    let mut facts = MergeFacts { keys: strings(map, "x-kubernetes-list-map-keys"), ..MergeFacts::default() };
    if let Some(list) = map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        facts.list = match list {
            "atomic" => {
                facts.said_atomic = true;
                ListType::Atomic
            }
            "set" => ListType::Set,
            "map" => ListType::Map,
            other => {
                let at = at.child("x-kubernetes-list-type");
                errors.push(FieldError::not_supported(&at, other, &["atomic", "map", "set"]));
                ListType::Atomic
            }
        };
    }
    facts.atomic_map = map.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    (facts != MergeFacts::default()).then(|| Box::new(facts))
}

fn check_extensions(map: &Map<String, Value>, at: &FieldPath, errors: &mut ErrorList) {
    let ty = map.get("type").and_then(Value::as_str).unwrap_or("");
    let preserve = map.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool);
    if preserve == Some(false) {
        let at = at.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&at, false, "must be true or undefined"));
    }
    if map.get("x-kubernetes-embedded-resource").and_then(Value::as_bool) == Some(true) {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        match ty {
            "object" => {}
            "" => errors.push(FieldError::required(&at.child("type"), detail)),
            _ => errors.push(FieldError::invalid(&at.child("type"), ty, detail)),
        }
        if map.contains_key("additionalProperties") {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(&at.child("additionalProperties"), detail));
        }
        if preserve != Some(true) && !map.contains_key("properties") {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(FieldError::required(&at.child("properties"), detail));
        }
    }
    if map.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if map.get(name).and_then(Value::as_bool) == Some(true) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(&at.child(name), true, detail));
            }
        }
    }
    check_list_extensions(map, ty, at, errors);
}

fn check_list_extensions(map: &Map<String, Value>, ty: &str, at: &FieldPath, errors: &mut ErrorList) {
    let list = map.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys = strings(map, "x-kubernetes-list-map-keys");
    if list.is_some() && ty != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        errors.push(FieldError::invalid(&at.child("type"), ty, detail));
    }
    if list != Some("map") && !keys.is_empty() {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(FieldError::invalid(&at.child("x-kubernetes-list-type"), list.unwrap_or(""), detail));
    }
    if list == Some("map") {
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            errors.push(FieldError::required(&at.child("x-kubernetes-list-map-keys"), detail));
        }
        let items = map.get("items");
        let properties = items.and_then(|i| i.get("properties"));
        for (i, key) in keys.iter().enumerate() {
            if properties.and_then(|p| p.get(&**key)).is_none() {
                let at = at.child("x-kubernetes-list-map-keys").index(i);
                let detail = "entries must all be names of item properties";
                errors.push(FieldError::invalid(&at, &**key, detail));
            }
        }
    }
    if let Some(kind) = map.get("x-kubernetes-map-type").and_then(Value::as_str) {
        let at = at.child("x-kubernetes-map-type");
        if kind != "atomic" && kind != "granular" {
            errors.push(FieldError::not_supported(&at, kind, &["atomic", "granular"]));
        }
        if ty != "object" {
            errors.push(FieldError::invalid(
                &at,
                kind,
                "must be object if x-kubernetes-map-type is specified",
            ));
        }
    }
}

fn compile_rules(
    map: &Map<String, Value>,
    at: &FieldPath,
    depth: usize,
    errors: &mut ErrorList,
) -> Option<Rules> {
    const WORDS: &[&str] = &[
        "enum",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "uniqueItems",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "x-kubernetes-validations",
    ];
    if !WORDS.iter().any(|w| map.contains_key(*w)) {
        return None;
    }
    let number = |name: &str| map.get(name).and_then(Value::as_number).cloned();
    let count = |name: &str| map.get(name).and_then(Value::as_u64);
    let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let list = |name: &str| map.get(name).and_then(Value::as_array).cloned();
    Some(Rules {
        enum_values: list("enum"),
        pattern: compile_pattern(map, at, errors),
        format: map.get("format").and_then(Value::as_str).map(Box::from),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        unique_items: flag("uniqueItems"),
        all_of: branches(map, "allOf", at, depth, errors),
        any_of: branches(map, "anyOf", at, depth, errors),
        one_of: branches(map, "oneOf", at, depth, errors),
        not: map
            .get("not")
            .map(|schema| Box::new(branch(schema, &at.child("not"), depth + 1, false, errors))),
        expressions: list("x-kubernetes-validations").unwrap_or_default(),
        compiled: OnceLock::new(),
    })
}

fn compile_pattern(
    map: &Map<String, Value>,
    at: &FieldPath,
    errors: &mut ErrorList,
) -> Option<(Box<str>, Regex)> {
    let pattern = map.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty())?;
    match Regex::new(pattern) {
        Ok(regex) => Some((pattern.into(), regex)),
        Err(e) => {
            let why = e.to_string();
            let last = why.lines().last().unwrap_or("").trim().to_owned();
            let detail = format!("must be a valid regular expression, but isn't: {last}");
            errors.push(FieldError::invalid(&at.child("pattern"), pattern, &detail));
            None
        }
    }
}

fn branches(
    map: &Map<String, Value>,
    name: &str,
    at: &FieldPath,
    depth: usize,
    errors: &mut ErrorList,
) -> Vec<Branch> {
    let list = map.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let at = at.child(name);
    let typed = name == "anyOf" && is_int_or_string(list);
    list.iter()
        .enumerate()
        .map(|(i, schema)| branch(schema, &at.index(i), depth + 1, typed, errors))
        .collect()
}

fn branch(schema: &Value, at: &FieldPath, depth: usize, typed: bool, errors: &mut ErrorList) -> Branch {
    let Some(map) = schema.as_object().filter(|_| depth <= DEPTH_MAX) else {
        errors.push(FieldError::invalid(at, schema.clone(), "must be a schema"));
        return Branch::default();
    };
    forbid_in_branch(map, at, typed, errors);
    let below = |name: &str, errors: &mut ErrorList| {
        map.get(name)
            .filter(|v| v.is_object())
            .map(|v| Box::new(branch(v, &at.child(name), depth + 1, false, errors)))
    };
    let (items, additional) = (below("items", errors), below("additionalProperties", errors));
    let mut fields = Vec::new();
    for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = at.child("properties").key(name);
        fields.push((name.as_str().into(), branch(schema, &at, depth + 1, false, errors)));
    }
    Branch {
        json_type: map.get("type").and_then(Value::as_str).map(Box::from),
        rules: compile_rules(map, at, depth, errors).unwrap_or_default(),
        required: strings(map, "required"),
        fields,
        items,
        additional,
    }
}

/// What only the structural part of a schema may say.
fn forbid_in_branch(map: &Map<String, Value>, at: &FieldPath, typed: bool, errors: &mut ErrorList) {
    const FORBIDDEN: &[(&str, &str)] = &[
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("description", "empty"),
        ("externalDocs", "undefined"),
        ("nullable", "false"),
        ("title", "empty"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-validations", "empty"),
    ];
    for (name, what) in FORBIDDEN {
        if map.get(*name).is_some_and(|v| !is_zero(v)) {
            errors.push(FieldError::forbidden(&at.child(name), &format!("must be {what} to be structural")));
        }
    }
    if !typed && map.get("type").is_some_and(|v| !is_zero(v)) {
        errors.push(FieldError::forbidden(&at.child("type"), "must be empty to be structural"));
    }
    if map.get("properties").and_then(|p| p.get("metadata")).is_some() {
        let at = at.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&at, "must not be specified in a nested context"));
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, the one place where alternatives may state types.
fn is_int_or_string(list: &[Value]) -> bool {
    let only = |v: &Value, ty: &str| {
        v.as_object().is_some_and(|m| m.len() == 1 && m.get("type").and_then(Value::as_str) == Some(ty))
    };
    matches!(list, [a, b] if only(a, "integer") && only(b, "string"))
}
