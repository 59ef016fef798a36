//! `pods/binding`: gives a pod its node.

use crate::admission::Operation;
use crate::handlers::{Call, update};
use crate::pipeline;
use kubewright_core::api::core::pod::{bind, validate_binding};
use kubewright_core::{ApiError, ApiResponse, ResponseBody, meta};
use serde_json::{Value, json};

pub(super) async fn create(call: Call) -> Result<ApiResponse, ApiError> {
    let (mut binding, _) = pipeline::document(&call.body)?;
    if !binding.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Binding)"));
    }
    let (wanted, named) = (call.name()?, meta::name(&binding));
    if !named.is_empty() && named != wanted {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let errors = validate_binding(&binding);
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "Binding", wanted, &errors));
    }
    let request = pipeline::admission_request(&call, Operation::Create, wanted, None);
    pipeline::admit(&call, &request, Some(&mut binding)).await?;
    pipeline::admit_validate(&call, &request, Some(&binding)).await?;
    let now = call.now;
    update::edit(&call, wanted, &|pod: &mut Value| bind(pod, &binding, now)).await?;
    Ok(success(201))
}

/// A bare success.
pub(super) fn success(code: u16) -> ApiResponse {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    ApiResponse::new(code, ResponseBody::Value(status))
}
