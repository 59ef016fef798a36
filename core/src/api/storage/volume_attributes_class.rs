//! VolumeAttributesClass: what a volume may be changed to be like.

use super::storage_class::{validate_parameters, validate_provisioner};
use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, column, count, describe, name_column, names, same, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of VolumeAttributesClass.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["vac"]),
        strategy: Arc::new(AttributesRules),
        columns: vec![
            name_column(),
            column("DriverName", "string", "Whose volumes it is for.", |o, _| text(o, "driverName").into()),
            age_column(),
        ],
        ..describe::<VolumeAttributesClass>(Scope::Cluster)
    }
}

struct AttributesRules;

impl Strategy for AttributesRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_provisioner(object, "driverName", &mut errors);
        let path = Path::Root.child("parameters");
        if count(object, "parameters") == 0 {
            errors.required(&path, "must contain at least one key/value pair");
        }
        validate_parameters(object, &path, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        for field in ["driverName", "parameters"] {
            if !same(sub(object, field), sub(old, field)) {
                errors.forbidden(&Path::Root.child(field), &format!("updates to {field} are forbidden."));
            }
        }
        errors.extend(self.validate(object));
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{texts, write};
    use serde_json::json;

    #[test]
    fn classes_are_checked_and_stay() {
        let class = |driver: &str, parameters: Value| json!({"metadata": {"name": "c"}, "driverName": driver, "parameters": parameters});
        let good = class("d.example.com", json!({"iops": "5"}));
        assert_eq!(texts(&AttributesRules.validate(&good)), Vec::<String>::new());
        assert_eq!(
            texts(&AttributesRules.validate(&class("", json!({})))),
            [
                "driverName: Required value",
                "parameters: Required value: must contain at least one key/value pair"
            ]
        );
        let other = class("d.example.com", json!({"iops": "6"}));
        assert_eq!(
            texts(&AttributesRules.validate_update(&other, &good, write(None))),
            ["parameters: Forbidden: updates to parameters are forbidden."]
        );
    }
}
