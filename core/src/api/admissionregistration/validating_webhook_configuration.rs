//! ValidatingWebhookConfiguration: servers outside that judge objects before they are written.

use super::webhooks::{WebhookRules, columns};
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::{describe, names};
use crate::resource::Scope;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use std::sync::Arc;

/// The descriptor of ValidatingWebhookConfiguration.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: names(&["api-extensions"]),
        generation: true,
        strategy: Arc::new(WebhookRules { mutating: false }),
        columns: columns(),
        ..describe::<ValidatingWebhookConfiguration>(Scope::Cluster)
    }
}
