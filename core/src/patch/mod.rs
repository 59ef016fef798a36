//! The three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and upstream's strategic merge patch.

mod operations;
mod strategic;

pub use strategic::strategic_merge;

use crate::{ApiError, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use operations::Stopped;
use serde_json::{Map, Value};

/// How many operations a JSON patch may have, as upstream.
pub const OPERATIONS_MAX: usize = 10_000;

/// Applies a JSON patch. On an error the object is as before.
///
/// # Errors
/// 400 where the patch is none, 413 where it has more than [`OPERATIONS_MAX`] operations or asks for too much, 422 where it does not
/// apply.
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
    let mut result = object.clone();
    operations::run(&mut result, operations).map_err(|stopped| match stopped {
        Stopped::Refused(why) => rejected(&why),
        Stopped::TooLarge(why) => ApiError::new(Reason::RequestEntityTooLarge, why),
    })?;
    *object = result;
    Ok(())
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
        // A replaced field need not be there; a test for null is one for nothing; negative places count from the end.
        check(
            json!([{"op": "replace", "path": "/x", "value": 2}]),
            Ok(json!({"a": {"b": 1}, "l": [1, 2], "x": 2})),
        );
        check(json!([{"op": "test", "path": "/x", "value": null}]), Ok(json!({"a": {"b": 1}, "l": [1, 2]})));
        check(json!([{"op": "test", "path": "/x/y", "value": null}]), Err(422));
        check(json!([{"op": "remove", "path": "/l/-1"}]), Ok(json!({"a": {"b": 1}, "l": [1]})));
        check(json!([{"op": "replace", "path": "", "value": {"n": 1}}]), Ok(json!({"n": 1})));
        check(json!([{"op": "replace", "path": "", "value": 1}]), Err(422));
        check(json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Err(422));
        check(json!([{"op": "copy", "from": "/l/7", "path": "/x"}]), Err(422));
        check(json!([{"op": "add", "path": 5}]), Err(422));
        // Another library could not take back the first step here, and gave up the whole process.
        check(
            json!([{"op": "add", "path": "/b", "value": null}, {"op": "move", "from": "/b", "path": "/x/y"}]),
            Err(422),
        );
    }

    /// Steps that would make a document without end, or take without end.
    #[test]
    fn what_explodes_is_refused_in_time() {
        let check = |mut object: Value, steps: Vec<Value>| {
            let before = object.clone();
            let e = json_patch(&mut object, &Value::Array(steps)).unwrap_err();
            assert_eq!((e.code(), object == before), (413, true), "{e}");
        };
        let small = || json!({"a": {"b": 1}, "l": [1, 2]});
        check(small(), vec![json!({"op": "copy", "from": "/a", "path": "/a/x"}); 500]);
        check(small(), vec![json!({"op": "copy", "from": "/l", "path": "/l/-"}); 60]);
        check(small(), vec![json!({"op": "add", "path": "/a".repeat(200), "value": 1})]);
        let wide = || json!({"l": vec![0; 300_000], "o": {}});
        check(wide(), vec![json!({"op": "add", "path": "/l/0", "value": 1}); 10_000]);
        let (there, back) = (
            json!({"op": "move", "from": "/l", "path": "/o/l"}),
            json!({"op": "move", "from": "/o/l", "path": "/l"}),
        );
        check(wide(), (0..5_000).flat_map(|_| [there.clone(), back.clone()]).collect());
        // Each step puts what there is one level below a new field.
        let nest = (0..200).map(|i| json!({"op": "add", "path": format!("/n{i}"), "value": {}}));
        let nest = nest.chain(
            (0..199)
                .map(|i| json!({"op": "move", "from": format!("/n{i}"), "path": format!("/n{}/x", i + 1)})),
        );
        check(small(), nest.collect());
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
