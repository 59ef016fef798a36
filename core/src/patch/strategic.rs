//! Strategic merge patch: maps merge, and lists of objects merge by the key that their schema names.

use crate::ApiError;
use crate::schema::{Node, Schema};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Applies a strategic merge patch. After an error the object is half patched, and of no use.
///
/// # Errors
/// 400 for a patch that is no object or misuses a directive, in upstream's words.
pub fn strategic_merge(object: &mut Value, patch: &Value, schema: &Schema) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request(super::no_object(patch)));
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(target) = object else { return Ok(()) };
    merge_map(target, patch, Some(schema.root()))
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::bad_request(why)
}

fn merge_map(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    node: Option<&Node>,
) -> Result<(), ApiError> {
    match patch.get(PATCH) {
        None => {}
        Some(Value::String(how)) if how == "merge" => {}
        Some(Value::String(how)) if how == "replace" => {
            *target =
                patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some(Value::String(how)) if how == "delete" => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(bad(format!("unknown patch type found: {other}"))),
    }
    retain_keys(target, patch)?;
    for (key, value) in patch {
        if key.starts_with('$') {
            merge_directive(target, patch, key, value, node)?;
        } else {
            merge_field(target, patch, key, value, node.and_then(|n| n.field(key)))?;
        }
    }
    Ok(())
}

/// `$retainKeys` empties a union of all members but those named.
fn retain_keys(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), ApiError> {
    let Some(list) = patch.get(RETAIN) else { return Ok(()) };
    let names: Option<Vec<&str>> = list.as_array().and_then(|l| l.iter().map(Value::as_str).collect());
    let Some(names) = names else { return Err(bad("invalid patch format of retainKeys list")) };
    let stray =
        patch.keys().any(|k| !k.starts_with('$') && !patch[k].is_null() && !names.contains(&k.as_str()));
    if stray {
        return Err(bad("patch contains fields not in retainKeys list"));
    }
    target.retain(|key, _| names.contains(&key.as_str()));
    Ok(())
}

/// Directives about a sibling list that the patch itself does not name.
fn merge_directive(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    key: &str,
    value: &Value,
    node: Option<&Node>,
) -> Result<(), ApiError> {
    if key == PATCH || key == RETAIN {
        return Ok(());
    }
    let field = key.strip_prefix(DELETE_PREFIX).or_else(|| key.strip_prefix(ORDER_PREFIX));
    let Some(field) = field else { return Err(bad(format!("unknown patch directive: {key}"))) };
    let Some(list) = value.as_array() else {
        return Err(bad(format!("invalid patch format: {key} must hold a list")));
    };
    let child = node.and_then(|n| n.field(field));
    if key.starts_with(DELETE_PREFIX) {
        if let Some(Value::Array(have)) = target.get_mut(field) {
            let gone: FxHashSet<&Value> = list.iter().collect();
            have.retain(|v| !gone.contains(v));
        }
    } else if !patch.contains_key(field) {
        // A patch that only reorders, or only deletes primitives.
        if let Some(Value::Array(have)) = target.get_mut(field) {
            let before = have.clone();
            *have = ordered(std::mem::take(have), list, &before, merge_key(child));
        }
    }
    Ok(())
}

fn merge_key(node: Option<&Node>) -> Option<&str> {
    node.and_then(Node::patch_merge_key)
}

fn merge_field(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    key: &str,
    value: &Value,
    node: Option<&Node>,
) -> Result<(), ApiError> {
    match value {
        Value::Null => {
            target.remove(key);
        }
        Value::Object(inner) => {
            let mut merged = match target.get_mut(key) {
                Some(Value::Object(have)) => std::mem::take(have),
                _ => Map::new(),
            };
            let deleted = inner.get(PATCH).and_then(Value::as_str) == Some("delete");
            merge_map(&mut merged, inner, node)?;
            if deleted {
                target.remove(key);
            } else {
                target.insert(key.to_owned(), Value::Object(merged));
            }
        }
        Value::Array(list) => {
            let order = patch.get(&format!("{ORDER_PREFIX}{key}")).and_then(Value::as_array);
            let have = match target.remove(key) {
                Some(Value::Array(have)) => have,
                _ => Vec::new(),
            };
            let merged = merge_list(have, list, order, node)?;
            target.insert(key.to_owned(), Value::Array(merged));
        }
        scalar => {
            target.insert(key.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_list(
    have: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
    node: Option<&Node>,
) -> Result<Vec<Value>, ApiError> {
    if !node.is_some_and(Node::patch_merges) {
        return Ok(without_directives(patch));
    }
    let key = merge_key(node);
    let before = order.map(|_| have.clone());
    let merged = match key {
        Some(key) => merge_objects(have, patch, key, node.and_then(Node::items))?,
        None => {
            let mut known: FxHashSet<Value> = have.iter().cloned().collect();
            let mut merged = have;
            merged.extend(patch.iter().filter(|value| known.insert((*value).clone())).cloned());
            merged
        }
    };
    Ok(match (order, before) {
        (Some(order), Some(before)) => ordered(merged, order, &before, key),
        _ => merged,
    })
}

/// A list that is replaced as a whole: an item that is only a directive goes.
fn without_directives(patch: &[Value]) -> Vec<Value> {
    patch
        .iter()
        .filter(|v| !(v.get(PATCH).is_some() && v.as_object().is_some_and(|m| m.len() == 1)))
        .cloned()
        .collect()
}

fn merge_objects(
    have: Vec<Value>,
    patch: &[Value],
    key: &str,
    item: Option<&Node>,
) -> Result<Vec<Value>, ApiError> {
    let directive = |v: &Value, how: &str| v.get(PATCH).and_then(Value::as_str) == Some(how);
    if patch.iter().any(|v| directive(v, "replace")) {
        return Ok(patch
            .iter()
            .filter(|v| !directive(v, "replace") && !directive(v, "delete"))
            .cloned()
            .collect());
    }
    let mut items = Items::new(have, key);
    for value in patch {
        let Value::Object(map) = value else {
            return Err(bad(format!(
                "invalid patch format: a list merged by {key:?} holds a value that is no object"
            )));
        };
        let Some(id) = map.get(key).filter(|v| !v.is_null()) else {
            return Err(bad(format!("map: {value} does not contain declared merge key: {key}")));
        };
        if directive(value, "delete") {
            items.delete(id);
        } else if let Some(found) = items.find(id) {
            merge_map(found, map, item)?;
        } else {
            let mut fresh = Map::new();
            merge_map(&mut fresh, map, item)?;
            items.push(id, fresh);
        }
    }
    Ok(items.list.into_iter().flatten().collect())
}

/// The items of a list by their merge keys: lists and patches may have tens of thousands.
struct Items {
    /// `None` where an item was deleted.
    list: Vec<Option<Value>>,
    at: FxHashMap<Value, Vec<usize>>,
}

impl Items {
    fn new(have: Vec<Value>, key: &str) -> Self {
        let mut at: FxHashMap<Value, Vec<usize>> = FxHashMap::default();
        for (place, value) in have.iter().enumerate() {
            if let Some(id) = value.get(key) {
                at.entry(id.clone()).or_default().push(place);
            }
        }
        Items { list: have.into_iter().map(Some).collect(), at }
    }

    fn delete(&mut self, id: &Value) {
        for place in self.at.remove(id).into_iter().flatten() {
            self.list[place] = None;
        }
    }

    /// The first of this key.
    fn find(&mut self, id: &Value) -> Option<&mut Map<String, Value>> {
        let place = *self.at.get(id)?.first()?;
        self.list[place].as_mut()?.as_object_mut()
    }

    fn push(&mut self, id: &Value, item: Map<String, Value>) {
        self.at.entry(id.clone()).or_default().push(self.list.len());
        self.list.push(Some(Value::Object(item)));
    }
}

/// Brings the items that `order` names into its order; items that only the server knows keep their place among them as far as
/// the order before allows.
fn ordered(merged: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let (order, before) = (places(order, key), places(before, key));
    let (named, only_server): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| order.contains_key(id(v, key)));
    let mut named: Vec<(Option<usize>, Value)> =
        named.into_iter().map(|v| (order.get(id(&v, key)).copied(), v)).collect();
    named.sort_by_key(|(place, _)| *place);
    let mut out = Vec::with_capacity(named.len() + only_server.len());
    let (mut left, mut right) =
        (only_server.into_iter().peekable(), named.into_iter().map(|(_, v)| v).peekable());
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (before.get(id(l, key)), before.get(id(r, key))) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
        };
        out.extend(if take_left { left.next() } else { right.next() });
    }
}

/// What an item is told apart by.
fn id<'v>(item: &'v Value, key: Option<&str>) -> &'v Value {
    match key {
        Some(key) => item.get(key).unwrap_or(&Value::Null),
        None => item,
    }
}

/// Where the items of a list first stand.
fn places<'v>(list: &'v [Value], key: Option<&str>) -> FxHashMap<&'v Value, usize> {
    let mut out = FxHashMap::default();
    for (place, item) in list.iter().enumerate() {
        out.entry(id(item, key)).or_insert(place);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn apply(object: Value, patch: Value) -> Result<Value, ApiError> {
        let schema = Schema::builtin("", "v1", "Pod").unwrap();
        let mut object = object;
        strategic_merge(&mut object, &patch, &schema).map(|()| object)
    }

    fn check(object: Value, patch: Value, want: Value) {
        assert_eq!(apply(object, patch.clone()).unwrap(), want, "{patch}");
    }

    #[test]
    fn lists_merge_by_their_key() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "y"}]}});
        check(
            pod.clone(),
            json!({"spec": {"containers": [{"name": "b", "image": "z"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "z"}, {"name": "c"}]}}),
        );
        check(
            pod.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "y"}]}}),
        );
        check(
            pod.clone(),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
            json!({"spec": {"containers": [{"name": "z"}]}}),
        );
        check(
            pod.clone(),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "y"}, {"name": "a", "image": "x", "args": ["1"]}]}}),
        );
        // A list without a merge strategy is replaced.
        check(
            pod,
            json!({"spec": {"containers": [{"name": "a", "args": ["2", "3"], "image": null}]}}),
            json!({"spec": {"containers": [{"name": "a", "args": ["2", "3"]}, {"name": "b", "image": "y"}]}}),
        );
    }

    #[test]
    fn primitives_merge_as_sets() {
        let pod = json!({"metadata": {"finalizers": ["a/1", "b/2", "c/3"]}});
        check(
            pod.clone(),
            json!({"metadata": {"finalizers": ["d/4", "a/1"]}}),
            json!({"metadata": {"finalizers": ["a/1", "b/2", "c/3", "d/4"]}}),
        );
        check(
            pod.clone(),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b/2"]}}),
            json!({"metadata": {"finalizers": ["a/1", "c/3"]}}),
        );
        check(
            pod,
            json!({"metadata": {"$setElementOrder/finalizers": ["c/3", "d/4", "a/1"], "finalizers": ["d/4"]}}),
            json!({"metadata": {"finalizers": ["b/2", "c/3", "d/4", "a/1"]}}),
        );
    }

    #[test]
    fn directives_of_maps() {
        let pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        check(
            pod.clone(),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
            json!({"metadata": {"labels": {"c": "3"}}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        );
        check(
            pod.clone(),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        );
        check(
            pod,
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        );
    }

    #[test]
    fn bad_patches_are_refused() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        for patch in [
            json!([]),
            json!("x"),
            json!({"spec": {"containers": [{"image": "no key"}]}}),
            json!({"spec": {"containers": ["x"]}}),
            json!({"spec": {"$patch": "explode"}}),
            json!({"spec": {"$unknown": 1}}),
            json!({"spec": {"$retainKeys": ["a"], "nodeName": "b"}}),
            json!({"spec": {"$setElementOrder/containers": "x"}}),
        ] {
            let schema = Schema::builtin("", "v1", "Pod").unwrap();
            let mut object = pod.clone();
            let e = strategic_merge(&mut object, &patch, &schema).unwrap_err();
            assert_eq!(e.code(), 400, "{patch}");
        }
    }

    fn small_pod() -> impl Strategy<Value = Value> {
        let container = ("[a-c]", "[x-z]", prop::collection::vec("[0-9]", 0..3))
            .prop_map(|(name, image, args)| json!({"name": name, "image": image, "args": args}));
        let labels = prop::collection::btree_map("[a-c]", "[0-9]", 0..3);
        (prop::collection::vec(container, 1..4), labels).prop_map(|(mut containers, labels)| {
            containers.sort_by_key(|c| c["name"].to_string());
            containers.dedup_by_key(|c| c["name"].to_string());
            json!({"metadata": {"labels": labels}, "spec": {"containers": containers}})
        })
    }

    proptest! {
        #[test]
        fn an_empty_patch_and_the_object_itself_change_nothing(pod in small_pod()) {
            prop_assert_eq!(&apply(pod.clone(), json!({})).unwrap(), &pod);
            prop_assert_eq!(&apply(pod.clone(), pod.clone()).unwrap(), &pod);
        }

        #[test]
        fn a_patch_applied_twice_is_applied_once(pod in small_pod(), patch in small_pod()) {
            let once = apply(pod, patch.clone()).unwrap();
            prop_assert_eq!(&apply(once.clone(), patch).unwrap(), &once);
        }
    }
}
