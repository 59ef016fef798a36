//! ConfigMap: texts and bytes under keys.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::{ErrorSink, Path, column, count, describe, entries, flag, name_column, same, sub};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, FieldError, FieldPath, KindDescriptor};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use std::sync::Arc;

/// How many bytes the values of a ConfigMap or Secret may have together.
pub(crate) const DATA_BYTES_MAX: usize = 1024 * 1024;

/// The descriptor of ConfigMap.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["cm"]),
        strategy: Arc::new(ConfigMapRules),
        columns: vec![
            name_column(),
            column("Data", "string", "How many keys there are.", |o, _| {
                (count(o, "data") + count(o, "binaryData")).into()
            }),
            age_column(),
        ],
        ..describe::<ConfigMap>(Scope::Namespaced)
    }
}

struct ConfigMapRules;

impl Strategy for ConfigMapRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_keys(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_immutable_data(object, old, &["data", "binaryData"], &mut errors);
        errors.extend(self.validate(object));
        errors
    }
}

fn validate_keys(object: &Value, errors: &mut ErrorList) {
    let root = Path::Root;
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let path = root.child(field);
        for (key, value) in entries(object, field) {
            for problem in names::config_map_key(key) {
                errors.invalid(&path.key(key), key.as_str(), &problem);
            }
            if field == "data" && sub(object, "binaryData").get(key).is_some() {
                errors.invalid(&path.key(key), key.as_str(), "duplicate of key present in binaryData");
            }
            size += value_bytes(value, field == "binaryData");
        }
    }
    if size > DATA_BYTES_MAX {
        // Upstream's path without a name reads so.
        errors.push(FieldError::too_long(&FieldPath::new("[]"), DATA_BYTES_MAX));
    }
}

/// The bytes of a value, which base64 makes a third longer in JSON.
pub(crate) fn value_bytes(value: &Value, base64: bool) -> usize {
    let text = value.as_str().unwrap_or("");
    if base64 { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() }
}

/// Refuses changes of data once `immutable` is set.
pub(crate) fn validate_immutable_data(object: &Value, old: &Value, fields: &[&str], errors: &mut ErrorList) {
    if !flag(old, "immutable") {
        return;
    }
    let root = Path::Root;
    if !flag(object, "immutable") {
        errors.forbidden(&root.child("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if !same(sub(object, field), sub(old, field)) {
            errors.forbidden(&root.child(field), "field is immutable when `immutable` is set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_and_sizes_are_checked() {
        let check = |object: Value, wanted: &[&str]| {
            let errors = ConfigMapRules.validate(&object);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.len(), wanted.len(), "{texts:?}");
            for (text, wanted) in texts.iter().zip(wanted) {
                assert!(text.starts_with(wanted), "{text}");
            }
        };
        check(json!({"metadata": {"name": "a"}, "data": {"k": "v"}, "binaryData": {"b": "AA=="}}), &[]);
        check(json!({"data": {"a/b": ""}}), &["data[a/b]: Invalid value: \"a/b\": a valid config key must"]);
        check(
            json!({"data": {"a": ""}, "binaryData": {"a": ""}}),
            &["data[a]: Invalid value: \"a\": duplicate of key"],
        );
        check(
            json!({"data": {"a": "x".repeat(DATA_BYTES_MAX + 1)}}),
            &["[]: Too long: may not be more than 1048576"],
        );
        check(
            json!({"metadata": {"name": "A"}}),
            &["metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"],
        );
    }

    #[test]
    fn immutable_data_stays() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let old = json!({"immutable": true, "data": {"a": "1"}});
        assert!(ConfigMapRules.validate_update(&old, &old, cx).is_empty());
        let errors = ConfigMapRules.validate_update(&json!({"data": {"a": "2"}}), &old, cx);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
    }
}
