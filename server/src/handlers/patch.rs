//! Patches of all types, applied to the present state and tried again where another write came between.

use super::Call;
use super::update::{self, Changed};
use crate::pipeline;
use kubewright_core::resource::Origin;
use kubewright_core::{ApiError, ApiResponse, ContentType, Reason, RequestBody, json, patch};
use serde_json::Value;

/// A patch, parsed once.
pub(crate) struct Patch {
    how: ContentType,
    document: Value,
    repeated: Vec<String>,
}

impl Patch {
    /// The patch in a request's body.
    ///
    /// # Errors
    /// 400 for no patch, 413 for one too large, 415 for a type that the kind does not take.
    pub(crate) fn of(call: &Call) -> Result<Self, ApiError> {
        let (how, (document, repeated)) = match &call.body {
            RequestBody::Empty => return Err(ApiError::bad_request("the body holds no patch")),
            RequestBody::Value { content_type, value } => (*content_type, (value.clone(), Vec::new())),
            RequestBody::Bytes { content_type, bytes } => {
                pipeline::check_size(bytes)?;
                (*content_type, json::parse(bytes)?)
            }
        };
        let custom = call.kind.descriptor.origin == Origin::Custom;
        match how {
            ContentType::JsonPatch | ContentType::MergePatch => {}
            ContentType::StrategicMergePatch if custom => return Err(patch::strategic_merge_unsupported()),
            ContentType::StrategicMergePatch => {}
            ContentType::ApplyPatch => {
                let message = "server-side apply is not implemented: apply on the client's side (kubectl apply \
                     without --server-side), or send a JSON, merge or strategic merge patch";
                return Err(ApiError::new(Reason::UnsupportedMediaType, message));
            }
            ContentType::Json | ContentType::Yaml => {
                let message = "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json";
                return Err(ApiError::new(Reason::UnsupportedMediaType, message));
            }
        }
        Ok(Patch { how, document, repeated })
    }

    /// The paths of keys that stand twice in the patch.
    pub(crate) fn repeated(&self) -> &[String] {
        &self.repeated
    }

    /// Applies it to an object.
    ///
    /// # Errors
    /// 400 or 422 where it does not apply.
    pub(crate) fn apply(&self, schema: &kubewright_core::Schema, object: &mut Value) -> Result<(), ApiError> {
        match self.how {
            ContentType::JsonPatch => patch::json_patch(object, &self.document),
            ContentType::StrategicMergePatch => patch::strategic_merge(object, &self.document, schema),
            _ if !self.document.is_object() => {
                Err(ApiError::bad_request("a merge patch must be a JSON object"))
            }
            _ => {
                patch::merge_patch(object, &self.document);
                Ok(())
            }
        }
    }
}

/// `PATCH` of an object, or of its status.
pub(crate) async fn patch(call: Call, subresource: Option<&str>) -> Result<ApiResponse, ApiError> {
    let how = pipeline::strictness(&call)?;
    let patch = Patch::of(&call)?;
    let kind = call.kind.descriptor.clone();
    let change = |old: &Value| {
        let mut object = old.clone();
        patch.apply(&kind.schema, &mut object)?;
        let warnings = pipeline::object(&kind, &mut object, patch.repeated(), how)?;
        update::check_named(&call, &object)?;
        Ok(Changed { object, warnings })
    };
    update::write(&call, subresource, &change).await
}
