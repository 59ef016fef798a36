//! The values: an applied object merged into the live one, and fields taken out of an object.

use super::element;
use super::set::FieldSet;
use super::walk::{field, is_atomic, item};
use crate::schema::Node;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};
use smol_str::SmolStr;

/// The live value with the applied one merged in: items of lists by their keys, everything else replaced.
pub(super) fn merge(node: Option<&Node>, live: &Value, applied: &Value) -> Value {
    if is_atomic(node, applied) {
        return applied.clone();
    }
    match (live, applied) {
        (Value::Object(a), Value::Object(b)) if !(a.is_empty() && b.is_empty()) => {
            Value::Object(merge_fields(node, a, b))
        }
        (Value::Array(a), Value::Array(b)) if !(a.is_empty() && b.is_empty()) => {
            Value::Array(merge_items(node, a, b))
        }
        _ => applied.clone(),
    }
}

fn merge_fields(
    node: Option<&Node>,
    live: &Map<String, Value>,
    applied: &Map<String, Value>,
) -> Map<String, Value> {
    let mut out = live.clone();
    for (name, value) in applied {
        match out.get_mut(name) {
            Some(own) => *own = merge(field(node, name), own, value),
            None => drop(out.insert(name.clone(), value.clone())),
        }
    }
    out
}

/// Items that both have stand in the applied order, and those of one side keep their neighbours as far as that allows.
fn merge_items(node: Option<&Node>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let child = node.and_then(Node::items);
    let keys = |items: &[Value]| -> Vec<SmolStr> {
        items.iter().enumerate().map(|(at, value)| item(node, at, value)).collect()
    };
    let (live_keys, applied_keys) = (keys(live), keys(applied));
    let applied_at: FxHashSet<&SmolStr> = applied_keys.iter().collect();
    // An item that is there twice is not merged but replaced.
    let mut live_at: FxHashMap<&SmolStr, Option<&Value>> = FxHashMap::default();
    for (key, value) in live_keys.iter().zip(live) {
        live_at.entry(key).and_modify(|known| *known = None).or_insert(Some(value));
    }
    let merged = |key: &SmolStr, value: &Value| match live_at.get(key) {
        Some(Some(own)) => merge(child, own, value),
        _ => value.clone(),
    };
    let mut shared = applied_keys.iter().filter(|key| live_at.contains_key(*key));
    let mut next_shared = shared.next();
    let mut done: FxHashSet<&SmolStr> = FxHashSet::default();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < applied.len() {
        if l < live.len() {
            let key = &live_keys[l];
            if !applied_at.contains(key) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            let wanted = r < applied.len() && *key == applied_keys[r];
            if !wanted && (done.contains(key) || next_shared.is_some_and(|next| next != key)) {
                // It comes, or came, where the applied list has it.
                l += 1;
                continue;
            }
            l += usize::from(wanted);
        }
        if r < applied.len() {
            let key = &applied_keys[r];
            if done.insert(key) {
                out.push(merged(key, &applied[r]));
            }
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
            r += 1;
        }
    }
    out
}

/// The value without the paths of a set; null where nothing is left.
pub(super) fn remove(node: Option<&Node>, value: &Value, paths: &FieldSet) -> Value {
    match value {
        Value::Object(map) if !is_atomic(node, value) => {
            let mut out = Map::new();
            for (name, value) in map {
                match paths.get(&element::field(name)) {
                    None => drop(out.insert(name.clone(), value.clone())),
                    Some(entry) if entry.member => {}
                    Some(entry) => {
                        drop(out.insert(name.clone(), remove(field(node, name), value, &entry.below)))
                    }
                }
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        Value::Array(items) if !is_atomic(node, value) => {
            let mut out = Vec::new();
            for (at, value) in items.iter().enumerate() {
                match paths.get(&item(node, at, value)) {
                    None => out.push(value.clone()),
                    Some(entry) if entry.member => {}
                    Some(entry) => out.push(remove(node.and_then(Node::items), value, &entry.below)),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        Value::Object(_) | Value::Array(_) => Value::Null,
        scalar => scalar.clone(),
    }
}
