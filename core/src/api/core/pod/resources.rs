//! Upstream's validation of a container's resources.

use crate::ErrorList;
use crate::api::kit::quantities::nanos;
use crate::api::kit::resource_names::{overcommits, validate_amount, validate_container};
use crate::api::kit::{ErrorSink, Path, entries, sub};
use serde_json::Value;

/// Validates `resources` of a container.
pub(super) fn validate(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let resources = sub(container, "resources");
    let path = path.child("resources");
    let (at_limits, at_requests) = (path.child("limits"), path.child("requests"));
    for (name, amount) in entries(resources, "limits") {
        validate_named(name, amount, &at_limits, errors);
    }
    let limits = sub(resources, "limits");
    for (name, amount) in entries(resources, "requests") {
        validate_named(name, amount, &at_requests, errors);
        let limit = limits.get(name);
        match (nanos(amount), limit.and_then(nanos)) {
            (Some(asked), Some(most)) if !overcommits(name) && asked != most => {
                let detail = format!("must be equal to {name} limit of {}", shown(limit));
                errors.invalid(&at_requests, amount.clone(), &detail);
            }
            (Some(asked), Some(most)) if asked > most => {
                let detail = format!("must be less than or equal to {name} limit of {}", shown(limit));
                errors.invalid(&at_requests, amount.clone(), &detail);
            }
            (Some(_), None) if !overcommits(name) => {
                errors.required(&at_limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

fn shown(limit: Option<&Value>) -> String {
    match limit {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn validate_named(name: &str, amount: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.key(name);
    validate_container(name, &at, errors);
    validate_amount(name, amount, &at, errors);
}
