//! Whom this server is to the API servers behind it.

use super::{CertificateAuthority, KeyCertificate, TlsError};
use kubewright_core::Clock;
use std::fmt;
use std::path::Path;

/// The name in the client certificate, which other servers may insist on.
pub(crate) const CLIENT_NAME: &str = "front-proxy-client";

/// A client certificate of an authority of its own: who shows it may say on whose behalf it asks.
#[derive(Clone)]
pub struct FrontProxy {
    /// The certificate shown to other servers, with its key.
    pub client: KeyCertificate,
    /// The authority's certificate, by which they know it.
    pub authority_pem: String,
}

impl FrontProxy {
    /// A certificate of an authority that is kept in `folder`, or lives as long as this where there is none.
    ///
    /// # Errors
    /// Where a file is unreadable or damaged, or a key can't be made.
    pub fn issue(folder: Option<&Path>, clock: &dyn Clock) -> Result<Self, TlsError> {
        let authority = match folder {
            Some(folder) => CertificateAuthority::load_or_generate(folder, clock)?,
            None => CertificateAuthority::generate(clock)?,
        };
        let client = authority.issue_client(CLIENT_NAME, &[], clock)?;
        Ok(FrontProxy { client, authority_pem: authority.certificate_pem().to_owned() })
    }
}

impl fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrontProxy")
    }
}
