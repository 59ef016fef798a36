//! StorageClass: how volumes are made.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::{age_column, or};
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::{ErrorSink, Path, at, column, default_text, describe, entries, flag, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;
use std::sync::Arc;

/// The annotation of the class that claims without one get.
pub const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;

/// The descriptor of StorageClass.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    let mut name = column("Name", "string", "The name of the object, unique in its scope.", |o, _| {
        let name = text(sub(o, "metadata"), "name");
        let annotations = at(o, &["metadata", "annotations"]);
        let default = [IS_DEFAULT, "storageclass.beta.kubernetes.io/is-default-class"]
            .iter()
            .any(|key| text(annotations, key) == "true");
        if default { format!("{name} (default)").into() } else { name.into() }
    });
    name.format = "name".to_owned();
    KindDescriptor {
        short_names: crate::api::kit::names(&["sc"]),
        strategy: Arc::new(StorageClassRules),
        columns: vec![
            name,
            column("Provisioner", "string", "Who makes the volumes.", |o, _| text(o, "provisioner").into()),
            column("ReclaimPolicy", "string", "What happens to a volume after its claim.", |o, _| {
                or(text(o, "reclaimPolicy"), "Delete").into()
            }),
            column("VolumeBindingMode", "string", "When a volume is chosen.", |o, _| {
                or(text(o, "volumeBindingMode"), "Immediate").into()
            }),
            column("AllowVolumeExpansion", "string", "Whether volumes may grow.", |o, _| {
                flag(o, "allowVolumeExpansion").into()
            }),
            age_column(),
        ],
        ..describe::<StorageClass>(Scope::Cluster)
    }
}

struct StorageClassRules;

impl Strategy for StorageClassRules {
    fn default(&self, object: &mut Value) {
        default_text(object, "reclaimPolicy", "Delete");
        default_text(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let root = Path::Root;
        validate_provisioner(object, "provisioner", &mut errors);
        validate_parameters(object, &root.child("parameters"), &mut errors);
        for (field, known) in [
            ("reclaimPolicy", ["Delete", "Retain"]),
            ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
        ] {
            let value = text(object, field);
            if !value.is_empty() && !known.contains(&value) {
                errors.not_supported(&root.child(field), value, &known);
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        let root = Path::Root;
        for (field, detail) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if !crate::api::kit::same(sub(object, field), sub(old, field)) {
                errors.forbidden(&root.child(field), detail);
            }
        }
        let field = "volumeBindingMode";
        immutable(sub(object, field), sub(old, field), &root.child(field), &mut errors);
        errors
    }
}

/// Validates the name of a driver in a field of the object itself.
pub(super) fn validate_provisioner(object: &Value, field: &str, errors: &mut ErrorList) {
    let (name, path) = (text(object, field), Path::Root.child(field));
    if name.is_empty() {
        errors.required(&path, "");
        return;
    }
    for problem in names::qualified(&name.to_lowercase()) {
        errors.invalid(&path, name, &problem);
    }
}

/// Validates `parameters` of an object.
pub(super) fn validate_parameters(object: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (mut total, mut bytes) = (0, 0);
    for (key, value) in entries(object, "parameters") {
        total += 1;
        bytes += key.len() + value.as_str().unwrap_or("").len();
        if key.is_empty() {
            errors.invalid(path, key.as_str(), "field can not be empty.");
        }
    }
    if total > PARAMETERS_MAX {
        errors.too_long(path, PARAMETERS_MAX);
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.too_long(path, PARAMETERS_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_are_defaulted_and_stay() {
        let mut class = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/fast"});
        StorageClassRules.default(&mut class);
        assert_eq!(class["reclaimPolicy"], "Delete");
        assert_eq!(StorageClassRules.validate(&class), vec![]);
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let mut other = class.clone();
        other["provisioner"] = "x".into();
        let texts: Vec<String> =
            StorageClassRules.validate_update(&other, &class, cx).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["provisioner: Forbidden: updates to provisioner are forbidden."]);
    }
}
