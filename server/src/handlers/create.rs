//! Creates.

use super::Call;
use crate::admission::Operation;
use crate::pipeline::{self, Outcome};
use crate::present;
use kubewright_core::meta::{self, CreateContext};
use kubewright_core::resource::{Origin, WriteContext};
use kubewright_core::{ApiError, ApiResponse};
use serde_json::Value;

/// How often a generated name that is taken is drawn anew, as upstream.
const GENERATED_NAME_TRIES: usize = 8;

/// `POST` to a collection.
pub(super) async fn create(call: Call) -> Result<ApiResponse, ApiError> {
    let how = pipeline::strictness(&call)?;
    let (mut object, repeated) = pipeline::document(&call.body)?;
    let mut warnings = pipeline::object(&call.kind.descriptor, &mut object, &repeated, how)?;
    let created = new_object(&call, object, &mut warnings).await?;
    let mut response = present::object(&call, 201, created)?;
    response.warnings = warnings;
    Ok(response)
}

/// Creates an object that is decoded already.
pub(super) async fn new_object(
    call: &Call,
    mut object: Value,
    warnings: &mut Vec<String>,
) -> Result<std::sync::Arc<kubewright_core::ApiObject>, ApiError> {
    let kind = &call.kind.descriptor;
    pipeline::default(kind, &mut object);
    let generated = meta::name(&object).is_empty();
    let name = meta::name(&object).to_owned();
    let request = pipeline::admission_request(call, Operation::Create, &name, None);
    pipeline::admit(call, &request, Some(&mut object)).await?;
    kind.strategy.prepare_for_create(&mut object, WriteContext { subresource: None, now: call.now });
    if kind.origin == Origin::Custom && kind.status {
        drop_status(&mut object);
    }
    let template = if generated { Some(object.clone()) } else { None };
    let mut tries = 1;
    loop {
        let cx = CreateContext {
            namespace: Some(call.namespace.as_str()).filter(|n| !n.is_empty()),
            now: call.now,
            entropy: &call.server.entropy,
            generation: kind.generation,
        };
        meta::prepare_create(&mut object, &cx)?;
        pipeline::validate_create(kind, &object)?;
        pipeline::admit_validate(call, &request, Some(&object)).await?;
        if tries == 1 {
            warnings.extend(kind.strategy.warnings(&object));
        }
        if call.options.dry_run {
            call.server.cache.consistent().await?;
            if super::read::held(call, meta::name(&object)).is_some() {
                return Err(exists(call, &object));
            }
        }
        match store(call, &mut object).await? {
            Some(created) => return Ok(created),
            None => match &template {
                Some(template) if tries < GENERATED_NAME_TRIES => object.clone_from(template),
                _ => return Err(exists(call, &object)),
            },
        }
        tries += 1;
    }
}

fn exists(call: &Call, object: &Value) -> ApiError {
    ApiError::already_exists(call.kind.group(), call.kind.plural(), meta::name(object))
}

fn drop_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
}

/// Writes the object; `None` where the name is taken.
async fn store(
    call: &Call,
    object: &mut Value,
) -> Result<Option<std::sync::Arc<kubewright_core::ApiObject>>, ApiError> {
    match pipeline::commit(call, object, 0, Vec::new()).await? {
        Outcome::Done(created) => Ok(Some(created)),
        Outcome::Beaten => Ok(None),
        Outcome::Claimed(_) => Err(ApiError::internal("a claim was refused that was not made")),
    }
}
