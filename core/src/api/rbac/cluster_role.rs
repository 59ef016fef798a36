//! ClusterRole: what may be done anywhere.

use super::rules::RoleRules;
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::columns::bare_columns;
use crate::api::kit::describe;
use crate::resource::Scope;
use k8s_openapi::api::rbac::v1::ClusterRole;
use std::sync::Arc;

/// The descriptor of ClusterRole.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(RoleRules { cluster: true }),
        columns: bare_columns(),
        ..describe::<ClusterRole>(Scope::Cluster)
    }
}
