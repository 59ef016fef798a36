//! The documents made of the kinds, kept until the kinds change.

use super::catalogue::Catalogue;
use crate::ports::VirtualDescriptor;
use crate::server::Shared;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use kubewright_core::ApiError;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What all requests for documents share.
pub(crate) struct Documents {
    computed: Vec<VirtualDescriptor>,
    current: ArcSwapOption<Current>,
}

/// The documents of one generation of kinds, and of what is known of other servers.
pub(super) struct Current {
    generation: (u64, u64),
    pub(super) catalogue: Catalogue,
    /// Made when first asked for. Its keys name documents of this generation only, so it is bounded by the kinds.
    bytes: Mutex<BTreeMap<String, Document>>,
}

/// An encoded document, and what identifies its bytes.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) bytes: Bytes,
    /// The hash of the bytes in capitals.
    pub(super) etag: SmolStr,
}

impl Documents {
    pub(crate) fn new(mut computed: Vec<VirtualDescriptor>) -> Self {
        computed.sort_by(|a, b| (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural)));
        Documents { computed, current: ArcSwapOption::empty() }
    }

    /// The documents of the kinds as they are now.
    pub(super) fn current(&self, shared: &Shared) -> Arc<Current> {
        let kinds = shared.kinds.load();
        let generation = (kinds.generation, shared.aggregator.generation());
        if let Some(current) = &*self.current.load()
            && current.generation == generation
        {
            return current.clone();
        }
        let current = Arc::new(Current {
            generation,
            catalogue: Catalogue::of(&kinds, self.computed.iter(), shared.aggregator.remotes()),
            bytes: Mutex::new(BTreeMap::new()),
        });
        self.current.store(Some(current.clone()));
        current
    }
}

impl Current {
    /// A document, made at the first call. Two first calls at once may both make it.
    pub(super) fn document(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Document, ApiError> {
        if let Some(document) = self.bytes.lock().get(key) {
            return Ok(document.clone());
        }
        let bytes = make()?;
        let made = Document { etag: hex::encode_upper(Sha256::digest(&bytes)).into(), bytes };
        self.bytes.lock().insert(key.to_owned(), made.clone());
        Ok(made)
    }
}
