//! What stands below an object: status, scale, and the calls of single kinds.

use crate::handlers::Call;
use kubewright_core::{ApiError, ApiResponse};

/// Answers a request for a subresource.
pub(crate) async fn handle(call: Call, subresource: &str) -> Result<ApiResponse, ApiError> {
    let _ = (call, subresource);
    Err(ApiError::no_such_path())
}
