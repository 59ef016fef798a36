//! How a client's requests travel: into a service of the same process, or over HTTPS.

use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, ApiResponse};
use tower::{Service, ServiceExt};

/// Carries a request to an API server.
///
/// Every clonable tower service over [`ApiRequest`] is one.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request and gives the answer.
    ///
    /// # Errors
    /// The server's error, or `ServiceUnavailable` where it could not be reached.
    ///
    /// # Cancel safety
    /// A dropped write may or may not have happened.
    fn send(&self, request: ApiRequest) -> BoxFuture<'static, Result<ApiResponse, ApiError>>;
}

impl<S> Transport for S
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn send(&self, request: ApiRequest) -> BoxFuture<'static, Result<ApiResponse, ApiError>> {
        Box::pin(self.clone().oneshot(request))
    }
}
