//! Requests for certificates: those of nodes are approved by themselves, approved ones are signed, and old ones go.
//!
//! The cryptography and the key are behind a port, [`CertificateSigner`], which whoever has the authority fills.

mod approve;
mod clean;
mod recognize;
mod sign;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kubewright_reconcile::Controller;
use std::sync::Arc;
use std::time::Duration;

/// What a request for a certificate asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Whom the certificate is to name.
    pub common_name: String,
    /// The groups that it is to name.
    pub organizations: Vec<String>,
    /// How many host names.
    pub dns_names: usize,
    /// How many addresses.
    pub ip_addresses: usize,
    /// How many mail addresses.
    pub email_addresses: usize,
    /// How many URIs.
    pub uris: usize,
}

/// The authority that signs, and reads what is to be signed.
pub trait CertificateSigner: Send + Sync + 'static {
    /// Reads a request in PEM and checks its own signature.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    fn read(&self, request: &[u8]) -> Result<RequestFacts, String>;

    /// Signs a request in PEM for these usages and gives the certificate in PEM.
    ///
    /// # Errors
    /// A sentence about why it could not.
    fn sign(&self, request: &[u8], usages: &[String], lifetime: Duration) -> Result<Vec<u8>, String>;

    /// When a certificate in PEM ends; `None` where it is none.
    fn ends(&self, certificate: &[u8]) -> Option<Timestamp>;
}

/// Approves what nodes ask for themselves.
pub fn approving(signer: Arc<dyn CertificateSigner>) -> Controller {
    approve::controller(signer)
}

/// Signs what was approved.
pub fn signing(signer: Arc<dyn CertificateSigner>) -> Controller {
    sign::controller(signer)
}

/// Takes old requests away.
pub fn cleaning(signer: Arc<dyn CertificateSigner>) -> Controller {
    clean::controller(signer)
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

#[cfg(test)]
mod tests;
