//! `status` of every kind that has one, `finalize` of namespaces, `approval` of certificate requests, `ephemeralcontainers` and `resize` of pods:
//! the object itself, with another part that may change.

use crate::handlers::update::{self, Changed};
use crate::handlers::{Call, patch, read};
use crate::{pipeline, present};
use kubewright_core::resource::Origin;
use kubewright_core::{ApiError, ApiResponse, KindDescriptor, Verb};
use serde_json::Value;

/// Built-in kinds whose statuses are written without their metadata, as upstream has it; a write of any other's status takes labels,
/// annotations and finalizers along.
const BARE: [(&str, &str); 6] = [
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Whether a write of a kind's status leaves its metadata alone.
pub(crate) fn is_bare(kind: &KindDescriptor) -> bool {
    kind.origin == Origin::Custom || BARE.contains(&(&*kind.group, &*kind.plural))
}

pub(super) async fn handle(call: Call, subresource: &str) -> Result<ApiResponse, ApiError> {
    match call.verb {
        Verb::Get => {
            let entry = read::current(&call, call.name()?).await?;
            let object = entry.shape(&call.kind)?.object.clone();
            present::object(&call, 200, object)
        }
        Verb::Patch => patch::patch(call, Some(subresource)).await,
        _ => {
            let how = pipeline::strictness(&call)?;
            let (mut object, repeated) = pipeline::document(&call.body)?;
            let warnings = pipeline::object(&call.kind.descriptor, &mut object, &repeated, how)?;
            update::check_named(&call, &object)?;
            let change = |_: &Value| Ok(Changed::by_update(object.clone(), warnings.clone()));
            update::write(&call, Some(subresource), &change).await
        }
    }
}
