//! Objects as bytes: how they are stored, and how the resource version is spliced in without parsing.
//!
//! Stored objects begin with `apiVersion`, `kind` and `metadata`, in this order, so that the place of the resource version is found
//! by a short scan. They hold no resource version themselves: it is the revision of the key.

use bytes::Bytes;
use kubewright_core::{ApiError, ApiObject, Header};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::io::Write;

const METADATA: &[u8] = br#""metadata":{"#;
const VERSION: &[u8] = br#""resourceVersion":""#;

/// The bytes to store for an object: without its resource version, identity first.
pub(crate) fn stored(object: &Value) -> Result<Bytes, ApiError> {
    let map = object.as_object().ok_or_else(|| ApiError::internal("an object is no JSON object"))?;
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for name in ["apiVersion", "kind"] {
        if let Some(value) = map.get(name) {
            member(&mut out, name, value)?;
        }
    }
    let empty = Map::new();
    let metadata = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    separate(&mut out);
    out.extend_from_slice(METADATA);
    for (name, value) in metadata {
        if name != "resourceVersion" {
            member(&mut out, name, value)?;
        }
    }
    out.push(b'}');
    for (name, value) in map {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            member(&mut out, name, value)?;
        }
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{')) {
        out.push(b',');
    }
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) -> Result<(), ApiError> {
    separate(out);
    serde_json::to_writer(&mut *out, name).map_err(ApiError::internal)?;
    out.push(b':');
    serde_json::to_writer(out, value).map_err(ApiError::internal)
}

/// The bytes to serve: the stored ones with the resource version put in.
pub(crate) fn served(stored: &Bytes, revision: u64) -> Result<Bytes, ApiError> {
    let at = find(stored, METADATA).ok_or_else(|| ApiError::internal("a stored object has no metadata"))?
        + METADATA.len();
    Ok(splice(&stored[..at], &stored[at..], revision))
}

/// Served bytes under another resource version (an object's last state carries the revision of its deletion).
pub(crate) fn restamped(served: &Bytes, revision: u64) -> Result<Bytes, ApiError> {
    let damaged = || ApiError::internal("a cached object has no resource version");
    let at = find(served, METADATA).ok_or_else(damaged)? + METADATA.len();
    let after = served[at..].strip_prefix(VERSION).ok_or_else(damaged)?;
    let digits = after.iter().position(|b| *b == b'"').ok_or_else(damaged)?;
    let rest = &after[digits + 1..];
    let rest = rest.strip_prefix(b",").unwrap_or(rest);
    Ok(splice(&served[..at], rest, revision))
}

fn splice(head: &[u8], tail: &[u8], revision: u64) -> Bytes {
    let mut out = Vec::with_capacity(head.len() + tail.len() + 42);
    out.extend_from_slice(head);
    out.extend_from_slice(VERSION);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{revision}\"");
    if tail.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(tail);
    Bytes::from(out)
}

/// The first place of a text; it stands within the first hundred bytes or so.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|w| w == needle)
}

/// What selectors and caches need of an object.
pub(crate) fn header(object: &Value) -> Header {
    let metadata = &object["metadata"];
    let text = |name: &str| SmolStr::new(metadata[name].as_str().unwrap_or(""));
    let labels = metadata["labels"].as_object().map(|labels| {
        labels.iter().map(|(k, v)| (SmolStr::new(k), SmolStr::new(v.as_str().unwrap_or("")))).collect()
    });
    Header {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        labels: labels.unwrap_or_default(),
    }
}

/// An object of a value, as it is served at a revision (0: none is put in).
pub(crate) fn object(value: &Value, revision: u64) -> Result<ApiObject, ApiError> {
    let bytes = stored(value)?;
    let bytes = if revision == 0 { bytes } else { served(&bytes, revision)? };
    Ok(ApiObject::from_parts(bytes, header(value), revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_resource_version_is_spliced_in_and_replaced() {
        let check = |metadata: Value, expected: &str| {
            let value =
                json!({"spec": {"metadata": {}}, "metadata": metadata, "kind": "A", "apiVersion": "v1"});
            let bytes = served(&stored(&value).unwrap(), 12).unwrap();
            assert_eq!(bytes, expected);
            assert_eq!(restamped(&restamped(&bytes, 345).unwrap(), 12).unwrap(), expected);
        };
        check(
            json!({"name": "a", "resourceVersion": "9"}),
            r#"{"apiVersion":"v1","kind":"A","metadata":{"resourceVersion":"12","name":"a"},"spec":{"metadata":{}}}"#,
        );
        check(
            json!({}),
            r#"{"apiVersion":"v1","kind":"A","metadata":{"resourceVersion":"12"},"spec":{"metadata":{}}}"#,
        );
        assert!(stored(&json!([])).is_err());
        assert!(restamped(&Bytes::from_static(b"{}"), 1).is_err());
    }
}
