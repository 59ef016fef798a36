//! The authority of front proxies: which client certificates are theirs, and not those of users.

use super::TlsError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates of authorities that sign the front proxies' client certificates.
#[derive(Clone, Debug)]
pub struct FrontProxyAuthority(pub(super) Vec<CertificateDer<'static>>);

impl FrontProxyAuthority {
    /// Out of PEM, one certificate or several.
    ///
    /// # Errors
    /// Where there is none, or one is damaged.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let what = "the authority of the front proxies";
        let all = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| TlsError::certificate(what, e))?;
        if all.is_empty() {
            return Err(TlsError::certificate(what, "there is no certificate in it"));
        }
        Ok(FrontProxyAuthority(all))
    }

    /// The common name of a certificate (verified by TLS) that one of these authorities signed.
    pub(super) fn name_of(&self, certificate: &[u8]) -> Option<String> {
        let (_, leaf) = X509Certificate::from_der(certificate).ok()?;
        let signed = |authority: &CertificateDer<'_>| {
            X509Certificate::from_der(authority).is_ok_and(|(_, ca)| {
                leaf.issuer() == ca.subject() && leaf.verify_signature(Some(ca.public_key())).is_ok()
            })
        };
        if !self.0.iter().any(signed) {
            return None;
        }
        Some(leaf.subject().iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or("").to_owned())
    }
}
