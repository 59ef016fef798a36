//! Admission: what looks at a write after its kind's own defaults and before (or after) its validation, and may change or refuse it.

mod default_toleration_seconds;
pub(crate) mod matching;
mod namespace_lifecycle;
mod priority;
mod request;
mod service_account;
mod taint_nodes_by_condition;
pub(crate) mod webhook;

pub use default_toleration_seconds::DefaultTolerationSeconds;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use priority::Priority;
pub(crate) use priority::SYSTEM_CLASSES;
pub use request::{AdmissionRequest, Reinvocation, WriteOptions};
pub use service_account::ServiceAccount;
pub use taint_nodes_by_condition::TaintNodesByCondition;
pub use webhook::{MutatingWebhook, ValidatingWebhook};

use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::Value;

use kubewright_core::Entropy;
use std::sync::Arc;

/// The plugins that a Kubernetes has, in order.
pub fn builtin(entropy: &Arc<Entropy>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(ServiceAccount::new(entropy.clone())),
        Arc::new(TaintNodesByCondition),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
    ]
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
