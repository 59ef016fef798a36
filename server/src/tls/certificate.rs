//! The serving certificate, replaceable while connections are accepted.

use super::{KeyCertificate, TlsError};
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;

/// What a server shows its clients. New connections see a replacement, open ones go on.
pub struct ServingCertificate {
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// Begins with this one.
    ///
    /// # Errors
    /// Where certificate and key do not fit together.
    pub fn new(first: &KeyCertificate) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = ArcSwap::new(certified(first, &provider)?);
        Ok(Arc::new(ServingCertificate { provider, current }))
    }

    /// Shows this one from now on.
    ///
    /// # Errors
    /// Where certificate and key do not fit together; the one before stays.
    pub fn replace(&self, next: &KeyCertificate) -> Result<(), TlsError> {
        self.current.store(certified(next, &self.provider)?);
        Ok(())
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServingCertificate")
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn certified(from: &KeyCertificate, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let failed = |e: &dyn fmt::Display| TlsError::certificate("the serving certificate", e);
    let chain = CertificateDer::pem_slice_iter(from.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::from_pem_slice(from.key_pem.as_bytes()).map_err(|e| failed(&e))?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|e| failed(&e))
}
