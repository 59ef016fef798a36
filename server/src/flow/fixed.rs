//! Refuses changes of the mandatory objects.

use super::defaults;
use crate::admission::{Admission, AdmissionRequest, Operation};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, FieldError, FieldPath};
use serde_json::Value;

/// Admission of FlowSchemas and PriorityLevelConfigurations called `exempt` and `catch-all`: their specs are what they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedFlowControl;

impl Admission for FixedFlowControl {
    fn name(&self) -> &'static str {
        "FixedFlowControl"
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(check(request, object)))
    }
}

fn check(request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    let (true, "flowcontrol.apiserver.k8s.io", Some(object)) =
        (written && request.subresource.is_none(), request.resource.group.as_str(), object)
    else {
        return Ok(());
    };
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    if !defaults::is_mandatory(name) {
        return Ok(());
    }
    let of_levels = request.resource.resource == "prioritylevelconfigurations";
    let all = if of_levels { defaults::levels() } else { defaults::schemas() };
    let Some((_, mut wanted)) = all.into_iter().find(|(n, _)| *n == name) else { return Ok(()) };
    let mut rule = format!("spec of '{name}' must equal the fixed value");
    if of_levels && name == defaults::EXEMPT {
        wanted["exempt"] = object["spec"]["exempt"].clone();
        rule = format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
    }
    if object["spec"] == wanted {
        return Ok(());
    }
    let error = FieldError::invalid(&FieldPath::new("spec"), object["spec"].clone(), &rule);
    Err(ApiError::invalid(&request.kind.group, &request.kind.kind, name, &[error]))
}
