//! The rules of `metadata`, on JSON: names, labels, finalizers, owners, system fields, deletion.
//!
//! All functions are pure: time and randomness come in as values.

mod deletion;
mod names;
mod prepare;
mod validate;

pub use deletion::{
    FOREGROUND_FINALIZER, ORPHAN_FINALIZER, Propagation, begin_deletion, remove_finalizer, set_finalizers,
};
pub(crate) use names::too_long;
pub use names::{
    NameRule, is_dns1035_label, is_dns1123_label, is_dns1123_subdomain, validate_annotation_key,
    validate_dns1035_label, validate_dns1123_label, validate_dns1123_subdomain, validate_finalizer_name,
    validate_label_value, validate_path_segment, validate_qualified_name,
};
pub use prepare::{CreateContext, UpdateContext, prepare_create, prepare_update};
pub use validate::{
    validate_annotations, validate_labels, validate_metadata, validate_metadata_update,
    validate_owner_references,
};

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A text of `metadata`, empty when absent.
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// `metadata.name`, empty when absent.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`, empty when absent.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`, empty when absent.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`, empty when absent.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.generation`, 0 when absent.
pub fn generation(object: &Value) -> i64 {
    object.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}

/// `metadata.deletionTimestamp`.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(text(object, "deletionTimestamp"))
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object
        .get("metadata")
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata").and_then(|m| m.get("labels")).and_then(Value::as_object)
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata").and_then(|m| m.get("annotations")).and_then(Value::as_object)
}

/// `metadata` to change; made when absent. `None` where the object is no JSON object or its metadata is something else.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// A time as upstream's `metav1.Time` is written: RFC 3339 in whole seconds, UTC.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as upstream's `metav1.MicroTime` is written: RFC 3339 in microseconds, UTC.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads an RFC 3339 time with a numeric offset or `Z`; nothing looser.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let shaped =
        b.len() >= 20 && b[4] == b'-' && b[7] == b'-' && b[10] == b'T' && b[13] == b':' && b[16] == b':';
    let offset = text.ends_with('Z')
        || (b.len() >= 25 && matches!(b[b.len() - 6], b'+' | b'-') && b[b.len() - 3] == b':');
    if shaped && offset { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_only() {
        let t = parse_time("2024-01-02T03:04:05Z").unwrap();
        assert_eq!(format_time(t), "2024-01-02T03:04:05Z");
        assert_eq!(format_micro_time(t), "2024-01-02T03:04:05.000000Z");
        assert_eq!(parse_time("2024-01-02T04:04:05+01:00"), Some(t));
        assert!(parse_time("2024-01-02T03:04:05.123456789Z").is_some());
        for bad in
            ["", "2024-01-02", "2024-01-02 03:04:05Z", "2024-01-02T03:04:05", "2024-13-02T03:04:05Z", "foo"]
        {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
