//! Creates.

use super::Call;
use crate::admission::Operation;
use crate::allocate::Reserved;
use crate::pipeline::{self, Outcome};
use crate::present;
use crate::{bootstrap, crd};
use kubewright_core::meta::{self, CreateContext};
use kubewright_core::resource::{Origin, WriteContext};
use kubewright_core::{ApiError, ApiObject, ApiResponse};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How often a generated name that is taken is drawn anew, as upstream.
const GENERATED_NAME_TRIES: usize = 8;
/// How long a write waits to be served before it is answered all the same.
pub(super) const SERVED_WAIT: Duration = Duration::from_secs(3);

/// `POST` to a collection.
pub(super) async fn create(call: Call) -> Result<ApiResponse, ApiError> {
    let how = pipeline::strictness(&call)?;
    let (mut object, repeated) = pipeline::document(&call.body)?;
    let mut warnings = pipeline::object(&call.kind.descriptor, &mut object, &repeated, how)?;
    pipeline::default(&call.kind.descriptor, &mut object);
    pipeline::track(&call, None, None, &mut object);
    let created = new_object(&call, object, &mut warnings).await?;
    let mut response = present::object(&call, 201, created)?;
    response.warnings = warnings;
    Ok(response)
}

/// Creates an object that is decoded and has its defaults, and whose `managedFields` say who set what.
pub(super) async fn new_object(
    call: &Call,
    mut object: Value,
    warnings: &mut Vec<String>,
) -> Result<Arc<ApiObject>, ApiError> {
    crd::accepts_new(call)?;
    let kind = &call.kind.descriptor;
    let generated = meta::name(&object).is_empty();
    let name = meta::name(&object).to_owned();
    // Admission sees where the object will be, as upstream's does.
    if meta::namespace(&object).is_empty()
        && !call.namespace.is_empty()
        && let Some(metadata) = meta::metadata_mut(&mut object)
    {
        metadata.insert("namespace".to_owned(), Value::from(call.namespace.as_str()));
    }
    let request = pipeline::admission_request(call, Operation::Create, &name, None);
    pipeline::admit(call, &request, Some(&mut object)).await?;
    let write = WriteContext { subresource: None, now: call.now, user: &call.user };
    kind.strategy.prepare_for_create(&mut object, write);
    if kind.origin == Origin::Custom && kind.status {
        drop_status(&mut object);
    }
    super::settle(call, None, &mut object, true)?;
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
        kind.strategy.complete_create(&mut object, write);
        let reserved = numbers(call, &mut object, None)?;
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
        match store(call, &object, reserved).await? {
            Some(created) => {
                written(call, &created).await;
                pipeline::keep(call, object, &created);
                return Ok(created);
            }
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

/// Gives a Service the numbers that it needs; nothing for other kinds.
pub(super) fn numbers(
    call: &Call,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Reserved>, ApiError> {
    if !call.kind.is("", "services") {
        return Ok(None);
    }
    call.server.allocator.assign(object, old).map(Some)
}

/// What follows a write: kinds are served, and namespaces furnished, before the client hears of it.
pub(super) async fn written(call: &Call, object: &ApiObject) {
    if call.options.dry_run {
        return;
    }
    // What admission reads out of the cache must be there for the client's next request.
    let namespace = call.kind.is("", "namespaces");
    if namespace || crd::is_definition(call.kind.group(), call.kind.plural()) {
        call.server.cache.reached(object.resource_version(), SERVED_WAIT).await;
    }
    if namespace && call.verb == kubewright_core::Verb::Create {
        let name = &object.header().name;
        if let Err(e) = bootstrap::root_ca(&call.server, name).await {
            tracing::warn!(namespace = %name, error = %e, "the certificate authority could not be put into a namespace");
        }
    }
}

/// Writes the object; `None` where the name is taken.
async fn store(
    call: &Call,
    object: &Value,
    reserved: Option<Reserved>,
) -> Result<Option<Arc<ApiObject>>, ApiError> {
    let claims = reserved.as_ref().map(|reserved| reserved.claims(call.now)).unwrap_or_default();
    match pipeline::commit(call, object, 0, claims).await? {
        Outcome::Done(created) => {
            if let Some(reserved) = reserved.filter(|_| !call.options.dry_run) {
                reserved.keep();
            }
            Ok(Some(created))
        }
        Outcome::Beaten => Ok(None),
        Outcome::Claimed => Err(claimed(call, object)),
    }
}

/// Another server gave a number out at the same moment.
pub(super) fn claimed(call: &Call, object: &Value) -> ApiError {
    let why = "an address or port was allocated by another server at the same time; please try again";
    ApiError::conflict(call.kind.group(), call.kind.plural(), meta::name(object), why)
}
