//! PriorityClass: a name for how much a pod matters.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, column, default_text, describe, flag, int, name_column, names, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use std::sync::Arc;

/// The highest value that a user's own class may have.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
/// The classes that a cluster always has, with their values.
pub const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The descriptor of PriorityClass.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["pc"]),
        generation: true,
        strategy: Arc::new(PriorityClassRules),
        columns: vec![
            name_column(),
            column("Value", "integer", "The priority.", |o, _| int(o, "value").unwrap_or(0).into()),
            column("Global-Default", "boolean", "Whether pods without a class get it.", |o, _| {
                flag(o, "globalDefault").into()
            }),
            age_column(),
            column("PreemptionPolicy", "string", "Whether its pods may push out others.", |o, _| {
                text(o, "preemptionPolicy").into()
            }),
        ],
        ..describe::<PriorityClass>(Scope::Cluster)
    }
}

struct PriorityClassRules;

impl Strategy for PriorityClassRules {
    fn default(&self, object: &mut Value) {
        default_text(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let name = text(sub(object, "metadata"), "name");
        let value = int(object, "value").unwrap_or(0);
        let path = Path::Root.child("value");
        if name.starts_with("system-") {
            if !SYSTEM_CLASSES.contains(&(name, value)) {
                let metadata = Path::Root.child("metadata");
                errors.forbidden(
                    &metadata.child("name"),
                    "priority class names with 'system-' prefix are reserved for system use only. error: \
                     the class is not a known system priority class",
                );
            }
        } else if value > USER_PRIORITY_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
            errors.forbidden(&path, &detail);
        }
        let policy = text(object, "preemptionPolicy");
        let known = ["Never", "PreemptLowerPriority"];
        if !policy.is_empty() && !known.contains(&policy) {
            errors.not_supported(&Path::Root.child("preemptionPolicy"), policy, &known);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = Path::Root;
        if int(object, "value").unwrap_or(0) != int(old, "value").unwrap_or(0) {
            errors.forbidden(&root.child("value"), "may not be changed in an update.");
        }
        let field = "preemptionPolicy";
        immutable(sub(object, field), sub(old, field), &root.child(field), &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_bounded() {
        let check = |name: &str, value: i64, wanted: usize| {
            let class = json!({"metadata": {"name": name}, "value": value});
            assert_eq!(PriorityClassRules.validate(&class).len(), wanted, "{name}");
        };
        check("high", 1_000_000_000, 0);
        check("high", 1_000_000_001, 1);
        check("system-node-critical", 2_000_001_000, 0);
        check("system-mine", 1, 1);
    }
}
