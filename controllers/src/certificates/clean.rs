//! Takes requests away that have served: an hour after they were granted, denied or failed, a day where nobody looked at them, and when
//! their certificate ends.

use super::{CertificateSigner, has, is_issued};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller};
use std::sync::Arc;
use std::time::Duration;

const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn controller(signer: Arc<dyn CertificateSigner>) -> Controller {
    Controller::for_kind::<CertificateSigningRequest>("csrcleaner").concurrency(1).with(
        move |request: Arc<CertificateSigningRequest>, cx: Context| {
            let signer = signer.clone();
            async move { clean(&request, &*signer, &cx).await }
        },
    )
}

async fn clean(
    request: &CertificateSigningRequest,
    signer: &dyn CertificateSigner,
    cx: &Context,
) -> Result<Action, ApiError> {
    let Some(end) = end(request, signer) else { return Ok(Action::Done) };
    let left = Duration::try_from(end.duration_since(cx.now())).unwrap_or_default();
    if !left.is_zero() {
        return Ok(Action::RequeueAfter(left));
    }
    let options = DeleteOptions { uid: Some(request.uid().to_owned()), ..DeleteOptions::default() };
    match cx.api::<CertificateSigningRequest>("").delete(request.name(), &options).await {
        Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
        _ => Ok(Action::Done),
    }
}

/// When it is to go.
pub(super) fn end(request: &CertificateSigningRequest, signer: &dyn CertificateSigner) -> Option<Timestamp> {
    let conditions = request.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut ends: Vec<Timestamp> = conditions
        .filter(|c| {
            matches!(c.type_.as_str(), "Denied" | "Failed") || (c.type_ == "Approved" && is_issued(request))
        })
        .filter_map(|c| c.last_update_time.as_ref()?.0.checked_add(DECIDED).ok())
        .collect();
    let pending = ["Approved", "Denied", "Failed"].iter().all(|kind| !has(request, kind));
    if pending && let Some(made) = &request.metadata.creation_timestamp {
        ends.extend(made.0.checked_add(PENDING).ok());
    }
    if has(request, "Approved")
        && let Some(certificate) = request.status.as_ref().and_then(|s| s.certificate.as_ref())
    {
        ends.extend(signer.ends(&certificate.0));
    }
    ends.into_iter().min()
}
