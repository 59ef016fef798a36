//! ClusterRoleBinding: who has a role everywhere.

use super::binding::{BindingRules, columns};
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::describe;
use crate::resource::Scope;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use std::sync::Arc;

/// The descriptor of ClusterRoleBinding.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(BindingRules { cluster: true }),
        columns: columns(),
        ..describe::<ClusterRoleBinding>(Scope::Cluster)
    }
}
