//! The rules between decoding and storing: defaults, admission, validation.

use crate::admission::{AdmissionRequest, Operation, Reinvocation, WriteOptions};
use crate::handlers::Call;
use kubewright_core::meta::{self, NameRule};
use kubewright_core::resource::WriteContext;
use kubewright_core::{ApiError, ErrorList, KindDescriptor, Notes};
use serde_json::Value;

/// Fills in the defaults of the schema and of the kind.
pub(crate) fn default(kind: &KindDescriptor, object: &mut Value) {
    kind.schema.apply_defaults(object);
    kind.strategy.default(object);
}

/// What admission is asked.
pub(crate) fn admission_request<'a>(
    call: &'a Call,
    operation: Operation,
    name: &'a str,
    old: Option<&'a Value>,
) -> AdmissionRequest<'a> {
    AdmissionRequest {
        operation,
        resource: call.kind.descriptor.resource(),
        kind: &call.kind.descriptor,
        namespace: &call.namespace,
        name,
        subresource: call.subresource.as_deref(),
        user: &call.user,
        old,
        dry_run: call.options.dry_run,
        options: WriteOptions::written(operation, &call.options),
        notes: &call.notes,
        reinvocation: Reinvocation::default(),
        reader: &call.server.reader,
    }
}

/// Runs the changing half of admission, a second time where a plugin asks for it.
///
/// # Errors
/// The first refusal.
pub(crate) async fn admit(
    call: &Call,
    request: &AdmissionRequest<'_>,
    mut object: Option<&mut Value>,
) -> Result<(), ApiError> {
    loop {
        for plugin in call.server.admission.iter().filter(|plugin| plugin.mutates(request)) {
            plugin.mutate(request, object.as_deref_mut()).await?;
        }
        if !request.reinvocation.begin() {
            return Ok(());
        }
    }
}

/// Runs the checking half of admission.
///
/// # Errors
/// The first refusal.
pub(crate) async fn admit_validate(
    call: &Call,
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
) -> Result<(), ApiError> {
    for plugin in call.server.admission.iter().filter(|plugin| plugin.validates(request)) {
        plugin.validate(request, object).await?;
    }
    Ok(())
}

/// Which names the server itself lets through; kinds with another rule (longer or shorter) have it in their strategy.
fn name_rule(kind: &KindDescriptor) -> NameRule {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("rbac.authorization.k8s.io", _) | ("", "namespaces" | "services") => NameRule::PathSegment,
        _ => NameRule::Subdomain,
    }
}

fn refused(kind: &KindDescriptor, object: &Value, errors: ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    // The kind's own rules may say the same of the name as the server's.
    let mut said = ErrorList::with_capacity(errors.len());
    for error in errors {
        if !said.contains(&error) {
            said.push(error);
        }
    }
    Err(ApiError::invalid(&kind.group, &kind.kind, meta::name(object), &said))
}

/// Validates a new object.
///
/// # Errors
/// 422 with every rule broken.
pub(crate) fn validate_create(kind: &KindDescriptor, object: &Value) -> Result<(), ApiError> {
    let mut errors = meta::validate_metadata(object, name_rule(kind), kind.namespaced());
    errors.extend(kind.schema.validate_change(object, None).errors);
    errors.extend(kind.strategy.validate(object));
    refused(kind, object, errors)
}

/// Validates a changed object; what was wrong before and stays as it was is noted as a warning.
///
/// # Errors
/// 422 with every rule broken.
pub(crate) fn validate_update(
    kind: &KindDescriptor,
    object: &Value,
    old: &Value,
    cx: WriteContext<'_>,
    notes: &Notes,
) -> Result<(), ApiError> {
    let mut errors = meta::validate_metadata_update(object, old);
    let checked = kind.schema.validate_change(object, Some(old));
    errors.extend(checked.errors);
    checked.warnings.into_iter().for_each(|warning| notes.warn(warning));
    errors.extend(kind.strategy.validate_update(object, old, cx));
    refused(kind, object, errors)
}
