//! CSIDriver: how the cluster is to treat a storage driver.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::{one_of, stay};
use crate::api::kit::columns::{age_column, joined};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, column, count, default_text, default_to, describe, flag, get, int, list, name_column,
    object_mut, set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const MODES: [&str; 2] = ["Persistent", "Ephemeral"];
const GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_SECONDS_MIN: i64 = 10;

/// The descriptor of CSIDriver.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(DriverRules),
        columns: columns(),
        ..describe::<CSIDriver>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("AttachRequired", "boolean", "Whether volumes must be attached to a node.", |o, _| {
            get(sub(o, "spec"), "attachRequired").and_then(Value::as_bool).unwrap_or(true).into()
        }),
        column("PodInfoOnMount", "boolean", "Whether the driver hears of the pod.", |o, _| {
            flag(sub(o, "spec"), "podInfoOnMount").into()
        }),
        column("StorageCapacity", "boolean", "Whether the driver tells its capacity.", |o, _| {
            flag(sub(o, "spec"), "storageCapacity").into()
        }),
        column("TokenRequests", "string", "Whose tokens the driver gets.", |o, _| {
            match count(sub(o, "spec"), "tokenRequests") {
                0 => "<unset>".into(),
                _ => joined(list(sub(o, "spec"), "tokenRequests").iter().map(|t| text(t, "audience"))).into(),
            }
        }),
        column("RequiresRepublish", "boolean", "Whether volumes are published again and again.", |o, _| {
            flag(sub(o, "spec"), "requiresRepublish").into()
        }),
        column("Modes", "string", "The lives of volumes that it can serve.", |o, _| {
            joined(list(sub(o, "spec"), "volumeLifecycleModes").iter().filter_map(Value::as_str)).into()
        }),
        age_column(),
    ]
}

struct DriverRules;

impl Strategy for DriverRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_to(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default_to(spec, field, false);
        }
        default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if count(spec, "volumeLifecycleModes") == 0 {
            set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        one_of(spec, "fsGroupPolicy", &GROUP_POLICIES, &path, &mut errors);
        validate_tokens(spec, &path, &mut errors);
        for mode in list(spec, "volumeLifecycleModes") {
            if !MODES.iter().any(|known| mode == known) {
                errors.not_supported(&path.child("volumeLifecycleModes"), mode.clone(), &MODES);
            }
        }
        let field = "nodeAllocatableUpdatePeriodSeconds";
        if let Some(seconds) = int(spec, field).filter(|s| *s < UPDATE_SECONDS_MIN) {
            let detail = "must be greater than or equal to 10 seconds";
            errors.invalid(&path.child(field), seconds, detail);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        stay(&["attachRequired", "volumeLifecycleModes"], object, old, &mut errors);
        errors
    }
}

fn validate_tokens(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("tokenRequests");
    let mut seen = BTreeSet::new();
    for (i, request) in list(spec, "tokenRequests").iter().enumerate() {
        let item = at.index(i);
        let audience = text(request, "audience");
        if !seen.insert(audience) {
            errors.duplicate(&item.child("audience"), audience);
            continue;
        }
        let Some(seconds) = int(request, "expirationSeconds") else { continue };
        let at_seconds = item.child("expirationSeconds");
        if seconds < TOKEN_SECONDS_MIN {
            errors.invalid(&at_seconds, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > TOKEN_SECONDS_MAX {
            errors.invalid(&at_seconds, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};

    #[test]
    fn drivers_are_defaulted_and_checked() {
        let driver = |spec: Value| {
            let mut object = json!({"metadata": {"name": "d.example.com"}, "spec": spec});
            DriverRules.default(&mut object);
            object
        };
        let check = |spec: Value, wanted: &[&str]| {
            assert_eq!(texts(&DriverRules.validate(&driver(spec))), wanted);
        };
        check(json!({}), &[]);
        check(
            json!({"fsGroupPolicy": "All", "volumeLifecycleModes": ["Long"]}),
            &[
                "spec.fsGroupPolicy: Unsupported value: \"All\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                "spec.volumeLifecycleModes: Unsupported value: \"Long\": supported values: \"Ephemeral\", \"Persistent\"",
            ],
        );
        check(
            json!({"tokenRequests": [{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]}),
            &[
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            ],
        );
        let old = driver(json!({}));
        let new = driver(json!({"attachRequired": false, "podInfoOnMount": true}));
        assert_eq!(
            texts(&DriverRules.validate_update(&new, &old, write(None))),
            ["spec.attachRequired: Invalid value: false: field is immutable"]
        );
        assert_eq!(
            row(&columns(), &old),
            json!(["d.example.com", true, false, false, "<unset>", false, "Persistent", "<unknown>"])
        );
    }
}
