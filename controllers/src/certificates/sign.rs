//! Signs what was approved, for Kubernetes' own signers.

use super::recognize::check;
use super::{CertificateSigner, has, is_issued};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller};
use std::sync::Arc;
use std::time::Duration;

/// How long a certificate holds that asks for nothing, and at most.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest one.
const LIFETIME_MIN: Duration = Duration::from_secs(600);

pub(super) fn controller(signer: Arc<dyn CertificateSigner>) -> Controller {
    Controller::for_kind::<CertificateSigningRequest>("csrsigning").filter(is_due).with(
        move |request: Arc<CertificateSigningRequest>, cx: Context| {
            let signer = signer.clone();
            async move { sign(&request, &*signer, &cx).await }
        },
    )
}

fn is_due(request: &CertificateSigningRequest) -> bool {
    has(request, "Approved") && !has(request, "Denied") && !has(request, "Failed") && !is_issued(request)
}

async fn sign(
    request: &CertificateSigningRequest,
    signer: &dyn CertificateSigner,
    cx: &Context,
) -> Result<Action, ApiError> {
    if !is_due(request) {
        return Ok(Action::Done);
    }
    let spec = &request.spec;
    let usages = spec.usages.clone().unwrap_or_default();
    let facts = match signer.read(&spec.request.0) {
        Ok(facts) => facts,
        Err(why) => {
            return fail(request, &format!("unable to parse csr {:?}: {why}", request.name()), cx).await;
        }
    };
    match check(&spec.signer_name, &facts, &usages) {
        None => return Ok(Action::Done),
        Some(Err(why)) => return fail(request, &why, cx).await,
        Some(Ok(())) => {}
    }
    let certificate = signer
        .sign(&spec.request.0, &usages, lifetime(spec.expiration_seconds))
        .map_err(|why| ApiError::internal(format!("error auto signing csr: {why}")))?;
    let status = CertificateSigningRequestStatus {
        certificate: Some(ByteString(certificate)),
        ..request.status.clone().unwrap_or_default()
    };
    write(request, status, cx).await
}

fn lifetime(seconds: Option<i32>) -> Duration {
    let wanted = seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    wanted.map_or(LIFETIME, |wanted| wanted.clamp(LIFETIME_MIN, LIFETIME))
}

/// What can't be signed is told, and not tried again.
async fn fail(request: &CertificateSigningRequest, why: &str, cx: &Context) -> Result<Action, ApiError> {
    let mut status = request.status.clone().unwrap_or_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(why.to_owned()),
        last_update_time: Some(cx.time()),
        last_transition_time: Some(cx.time()),
    });
    write(request, status, cx).await
}

async fn write(
    request: &CertificateSigningRequest,
    status: CertificateSigningRequestStatus,
    cx: &Context,
) -> Result<Action, ApiError> {
    let new = CertificateSigningRequest { status: Some(status), ..request.clone() };
    match cx.api::<CertificateSigningRequest>("").replace_status(request.name(), &new).await {
        Err(e) if e.is_not_found() => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}
