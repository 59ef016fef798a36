//! The kinds of Kubernetes, one file each: what their Rust types do not say.
//!
//! A file gives its kind's descriptor: names, columns, selectable fields, and a strategy with upstream's defaults,
//! validation and update rules. A new kind is one file, its `mod` line and one line in [`builtin`]'s list.

pub mod apiextensions;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod events;
mod kit;
pub mod policy;
pub mod rbac;
pub mod scheduling;
pub mod storage;

pub use kit::duration::human_duration;

use crate::KindDescriptor;

/// What differs between clusters in the rules of the built-in kinds. The default is upstream's behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltinOptions {
    /// Lets Endpoints and EndpointSlices hold loopback addresses, which upstream refuses. For clusters whose pods live on the
    /// loopback interface of one machine.
    pub allow_loopback_endpoints: bool,
}

/// The descriptors of all built-in kinds.
pub fn builtin(options: &BuiltinOptions) -> Vec<KindDescriptor> {
    const KINDS: &[fn(&BuiltinOptions) -> KindDescriptor] = &[
        apiextensions::custom_resource_definition::descriptor,
        apps::controller_revision::descriptor,
        apps::daemon_set::descriptor,
        apps::deployment::descriptor,
        apps::replica_set::descriptor,
        apps::stateful_set::descriptor,
        batch::cron_job::descriptor,
        batch::job::descriptor,
        coordination::lease::descriptor,
        core::config_map::descriptor,
        core::endpoints::descriptor,
        core::event::descriptor,
        core::namespace::descriptor,
        core::node::descriptor,
        core::persistent_volume::descriptor,
        core::persistent_volume_claim::descriptor,
        core::pod::descriptor,
        core::secret::descriptor,
        core::service::descriptor,
        core::service_account::descriptor,
        discovery::endpoint_slice::descriptor,
        events::event::descriptor,
        policy::pod_disruption_budget::descriptor,
        rbac::cluster_role::descriptor,
        rbac::cluster_role_binding::descriptor,
        rbac::role::descriptor,
        rbac::role_binding::descriptor,
        scheduling::priority_class::descriptor,
        storage::storage_class::descriptor,
    ];
    KINDS.iter().map(|kind| kind(options)).collect()
}
