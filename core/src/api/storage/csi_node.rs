//! CSINode: the storage drivers that a node has.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, non_negative, validate_name};
use crate::api::kit::names::{NameRule, qualified, subdomain};
use crate::api::kit::{ErrorSink, Path, column, count, describe, list, name_column, remove, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::storage::v1::CSINode;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const NODE_ID_BYTES_MAX: usize = 256;
const DRIVER_BYTES_MAX: usize = 63;

/// The descriptor of CSINode.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(NodeRules),
        columns: vec![
            name_column(),
            column("Drivers", "integer", "How many drivers the node has.", |o, _| {
                count(sub(o, "spec"), "drivers").into()
            }),
            age_column(),
        ],
        ..describe::<CSINode>(Scope::Cluster)
    }
}

struct NodeRules;

impl Strategy for NodeRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let spec = Path::Root.child("spec");
        let path = spec.child("drivers");
        let mut seen = BTreeSet::new();
        for (i, driver) in list(sub(object, "spec"), "drivers").iter().enumerate() {
            let item = path.index(i);
            validate_driver(driver, &item, &mut errors);
            if !seen.insert(text(driver, "name")) {
                errors.duplicate(&item.child("name"), text(driver, "name"));
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        // What a driver says of itself stays while it is there, but for how many volumes it takes.
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            remove(&mut driver, "allocatable");
            driver
        };
        let spec = Path::Root.child("spec");
        for before in list(sub(old, "spec"), "drivers") {
            for now in list(sub(object, "spec"), "drivers") {
                if text(now, "name") == text(before, "name") {
                    immutable(&fixed(now), &fixed(before), &spec.child("drivers"), &mut errors);
                }
            }
        }
        errors
    }
}

/// Validates the name of a driver.
pub(super) fn validate_driver_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > DRIVER_BYTES_MAX {
        errors.too_long(path, DRIVER_BYTES_MAX);
    }
    for problem in subdomain(&name.to_lowercase()) {
        errors.invalid(path, name, &problem);
    }
}

fn validate_driver(driver: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_driver_name(text(driver, "name"), &path.child("name"), errors);
    let id = text(driver, "nodeID");
    if id.is_empty() {
        errors.required(&path.child("nodeID"), "");
    }
    if id.len() > NODE_ID_BYTES_MAX {
        let detail = format!("must be {NODE_ID_BYTES_MAX} characters or less");
        errors.invalid(&path.child("nodeID"), id, &detail);
    }
    non_negative(sub(driver, "allocatable"), "count", &path.child("allocatable"), errors);
    let mut seen = BTreeSet::new();
    for key in list(driver, "topologyKeys") {
        let key = key.as_str().unwrap_or("");
        if key.is_empty() {
            errors.required(path, "");
        }
        if !seen.insert(key) {
            errors.duplicate(path, key);
        }
        for problem in qualified(key) {
            errors.invalid(path, key, &problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{texts, write};
    use serde_json::json;

    #[test]
    fn drivers_of_a_node_are_checked_and_stay() {
        let node = |drivers: Value| json!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}});
        let check = |drivers: Value, wanted: &[&str]| {
            assert_eq!(texts(&NodeRules.validate(&node(drivers))), wanted);
        };
        let good = json!({"name": "d.example.com", "nodeID": "n", "topologyKeys": ["a/b"]});
        check(json!([good]), &[]);
        check(json!([good, good]), &["spec.drivers[1].name: Duplicate value: \"d.example.com\""]);
        check(
            json!([{"topologyKeys": ["a", "a"], "allocatable": {"count": -1}}]),
            &[
                "spec.drivers[0].name: Required value",
                "spec.drivers[0].nodeID: Required value",
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[0]: Duplicate value: \"a\"",
            ],
        );
        let change = |field: &str, value: Value| {
            let mut other = good.clone();
            other[field] = value;
            NodeRules.validate_update(&node(json!([other])), &node(json!([good])), write(None)).len()
        };
        assert_eq!(change("allocatable", json!({"count": 3})), 0);
        assert_eq!(change("nodeID", json!("m")), 1);
    }
}
