//! ServiceAccount: who a pod is to the API server.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{column, count, describe, name_column, names};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of ServiceAccount.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["sa"]),
        strategy: Arc::new(ServiceAccountRules),
        columns: vec![
            name_column(),
            column("Secrets", "string", "How many secrets the account lists.", |o, _| {
                count(o, "secrets").into()
            }),
            age_column(),
        ],
        ..describe::<ServiceAccount>(Scope::Namespaced)
    }
}

struct ServiceAccountRules;

impl Strategy for ServiceAccountRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        errors
    }
}
