//! Upstream's validation of a container's resources.

use crate::ErrorList;
use crate::api::kit::names;
use crate::api::kit::quantities::{nanos, validate_non_negative};
use crate::api::kit::{ErrorSink, Path, entries, sub};
use serde_json::Value;

/// Validates `resources` of a container.
pub(super) fn validate(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let resources = sub(container, "resources");
    let path = path.child("resources");
    let (at_limits, at_requests) = (path.child("limits"), path.child("requests"));
    for (name, amount) in entries(resources, "limits") {
        validate_amount(name, amount, &at_limits, errors);
    }
    let limits = sub(resources, "limits");
    for (name, amount) in entries(resources, "requests") {
        validate_amount(name, amount, &at_requests, errors);
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

/// Whether more may be promised than there is: of Kubernetes' own resources, but huge pages.
fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/')
        || name.split('/').next().is_some_and(|p| p == "kubernetes.io" || p.ends_with(".kubernetes.io"))
}

fn validate_amount(name: &str, amount: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.key(name);
    for problem in names::qualified(name) {
        errors.invalid(&at, name, &problem);
    }
    if !name.contains('/')
        && !matches!(name, "cpu" | "memory" | "ephemeral-storage")
        && !name.starts_with("hugepages-")
    {
        errors.invalid(&at, name, "must be a standard resource type or fully qualified");
        errors.invalid(&at, name, "must be a standard resource for containers");
    }
    validate_non_negative(amount, &at, errors);
    let whole = nanos(amount).is_none_or(|n| n % 1_000_000_000 == 0);
    if name.contains('/') && !is_native(name) && !whole {
        errors.invalid(&at, amount.clone(), "must be an integer");
    }
}
