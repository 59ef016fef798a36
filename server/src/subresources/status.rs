//! `status` of every kind that has one, `finalize` of namespaces, `approval` of certificate requests, `ephemeralcontainers` and `resize` of pods:
//! the object itself, with another part that may change.

use crate::handlers::update::{self, Changed};
use crate::handlers::{Call, patch, read};
use crate::{pipeline, present};
use kubewright_core::{ApiError, ApiResponse, Verb};
use serde_json::Value;

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
