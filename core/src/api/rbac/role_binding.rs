//! RoleBinding: who has a role in a namespace.

use super::binding::{BindingRules, columns};
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::describe;
use crate::resource::Scope;
use k8s_openapi::api::rbac::v1::RoleBinding;
use std::sync::Arc;

/// The descriptor of RoleBinding.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(BindingRules { cluster: false }),
        columns: columns(),
        ..describe::<RoleBinding>(Scope::Namespaced)
    }
}
