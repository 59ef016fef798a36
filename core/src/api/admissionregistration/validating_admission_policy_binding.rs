//! ValidatingAdmissionPolicyBinding: where, and with which parameters, a policy holds.

use super::bindings::{BindingRules, columns};
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::{describe, names};
use crate::resource::Scope;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use std::sync::Arc;

/// The descriptor of ValidatingAdmissionPolicyBinding.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: names(&["api-extensions"]),
        generation: true,
        strategy: Arc::new(BindingRules { actions: true }),
        columns: columns(),
        ..describe::<ValidatingAdmissionPolicyBinding>(Scope::Cluster)
    }
}
