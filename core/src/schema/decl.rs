//! The types of expressions from the nodes of a schema, with the bounds that say how large values can get.

use super::facts::Definition;
use super::node::{ListType, Node, Struct, Type};
use super::rules::Rules;
use crate::cel::{Decl, Field, Listing, Object, REQUEST_BYTES_MAX, Type as Cel, escape};
use serde_json::Value;
use std::sync::Arc;

/// What a node's values are to expressions; nothing where they cannot be looked into. At the root of a resource metadata shows its names.
pub(crate) fn decl(node: &Node, resource: bool) -> Option<Decl> {
    let rules = node.rules.as_deref();
    let simple = |ty: Cel, min_bytes: u64| Decl { max: 0, min_bytes, ..Decl::of(ty) };
    Some(match &node.ty {
        Type::Any | Type::Ref(_) | Type::ObjectOr(_) => return None,
        Type::Boolean => simple(Cel::Bool, 4),
        Type::Int32 | Type::Int64 => simple(Cel::Int, 1),
        Type::Number => simple(Cel::Double, 1),
        Type::String | Type::Bytes | Type::Time | Type::MicroTime => text(rules),
        // Text in the worst case, and nothing is known of which.
        Type::IntOrString | Type::Quantity => {
            Decl { max: REQUEST_BYTES_MAX - 2, min_bytes: 1, ..Decl::of(Cel::Dyn) }
        }
        Type::List(item) => {
            let item = decl(item, item.embedded)?;
            let max =
                rules.and_then(|r| r.max_items).unwrap_or((REQUEST_BYTES_MAX - 2) / (item.min_bytes + 1));
            Decl { max, min_bytes: 2, list: listing(node), ty: Cel::List(Arc::new(item)) }
        }
        Type::Map(value) => map(value, rules)?,
        Type::Struct(s) => match &s.additional {
            Some(value) if s.fields.is_empty() && !resource => map(value, rules)?,
            _ => object(s, resource || node.embedded),
        },
    })
}

fn listing(node: &Node) -> Listing {
    match node.list_type() {
        ListType::Atomic => Listing::Plain,
        ListType::Set => Listing::Set,
        ListType::Map => Listing::Map(node.map_keys().map(Box::from).collect()),
    }
}

fn map(value: &Node, rules: Option<&Rules>) -> Option<Decl> {
    let Some(value) = decl(value, value.embedded) else {
        // Keys of anything: an object of which no field can be named.
        let object = Object { name: "object".to_owned(), ..Object::default() };
        return Some(Decl { max: 0, min_bytes: 2, ..Decl::of(Cel::Object(Arc::new(object))) });
    };
    let max = rules.and_then(|r| r.max_properties).unwrap_or((REQUEST_BYTES_MAX - 2) / (value.min_bytes + 6));
    let key = Decl { max: 0, min_bytes: 2, ..Decl::of(Cel::Text) };
    Some(Decl { max, min_bytes: 2, ..Decl::of(Cel::Map(Arc::new(key), Arc::new(value))) })
}

fn object(s: &Struct, resource: bool) -> Decl {
    let mut object = Object { name: "object".to_owned(), ..Object::default() };
    let mut min_bytes = 2;
    let mut add = |property: &str, decl: Decl| {
        if let Some(name) = escape(property) {
            let field = Field { property: property.into(), decl: Arc::new(decl) };
            object.fields.insert(name.into(), field);
        }
    };
    for (property, node) in &s.fields {
        if resource && matches!(&**property, "metadata" | "apiVersion" | "kind") {
            continue;
        }
        if let Some(decl) = decl(node, node.embedded) {
            if s.required.contains(property) && node.default.is_none() {
                min_bytes += property.len() as u64 + decl.min_bytes + 4;
            }
            add(property, decl);
        }
    }
    if resource {
        let text = || Decl { max: REQUEST_BYTES_MAX - 2, min_bytes: 2, ..Decl::of(Cel::Text) };
        add("apiVersion", text());
        add("kind", text());
        add("metadata", metadata());
    }
    Decl { max: 0, min_bytes, ..Decl::of(Cel::Object(Arc::new(object))) }
}

/// Expressions see no more of metadata than what an object is called.
fn metadata() -> Decl {
    let fields = ["name", "generateName"].into_iter().map(|property| {
        let decl = Decl { max: REQUEST_BYTES_MAX - 2, min_bytes: 2, ..Decl::of(Cel::Text) };
        (property.into(), Field { property: property.into(), decl: Arc::new(decl) })
    });
    let object = Object { name: "metadata".to_owned(), fields: fields.collect() };
    Decl { max: 0, min_bytes: 2, ..Decl::of(Cel::Object(Arc::new(object))) }
}

fn text(rules: Option<&Rules>) -> Decl {
    let max_length = rules.and_then(|r| r.max_length);
    let whole = REQUEST_BYTES_MAX - 2;
    let (ty, max, min_bytes) = match rules.and_then(|r| r.format.as_deref()) {
        Some("byte") => (Cel::Bytes, max_length.unwrap_or(whole), 2),
        Some("duration") => (Cel::Duration, 32, 3),
        Some("date") => (Cel::Timestamp, 12, 12),
        Some("date-time") => (Cel::Timestamp, 37, 21),
        _ => {
            let longest = |values: &Vec<Value>| values.iter().filter_map(Value::as_str).map(str::len).max();
            let choices = rules.and_then(|r| r.enum_values.as_ref()).and_then(longest);
            // Lengths are counted in characters, each of up to four bytes.
            let max = max_length.map(|l| l.saturating_mul(4)).or(choices.map(|l| l as u64)).unwrap_or(whole);
            (Cel::Text, max, 2)
        }
    };
    Decl { max, min_bytes, ..Decl::of(ty) }
}

/// How deep the types of built-in kinds are followed; what is deeper, or within itself, is anything.
const DEPTH_MAX: usize = 24;

/// What a whole kind's objects are to expressions about writes, metadata and all; what is not known is anything.
pub(crate) fn whole(node: &Node) -> Decl {
    follow(node, &mut Vec::new())
}

fn follow(node: &Node, within: &mut Vec<&'static Definition>) -> Decl {
    let list = listing(node);
    let ty = match &node.ty {
        Type::Any | Type::ObjectOr(_) | Type::IntOrString | Type::Quantity => Cel::Dyn,
        Type::Boolean => Cel::Bool,
        Type::Int32 | Type::Int64 => Cel::Int,
        Type::Number => Cel::Double,
        Type::String | Type::Bytes if node.rules.is_none() => Cel::Text,
        Type::String | Type::Bytes => text(node.rules.as_deref()).ty,
        Type::Time | Type::MicroTime => Cel::Timestamp,
        Type::List(item) => Cel::List(Arc::new(follow(item, within))),
        Type::Map(value) => Cel::Map(Arc::new(Decl::of(Cel::Text)), Arc::new(follow(value, within))),
        Type::Struct(_) if node.preserve => Cel::Dyn,
        Type::Struct(s) => match &s.additional {
            Some(_) => Cel::Dyn,
            None => whole_object(s, within),
        },
        Type::Ref(definition) => {
            let inside = within.iter().any(|d| std::ptr::eq(*d, *definition));
            if inside || within.len() > DEPTH_MAX {
                Cel::Dyn
            } else {
                within.push(definition);
                let ty = follow(definition.node(), within).ty;
                within.pop();
                ty
            }
        }
    };
    Decl { list, ..Decl::of(ty) }
}

fn whole_object(s: &Struct, within: &mut Vec<&'static Definition>) -> Cel {
    let mut object = Object { name: s.name.to_string(), ..Object::default() };
    for (property, node) in &s.fields {
        let field = Field { property: property.clone(), decl: Arc::new(follow(node, within)) };
        if let Some(name) = escape(property) {
            object.fields.insert(name.into(), field.clone());
        }
        // Policies see objects as they are: `metadata.namespace` keeps its name.
        object.fields.insert(property.clone(), field);
    }
    Cel::Object(Arc::new(object))
}
