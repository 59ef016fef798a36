//! Approves what nodes ask for their own client certificates, where they may ask for them.

use super::recognize::{KUBELET_CLIENT, kubelet_client};
use super::{CertificateSigner, has, is_issued};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kubewright_core::{
    ApiError, ApiRequest, ContentType, GroupVersionResource, Resource, ResponseBody, Verb,
};
use kubewright_reconcile::{Action, Context, Controller};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn controller(signer: Arc<dyn CertificateSigner>) -> Controller {
    Controller::for_kind::<CertificateSigningRequest>("csrapproving").filter(is_open).with(
        move |request: Arc<CertificateSigningRequest>, cx: Context| {
            let signer = signer.clone();
            async move { approve(&request, &*signer, &cx).await }
        },
    )
}

fn is_open(request: &CertificateSigningRequest) -> bool {
    !is_issued(request) && !has(request, "Approved") && !has(request, "Denied")
}

async fn approve(
    request: &CertificateSigningRequest,
    signer: &dyn CertificateSigner,
    cx: &Context,
) -> Result<Action, ApiError> {
    let spec = &request.spec;
    if !is_open(request) || spec.signer_name != KUBELET_CLIENT {
        return Ok(Action::Done);
    }
    let usages = spec.usages.clone().unwrap_or_default();
    let Ok(facts) = signer.read(&spec.request.0) else { return Ok(Action::Done) };
    if kubelet_client(&facts, &usages).is_err() {
        return Ok(Action::Done);
    }
    let own = spec.username.as_deref() == Some(facts.common_name.as_str());
    let ways = [
        (own, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
        (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
    ];
    for (fits, subresource, message) in ways {
        if fits && may(request, subresource, cx).await? {
            return put(request, message, cx).await;
        }
    }
    Ok(Action::Done)
}

/// Whether the one who asked may have it approved in this way.
async fn may(request: &CertificateSigningRequest, subresource: &str, cx: &Context) -> Result<bool, ApiError> {
    let spec = &request.spec;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
        "resourceAttributes": {"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
            "verb": "create", "subresource": subresource}}});
    let reviews = GroupVersionResource::new("authorization.k8s.io", "v1", "subjectaccessreviews");
    let ask = ApiRequest::resource(Verb::Create, reviews, None, None).body(ContentType::Json, review);
    let answer = match cx.client().send(ask).await?.body {
        ResponseBody::Value(value) => value,
        ResponseBody::Object(object) => object.value()?,
        other => return Err(ApiError::internal(format!("a review was expected, not {other:?}"))),
    };
    Ok(answer["status"]["allowed"] == true)
}

async fn put(request: &CertificateSigningRequest, message: &str, cx: &Context) -> Result<Action, ApiError> {
    let mut value: Value = serde_json::to_value(request).map_err(ApiError::internal)?;
    let condition =
        json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message});
    match value["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => value["status"] = json!({"conditions": [condition]}),
    }
    let api = cx.api::<CertificateSigningRequest>("");
    let ask = api.request(Verb::Update, Some(request.name())).subresource("approval");
    match cx.client().send(ask.body(ContentType::Json, value)).await {
        Err(e) if e.is_not_found() => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}
