//! DeviceClass: devices of one sort, and how to set them up.

use super::configuration::{CONFIG_MAX, validate_configuration, validate_selectors};
use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, qualified};
use crate::api::kit::resource_names::is_native;
use crate::api::kit::{ErrorSink, Path, describe, get, list, name_column, sub};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of DeviceClass.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        generation: true,
        strategy: Arc::new(ClassRules),
        columns: vec![name_column(), age_column()],
        ..describe::<DeviceClass>(Scope::Cluster)
    }
}

struct ClassRules;

impl Strategy for ClassRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_selectors(spec, &path, &mut errors);
        let at = path.child("config");
        let configs = list(spec, "config");
        if configs.len() > CONFIG_MAX {
            errors.too_many(&at, configs.len(), CONFIG_MAX);
        }
        for (i, config) in configs.iter().enumerate() {
            validate_configuration(config, &at.index(i), &mut errors);
        }
        if let Some(name) = get(spec, "extendedResourceName").and_then(Value::as_str) {
            let extended = !is_native(name) && !name.starts_with("requests.");
            if !extended || !qualified(&format!("requests.{name}")).is_empty() {
                let detail = "must be a valid extended resource name";
                errors.invalid(&path.child("extendedResourceName"), name, detail);
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn classes_are_refused_in_upstreams_words() {
        let check = |spec: Value, wanted: &[&str]| {
            let object = json!({"metadata": {"name": "c"}, "spec": spec});
            assert_eq!(texts(&ClassRules.validate(&object)), wanted);
        };
        check(
            json!({"selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "example.com/gpu"}),
            &[],
        );
        check(json!({"config": [{"opaque": {"driver": "d.example.com", "parameters": {"a": 1}}}]}), &[]);
        check(
            json!({"selectors": [{}], "config": [{}, {"opaque": {"parameters": 5}}], "extendedResourceName": "cpu"}),
            &[
                "spec.selectors[0].cel: Required value",
                "spec.config[0].opaque: Required value",
                "spec.config[1].opaque.driver: Required value",
                "spec.config[1].opaque.parameters: Invalid value: 5: parameters must be a valid JSON object",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ],
        );
    }
}
