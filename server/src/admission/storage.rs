//! Volumes and claims stay while they are used, and claims grow only where their class allows it.

use super::json::{at, sub, text};
use super::{Admission, AdmissionRequest, Operation, forbidden};
use futures::future::BoxFuture;
use kubewright_core::quota::quantity;
use kubewright_core::{ApiError, GroupVersionResource, meta};
use serde_json::{Value, json};

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageObjectInUseProtection;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct PersistentVolumeClaimResize;

fn finalizer(request: &AdmissionRequest<'_>) -> Option<&'static str> {
    if request.operation != Operation::Create || request.subresource.is_some() {
        return None;
    }
    match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses") => Some("kubernetes.io/vac-protection"),
        _ => None,
    }
}

impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        finalizer(request).is_some()
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if let (Some(name), Some(object)) = (finalizer(request), object)
            && !meta::finalizers(object).any(|f| f == name)
            && object["metadata"].is_object()
        {
            super::json::push(&mut object["metadata"], "finalizers", json!(name));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn class(claim: &Value) -> &str {
    let annotation = at(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    annotation.as_str().unwrap_or_else(|| text(sub(claim, "spec"), "storageClassName"))
}

impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation == Operation::Update
            && request.subresource.is_none()
            && request.resource.group.is_empty()
            && request.resource.resource == "persistentvolumeclaims"
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let done = match (object, request.old) {
            (Some(claim), Some(old)) => resize(request, claim, old),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(done))
    }
}

fn resize(request: &AdmissionRequest<'_>, claim: &Value, old: &Value) -> Result<(), ApiError> {
    let size = |claim| quantity(at(claim, &["spec", "resources", "requests", "storage"])).unwrap_or_default();
    if size(claim) <= size(old) {
        return Ok(());
    }
    if text(sub(old, "status"), "phase") != "Bound" {
        return Err(forbidden(request, claim, "Only bound persistent volume claims can be expanded"));
    }
    let (name, before) = (class(claim), class(old));
    let classes = GroupVersionResource::new("storage.k8s.io", "v1", "storageclasses");
    if !name.is_empty()
        && name == before
        && let Ok(Some(found)) = request.reader.get(&classes, "", name)
        && super::json::flag(&*found.parsed()?, "allowVolumeExpansion")
    {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(forbidden(request, claim, why))
}
