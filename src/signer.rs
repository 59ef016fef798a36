//! The plane's authority as the signer that the controllers of certificate requests ask.

use crate::plane::PlaneContext;
use kubewright_controllers::certificates::{CertificateSigner, RequestFacts};
use kubewright_core::SharedClock;
use kubewright_core::k8s_openapi::jiff::Timestamp;
use kubewright_server::tls::{CertificateAuthority, RequestedCertificate, certificate_ends};
use std::sync::Arc;
use std::time::Duration;

/// Signs with the authority of a plane.
pub(crate) struct PlaneSigner {
    authority: Arc<CertificateAuthority>,
    clock: SharedClock,
}

impl PlaneSigner {
    /// The signer of a plane, where that has an authority.
    pub(crate) fn of(cx: &PlaneContext) -> Option<Arc<dyn CertificateSigner>> {
        let authority = cx.authority.clone()?;
        Some(Arc::new(PlaneSigner { authority, clock: cx.clock.clone() }))
    }
}

impl CertificateSigner for PlaneSigner {
    fn read(&self, request: &[u8]) -> Result<RequestFacts, String> {
        let wanted = RequestedCertificate::from_pem(request)?;
        Ok(RequestFacts {
            common_name: wanted.common_name,
            organizations: wanted.organizations,
            dns_names: wanted.dns_names.len(),
            ip_addresses: wanted.ip_addresses.len(),
            email_addresses: wanted.email_addresses.len(),
            uris: wanted.uris.len(),
        })
    }

    fn sign(&self, request: &[u8], usages: &[String], lifetime: Duration) -> Result<Vec<u8>, String> {
        let signed = self.authority.sign_request(request, usages, lifetime, &*self.clock);
        signed.map(String::into_bytes).map_err(|e| e.to_string())
    }

    fn ends(&self, certificate: &[u8]) -> Option<Timestamp> {
        Timestamp::from_second(certificate_ends(certificate)?).ok()
    }
}
