//! MutatingWebhookConfiguration: servers outside that change objects before they are written.

use super::webhooks::{WebhookRules, columns};
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::{describe, names};
use crate::resource::Scope;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use std::sync::Arc;

/// The descriptor of MutatingWebhookConfiguration.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: names(&["api-extensions"]),
        generation: true,
        strategy: Arc::new(WebhookRules { mutating: true }),
        columns: columns(),
        ..describe::<MutatingWebhookConfiguration>(Scope::Cluster)
    }
}
