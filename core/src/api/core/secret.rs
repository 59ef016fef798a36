//! Secret: bytes under keys, some types with keys that must be there.

use super::config_map::{DATA_BYTES_MAX, validate_immutable_data, value_bytes};
use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::{
    ErrorSink, Path, at, column, count, default_text, describe, ensure, entries, field_at, name_column,
    remove, set, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of Secret.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(SecretRules),
        columns: vec![
            name_column(),
            column("Type", "string", "The kind of secret.", |o, _| text(o, "type").into()),
            column("Data", "string", "How many keys there are.", |o, _| count(o, "data").into()),
            age_column(),
        ],
        selectable_fields: vec![field_at("type", |o| text(o, "type").to_owned())],
        ..describe::<Secret>(Scope::Namespaced)
    }
}

struct SecretRules;

impl Strategy for SecretRules {
    fn default(&self, object: &mut Value) {
        merge_string_data(object);
        default_text(object, "type", "Opaque");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, _: WriteContext<'_>) {
        // An update that says nothing of the type keeps it; the default has filled it in before.
        if text(object, "type").is_empty() {
            set(object, "type", text(old, "type"));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_data(object, &mut errors);
        validate_type(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(sub(object, "type"), sub(old, "type"), &Path::Root.child("type"), &mut errors);
        validate_immutable_data(object, old, &["data"], &mut errors);
        errors.extend(self.validate(object));
        errors
    }
}

/// `stringData` is only for writing: its texts go into `data`, over what stands there.
fn merge_string_data(object: &mut Value) {
    let Some(Value::Object(texts)) = remove(object, "stringData") else { return };
    if texts.is_empty() {
        return;
    }
    if let Some(data) = ensure(object, "data") {
        for (key, text) in texts {
            set(data, &key, STANDARD.encode(text.as_str().unwrap_or("")));
        }
    }
}

fn validate_data(object: &Value, errors: &mut ErrorList) {
    let path = Path::Root.child("data");
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        for problem in names::config_map_key(key) {
            errors.invalid(&path.key(key), key.as_str(), &problem);
        }
        size += value_bytes(value, true);
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(&path, DATA_BYTES_MAX);
    }
}

fn validate_type(object: &Value, errors: &mut ErrorList) {
    let data = sub(object, "data");
    let path = Path::Root.child("data");
    let has = |key: &str| data.get(key).is_some();
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if text(at(object, &["metadata", "annotations"]), annotation).is_empty() {
                let metadata = Path::Root.child("metadata");
                errors.required(&metadata.child("annotations").key(annotation), "");
            }
        }
        "kubernetes.io/dockercfg" => validate_json_key(data, ".dockercfg", &path, errors),
        "kubernetes.io/dockerconfigjson" => validate_json_key(data, ".dockerconfigjson", &path, errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    errors.required(&path.key(key), "");
                }
            }
        }
        // Every other type is the user's own and asks for nothing.
        _ => {}
    }
}

fn validate_json_key(data: &Value, key: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(value) = data.get(key).and_then(Value::as_str) else {
        errors.required(&path.key(key), "");
        return;
    };
    let bytes = STANDARD.decode(value).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        errors.invalid(&path.key(key), "<secret contents redacted>", &error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"data": {"a": "AA==", "b": "AA=="}, "stringData": {"a": "hi"}});
        SecretRules.default(&mut secret);
        let once = secret.clone();
        SecretRules.default(&mut secret);
        assert_eq!(secret, once);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "aGk=", "b": "AA=="}}));
    }

    #[test]
    fn types_ask_for_their_keys() {
        let check = |object: Value, wanted: &[&str]| {
            let texts: Vec<String> = SecretRules.validate(&object).iter().map(ToString::to_string).collect();
            assert_eq!(texts, wanted);
        };
        check(json!({"type": "Opaque"}), &[]);
        check(
            json!({"type": "kubernetes.io/tls"}),
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}), &[]);
        check(json!({"type": "kubernetes.io/dockercfg"}), &["data[.dockercfg]: Required value"]);
        check(json!({"type": "kubernetes.io/ssh-auth"}), &["data[ssh-privatekey]: Required value"]);
    }
}
