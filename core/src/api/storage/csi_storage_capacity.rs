//! CSIStorageCapacity: how much a driver has left in a part of the cluster.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::needed_name;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::quantities::validate_non_negative;
use crate::api::kit::selectors;
use crate::api::kit::{Path, column, describe, get, name_column, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of CSIStorageCapacity.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(CapacityRules),
        columns: vec![
            name_column(),
            column("StorageClassName", "string", "The class that it is about.", |o, _| {
                text(o, "storageClassName").into()
            }),
            column("Capacity", "string", "How much is left.", |o, _| match get(o, "capacity") {
                Some(Value::String(amount)) => amount.as_str().into(),
                Some(amount) => amount.to_string().into(),
                None => "<unset>".into(),
            }),
        ],
        ..describe::<CSIStorageCapacity>(Scope::Namespaced)
    }
}

struct CapacityRules;

impl Strategy for CapacityRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let root = Path::Root;
        selectors::validate(sub(object, "nodeTopology"), &root.child("nodeTopology"), &mut errors);
        needed_name(object, "storageClassName", NameRule::Subdomain, &root, &mut errors);
        if let Some(amount) = get(object, "capacity") {
            validate_non_negative(amount, &root.child("capacity"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        for field in ["nodeTopology", "storageClassName"] {
            immutable(sub(object, field), sub(old, field), &Path::Root.child(field), &mut errors);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    #[test]
    fn capacities_are_checked_and_stay_where_they_are() {
        let check = |object: Value, wanted: &[&str]| {
            assert_eq!(texts(&CapacityRules.validate(&object)), wanted);
        };
        let good = json!({"metadata": {"name": "c"}, "storageClassName": "fast", "capacity": "1Gi"});
        check(good.clone(), &[]);
        check(
            json!({"capacity": "-1"}),
            &[
                "storageClassName: Required value",
                "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
            ],
        );
        let mut other = good.clone();
        other["nodeTopology"] = json!({"matchLabels": {"zone": "a"}});
        assert_eq!(CapacityRules.validate_update(&other, &good, write(None)).len(), 1);
        let columns = descriptor(&BuiltinOptions::default()).columns;
        assert_eq!(row(&columns, &good), json!(["c", "fast", "1Gi"]));
    }
}
