//! Lists: a splice of what the cache holds, consistent and in stable pages.

use super::Call;
use crate::cache::{Entry, Snapshot};
use crate::continuation::Continuation;
use crate::present;
use crate::revision::{self, Wanted};
use crate::selection::Selection;
use bytes::Bytes;
use kubewright_core::{ApiError, ApiObject, ApiResponse, ObjectList};
use std::sync::Arc;

/// `GET` of a collection.
pub(super) async fn list(call: Call) -> Result<ApiResponse, ApiError> {
    let listed = objects(&call).await?;
    present::list(&call, listed)
}

/// What a list at this call's options gives.
pub(crate) async fn objects(call: &Call) -> Result<ObjectList, ApiError> {
    let selection = Selection::of(call)?;
    let token = match call.options.continue_token.as_deref().filter(|t| !t.is_empty()) {
        Some(token) => Some(Continuation::decode(token)?),
        None => None,
    };
    let (snapshot, revision) = match &token {
        Some(token) => continued(call, token).await?,
        None => wanted(call, revision::of_list(&call.options)?).await?,
    };
    let start = token.as_ref().map_or(&b""[..], Continuation::start);
    let limit = usize::try_from(call.options.limit.unwrap_or(0)).unwrap_or(usize::MAX);
    if call.kind.descriptor.conversion.is_some() {
        convert(call, &selection, &snapshot, start, limit).await?;
    }
    let mut page = Page { limit, items: Vec::new(), last: None, more: false };
    if limit == 0 && selection.everything() {
        page.items.reserve(snapshot.len());
    }
    selection.each(&snapshot, start, |key, entry| page.take(call, &selection, key, entry))?;
    let continue_token = page.last.as_ref().filter(|_| page.more).map(|last| {
        call.kind.cache.keep(revision, &snapshot);
        Continuation::after(revision, last).encode()
    });
    let remaining = continue_token.is_some().then(|| selection.count_after(&snapshot, page.last.as_deref()));
    Ok(ObjectList {
        api_version: call.kind.descriptor.api_version(),
        kind: call.kind.descriptor.list_kind.to_string(),
        resource_version: revision,
        continue_token,
        remaining: remaining.flatten(),
        items: page.items,
    })
}

/// Has the objects converted that the page will look at. With a selector every object is looked at until the page is full.
async fn convert(
    call: &Call,
    selection: &Selection,
    snapshot: &Snapshot,
    start: &[u8],
    limit: usize,
) -> Result<(), ApiError> {
    let wanted = if limit == 0 || selection.selects() { usize::MAX } else { limit.saturating_add(1) };
    let mut entries = Vec::new();
    selection.each(snapshot, start, |_, entry| {
        entries.push(entry.clone());
        Ok(entries.len() < wanted)
    })?;
    call.server.converter.prepare(&call.kind, &entries).await
}

struct Page {
    limit: usize,
    items: Vec<Arc<ApiObject>>,
    /// The key of the last item taken.
    last: Option<Bytes>,
    more: bool,
}

impl Page {
    /// Takes an object that is selected; false once the page is full.
    fn take(
        &mut self,
        call: &Call,
        selection: &Selection,
        key: &Bytes,
        entry: &Arc<Entry>,
    ) -> Result<bool, ApiError> {
        let shape = entry.shape(&call.kind)?;
        if !selection.matches(&shape) {
            return Ok(true);
        }
        if self.limit > 0 && self.items.len() == self.limit {
            self.more = true;
            return Ok(false);
        }
        self.items.push(shape.object.clone());
        if self.limit > 0 {
            self.last = Some(key.clone());
        }
        Ok(true)
    }
}

/// The snapshot that a list without a token reads.
async fn wanted(call: &Call, wanted: Wanted) -> Result<(Arc<Snapshot>, u64), ApiError> {
    match wanted {
        Wanted::Newest => drop(call.server.cache.consistent().await?),
        Wanted::Any => {}
        Wanted::AtLeast(revision) => call.server.cache.at_least(revision).await?,
        Wanted::Exact(revision) => {
            call.server.cache.at_least(revision).await?;
            return at(call, revision).await.map(|s| (s, revision));
        }
    }
    Ok(newest(call))
}

fn newest(call: &Call) -> (Arc<Snapshot>, u64) {
    // In this order: a snapshot loaded afterwards holds at least everything applied before.
    let applied = call.server.cache.applied();
    let snapshot = call.kind.cache.snapshot();
    let revision = snapshot.revision.max(applied);
    (snapshot, revision)
}

async fn continued(call: &Call, token: &Continuation) -> Result<(Arc<Snapshot>, u64), ApiError> {
    let Some(revision) = token.revision() else {
        call.server.cache.consistent().await?;
        return Ok(newest(call));
    };
    call.server.cache.at_least(revision).await?;
    match at(call, revision).await {
        Ok(snapshot) => Ok((snapshot, revision)),
        Err(e) if e.code() == 410 => Err(token.expired()),
        Err(e) => Err(e),
    }
}

/// What the resource held at a revision: now, in a page kept, or out of the store's history.
async fn at(call: &Call, revision: u64) -> Result<Arc<Snapshot>, ApiError> {
    if call.server.cache.forgot(revision) {
        return Err(crate::errors::compacted());
    }
    let now = call.kind.cache.snapshot();
    if now.revision <= revision {
        return Ok(now);
    }
    if let Some(kept) = call.kind.cache.kept(revision) {
        return Ok(kept);
    }
    crate::cache::history(call.server.store.as_ref(), &call.kind.cache, revision).await.map(Arc::new)
}
