//! Encryption at rest around the plane's store, and its configuration file, which may change while the plane runs.

use super::RunningPlane;
use crate::error::StartError;
use crate::plane::Builder;
use crate::stage::Stage;
use kubewright_core::ApiError;
use kubewright_server::{EncryptionProvider, EncryptionRule, EncryptionSecret, encryption_rules};
use kubewright_store::{EncryptedStore, EncryptionKey, EncryptionScope};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// The encryption of a running plane.
#[derive(Default)]
pub(super) struct Encrypted {
    store: Option<EncryptedStore>,
    file: Option<Arc<Followed>>,
    stage: Stage,
}

/// A configuration file, and the text of it that is in force.
struct Followed {
    path: PathBuf,
    text: Mutex<String>,
}

impl Followed {
    /// Reads the file; the scopes where it changed since.
    fn changed(&self) -> Result<Option<Vec<EncryptionScope>>, String> {
        let told = |e: &dyn std::fmt::Display| format!("{}: {e}", self.path.display());
        let text = std::fs::read_to_string(&self.path).map_err(|e| told(&e))?;
        let mut known = self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *known == text {
            return Ok(None);
        }
        let rules = encryption_rules(&text).map_err(|e| told(&e))?;
        let scopes = scopes(rules).map_err(|e| told(&e))?;
        *known = text;
        Ok(Some(scopes))
    }
}

/// Wraps the store as the rules, or the file, say.
pub(super) fn wrap(parts: &mut Builder) -> Result<Encrypted, StartError> {
    let failed = |why: String| StartError::new("encryption", why);
    let file = parts.encryption_file.take().map(|path| Arc::new(Followed { path, text: Mutex::default() }));
    let mut all = scopes(std::mem::take(&mut parts.encryption)).map_err(|e| failed(e.to_string()))?;
    if let Some(file) = &file {
        all = file.changed().map_err(failed)?.unwrap_or_default();
    }
    let wanted = !all.is_empty() || file.is_some();
    let Some(inner) = parts.store.clone().filter(|_| wanted) else { return Ok(Encrypted::default()) };
    let store = EncryptedStore::scoped(inner, all);
    parts.store = Some(Arc::new(store.clone()));
    let stage = Stage::default();
    if let Some(file) = &file {
        stage.spawn(follow(store.clone(), file.clone(), stage.cancel.clone()));
    }
    Ok(Encrypted { store: Some(store), file, stage })
}

/// Takes over what the file says, as often as it changes; one with mistakes changes nothing.
async fn follow(store: EncryptedStore, file: Arc<Followed>, cancel: tokio_util::sync::CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        match file.changed() {
            Ok(None) => {}
            Ok(Some(scopes)) => {
                store.set_scopes(scopes);
                tracing::info!("the encryption configuration changed");
            }
            Err(why) => tracing::error!(%why, "the encryption configuration is not taken over"),
        }
    }
}

fn scopes(rules: Vec<EncryptionRule>) -> Result<Vec<EncryptionScope>, kubewright_store::Error> {
    let scope = |rule: EncryptionRule| {
        let keys = rule.keys.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let scope = EncryptionScope::new(keys, rule.prefixes)?.except(rule.except);
        Ok(match (rule.writes_plain, rule.reads_plain) {
            (true, _) => scope.write_plaintext(),
            (false, true) => scope,
            (false, false) => scope.refuse_plaintext(),
        })
    };
    // What no key is for stays as it is; the rules behind it leave it out.
    rules.into_iter().filter(|rule| !rule.keys.is_empty()).map(scope).collect()
}

fn key(secret: EncryptionSecret) -> Result<EncryptionKey, kubewright_store::Error> {
    let EncryptionSecret { name, provider, bytes, .. } = secret;
    match provider {
        EncryptionProvider::AesGcm => EncryptionKey::aes_gcm(name, &bytes),
        EncryptionProvider::AesCbc => EncryptionKey::aes_cbc(name, &bytes),
        EncryptionProvider::SecretBox => EncryptionKey::secret_box(name, &bytes),
        other => Err(kubewright_store::Error::new(
            kubewright_store::Reason::Unsupported,
            format!("keys of {other:?} are not known here"),
        )),
    }
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
        match &self.encrypted.store {
            Some(store) => store.rotate().await.map_err(ApiError::internal),
            None => Ok(0),
        }
    }

    /// Reads the file of [`crate::parts::encryption_file`] now instead of within a minute; says whether it had changed.
    ///
    /// # Errors
    /// What is wrong with it; what was in force stays so.
    pub fn reload_encryption(&self) -> Result<bool, ApiError> {
        let (Some(store), Some(file)) = (&self.encrypted.store, &self.encrypted.file) else {
            return Ok(false);
        };
        let scopes = file.changed().map_err(ApiError::internal)?;
        Ok(scopes.map(|scopes| store.set_scopes(scopes)).is_some())
    }

    pub(super) async fn end_encryption(&self) {
        self.encrypted.stage.end("the encryption").await;
    }
}
