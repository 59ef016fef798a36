//! Role: what may be done in a namespace.

use super::rules::RoleRules;
use crate::KindDescriptor;
use crate::api::BuiltinOptions;
use crate::api::kit::columns::bare_columns;
use crate::api::kit::describe;
use crate::resource::Scope;
use k8s_openapi::api::rbac::v1::Role;
use std::sync::Arc;

/// The descriptor of Role.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(RoleRules { cluster: false }),
        columns: bare_columns(),
        ..describe::<Role>(Scope::Namespaced)
    }
}
