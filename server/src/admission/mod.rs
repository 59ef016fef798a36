//! Admission: what looks at a write after its kind's own defaults and before (or after) its validation, and may change or refuse it.

mod certificates;
mod default_class;
mod default_toleration_seconds;
pub mod historic;
mod json;
mod limit_ranger;
pub(crate) mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod optional;
mod pod_security;
pub(crate) mod policy;
mod priority;
mod refusal;
mod request;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes_by_condition;
pub(crate) mod webhook;

pub use certificates::{CertificateApproval, CertificateSigning, CertificateSubjectRestriction};
pub use default_class::{DefaultIngressClass, DefaultStorageClass};
pub use default_toleration_seconds::DefaultTolerationSeconds;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use optional::{
    AlwaysPullImages, DenyServiceExternalIPs, EventLimit, EventLimitKind, EventRateLimit,
    ExtendedResourceToleration, LimitPodHardAntiAffinityTopology, OwnerReferencesPermissionEnforcement,
    PodNodeSelector, PodTolerationRestriction,
};
pub use pod_security::{Level, LevelVersion, PodSecurity, Policy, Version};
pub use policy::{MutatingPolicy, ValidatingPolicy};
pub use priority::Priority;
pub(crate) use priority::SYSTEM_CLASSES;
pub(crate) use refusal::{forbidden, told_name};
pub use request::{AdmissionRequest, Reinvocation, WriteOptions};
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use storage::{PersistentVolumeClaimResize, StorageObjectInUseProtection};
pub use taint_nodes_by_condition::TaintNodesByCondition;
pub use webhook::{MutatingWebhook, ValidatingWebhook};

use crate::cache::Listener;
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::Value;

use kubewright_core::Entropy;
use std::sync::Arc;

/// The plugins that a Kubernetes has, in order, but for those that need an authorizer and `ResourceQuota`, which comes last of all.
pub fn builtin(entropy: &Arc<Entropy>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(LimitRanger),
        Arc::new(ServiceAccount::new(entropy.clone())),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity::new()),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(PersistentVolumeClaimResize),
        Arc::new(RuntimeClass),
        Arc::new(DefaultIngressClass),
    ]
}

/// The whole chain: the built-in plugins, those that objects of the cluster configure (each changing half before the checking ones), the
/// host's, and quotas last, as only what is written in the end is charged. What follows the configuring objects joins the listeners.
pub(crate) fn chain(
    mut plugins: Vec<Arc<dyn Admission>>,
    webhooks: webhook::Webhooks,
    policies: policy::Policies,
    hosts: Vec<Arc<dyn Admission>>,
    quotas: ResourceQuota,
    listeners: &mut Vec<Arc<dyn Listener>>,
) -> Vec<Arc<dyn Admission>> {
    let (webhooks, policies) = (Arc::new(webhooks), Arc::new(policies));
    let ((change, check), [ask_change, ask_check]) = (policies.plugins(), webhooks.plugins());
    plugins.extend([change, ask_change, check, ask_check]);
    plugins.extend(hosts);
    plugins.push(Arc::new(quotas));
    listeners.push(policies);
    listeners.push(webhooks);
    plugins
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// A deletion.
    Delete,
    /// A call of a subresource that writes no object of its own (`exec`, `attach`, `portforward`).
    Connect,
}

/// An admission plugin.
///
/// The server calls [`Admission::mutate`] of every plugin in order (and once more where a plugin asks by [`Reinvocation::ask`]), then the kind's
/// own validation, then [`Admission::validate`] of every one.
pub trait Admission: Send + Sync + 'static {
    /// Its name, as error messages and documentation know it.
    fn name(&self) -> &'static str;

    /// Whether [`Admission::mutate`] has anything to do here; asked before, so that a write costs nothing where a plugin looks away.
    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        let _ = request;
        true
    }

    /// Whether [`Admission::validate`] has anything to do here.
    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        let _ = request;
        true
    }

    /// Changes or refuses the object that is about to be written (a deletion has none and is refused here or in `validate`).
    ///
    /// # Errors
    /// The refusal, usually 403.
    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let _ = (request, object);
        Box::pin(async { Ok(()) })
    }

    /// Refuses the object as it will be written.
    ///
    /// # Errors
    /// The refusal, usually 403.
    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let _ = (request, object);
        Box::pin(async { Ok(()) })
    }
}
