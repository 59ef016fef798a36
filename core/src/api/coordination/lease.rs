//! Lease: who holds what, and until when; nodes send their heartbeats with it.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, column, describe, get, int, name_column, sub, text};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of Lease.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(LeaseRules),
        columns: vec![
            name_column(),
            column("Holder", "string", "Who holds the lease.", |o, _| {
                text(sub(o, "spec"), "holderIdentity").into()
            }),
            age_column(),
        ],
        ..describe::<Lease>(Scope::Namespaced)
    }
}

struct LeaseRules;

impl Strategy for LeaseRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let spec = sub(object, "spec");
        let path = Path::Root.child("spec");
        if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(transitions) = int(spec, "leaseTransitions").filter(|t| *t < 0) {
            errors.invalid(
                &path.child("leaseTransitions"),
                transitions,
                "must be greater than or equal to 0",
            );
        }
        if get(spec, "preferredHolder").is_some() && text(spec, "strategy").is_empty() {
            errors.forbidden(&path.child("preferredHolder"), "must not be set when strategy is not set");
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_bounded() {
        let check = |spec: Value, wanted: &[&str]| {
            let texts: Vec<String> =
                LeaseRules.validate(&json!({"spec": spec})).iter().map(ToString::to_string).collect();
            assert_eq!(texts, wanted);
        };
        check(json!({"leaseDurationSeconds": 15, "leaseTransitions": 0, "holderIdentity": ""}), &[]);
        check(
            json!({"leaseDurationSeconds": 0, "leaseTransitions": -1}),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
    }
}
