//! Errors of the machinery in upstream's form.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use kubewright_core::{ApiError, Reason};
use kubewright_store::Reason as StoreReason;

/// A store's error as the API tells it.
pub(crate) fn store(e: &kubewright_store::Error) -> ApiError {
    match e.reason() {
        StoreReason::Compacted => compacted(),
        StoreReason::TooLarge => {
            ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {e}"))
        }
        StoreReason::Timeout => {
            ApiError::new(Reason::Timeout, format!("the store did not answer in time: {e}"))
        }
        StoreReason::Unavailable | StoreReason::Closed | StoreReason::Locked => {
            ApiError::unavailable(format!("the store is not available: {e}"))
        }
        StoreReason::NoSpace => ApiError::unavailable(format!("the store has no room: {e}")),
        _ => ApiError::internal(e),
    }
}

/// 410 for a resource version whose state is forgotten.
pub(crate) fn compacted() -> ApiError {
    ApiError::expired("The provided resource version is too old: the requested revision has been compacted")
}

/// 504 for a resource version from the future.
pub(crate) fn too_large(asked: u64, current: u64) -> ApiError {
    let cause = StatusCause {
        reason: Some("ResourceVersionTooLarge".to_owned()),
        message: Some("Too large resource version".to_owned()),
        field: None,
    };
    let details =
        StatusDetails { causes: Some(vec![cause]), retry_after_seconds: Some(1), ..StatusDetails::default() };
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    ApiError::new(Reason::Timeout, message).with_details(details)
}
