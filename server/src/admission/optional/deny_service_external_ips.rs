//! Services get no external IPs but those that they had already.

use crate::admission::json::{list, sub};
use crate::admission::{Admission, AdmissionRequest, Operation, forbidden};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::Value;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyServiceExternalIPs;

impl Admission for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.resource.group.is_empty()
            && request.resource.resource == "services"
            && request.subresource.is_none()
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let addresses = |service: &'a Value| list(sub(service, "spec"), "externalIPs").iter();
        let had = |address: &Value| request.old.is_some_and(|old| addresses(old).any(|a| a == address));
        let answer = match object.filter(|service| !addresses(service).all(had)) {
            Some(service) => {
                Err(forbidden(request, service, "Use of external IPs is denied by admission control"))
            }
            None => Ok(()),
        };
        Box::pin(std::future::ready(answer))
    }
}
