//! Strategic merge patches against a model of the client: what it writes down as the difference of two objects must lead from one
//! to the other, and leave alone what only the server knows.

use super::check;
use kubewright_core::{Schema, patch};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// How a field merges, told apart from the schemas.
enum Shape {
    Plain,
    Map(&'static [(&'static str, Shape)]),
    Set,
    Keyed(&'static str, &'static [(&'static str, Shape)]),
}

const CONTAINER: &[(&str, Shape)] = &[
    ("env", Shape::Keyed("name", &[])),
    ("ports", Shape::Keyed("containerPort", &[])),
    ("args", Shape::Plain),
];
const POD: &[(&str, Shape)] = &[
    ("metadata", Shape::Map(&[("labels", Shape::Map(&[])), ("finalizers", Shape::Set)])),
    ("spec", Shape::Map(&[("containers", Shape::Keyed("name", CONTAINER)), ("tolerations", Shape::Plain)])),
];

fn shape<'s>(fields: &'s [(&str, Shape)], name: &str) -> &'s Shape {
    fields.iter().find(|(n, _)| *n == name).map_or(&Shape::Plain, |(_, shape)| shape)
}

/// The patch that a client sends to make `new` of `old`.
fn difference(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    fields: &[(&str, Shape)],
) -> Map<String, Value> {
    let mut out = Map::new();
    for name in old.keys().filter(|n| !new.contains_key(*n)) {
        out.insert(name.clone(), Value::Null);
    }
    for (name, value) in new.iter().filter(|(n, v)| old.get(*n) != Some(v)) {
        let before = old.get(name);
        match (shape(fields, name), before, value) {
            (Shape::Map(fields), Some(Value::Object(a)), Value::Object(b)) => {
                out.insert(name.clone(), Value::Object(difference(a, b, fields)));
            }
            (Shape::Set, Some(Value::Array(a)), Value::Array(b)) => {
                let fresh: Vec<Value> = b.iter().filter(|v| !a.contains(v)).cloned().collect();
                let gone: Vec<Value> = a.iter().filter(|v| !b.contains(v)).cloned().collect();
                if !fresh.is_empty() {
                    out.insert(name.clone(), Value::from(fresh));
                }
                if !gone.is_empty() {
                    out.insert(format!("$deleteFromPrimitiveList/{name}"), Value::from(gone));
                }
                out.insert(format!("$setElementOrder/{name}"), value.clone());
            }
            (Shape::Keyed(key, fields), Some(Value::Array(a)), Value::Array(b)) => {
                let items = item_differences(a, b, key, fields);
                if !items.is_empty() {
                    out.insert(name.clone(), Value::from(items));
                }
                let order: Vec<Value> = b.iter().map(|v| json!({*key: v[*key]})).collect();
                out.insert(format!("$setElementOrder/{name}"), Value::from(order));
            }
            _ => drop(out.insert(name.clone(), value.clone())),
        }
    }
    out
}

fn item_differences(old: &[Value], new: &[Value], key: &str, fields: &[(&str, Shape)]) -> Vec<Value> {
    let mut out = Vec::new();
    for item in new {
        let before = old.iter().find(|v| v[key] == item[key]);
        let mut change = match before {
            Some(before) => difference(before.as_object().unwrap(), item.as_object().unwrap(), fields),
            None => item.as_object().unwrap().clone(),
        };
        if !change.is_empty() {
            change.insert(key.to_owned(), item[key].clone());
            out.push(Value::Object(change));
        }
    }
    let gone = old.iter().filter(|v| new.iter().all(|n| n[key] != v[key]));
    out.extend(gone.map(|v| json!({"$patch": "delete", key: v[key]})));
    out
}

/// Items with keys that stand once each.
fn once(items: Vec<Value>, key: &'static str) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|v| seen.insert(v[key].to_string())).collect()
}

fn pod() -> impl Strategy<Value = Value> {
    let env = vec(("[a-d]", "[0-2]").prop_map(|(n, v)| json!({"name": n, "value": v})), 0..4);
    let ports = vec((1u16..5, "[ab]").prop_map(|(p, n)| json!({"containerPort": p, "name": n})), 0..4);
    let container = ("[a-e]", "[x-z]", vec("[0-9]", 0..3), env, ports).prop_map(|(name, image, args, env, ports)| {
        json!({"name": name, "image": image, "args": args, "env": once(env, "name"), "ports": once(ports, "containerPort")})
    });
    let finalizers = vec("[a-f]/x", 0..5).prop_map(|mut f| {
        let mut seen = BTreeSet::new();
        f.retain(|v| seen.insert(v.clone()));
        f
    });
    let tolerations = vec("[a-c]".prop_map(|k| json!({"key": k})), 0..3);
    (btree_map("[a-d]", "[0-2]", 0..4), finalizers, vec(container, 0..5), tolerations).prop_map(
        |(labels, finalizers, containers, tolerations)| {
            json!({"metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": once(containers, "name"), "tolerations": tolerations}})
        },
    )
}

fn patched(object: &Value, change: &Value) -> Value {
    let mut out = object.clone();
    patch::strategic_merge(&mut out, change, &Schema::builtin("", "v1", "Pod").unwrap()).unwrap();
    out
}

#[test]
fn what_a_client_writes_down_leads_to_what_it_wants() {
    check(300, (pod(), pod()), |(old, new)| {
        let change = Value::Object(difference(old.as_object().unwrap(), new.as_object().unwrap(), POD));
        prop_assert_eq!(patched(&old, &change), new, "by {}", change);
        Ok(())
    });
}

#[test]
fn what_only_the_server_knows_stays() {
    check(300, (pod(), pod(), 0usize..6), |(old, new, at)| {
        let change = Value::Object(difference(old.as_object().unwrap(), new.as_object().unwrap(), POD));
        let mut live = old.clone();
        let extra = json!({"name": "extra", "image": "server"});
        let containers = live["spec"]["containers"].as_array_mut().unwrap();
        containers.insert(at.min(containers.len()), extra.clone());
        live["metadata"]["labels"]["server"] = json!("1");
        live["metadata"]["finalizers"].as_array_mut().unwrap().push(json!("server/x"));
        let mut result = patched(&live, &change);
        let containers = result["spec"]["containers"].as_array_mut().unwrap();
        let found = containers.iter().position(|c| *c == extra);
        prop_assert!(found.is_some(), "{} lost it by {}", live, change);
        containers.remove(found.unwrap());
        let labels = result["metadata"]["labels"].as_object_mut().unwrap();
        prop_assert_eq!(labels.remove("server"), Some(json!("1")));
        let finalizers = result["metadata"]["finalizers"].as_array_mut().unwrap();
        let found = finalizers.iter().position(|f| f == "server/x");
        prop_assert!(found.is_some(), "{} lost it by {}", live, change);
        finalizers.remove(found.unwrap());
        prop_assert_eq!(result, new, "by {}", change);
        Ok(())
    });
}
