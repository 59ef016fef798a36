//! What a resource held in the past, out of the store's history: the slow way, for pages older than the snapshots kept.

use super::{Entry, ResourceCache, Snapshot, field_texts};
use crate::encode;
use crate::keys::ResourceId;
use kubewright_core::{ApiError, ApiObject};
use kubewright_store::{KeyRange, RangeRequest, Store};
use std::sync::Arc;

/// Reads the resource as it was at a revision.
///
/// # Errors
/// 410 where the store has forgotten it.
pub(crate) async fn history(
    store: &dyn Store,
    resource: &ResourceCache,
    revision: u64,
) -> Result<Snapshot, ApiError> {
    let range = KeyRange::prefix(resource.id.prefix());
    let request = RangeRequest { range, limit: 0, revision: Some(revision) };
    let found = store.range(request).await.map_err(|e| crate::errors::store(&e))?;
    let kind = resource.kind();
    let mut items = Vec::with_capacity(found.items.len());
    for item in found.items {
        let Some((_, _, key)) = ResourceId::split(&item.key) else { continue };
        let object = ApiObject::from_bytes(encode::served(&item.value, item.mod_revision)?)?;
        let fields = match &kind {
            Some(kind) if !kind.selectable_fields.is_empty() => {
                field_texts(&kind.selectable_fields, &object.value()?)
            }
            _ => Box::default(),
        };
        items.push((key, Arc::new(Entry::new(object, fields))));
    }
    Ok(Snapshot::of(items, revision))
}
