//! Connections that leave HTTP behind: exec, attach and port-forward.

use super::Body;
use http::Response;
use http::request::Parts;
use kubewright_core::{ApiError, ApiRequest, ApiResponse};
use tokio_util::sync::CancellationToken;

/// Owns the tasks of the running sessions.
pub(super) struct Sessions {
    #[expect(dead_code, reason = "the sessions' tasks end with it")]
    closing: CancellationToken,
}

impl Sessions {
    pub(super) fn new(closing: CancellationToken) -> Self {
        Sessions { closing }
    }
}

/// The upgrade that a request asks for.
pub(super) enum Upgrade {}

/// Which upgrade a request asks for, if any.
///
/// # Errors
/// 400 where it names protocols that the server does not speak.
pub(super) fn requested(_: &ApiRequest, _: &Parts) -> Result<Option<Upgrade>, ApiError> {
    Ok(None)
}

impl Upgrade {
    pub(super) fn accept(
        self,
        _: &mut Parts,
        _: ApiResponse,
        _: &Sessions,
    ) -> Result<Response<Body>, ApiError> {
        match self {}
    }
}
