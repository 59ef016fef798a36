//! CertificateSigningRequest: a certificate that somebody asks for, whether it is granted, and the certificate.

use super::pem;
use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::duration::human_duration;
use crate::api::kit::names::{label, subdomain};
use crate::api::kit::{
    ErrorSink, Path, carry, column, default_text, describe, ensure, field_at, get, int, list, list_mut,
    name_column, names, same, set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const SECONDS_MIN: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The conditions that, once true, stay.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// The descriptor of CertificateSigningRequest.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["csr"]),
        status: true,
        strategy: Arc::new(RequestRules),
        columns: columns(),
        selectable_fields: vec![field_at("spec.signerName", |o| {
            text(sub(o, "spec"), "signerName").to_owned()
        })],
        ..describe::<CertificateSigningRequest>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        age_column(),
        column("SignerName", "string", "Who is asked to sign.", |o, _| {
            text(sub(o, "spec"), "signerName").into()
        }),
        column("Requestor", "string", "Who asked.", |o, _| text(sub(o, "spec"), "username").into()),
        column("RequestedDuration", "string", "How long the certificate is to hold.", |o, _| {
            match int(sub(o, "spec"), "expirationSeconds") {
                Some(seconds) => {
                    let start = Timestamp::UNIX_EPOCH;
                    let end = Timestamp::from_second(seconds).unwrap_or(start);
                    human_duration(start, end).into()
                }
                None => "<none>".into(),
            }
        }),
        column("Condition", "string", "What has become of it.", |o, _| state(o).into()),
    ]
}

fn state(request: &Value) -> String {
    let status = sub(request, "status");
    let has = |kind: &str| list(status, "conditions").iter().any(|c| text(c, "type") == kind);
    let mut words = Vec::new();
    match (has("Denied"), has("Approved")) {
        (true, _) => words.push("Denied"),
        (false, true) => words.push("Approved"),
        (false, false) => words.push("Pending"),
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !text(status, "certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

struct RequestRules;

impl Strategy for RequestRules {
    fn default(&self, object: &mut Value) {
        if let Some(status) = crate::api::kit::object_mut(object, "status") {
            for condition in list_mut(status, "conditions") {
                default_text(condition, "status", "True");
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        set(object, "status", Map::new());
        // It tells who made it, whatever that says of itself.
        let Some(spec) = ensure(object, "spec").and_then(Value::as_object_mut) else { return };
        let user = serde_json::to_value(cx.user).unwrap_or_default();
        for field in ["username", "uid", "groups", "extra"] {
            match user.get(field).filter(|value| !value.is_null()) {
                Some(value) => spec.insert(field.to_owned(), value.clone()),
                None => spec.remove(field),
            };
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        // A request never changes.
        carry(object, old, "spec");
        match cx.subresource {
            Some("status") => stamp_conditions(object, old, cx.now),
            Some("approval") => {
                let conditions = sub(sub(object, "status"), "conditions").clone();
                carry(object, old, "status");
                if let Some(status) = ensure(object, "status").filter(|_| !conditions.is_null()) {
                    set(status, "conditions", conditions);
                }
                stamp_conditions(object, old, cx.now);
            }
            _ => carry(object, old, "status"),
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        validate_conditions(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_conditions(object, &mut errors);
        let status = Path::Root.child("status");
        let found = |o: &Value, kind: &str| -> Vec<Value> {
            let conditions = list(sub(o, "status"), "conditions");
            conditions.iter().filter(|c| text(c, "type") == kind).cloned().collect()
        };
        for kind in FINAL {
            let (new, before) = (found(object, kind), found(old, kind));
            let approval = kind != "Failed" && cx.subresource != Some("approval");
            let verb = match () {
                () if new.len() < before.len() => "remove",
                () if approval && new.len() > before.len() => "add",
                () if approval && !same(&Value::from(new), &Value::from(before)) => "modify",
                () => continue,
            };
            let detail = format!("updates may not {verb} a condition of type {kind:?}");
            errors.forbidden(&status.child("conditions"), &detail);
        }
        validate_certificate(object, old, cx, &status.child("certificate"), &mut errors);
        errors
    }
}

/// Sets the times of conditions that are new or have changed.
fn stamp_conditions(object: &mut Value, old: &Value, now: Timestamp) {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let before: Vec<Value> = list(sub(old, "status"), "conditions").to_vec();
    let Some(status) = crate::api::kit::object_mut(object, "status") else { return };
    for condition in list_mut(status, "conditions") {
        default_text(condition, "lastUpdateTime", &now);
        let earlier = before.iter().find(|c| text(c, "type") == text(condition, "type"));
        match earlier.filter(|c| text(c, "status") == text(condition, "status")) {
            Some(same) if get(condition, "lastTransitionTime").is_none() => {
                carry(condition, same, "lastTransitionTime");
            }
            Some(_) => {}
            None => default_text(condition, "lastTransitionTime", &now),
        }
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let request = text(spec, "request");
    let problem = match pem::blocks(request) {
        Ok(kinds) if kinds.first().is_some_and(|k| k == "CERTIFICATE REQUEST") => None,
        Ok(_) => Some("PEM block type must be CERTIFICATE REQUEST".to_owned()),
        Err(why) => Some(why),
    };
    if let Some(problem) = problem {
        errors.invalid(&path.child("request"), request, &problem);
    }
    let usages = list(spec, "usages");
    let at = path.child("usages");
    if usages.is_empty() {
        errors.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or("");
        if !USAGES.contains(&usage) {
            errors.not_supported(&at.index(i), usage, &USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&at.index(i), usage);
        }
    }
    validate_signer(text(spec, "signerName"), &path.child("signerName"), errors);
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|s| *s < SECONDS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), seconds, detail);
    }
}

/// The name of a signer: a domain and a path, `example.com/signer`.
fn validate_signer(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name == LEGACY_SIGNER {
        errors.invalid(path, name, "the legacy signerName is not allowed via this API version");
        return;
    }
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    for problem in subdomain(domain) {
        errors.invalid(path, domain, &format!("validating label {domain:?}: {problem}"));
    }
    if domain.split('.').count() < 2 {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for problem in rest.split('.').flat_map(label) {
        errors.invalid(path, rest, &format!("validating label {rest:?}: {problem}"));
    }
}

fn validate_conditions(object: &Value, errors: &mut ErrorList) {
    let status = Path::Root.child("status");
    let path = status.child("conditions");
    let mut seen = BTreeSet::new();
    for (i, condition) in list(sub(object, "status"), "conditions").iter().enumerate() {
        let (item, kind) = (path.index(i), text(condition, "type"));
        if kind.is_empty() {
            errors.required(&item.child("type"), "");
        }
        let allowed: &[&str] = if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        match text(condition, "status") {
            "" => errors.required(&item.child("status"), ""),
            value if allowed.contains(&value) => {}
            other => errors.not_supported(&item.child("status"), other, allowed),
        }
        if !seen.insert(kind) {
            errors.duplicate(&item.child("type"), kind);
        }
    }
    if seen.contains("Approved") && seen.contains("Denied") {
        errors.invalid(&path, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
}

/// Only a write of the status may put the certificate in, and only once.
fn validate_certificate(
    object: &Value,
    old: &Value,
    cx: WriteContext<'_>,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let certificate = |o| text(sub(o, "status"), "certificate");
    let (new, before) = (certificate(object), certificate(old));
    if new == before {
        return;
    }
    if !new.is_empty() {
        let problem = match pem::blocks(new) {
            Ok(kinds) if kinds.is_empty() => {
                Some("must contain at least one CERTIFICATE PEM block".to_owned())
            }
            Ok(kinds) => kinds
                .iter()
                .find(|kind| *kind != "CERTIFICATE")
                .map(|kind| format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}")),
            Err(why) => Some(why),
        };
        if let Some(problem) = problem {
            errors.invalid(path, "<certificate data>", &problem);
        }
    }
    if cx.subresource != Some("status") {
        errors.forbidden(path, "updates may not set certificate content");
    } else if !before.is_empty() {
        errors.forbidden(path, "updates may not modify existing certificate content");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use base64::Engine;
    use serde_json::json;

    fn encoded(kind: &str) -> String {
        let text = format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn request() -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"request": encoded("CERTIFICATE REQUEST"), "usages": ["client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client", "expirationSeconds": 3600, "username": "me"}})
    }

    #[test]
    fn requests_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = request();
            change(&mut object["spec"]);
            assert_eq!(texts(&RequestRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |s| s["request"] = encoded("CERTIFICATE").into(),
            &[&format!(
                "spec.request: Invalid value: \"{}\": PEM block type must be CERTIFICATE REQUEST",
                encoded("CERTIFICATE")
            )],
        );
        check(|s| s["usages"] = json!([]), &["spec.usages: Required value"]);
        check(|s| s["usages"] = json!(["any", "any"]), &["spec.usages[1]: Duplicate value: \"any\""]);
        check(
            |s| s["signerName"] = LEGACY_SIGNER.into(),
            &[
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            ],
        );
        check(
            |s| s["signerName"] = "me".into(),
            &[
                "spec.signerName: Invalid value: \"me\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ],
        );
        check(
            |s| s["expirationSeconds"] = 5.into(),
            &[
                "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        );
    }

    #[test]
    fn approval_and_certificate_have_their_own_ways() {
        let check = |through: Option<&'static str>, status: Value, old: Value, wanted: &[&str]| {
            let (mut object, mut before) = (request(), request());
            object["status"] = status;
            before["status"] = old;
            let errors = RequestRules.validate_update(&object, &before, write(through));
            assert_eq!(texts(&errors), wanted);
        };
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let signed = json!({"certificate": encoded("CERTIFICATE")});
        check(Some("approval"), approved.clone(), json!({}), &[]);
        check(
            Some("status"),
            approved.clone(),
            json!({}),
            &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
        );
        check(
            Some("approval"),
            json!({}),
            approved,
            &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
        );
        check(Some("status"), signed.clone(), json!({}), &[]);
        check(
            Some("approval"),
            signed.clone(),
            json!({}),
            &["status.certificate: Forbidden: updates may not set certificate content"],
        );
        check(
            Some("status"),
            json!({"certificate": encoded("KEY")}),
            signed,
            &[
                "status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \"KEY\"",
                "status.certificate: Forbidden: updates may not modify existing certificate content",
            ],
        );
        let both = json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]});
        check(
            Some("approval"),
            both,
            json!({}),
            &[
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ],
        );
    }

    #[test]
    fn an_approval_changes_conditions_only() {
        let mut old = request();
        old["status"] = json!({"certificate": "x"});
        let mut new = old.clone();
        new["spec"]["username"] = "you".into();
        new["status"] = json!({"certificate": "y", "conditions": [{"type": "Approved", "status": "True"}]});
        RequestRules.prepare_for_update(&mut new, &old, write(Some("approval")));
        assert_eq!((&new["spec"], &new["status"]["certificate"]), (&old["spec"], &json!("x")));
        assert_eq!(new["status"]["conditions"][0]["lastUpdateTime"], "1970-01-01T00:00:00Z");
        assert_eq!(
            row(&columns(), &new),
            json!(["r", "<unknown>", "kubernetes.io/kube-apiserver-client", "me", "60m", "Approved,Issued"])
        );
        let mut plain = new.clone();
        RequestRules.prepare_for_update(&mut plain, &old, write(None));
        assert_eq!(plain["status"], old["status"]);
    }
}
