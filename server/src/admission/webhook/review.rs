//! The AdmissionReview: what a webhook is sent, and what it may answer.

use super::hook::ReviewVersion;
use crate::admission::matching::namespace_of;
use crate::admission::request::kind_of;
use crate::admission::{AdmissionRequest, Operation};
use base64::Engine;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kubewright_core::{ApiError, GroupVersionKind, GroupVersionResource, KindDescriptor, Reason, UserInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is under review, in the kind that the webhook wants.
pub(super) struct Subject<'a> {
    pub(super) kind: &'a KindDescriptor,
    pub(super) object: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    kind: &'static str,
    api_version: &'static str,
    request: Sent<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    uid: &'a str,
    kind: Value,
    resource: Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Value,
    request_resource: Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'static str,
    user_info: &'a UserInfo,
    object: Option<&'a Value>,
    old_object: Option<&'a Value>,
    dry_run: bool,
    options: Value,
}

fn kind_value(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group.as_str(), "version": kind.version.as_str(), "kind": kind.kind.as_str()})
}

fn resource_value(resource: &GroupVersionResource) -> Value {
    json!({"group": resource.group.as_str(), "version": resource.version.as_str(), "resource": resource.resource.as_str()})
}

/// The review to send.
///
/// # Errors
/// Where it can't be written.
pub(super) fn request(
    version: ReviewVersion,
    uid: &str,
    request: &AdmissionRequest<'_>,
    subject: &Subject<'_>,
) -> Result<Bytes, ApiError> {
    let below = request.subresource.unwrap_or("");
    let name = match (request.name, subject.object) {
        ("", Some(object)) if request.operation == Operation::Create => kubewright_core::meta::name(object),
        (name, _) => name,
    };
    let sent = Sent {
        uid,
        kind: kind_value(&kind_of(subject.kind, request.subresource)),
        resource: resource_value(&subject.kind.resource()),
        sub_resource: below,
        request_kind: kind_value(&request.request_kind()),
        request_resource: resource_value(&request.resource),
        request_sub_resource: below,
        name,
        namespace: namespace_of(request, subject.object),
        operation: request.operation.as_str(),
        user_info: request.user,
        object: subject.object,
        old_object: subject.old,
        dry_run: request.dry_run,
        options: request.options.to_value(),
    };
    let review = Review { kind: "AdmissionReview", api_version: version.api_version(), request: sent };
    serde_json::to_vec(&review).map(Bytes::from).map_err(ApiError::internal)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Answer {
    kind: String,
    api_version: String,
    response: Option<Response>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// What a webhook said.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) status: Option<Status>,
    /// A JSON patch, as it was sent.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

/// Reads an answer.
///
/// # Errors
/// Says in upstream's words why it is none.
pub(super) fn verdict(
    version: ReviewVersion,
    uid: &str,
    mutating: bool,
    body: &[u8],
) -> Result<Verdict, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|e| format!("unable to decode the answer: {e}"))?;
    let response = answer.response.ok_or("webhook response was absent")?;
    if version == ReviewVersion::V1 {
        let (group_version, kind) = (version.api_version(), "AdmissionReview");
        if answer.api_version != group_version || answer.kind != kind {
            return Err(format!(
                "expected webhook response of {group_version}, Kind={kind}, got {}, Kind={}",
                answer.api_version, answer.kind
            ));
        }
        if response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        check_patch(&response, mutating)?;
    }
    let patch = match response.patch.as_deref().filter(|p| mutating && !p.is_empty()) {
        None => None,
        Some(text) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            Some(bytes.map_err(|e| format!("response.patch is no base64: {e}"))?)
        }
    };
    if let Some(other) = response.patch_type.filter(|t| patch.is_some() && t != "JSONPatch") {
        return Err(format!("unsupported patch type {other:?}"));
    }
    Ok(Verdict {
        allowed: response.allowed,
        status: response.status,
        patch,
        annotations: response.audit_annotations.unwrap_or_default(),
        warnings: response.warnings.unwrap_or_default(),
    })
}

fn check_patch(response: &Response, mutating: bool) -> Result<(), &'static str> {
    let patch = response.patch.as_deref().is_some_and(|p| !p.is_empty());
    match (mutating, patch, response.patch_type.as_deref()) {
        (false, true, _) => Err("validating webhook may not return response.patch"),
        (false, false, Some(_)) => Err("validating webhook may not return response.patchType"),
        (true, true, None) => Err("webhook returned response.patch but not response.patchType"),
        (true, false, Some(_)) => Err("webhook returned response.patchType but not response.patch"),
        (true, true, Some("")) => Err("webhook returned invalid response.patchType of \"\""),
        _ => Ok(()),
    }
}

/// The refusal of a webhook as the client sees it.
pub(super) fn denied(hook: &str, status: Option<Status>) -> ApiError {
    let mut status = status.unwrap_or_default();
    let denied = format!("admission webhook {hook:?} denied the request");
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    status.message = Some(match (given(&status.message), given(&status.reason)) {
        (Some(message), _) => format!("{denied}: {message}"),
        (None, Some(reason)) => format!("{denied}: {reason}"),
        (None, None) => format!("{denied} without explanation"),
    });
    if status.code.is_none_or(|code| code == 0) {
        status.code = Some(i32::from(Reason::Forbidden.code()));
    }
    status.status = Some("Failure".to_owned());
    ApiError::from_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_held_to_the_protocol() {
        let v1 = |response: Value| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let check = |mutating: bool, answer: Value, want: Result<bool, &str>| {
            let got = verdict(ReviewVersion::V1, "u", mutating, answer.to_string().as_bytes());
            assert_eq!(got.map(|v| v.allowed), want.map_err(str::to_owned), "{answer}");
        };
        check(false, v1(json!({"uid": "u", "allowed": true})), Ok(true));
        check(false, v1(json!({"uid": "u"})), Ok(false));
        check(false, v1(json!({"uid": "x"})), Err("expected response.uid=\"u\", got \"x\""));
        check(false, v1(Value::Null), Err("webhook response was absent"));
        check(
            false,
            json!({"response": {"uid": "u", "allowed": true}}),
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got , Kind="),
        );
        check(
            false,
            v1(json!({"uid": "u", "patch": "W10="})),
            Err("validating webhook may not return response.patch"),
        );
        check(
            true,
            v1(json!({"uid": "u", "patch": "W10="})),
            Err("webhook returned response.patch but not response.patchType"),
        );
        check(
            true,
            v1(json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"})),
            Ok(true),
        );
        check(
            true,
            v1(json!({"uid": "u", "patch": "W10=", "patchType": "Merge"})),
            Err("unsupported patch type \"Merge\""),
        );
        // The older version was never held to so much.
        let old = json!({"response": {"allowed": true, "patch": "W10="}});
        let got = verdict(ReviewVersion::V1Beta1, "u", true, old.to_string().as_bytes()).unwrap();
        assert_eq!((got.allowed, got.patch), (true, Some(b"[]".to_vec())));
        assert!(verdict(ReviewVersion::V1, "u", true, b"garbage").is_err());
    }

    #[test]
    fn refusals_are_told_in_upstreams_words() {
        let check = |status: Value, code: u16, reason: &str, message: &str| {
            let e = denied("h", serde_json::from_value(status).unwrap());
            assert_eq!((e.code(), e.reason_text(), e.message()), (code, reason, message));
        };
        check(Value::Null, 403, "", "admission webhook \"h\" denied the request without explanation");
        check(json!({"message": "no"}), 403, "", "admission webhook \"h\" denied the request: no");
        check(
            json!({"reason": "Busy", "code": 409}),
            409,
            "Busy",
            "admission webhook \"h\" denied the request: Busy",
        );
    }
}
