//! Watches: a start state or the events since a revision, then what follows, until a timeout, a cut-off or the client's end.

mod stream;

use crate::cache::Registration;
use crate::handlers::Call;
use crate::revision;
use crate::selection::Selection;
use kubewright_core::{ApiError, ApiResponse, ResponseBody};
use std::time::Duration;
use stream::WatchState;

/// The shortest and the longest life of a watch that names no timeout, as upstream's default.
const TIMEOUT_MIN_SECONDS: u64 = 1800;

/// What a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The present objects, as `ADDED`.
    State,
    /// The events after a revision.
    After(u64),
}

/// `GET` with `watch=true`.
pub(crate) async fn watch(call: Call) -> Result<ApiResponse, ApiError> {
    let selection = Selection::of(&call)?;
    revision::check_watch(&call.options)?;
    let version = revision::parse(call.options.resource_version.as_deref())?;
    let cache = &call.server.cache;
    let start = match (call.options.send_initial_events, version) {
        (Some(true), Some(v)) if v > 0 => {
            cache.at_least(v).await?;
            Start::State
        }
        (Some(true) | None, None) => {
            cache.consistent().await?;
            Start::State
        }
        (Some(true) | None, Some(0)) => Start::State,
        (Some(false), None | Some(0)) => Start::After(cache.consistent().await?),
        (_, Some(v)) => Start::After(v),
    };
    let registration = register(&call, &selection, start)?;
    if start == Start::State && call.kind.descriptor.conversion.is_some() {
        let mut entries = Vec::new();
        selection.each(&registration.snapshot, b"", |_, entry| {
            entries.push(entry.clone());
            Ok(true)
        })?;
        call.server.converter.prepare(&call.kind, &entries).await?;
    }
    let seconds = call
        .options
        .timeout_seconds
        .filter(|s| *s > 0)
        .unwrap_or_else(|| TIMEOUT_MIN_SECONDS + call.server.entropy.next_u64() % TIMEOUT_MIN_SECONDS);
    let state = WatchState::new(call, selection, start, registration, Duration::from_secs(seconds))?;
    Ok(ApiResponse::new(200, ResponseBody::Watch(state.into_stream())))
}

fn register(call: &Call, selection: &Selection, start: Start) -> Result<Registration, ApiError> {
    let from = match start {
        Start::State => None,
        Start::After(revision) => Some(revision),
    };
    let applied = call.server.cache.applied();
    call.kind.cache.watch(from, selection.interest(), applied)
}
