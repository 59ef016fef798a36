//! The kinds of Kubernetes, one file each: what their Rust types do not say.
//!
//! A file gives its kind's descriptor: names, columns, selectable fields, and a strategy with upstream's defaults,
//! validation and update rules. A new kind is one file, its `mod` line and one line in [`builtin`]'s list.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod events;
pub mod flowcontrol;
pub(crate) mod kit;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
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
        admissionregistration::mutating_admission_policy::descriptor,
        admissionregistration::mutating_admission_policy_binding::descriptor,
        admissionregistration::mutating_webhook_configuration::descriptor,
        admissionregistration::validating_admission_policy::descriptor,
        admissionregistration::validating_admission_policy_binding::descriptor,
        admissionregistration::validating_webhook_configuration::descriptor,
        apiextensions::custom_resource_definition::descriptor,
        apiregistration::api_service::descriptor,
        apps::controller_revision::descriptor,
        apps::daemon_set::descriptor,
        apps::deployment::descriptor,
        apps::replica_set::descriptor,
        apps::stateful_set::descriptor,
        autoscaling::horizontal_pod_autoscaler::descriptor,
        autoscaling::horizontal_pod_autoscaler_v1::descriptor,
        batch::cron_job::descriptor,
        batch::job::descriptor,
        certificates::certificate_signing_request::descriptor,
        coordination::lease::descriptor,
        core::config_map::descriptor,
        core::endpoints::descriptor,
        core::event::descriptor,
        core::limit_range::descriptor,
        core::namespace::descriptor,
        core::node::descriptor,
        core::persistent_volume::descriptor,
        core::persistent_volume_claim::descriptor,
        core::pod::descriptor,
        core::pod_template::descriptor,
        core::replication_controller::descriptor,
        core::resource_quota::descriptor,
        core::secret::descriptor,
        core::service::descriptor,
        core::service_account::descriptor,
        discovery::endpoint_slice::descriptor,
        events::event::descriptor,
        flowcontrol::flow_schema::descriptor,
        flowcontrol::priority_level_configuration::descriptor,
        networking::ingress::descriptor,
        networking::ingress_class::descriptor,
        networking::ip_address::descriptor,
        networking::network_policy::descriptor,
        networking::service_cidr::descriptor,
        node::runtime_class::descriptor,
        policy::pod_disruption_budget::descriptor,
        rbac::cluster_role::descriptor,
        rbac::cluster_role_binding::descriptor,
        rbac::role::descriptor,
        rbac::role_binding::descriptor,
        resource::device_class::descriptor,
        resource::resource_claim::descriptor,
        resource::resource_claim_template::descriptor,
        resource::resource_slice::descriptor,
        scheduling::priority_class::descriptor,
        storage::csi_driver::descriptor,
        storage::csi_node::descriptor,
        storage::csi_storage_capacity::descriptor,
        storage::storage_class::descriptor,
        storage::volume_attachment::descriptor,
        storage::volume_attributes_class::descriptor,
    ];
    KINDS.iter().map(|kind| kind(options)).collect()
}
