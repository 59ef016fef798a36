//! Encryption at rest around the plane's store.

use super::RunningPlane;
use crate::error::StartError;
use crate::plane::Builder;
use kubewright_core::ApiError;
use kubewright_store::{EncryptedStore, EncryptionKey};
use std::sync::Arc;

/// Wraps the store as the rules say; gives what was wrapped around it.
pub(super) fn wrap(parts: &mut Builder) -> Result<Vec<EncryptedStore>, StartError> {
    let failed = |e: kubewright_store::Error| StartError::new("encryption", e);
    let mut made = Vec::new();
    for rule in std::mem::take(&mut parts.encryption) {
        let Some(store) = parts.store.clone().filter(|_| !rule.keys.is_empty()) else { continue };
        let keys = rule.keys.into_iter().map(|(name, key)| EncryptionKey::new(name, key));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let mut store = EncryptedStore::new(store, keys, rule.prefixes).map_err(failed)?.except(rule.except);
        if rule.writes_plain {
            store = store.write_plaintext();
        } else if !rule.reads_plain {
            store = store.refuse_plaintext();
        }
        parts.store = Some(Arc::new(store.clone()));
        made.push(store);
    }
    Ok(made)
}

impl RunningPlane {
    /// Writes every stored object anew that is not as it would be written now (after a change of keys); gives their number.
    ///
    /// # Errors
    /// The store's; what was done stays done, and calling again goes on.
    ///
    /// # Cancel safety
    /// As after an error.
    pub async fn rewrite_encrypted(&self) -> Result<u64, ApiError> {
        let mut written = 0;
        for store in &self.encrypted {
            written += store.rotate().await.map_err(ApiError::internal)?;
        }
        Ok(written)
    }
}
