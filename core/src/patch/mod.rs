//! The three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and upstream's strategic merge patch.

mod strategic;

pub use strategic::strategic_merge;

use crate::{ApiError, Reason};
use json_patch::PatchOperation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Map, Value};

/// How many operations a JSON patch may have, as upstream.
pub const OPERATIONS_MAX: usize = 10_000;
/// How many values a patched object may have, so that copies of copies cannot fill memory.
const RESULT_NODES_MAX: usize = 1_000_000;

/// Applies a JSON patch. On an error the object is as before.
///
/// # Errors
/// 400 where the patch is none, 413 where it has more than [`OPERATIONS_MAX`] operations, 422 where it does not apply.
pub fn json_patch(object: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let undecodable = |value: &Value, into: &str| {
        let why = format!("json: cannot unmarshal {} into Go value of type {into}", go_word(value));
        ApiError::bad_request(format!("error decoding patch: {why}"))
    };
    let operations = patch.as_array().ok_or_else(|| undecodable(patch, "jsonpatch.Patch"))?;
    if let Some(odd) = operations.iter().find(|o| !o.is_object()) {
        return Err(undecodable(odd, "jsonpatch.Operation"));
    }
    let count = operations.len();
    if count > OPERATIONS_MAX {
        let why = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, why));
    }
    let patch: json_patch::Patch =
        serde::Deserialize::deserialize(patch).map_err(|e| rejected(&e.to_string()))?;
    if patch.0.iter().any(may_deepen) {
        try_by_steps(object, &patch)?;
    }
    json_patch::patch(object, &patch).map_err(|e| rejected(&e.to_string()))
}

/// What Go's decoder calls a value that does not fit.
fn go_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The sentence about a patch that must be an object and is none.
fn no_object(patch: &Value) -> String {
    format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", go_word(patch))
}

/// Whether an operation can make a document deeper or larger than what parsing allows.
fn may_deepen(operation: &PatchOperation) -> bool {
    let deep = |path: &str, value: &Value| path.matches('/').count() + depth(value) > crate::json::DEPTH_MAX;
    match operation {
        PatchOperation::Copy(_) | PatchOperation::Move(_) => true,
        PatchOperation::Add(op) => deep(op.path.as_str(), &op.value),
        PatchOperation::Replace(op) => deep(op.path.as_str(), &op.value),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => false,
    }
}

/// Runs the operations one by one on a copy and looks at what comes out: copies of copies grow without bound, and every later pass over
/// the document recurses.
fn try_by_steps(object: &Value, patch: &json_patch::Patch) -> Result<(), ApiError> {
    let mut trial = object.clone();
    for operation in &patch.0 {
        json_patch::patch(&mut trial, std::slice::from_ref(operation))
            .map_err(|e| rejected(&e.to_string()))?;
        if may_deepen(operation)
            && (depth(&trial) > crate::json::DEPTH_MAX || nodes(&trial) > RESULT_NODES_MAX)
        {
            let why = "the result of the JSON patch is too large";
            return Err(ApiError::new(Reason::RequestEntityTooLarge, why));
        }
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(nodes).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

/// Upstream's 422 of a patch that does not apply; the cause says why.
fn rejected(why: &str) -> ApiError {
    ApiError::new(Reason::Invalid, "the server rejected our request due to an error in our request")
        .with_causes(vec![StatusCause {
            reason: Some("UnexpectedServerResponse".to_owned()),
            message: Some(why.to_owned()),
            field: Some("patch".to_owned()),
        }])
}

/// Refuses a JSON merge patch that would replace the whole object.
///
/// # Errors
/// 400 where it is no JSON object.
pub fn check_merge_patch(patch: &Value) -> Result<(), ApiError> {
    match patch {
        Value::Object(_) => Ok(()),
        other => Err(ApiError::bad_request(format!("error decoding patch: {}", no_object(other)))),
    }
}

/// Applies a JSON merge patch.
pub fn merge_patch(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(target) = object else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// The 415 that upstream gives for a strategic merge patch of a custom kind.
pub fn strategic_merge_unsupported() -> ApiError {
    let why = "the body of the request was in an unknown format - accepted media types include: \
               application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    ApiError::new(Reason::UnsupportedMediaType, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_patches_apply_or_change_nothing() {
        let check = |patch: Value, want: Result<Value, u16>| {
            let mut object = json!({"a": {"b": 1}, "l": [1, 2]});
            let before = object.clone();
            match (json_patch(&mut object, &patch), want) {
                (Ok(()), Ok(want)) => assert_eq!(object, want),
                (Err(e), Err(code)) => {
                    assert_eq!((e.code(), &object), (code, &before), "{e}");
                }
                (result, want) => panic!("{patch} gives {result:?}, not {want:?}"),
            }
        };
        check(
            json!([{"op": "replace", "path": "/a/b", "value": 2}]),
            Ok(json!({"a": {"b": 2}, "l": [1, 2]})),
        );
        check(json!([{"op": "add", "path": "/l/-", "value": 3}]), Ok(json!({"a": {"b": 1}, "l": [1, 2, 3]})));
        check(json!([{"op": "remove", "path": "/a/b"}, {"op": "test", "path": "/x", "value": 1}]), Err(422));
        check(json!([{"op": "test", "path": "/a/b", "value": 2}]), Err(422));
        check(json!([{"op": "add", "path": "/l/9", "value": 3}]), Err(422));
        check(json!([{"op": "jump", "path": "/a"}]), Err(422));
        check(json!({"op": "add"}), Err(400));
        check(json!([3]), Err(400));
        check(json!([{"op": "add", "path": "a", "value": 3}]), Err(422));
        check(Value::Array(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS_MAX + 1]), Err(413));
        let deep = vec![json!({"op": "copy", "from": "/a", "path": "/a/x"}); 500];
        check(Value::Array(deep), Err(413));
        let bomb = vec![json!({"op": "copy", "from": "/l", "path": "/l/-"}); 60];
        check(Value::Array(bomb), Err(413));
    }

    #[test]
    fn merge_patches_follow_the_rfc() {
        let check = |mut object: Value, patch: Value, want: Value| {
            merge_patch(&mut object, &patch);
            assert_eq!(object, want);
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b"}), json!({"a": null}), json!({}));
        check(json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]}));
        check(json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}));
        check(json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1}));
        check(json!([1]), json!({"a": 1}), json!({"a": 1}));
        check(json!({"a": 1}), json!(["c"]), json!(["c"]));
    }
}
