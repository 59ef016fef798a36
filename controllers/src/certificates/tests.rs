//! The three controllers against a fake server and a signer that needs no keys.

use super::*;
use k8s_openapi::ByteString;
use kubewright_core::Resource;
use kubewright_reconcile::client::Api;
use kubewright_reconcile::testing::{FakeApi, converges};
use serde_json::{Value, json};

/// Reads `name organization` and signs by saying so.
struct Words;

impl CertificateSigner for Words {
    fn read(&self, request: &[u8]) -> Result<RequestFacts, String> {
        let text = String::from_utf8_lossy(request).into_owned();
        let (name, organization) = text.split_once(' ').ok_or("no request")?;
        let organizations = vec![organization.to_owned()];
        Ok(RequestFacts { common_name: name.to_owned(), organizations, ..RequestFacts::default() })
    }

    fn sign(&self, request: &[u8], usages: &[String], lifetime: Duration) -> Result<Vec<u8>, String> {
        let request = String::from_utf8_lossy(request);
        Ok(format!("{request} for {} in {}", usages.join("+"), lifetime.as_secs()).into_bytes())
    }

    fn ends(&self, _: &[u8]) -> Option<Timestamp> {
        None
    }
}

fn request(name: &str, signer: &str, words: &str, status: Value) -> CertificateSigningRequest {
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({"metadata": {"name": name},
        "spec": {"signerName": signer, "request": "", "usages": ["client auth", "digital signature"],
            "expirationSeconds": 3600}, "status": status}))
    .expect("a request");
    request.spec.request = ByteString(words.as_bytes().to_vec());
    request
}

#[tokio::test]
async fn what_is_approved_is_signed_or_told_why_not() {
    let server = FakeApi::new();
    let api = Api::<CertificateSigningRequest>::all(server.client());
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let denied =
        json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]});
    let client = "kubernetes.io/kube-apiserver-client";
    for one in [
        request("good", client, "jane devs", approved.clone()),
        request("bad", "kubernetes.io/kubelet-serving", "jane devs", approved.clone()),
        request("broken", client, "nothing", approved.clone()),
        request("open", client, "jane devs", json!({})),
        request("denied", client, "jane devs", denied),
        request("foreign", "example.dev/own", "jane devs", approved),
    ] {
        api.create(&one).await.expect("created");
    }
    converges(&server, [sign::controller(Arc::new(Words))], || true).await.expect("convergence");
    let told = async |name: &str| {
        let found = api.get(name).await.expect("the request");
        let status = found.status.clone().unwrap_or_default();
        let failed = status.conditions.iter().flatten().find(|c| c.type_ == "Failed");
        match (status.certificate, failed) {
            (Some(certificate), _) => String::from_utf8(certificate.0).expect("words"),
            (None, Some(failed)) => failed.message.clone().unwrap_or_default(),
            (None, None) => String::new(),
        }
    };
    assert_eq!(told("good").await, "jane devs for client auth+digital signature in 3600");
    assert_eq!(told("bad").await, "subject organization is not system:nodes");
    assert_eq!(told("broken").await, "unable to parse csr \"broken\": no request");
    for name in ["open", "denied", "foreign"] {
        assert_eq!(told(name).await, "", "{name}");
    }
}

#[tokio::test]
async fn old_requests_go() {
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
    let server = FakeApi::with_clock(Arc::new(kubewright_core::ManualClock::new(now)));
    let api = Api::<CertificateSigningRequest>::all(server.client());
    let at = |kind: &str, time: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": time}], "certificate": "eA=="});
    for (name, status) in [
        ("signed", at("Approved", "2026-01-01T22:59:00Z")),
        ("fresh", at("Approved", "2026-01-01T23:30:00Z")),
        ("denied", at("Denied", "2026-01-01T22:00:00Z")),
        ("pending", json!({})),
    ] {
        api.create(&request(name, "x.dev/y", "a b", status)).await.expect("created");
    }
    let left = || server.count(&CertificateSigningRequest::resource()) == 2;
    converges(&server, [clean::controller(Arc::new(Words))], left).await.expect("convergence");
    assert!(api.get("fresh").await.is_ok() && api.get("pending").await.is_ok());
}
