//! Nothing is created in a namespace that is not there or is going, and the system's own namespaces stay.

use super::{Admission, AdmissionRequest, Operation};
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use kubewright_core::{ApiError, GroupVersionResource, meta};
use serde_json::Value;

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceLifecycle;

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        match request.operation {
            Operation::Create => !request.namespace.is_empty(),
            Operation::Delete => {
                request.resource.group.is_empty() && request.resource.resource == "namespaces"
            }
            Operation::Update | Operation::Connect => false,
        }
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let name = object.map(|o| meta::name(o).to_owned()).unwrap_or_default();
        Box::pin(check(request, name))
    }
}

async fn check(request: &AdmissionRequest<'_>, name: String) -> Result<(), ApiError> {
    let (group, plural) = (request.resource.group.as_str(), request.resource.resource.as_str());
    if request.operation == Operation::Delete && group.is_empty() && plural == "namespaces" {
        if IMMORTAL.contains(&request.name) {
            return Err(ApiError::forbidden("", plural, request.name, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    if request.operation != Operation::Create || request.namespace.is_empty() {
        return Ok(());
    }
    let namespaces = GroupVersionResource::new("", "v1", "namespaces");
    let find = || request.reader.get(&namespaces, "", request.namespace);
    // A plane without namespaces as objects has nothing to check.
    let Ok(mut found) = find() else { return Ok(()) };
    if found.is_none() {
        request.reader.consistent().await?;
        found = find()?;
    }
    let Some(namespace) = found else {
        return Err(ApiError::not_found("", "namespaces", request.namespace));
    };
    if !meta::is_deleting(&*namespace.parsed()?) {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {} because it is being terminated",
        request.namespace
    );
    let cause = StatusCause {
        reason: Some("NamespaceTerminating".to_owned()),
        message: Some(format!("namespace {} is being terminated", request.namespace)),
        field: Some("metadata.namespace".to_owned()),
    };
    Err(ApiError::forbidden(group, plural, &name, &why).with_causes(vec![cause]))
}
