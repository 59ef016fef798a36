//! Field management in the pipeline: who a write is told to be by, and what it can't set.

use crate::handlers::Call;
use crate::subresources;
use kubewright_core::managed::{self, FieldSet, FieldWrite};
use kubewright_core::{ApiError, meta};
use serde_json::Value;

/// The longest manager taken from a user agent, in bytes, as upstream.
const MANAGER_BYTES_MAX: usize = 128;

/// The manager of a request: `fieldManager`, or the program's name in its user agent.
fn manager(call: &Call) -> &str {
    if let Some(named) = call.options.field_manager.as_deref().filter(|m| !m.is_empty()) {
        return named;
    }
    let program = call.user_agent.split('/').next().unwrap_or("");
    let end = program
        .char_indices()
        .find(|(at, c)| c.is_control() || at + c.len_utf8() > MANAGER_BYTES_MAX)
        .map_or(program.len(), |(at, _)| at);
    &program[..end]
}

/// What a write through `subresource` leaves alone.
fn ignored(call: &Call, subresource: Option<&str>) -> FieldSet {
    let kind = &call.kind.descriptor;
    match subresource {
        Some("status") if subresources::is_bare(kind) => FieldSet::of(&["spec", "metadata"]),
        Some("status") => FieldSet::of(&["spec"]),
        _ if kind.status => FieldSet::of(&["status"]),
        _ => FieldSet::default(),
    }
}

fn with_write<T>(call: &Call, subresource: Option<&str>, run: impl FnOnce(&FieldWrite<'_>) -> T) -> T {
    let kind = &call.kind.descriptor;
    run(&FieldWrite {
        schema: &kind.schema,
        api_version: &kind.api_version(),
        subresource: subresource.unwrap_or(""),
        manager: manager(call),
        now: &meta::format_time(call.now),
        ignored: &ignored(call, subresource),
    })
}

/// Notes in the object what the write changes against the live one.
pub(crate) fn track(call: &Call, subresource: Option<&str>, live: Option<&Value>, object: &mut Value) {
    with_write(call, subresource, |write| managed::track(write, live, object));
}

/// Merges an applied object into the live one.
///
/// # Errors
/// 409 with the fields that belong to others, 400 or 500 for an object that can't be applied.
pub(crate) fn apply(
    call: &Call,
    subresource: Option<&str>,
    live: Option<&Value>,
    applied: &Value,
) -> Result<Value, ApiError> {
    let force = call.options.force.unwrap_or(false);
    with_write(call, subresource, |write| managed::apply(write, live, applied, force))
}
