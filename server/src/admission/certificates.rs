//! Who may approve and sign requests for certificates, and whose certificates nobody gets this way.

use super::json::{sub, text};
use super::{Admission, AdmissionRequest, Operation, forbidden};
use crate::auth::{Attributes, Authorizer, Decision};
use crate::tls::RequestedCertificate;
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// Upstream's plugin of this name: who approves must be allowed to `approve` for the signer.
pub struct CertificateApproval(Arc<dyn Authorizer>);

/// Upstream's plugin of this name: who fills in a certificate must be allowed to `sign` for the signer.
pub struct CertificateSigning(Arc<dyn Authorizer>);

/// Upstream's plugin of this name: nobody becomes a master by a client certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateSubjectRestriction;

impl CertificateApproval {
    /// Asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        CertificateApproval(authorizer)
    }
}

impl CertificateSigning {
    /// Asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        CertificateSigning(authorizer)
    }
}

impl fmt::Debug for CertificateApproval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateApproval")
    }
}

impl fmt::Debug for CertificateSigning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateSigning")
    }
}

fn is_request(request: &AdmissionRequest<'_>, operation: Operation, subresource: Option<&str>) -> bool {
    request.operation == operation
        && request.subresource == subresource
        && request.resource.group == GROUP
        && request.resource.resource == "certificatesigningrequests"
}

/// Whether the user may do this for a signer, by its whole name or by its domain.
async fn may(authorizer: &dyn Authorizer, request: &AdmissionRequest<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or(""));
    for name in [signer, domain.as_str()] {
        let attributes = Attributes {
            user: Cow::Borrowed(request.user),
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..Attributes::default()
        };
        if authorizer.authorize(&attributes).await == Decision::Allow {
            return true;
        }
    }
    false
}

fn signer(object: &Value) -> &str {
    text(sub(object, "spec"), "signerName")
}

impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        is_request(request, Operation::Update, Some("approval"))
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(old) = request.old else { return Ok(()) };
            if may(&*self.0, request, "approve", signer(old)).await {
                return Ok(());
            }
            let why = format!("user not permitted to approve requests with signerName {:?}", signer(old));
            Err(forbidden(request, object.unwrap_or(old), &why))
        })
    }
}

impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        is_request(request, Operation::Update, Some("status"))
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let (Some(old), Some(new)) = (request.old, object) else { return Ok(()) };
            let same = |field: &str| sub(sub(old, "status"), field) == sub(sub(new, "status"), field);
            if (same("certificate") && same("conditions"))
                || may(&*self.0, request, "sign", signer(old)).await
            {
                return Ok(());
            }
            let why = format!("user not permitted to sign requests with signerName {:?}", signer(old));
            Err(forbidden(request, new, &why))
        })
    }
}

impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        is_request(request, Operation::Create, None)
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let check = |object: &Value| {
            if signer(object) != CLIENT {
                return Ok(());
            }
            let subject = RequestedCertificate::of(object)
                .map_err(|e| forbidden(request, object, &format!("failed to parse CSR: {e}")))?;
            if !subject.organizations.iter().any(|o| o == MASTERS) {
                return Ok(());
            }
            let why = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
            Err(forbidden(request, object, &why))
        };
        Box::pin(std::future::ready(object.map_or(Ok(()), check)))
    }
}
