//! PodDisruptionBudget: how many pods may be evicted at a time.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, carry, column, describe, get, int, name_column, names, remove, selectors, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of PodDisruptionBudget.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["pdb"]),
        status: true,
        generation: true,
        strategy: Arc::new(BudgetRules),
        columns: vec![
            name_column(),
            column("Min Available", "string", "How many must stay.", |o, _| bound(o, "minAvailable").into()),
            column("Max Unavailable", "string", "How many may be missing.", |o, _| {
                bound(o, "maxUnavailable").into()
            }),
            column("Allowed Disruptions", "integer", "How many may go now.", |o, _| {
                int(sub(o, "status"), "disruptionsAllowed").unwrap_or(0).into()
            }),
            age_column(),
        ],
        ..describe::<PodDisruptionBudget>(Scope::Namespaced)
    }
}

fn bound(budget: &Value, field: &str) -> String {
    match get(sub(budget, "spec"), field) {
        Some(Value::String(percent)) => percent.clone(),
        Some(number) => number.to_string(),
        None => "N/A".to_owned(),
    }
}

struct BudgetRules;

impl Strategy for BudgetRules {
    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        remove(object, "status");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        carry(object, old, if cx.subresource == Some("status") { "spec" } else { "status" });
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let spec = sub(object, "spec");
        let path = Path::Root.child("spec");
        if get(spec, "minAvailable").is_some() && get(spec, "maxUnavailable").is_some() {
            errors.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
        }
        for field in ["minAvailable", "maxUnavailable"] {
            if let Some(value) = get(spec, field) {
                validate_int_or_percent(value, &path.child(field), &mut errors);
            }
        }
        if let Some(selector) = get(spec, "selector") {
            selectors::validate(selector, &path.child("selector"), &mut errors);
        }
        let policy = text(spec, "unhealthyPodEvictionPolicy");
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        if !policy.is_empty() && !known.contains(&policy) {
            errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &known);
        }
        errors
    }
}

/// Validates a count that may be a percentage up to 100.
pub(crate) fn validate_int_or_percent(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match value {
        Value::String(text) => match percent(text) {
            None => errors.invalid(path, text.as_str(), PERCENT),
            Some(n) if n > 100 => errors.invalid(path, text.as_str(), "must not be greater than 100%"),
            Some(_) => {}
        },
        number => {
            if let Some(n) = number.as_i64().filter(|n| *n < 0) {
                errors.invalid(path, n, crate::api::kit::meta::NEGATIVE);
            }
        }
    }
}

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// The number before a percent sign.
pub(crate) fn percent(text: &str) -> Option<i64> {
    text.strip_suffix('%').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn budgets_are_checked() {
        let check = |spec: Value, wanted: usize| {
            assert_eq!(BudgetRules.validate(&json!({"spec": spec})).len(), wanted, "{spec}");
        };
        check(json!({"minAvailable": 1}), 0);
        check(json!({"maxUnavailable": "50%"}), 0);
        check(json!({"maxUnavailable": "101%"}), 1);
        check(json!({"maxUnavailable": "x"}), 1);
        check(json!({"minAvailable": -1}), 1);
        check(json!({"minAvailable": 1, "maxUnavailable": 1}), 1);
        assert_eq!(bound(&json!({"spec": {"minAvailable": "50%"}}), "minAvailable"), "50%");
        assert_eq!(bound(&json!({}), "minAvailable"), "N/A");
    }
}
