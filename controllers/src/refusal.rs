//! Refusals that a retry cannot mend.

use kubewright_core::ApiError;

/// Whether a create was refused because its namespace is being deleted.
pub(crate) fn in_ending_namespace(error: &ApiError) -> bool {
    let causes = error.status().details.iter().flat_map(|d| d.causes.iter().flatten());
    causes.into_iter().any(|c| c.reason.as_deref() == Some("NamespaceTerminating"))
}
