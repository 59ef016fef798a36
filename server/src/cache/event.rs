//! One change of one object, shared by everyone who watches it.

use super::entry::Entry;
use bytes::Bytes;
use kubewright_core::ApiError;
use std::sync::{Arc, OnceLock};

/// A change of an object at a revision.
#[derive(Debug)]
pub(crate) struct CacheEvent {
    pub(crate) revision: u64,
    pub(crate) key: Bytes,
    /// The state before; `None` for a new object.
    pub(crate) before: Option<Arc<Entry>>,
    /// The state after; `None` for a deletion.
    pub(crate) after: Option<Arc<Entry>>,
    /// The state before under this change's revision, made when a watcher first needs it.
    last: OnceLock<Arc<Entry>>,
}

impl CacheEvent {
    pub(crate) fn new(
        revision: u64,
        key: Bytes,
        before: Option<Arc<Entry>>,
        after: Option<Arc<Entry>>,
    ) -> Self {
        CacheEvent { revision, key, before, after, last: OnceLock::new() }
    }

    /// The state before, as a `DELETED` event carries it.
    pub(crate) fn last_state(&self) -> Result<Option<&Arc<Entry>>, ApiError> {
        let Some(before) = &self.before else { return Ok(None) };
        if let Some(last) = self.last.get() {
            return Ok(Some(last));
        }
        let made = Arc::new(before.restamped(self.revision)?);
        Ok(Some(self.last.get_or_init(|| made)))
    }
}
