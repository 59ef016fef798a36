//! The group `flowcontrol.apiserver.k8s.io`.

pub mod flow_schema;
pub mod priority_level_configuration;

use crate::ErrorList;
use crate::api::kit::{ErrorSink, Path, list, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// Validates the conditions of a status.
fn validate_status(object: &Value, errors: &mut ErrorList) {
    let status = Path::Root.child("status");
    let path = status.child("conditions");
    let mut seen = BTreeSet::new();
    for (i, condition) in list(sub(object, "status"), "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !seen.insert(kind) {
            errors.duplicate(&path.index(i).child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&path.index(i).child("type"), "must not be empty");
        }
    }
}
