//! Refusals in the shape that all of upstream's plugins give them.

use super::AdmissionRequest;
use kubewright_core::{ApiError, meta};
use serde_json::Value;

/// The name that a refusal tells: while it is yet to be generated, its beginning.
pub(crate) fn told_name<'a>(request: &AdmissionRequest<'a>, object: &'a Value) -> &'a str {
    let begun = || object["metadata"]["generateName"].as_str().filter(|n| !n.is_empty());
    let named = [request.name, meta::name(object)].into_iter().find(|n| !n.is_empty());
    named.or_else(begun).unwrap_or("Unknown")
}

/// 403 for the object of a request.
pub(crate) fn forbidden(request: &AdmissionRequest<'_>, object: &Value, why: &str) -> ApiError {
    let name = told_name(request, object);
    ApiError::forbidden(&request.resource.group, &request.resource.resource, name, why)
}
