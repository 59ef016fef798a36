//! Validation of custom objects by their schema, with the words of upstream's OpenAPI validator.

use super::expressions::old_item;
use super::node::{ListType, Node, Struct, Type};
use super::path::Path;
use super::rules::{Branch, Rules};
use crate::field::{ErrorList, FieldError};
use crate::schema::formats;
use serde_json::{Map, Number, Value};

/// Everything that `value` breaks.
pub(crate) fn validate(node: &Node, value: &Value) -> ErrorList {
    validate_change(node, value, None)
}

/// Everything that `value` breaks and that it did not break in the same place before.
pub(crate) fn validate_change(node: &Node, value: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(node, value, old, &Path::ROOT, &mut errors);
    errors
}

fn walk(node: &Node, value: &Value, old: Option<&Value>, at: &Path<'_>, errors: &mut ErrorList) {
    if let Type::Ref(_) = node.ty {
        return;
    }
    if old == Some(value) {
        return;
    }
    if value.is_null() && node.nullable {
        return;
    }
    if !has_type(&node.ty, value) {
        errors.push(type_error(type_name(&node.ty), value, at));
        return;
    }
    if let Some(rules) = &node.rules {
        check_rules(rules, value, at, errors);
    }
    match (&node.ty, value) {
        (Type::Struct(s), Value::Object(map)) => walk_struct(s, map, old, at, errors),
        (Type::Map(inner), Value::Object(map)) => {
            for (key, value) in map {
                walk(inner, value, old.and_then(|o| o.get(key)), &at.key(key), errors);
            }
        }
        (Type::List(item), Value::Array(list)) => {
            for (i, value) in list.iter().enumerate() {
                walk(item, value, old_item(node, old, value), &at.index(i), errors);
            }
            check_list(node, list, at, errors);
        }
        _ => {}
    }
}

fn walk_struct(
    s: &Struct,
    map: &Map<String, Value>,
    old: Option<&Value>,
    at: &Path<'_>,
    errors: &mut ErrorList,
) {
    for name in &s.required {
        if !map.contains_key(&**name) {
            errors.push(FieldError::required(&at.field(name).to_field(), ""));
        }
    }
    for (name, value) in map {
        let old = old.and_then(|o| o.get(name));
        if let Some(field) = s.fields.get(name.as_str()) {
            walk(field, value, old, &at.field(name), errors);
        } else if let Some(additional) = &s.additional {
            walk(additional, value, old, &at.key(name), errors);
        }
    }
}

fn has_type(ty: &Type, value: &Value) -> bool {
    match ty {
        Type::Any | Type::Ref(_) | Type::ObjectOr(_) => true,
        Type::Boolean => value.is_boolean(),
        Type::Int32 | Type::Int64 => match value {
            Value::Number(n) => n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0),
            _ => false,
        },
        Type::Number => value.is_number(),
        Type::String | Type::Bytes | Type::Time | Type::MicroTime => value.is_string(),
        Type::Quantity => value.is_string() || value.is_number(),
        Type::IntOrString => value.is_string() || value.is_i64() || value.is_u64(),
        Type::List(_) => value.is_array(),
        Type::Map(_) | Type::Struct(_) => value.is_object(),
    }
}

fn type_name(ty: &Type) -> &'static str {
    match ty {
        Type::Any | Type::Ref(_) | Type::ObjectOr(_) => "any",
        Type::Boolean => "boolean",
        Type::Int32 | Type::Int64 => "integer",
        Type::Number => "number",
        Type::String | Type::Bytes | Type::Time | Type::MicroTime | Type::Quantity => "string",
        Type::IntOrString => "integer,string",
        Type::List(_) => "array",
        Type::Map(_) | Type::Struct(_) => "object",
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_error(wanted: &str, value: &Value, at: &Path<'_>) -> FieldError {
    let found = json_type(value);
    let detail = format!("{} in body must be of type {wanted}: {found:?}", at.dotted());
    FieldError::type_invalid(&at.to_field(), found, &detail)
}

fn invalid(value: &Value, at: &Path<'_>, what: &str) -> FieldError {
    let detail = format!("{} in body {what}", at.dotted());
    FieldError::invalid(&at.to_field(), value.clone(), &detail)
}

fn check_rules(rules: &Rules, value: &Value, at: &Path<'_>, errors: &mut ErrorList) {
    if let Some(values) = rules.enum_values.as_ref().filter(|v| !v.contains(value)) {
        let texts: Vec<String> =
            values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(&at.to_field(), value.clone(), &texts));
    }
    match value {
        Value::String(text) => check_string(rules, text, value, at, errors),
        Value::Number(n) => check_number(rules, n, value, at, errors),
        Value::Array(list) => check_items(rules, list, value, at, errors),
        Value::Object(map) => check_properties(rules, map, value, at, errors),
        _ => {}
    }
    check_junctors(rules, value, at, errors);
}

fn check_string(rules: &Rules, text: &str, value: &Value, at: &Path<'_>, errors: &mut ErrorList) {
    let chars = || text.chars().count() as u64;
    if let Some(max) = rules.max_length.filter(|max| chars() > *max) {
        errors.push(FieldError::too_long(&at.to_field(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = rules.min_length.filter(|min| chars() < *min) {
        errors.push(invalid(value, at, &format!("should be at least {min} chars long")));
    }
    if let Some((pattern, _)) = rules.pattern.as_ref().filter(|(_, regex)| !regex.is_match(text)) {
        errors.push(invalid(value, at, &format!("should match '{pattern}'")));
    }
    if let Some(format) = rules.format.as_ref().filter(|f| !formats::accepts(f, text)) {
        let detail = format!("{} in body must be of type {format}: {text:?}", at.dotted());
        errors.push(FieldError::type_invalid(&at.to_field(), text, &detail));
    }
}

fn check_number(rules: &Rules, n: &Number, value: &Value, at: &Path<'_>, errors: &mut ErrorList) {
    if let Some(min) = &rules.minimum {
        let order = compare(n, min);
        if order.is_lt() || (rules.exclusive_minimum && order.is_eq()) {
            let or_equal = if rules.exclusive_minimum { "" } else { " or equal to" };
            errors.push(invalid(value, at, &format!("should be greater than{or_equal} {min}")));
        }
    }
    if let Some(max) = &rules.maximum {
        let order = compare(n, max);
        if order.is_gt() || (rules.exclusive_maximum && order.is_eq()) {
            let or_equal = if rules.exclusive_maximum { "" } else { " or equal to" };
            errors.push(invalid(value, at, &format!("should be less than{or_equal} {max}")));
        }
    }
    if let Some(step) = rules.multiple_of.as_ref().filter(|step| !is_multiple(n, step)) {
        errors.push(invalid(value, at, &format!("should be a multiple of {step}")));
    }
    let format = rules.format.as_deref();
    if format == Some("int32") && n.as_i64().is_none_or(|i| i32::try_from(i).is_err()) {
        errors.push(invalid(value, at, &format!("must be of type int32: {:?}", json_type(value))));
    }
}

fn compare(a: &Number, b: &Number) -> std::cmp::Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
        }
    }
}

fn is_multiple(n: &Number, step: &Number) -> bool {
    match (n.as_i128(), step.as_i128()) {
        (Some(n), Some(step)) => step != 0 && n % step == 0,
        _ => {
            let ratio = n.as_f64().unwrap_or(f64::NAN) / step.as_f64().unwrap_or(f64::NAN);
            (ratio - ratio.round()).abs() < 1e-9
        }
    }
}

fn check_items(rules: &Rules, list: &[Value], value: &Value, at: &Path<'_>, errors: &mut ErrorList) {
    let count = list.len() as u64;
    if let Some(max) = rules.max_items.filter(|max| count > *max) {
        errors.push(FieldError::too_many(
            &at.to_field(),
            list.len(),
            usize::try_from(max).unwrap_or(usize::MAX),
        ));
    }
    if let Some(min) = rules.min_items.filter(|min| count < *min) {
        errors.push(invalid(value, at, &format!("should have at least {min} items")));
    }
    if rules.unique_items && first_repeated(list).is_some() {
        errors.push(invalid(value, at, "shouldn't contain duplicates"));
    }
}

fn check_properties(
    rules: &Rules,
    map: &Map<String, Value>,
    value: &Value,
    at: &Path<'_>,
    errors: &mut ErrorList,
) {
    let count = map.len() as u64;
    if let Some(max) = rules.max_properties.filter(|max| count > *max) {
        errors.push(FieldError::too_many(
            &at.to_field(),
            map.len(),
            usize::try_from(max).unwrap_or(usize::MAX),
        ));
    }
    if let Some(min) = rules.min_properties.filter(|min| count < *min) {
        errors.push(invalid(value, at, &format!("should have at least {min} properties")));
    }
}

fn check_junctors(rules: &Rules, value: &Value, at: &Path<'_>, errors: &mut ErrorList) {
    let holds = |branch: &Branch| {
        let mut found = ErrorList::new();
        check_branch(branch, value, at, &mut found);
        found
    };
    if !rules.any_of.is_empty() {
        let results: Vec<ErrorList> = rules.any_of.iter().map(holds).collect();
        if results.iter().all(|r| !r.is_empty()) {
            errors.push(invalid(value, at, "must validate at least one schema (anyOf)"));
            errors.extend(best(results));
        }
    }
    if !rules.one_of.is_empty() {
        let results: Vec<ErrorList> = rules.one_of.iter().map(holds).collect();
        match results.iter().filter(|r| r.is_empty()).count() {
            1 => {}
            0 => {
                let what = "must validate one and only one schema (oneOf). Found none valid";
                errors.push(invalid(value, at, what));
                errors.extend(best(results));
            }
            n => {
                let what =
                    format!("must validate one and only one schema (oneOf). Found {n} valid alternatives");
                errors.push(invalid(value, at, &what));
            }
        }
    }
    if !rules.all_of.is_empty() {
        let found: ErrorList = rules.all_of.iter().flat_map(holds).collect();
        if !found.is_empty() {
            errors.extend(found);
            errors.push(invalid(value, at, "must validate all the schemas (allOf)"));
        }
    }
    if rules.not.as_ref().is_some_and(|not| holds(not).is_empty()) {
        errors.push(invalid(value, at, "must not validate the schema (not)"));
    }
}

/// The alternative that came closest.
fn best(results: Vec<ErrorList>) -> ErrorList {
    results.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

fn check_branch(branch: &Branch, value: &Value, at: &Path<'_>, errors: &mut ErrorList) {
    if let Some(wanted) = branch.json_type.as_deref() {
        let found = json_type(value);
        if found != wanted && !(wanted == "number" && found == "integer") {
            errors.push(type_error(wanted, value, at));
            return;
        }
    }
    check_rules(&branch.rules, value, at, errors);
    match value {
        Value::Object(map) => {
            for name in branch.required.iter().filter(|n| !map.contains_key(&***n)) {
                errors.push(FieldError::required(&at.field(name).to_field(), ""));
            }
            for (name, value) in map {
                match (branch.fields.iter().find(|(n, _)| **n == **name), &branch.additional) {
                    (Some((_, field)), _) => check_branch(field, value, &at.field(name), errors),
                    (None, Some(additional)) => check_branch(additional, value, &at.key(name), errors),
                    (None, None) => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(item) = &branch.items {
                list.iter().enumerate().for_each(|(i, v)| check_branch(item, v, &at.index(i), errors));
            }
        }
        _ => {}
    }
}

/// List sets hold each value once, list maps each key.
fn check_list(node: &Node, list: &[Value], at: &Path<'_>, errors: &mut ErrorList) {
    match node.list_type() {
        ListType::Atomic => {}
        ListType::Set => {
            let mut seen = std::collections::BTreeSet::new();
            for (i, value) in list.iter().enumerate() {
                if !seen.insert(value.to_string()) {
                    errors.push(FieldError::duplicate(&at.index(i).to_field(), value.clone()));
                }
            }
        }
        ListType::Map => {
            let mut seen = std::collections::BTreeSet::new();
            for (i, value) in list.iter().enumerate() {
                let keys: Map<String, Value> =
                    node.map_keys().filter_map(|k| value.get(k).map(|v| (k.to_owned(), v.clone()))).collect();
                let keys = Value::Object(keys);
                if !seen.insert(keys.to_string()) {
                    errors.push(FieldError::duplicate(&at.index(i).to_field(), keys));
                }
            }
        }
    }
}

fn first_repeated(list: &[Value]) -> Option<&Value> {
    let mut seen = std::collections::BTreeSet::new();
    list.iter().find(|v| !seen.insert(v.to_string()))
}
