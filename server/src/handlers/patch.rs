//! Patches of all types, applied to the present state and tried again where another write came between.

use super::update::{self, Changed};
use super::{Call, create};
use crate::{pipeline, present};
use kubewright_core::resource::Origin;
use kubewright_core::{
    ApiError, ApiResponse, ContentType, KindDescriptor, Reason, RequestBody, json, meta, patch,
};
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
            ContentType::ApplyPatch | ContentType::Json | ContentType::Yaml => {
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
            _ => {
                patch::check_merge_patch(&self.document)?;
                patch::merge_patch(object, &self.document);
                Ok(())
            }
        }
    }
}

/// `PATCH` of an object, or of its status.
pub(crate) async fn patch(call: Call, subresource: Option<&str>) -> Result<ApiResponse, ApiError> {
    if is_apply(&call.body) {
        return apply(call, subresource).await;
    }
    let how = pipeline::strictness(&call)?;
    let patch = Patch::of(&call)?;
    let kind = call.kind.descriptor.clone();
    let change = |old: &Value| {
        let mut object = old.clone();
        patch.apply(&kind.schema, &mut object)?;
        let same = set_aside(&kind, &mut object, old);
        let warnings = pipeline::object(&kind, &mut object, patch.repeated(), how)?;
        if let Some(object) = object.as_object_mut() {
            object.extend(same);
        }
        update::check_named(&call, &object)?;
        Ok(Changed::by_update(object, warnings))
    };
    update::write(&call, subresource, &change).await
}

/// Takes the parts out that the patch did not touch: they were checked when they were written.
fn set_aside(kind: &KindDescriptor, object: &mut Value, old: &Value) -> Vec<(String, Value)> {
    let (Some(map), Some(old)) = (object.as_object_mut(), old.as_object()) else { return Vec::new() };
    if kind.origin == Origin::Custom {
        // The schema may have changed since.
        return Vec::new();
    }
    let identity = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    let same = old.iter().filter(|(name, value)| !identity(name) && map.get(*name) == Some(value));
    let names: Vec<&String> = same.map(|(name, _)| name).collect();
    names.into_iter().filter_map(|name| map.remove_entry(name)).collect()
}

fn is_apply(body: &RequestBody) -> bool {
    matches!(
        body,
        RequestBody::Bytes { content_type: ContentType::ApplyPatch, .. }
            | RequestBody::Value { content_type: ContentType::ApplyPatch, .. }
    )
}

/// Server-side apply: changes the object, or creates it where there is none.
async fn apply(call: Call, subresource: Option<&str>) -> Result<ApiResponse, ApiError> {
    if call.options.field_manager.as_deref().is_none_or(str::is_empty) {
        return Err(ApiError::bad_request("fieldManager is required for apply patch"));
    }
    let (applied, mut warnings) = pipeline::applied(&call)?;
    let change = |old: &Value| {
        let object = pipeline::apply(&call, subresource, Some(old), &applied)?;
        // What is there has its name already; only what names another one is refused.
        update::check_named(&call, &object)?;
        Ok(Changed::by_apply(object, Vec::new()))
    };
    let mut response = match update::write(&call, subresource, &change).await {
        Err(e) if e.is_not_found() && subresource.is_none() => {
            update::check_named(&call, &applied)?;
            unborn(&call, &applied)?;
            let mut object = pipeline::apply(&call, None, None, &applied)?;
            pipeline::default(&call.kind.descriptor, &mut object);
            let created = create::new_object(&call, object, &mut warnings).await?;
            present::object(&call, 201, created)?
        }
        other => other?,
    };
    response.warnings.extend(warnings);
    Ok(response)
}

/// What names a certain object, by uid or version, is not created.
fn unborn(call: &Call, applied: &Value) -> Result<(), ApiError> {
    let name = meta::name(applied);
    let conflict = |why: &str| Err(ApiError::conflict(call.kind.group(), call.kind.plural(), name, why));
    match (meta::uid(applied), meta::resource_version(applied)) {
        ("", "") => Ok(()),
        ("", _) => Err(call.not_found()),
        (uid, _) => conflict(&format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        )),
    }
}
