//! `scale`: the replicas of an object as a Scale of autoscaling/v1.

use crate::handlers::patch::Patch;
use crate::handlers::update::{self, Changed};
use crate::handlers::{Call, read};
use crate::{pipeline, present};
use kubewright_core::api::autoscaling::scale::{apply_scale, columns, scale_of};
use kubewright_core::resource::ScalePaths;
use kubewright_core::{ApiError, ApiResponse, KindDescriptor, Schema, Verb, meta};
use serde_json::{Value, json};

pub(super) async fn handle(call: Call) -> Result<ApiResponse, ApiError> {
    let kind = call.kind.descriptor.clone();
    let paths = kind.scale.clone().ok_or_else(ApiError::no_such_path)?;
    let object = match call.verb {
        Verb::Get => {
            let entry = read::current(&call, call.name()?).await?;
            entry.shape(&call.kind)?.object.value()?
        }
        Verb::Patch => {
            let patch = Patch::of(&call)?;
            let change = |old: &Value| {
                let mut scale = scale_of(old, &paths);
                let schema = scale_schema()?;
                patch.apply(&schema, &mut scale)?;
                changed(&kind, &paths, old, &scale)
            };
            update::apply(&call, Some("scale"), &change, &mut Vec::new()).await?.value()?
        }
        _ => {
            let (scale, _) = pipeline::document(&call.body)?;
            let change = |old: &Value| changed(&kind, &paths, old, &scale);
            update::apply(&call, Some("scale"), &change, &mut Vec::new()).await?.value()?
        }
    };
    present::document(&call, scale_of(&object, &paths), &columns())
}

fn scale_schema() -> Result<std::sync::Arc<Schema>, ApiError> {
    Schema::builtin("autoscaling", "v1", "Scale")
        .ok_or_else(|| ApiError::internal("the schema of Scale is missing"))
}

/// The object with the replicas of a written Scale.
fn changed(
    kind: &KindDescriptor,
    paths: &ScalePaths,
    old: &Value,
    scale: &Value,
) -> Result<Changed, ApiError> {
    if let Err(mismatch) = scale_schema()?.check_types(scale) {
        let why = format!("Scale in version \"v1\" cannot be handled as a Scale: {mismatch}");
        return Err(ApiError::bad_request(why));
    }
    if !scale.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Scale)"));
    }
    let named = meta::name(scale);
    if !named.is_empty() && named != meta::name(old) {
        let why = format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            meta::name(old)
        );
        return Err(ApiError::bad_request(why));
    }
    let mut object = old.clone();
    let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if wanted != scale_of(old, paths)["spec"]["replicas"].as_i64().unwrap_or(0) || wanted < 0 {
        apply_scale(&mut object, scale, kind)?;
    }
    for field in ["resourceVersion", "uid"] {
        let value = scale["metadata"].get(field).cloned().unwrap_or_else(|| json!(""));
        update::put(&mut object["metadata"], field, Some(&value));
    }
    Ok(Changed::by_update(object, Vec::new()))
}
