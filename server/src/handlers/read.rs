//! Reads of one object.

use super::Call;
use crate::cache::Entry;
use crate::keys::object_key;
use crate::present;
use crate::revision::{self, Wanted};
use kubewright_core::{ApiError, ApiResponse};
use std::sync::Arc;

/// `GET` of an object.
pub(super) async fn get(call: Call) -> Result<ApiResponse, ApiError> {
    match revision::of_get(&call.options)? {
        Wanted::Newest => drop(call.server.cache.consistent().await?),
        Wanted::Any => {}
        Wanted::AtLeast(revision) | Wanted::Exact(revision) => call.server.cache.at_least(revision).await?,
    }
    let entry = held(&call, call.name()?).ok_or_else(|| call.not_found())?;
    call.server.converter.prepare(&call.kind, [&entry]).await?;
    let object = entry.shape(&call.kind)?.object.clone();
    present::object(&call, 200, object)
}

/// The object as the cache holds it now.
pub(crate) fn held(call: &Call, name: &str) -> Option<Arc<Entry>> {
    call.kind.cache.snapshot().get(&object_key(&call.namespace, name)).cloned()
}

/// The object as every acknowledged write left it, in the version asked for.
///
/// # Errors
/// 404, or the error of a conversion.
pub(crate) async fn current(call: &Call, name: &str) -> Result<Arc<Entry>, ApiError> {
    call.server.cache.consistent().await?;
    let entry = held(call, name).ok_or_else(|| call.kind.not_found(name))?;
    call.server.converter.prepare(&call.kind, [&entry]).await?;
    Ok(entry)
}
