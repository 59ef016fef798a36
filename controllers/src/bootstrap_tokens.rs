//! Bootstrap tokens, by which new nodes join: those whose time is over go, and `cluster-info`, which tells a stranger how to reach the
//! cluster, is signed with each token that is for it, so that whoever knows the token can trust it.
//!
//! Both are off in upstream's controller manager unless asked for, and no part of [`crate::all`].

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, ObjectKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What is signed, and what each signature is named by, before the token's id.
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

/// The controller that deletes bootstrap tokens once they have expired.
pub fn cleaner() -> Controller {
    Controller::for_kind::<Secret>("token-cleaner").filter(is_token).with(clean)
}

/// The controller that signs the ConfigMap `kube-public/cluster-info`, where there is one.
pub fn signer() -> Controller {
    Controller::for_kind::<ConfigMap>("bootstrap-signer")
        .filter(|map: &ConfigMap| map.name() == CLUSTER_INFO && map.namespace() == Some(PUBLIC))
        .watches::<Secret>(|secret, _| {
            is_token(secret).then(|| ObjectKey::new(PUBLIC, CLUSTER_INFO)).into_iter().collect()
        })
        .with(sign)
}

fn is_token(secret: &Secret) -> bool {
    secret.namespace() == Some(SYSTEM) && secret.type_.as_deref() == Some(TYPE)
}

/// A value of a Secret, empty where it is absent or no text.
fn data<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or("")
}

/// How long a token holds yet: for ever (`None`), or so many seconds; one whose time can't be read is over, as upstream has it.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let text = data(secret, "expiration");
    if text.is_empty() {
        return None;
    }
    let until = text.parse::<Timestamp>().unwrap_or(now);
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

async fn clean(secret: Arc<Secret>, cx: Context) -> Result<Action, ApiError> {
    match left(&secret, cx.now()) {
        _ if !is_token(&secret) => Ok(Action::Done),
        None => Ok(Action::Done),
        Some(left) if !left.is_zero() => Ok(Action::RequeueAfter(left)),
        Some(_) => {
            let options = DeleteOptions { uid: Some(secret.uid().to_owned()), ..DeleteOptions::default() };
            match cx.api::<Secret>(SYSTEM).delete(secret.name(), &options).await {
                // Another one of this name, or none at all.
                Err(e) if e.is_not_found() || e.is_conflict() => Ok(Action::Done),
                result => result.map(|()| Action::Done),
            }
        }
    }
}

async fn sign(map: Arc<ConfigMap>, cx: Context) -> Result<Action, ApiError> {
    let Some(content) = map.data.as_ref().and_then(|data| data.get(KUBECONFIG)) else {
        return Ok(Action::Done);
    };
    let (mut signatures, mut soonest) = (BTreeMap::new(), None);
    for secret in cx.informers().of::<Secret>().list_in(SYSTEM).iter().filter(|s| is_token(s)) {
        let (id, key) = (data(secret, "token-id"), data(secret, "token-secret"));
        let holds = left(secret, cx.now());
        let good = secret.name() == format!("bootstrap-token-{id}") && !id.is_empty() && !key.is_empty();
        if !good || data(secret, "usage-bootstrap-signing") != "true" || holds.is_some_and(|h| h.is_zero()) {
            continue;
        }
        soonest = soonest.into_iter().chain(holds).min();
        signatures.insert(format!("{SIGNATURE}{id}"), signature(content, id, key));
    }
    let mut wanted = map.data.clone().unwrap_or_default();
    wanted.retain(|name, _| !name.starts_with(SIGNATURE));
    wanted.extend(signatures);
    if map.data.as_ref() != Some(&wanted) {
        let signed = ConfigMap { data: Some(wanted), ..ConfigMap::clone(&map) };
        cx.api::<ConfigMap>(PUBLIC).replace(CLUSTER_INFO, &signed).await?;
    }
    Ok(soonest.map_or(Action::Done, Action::RequeueAfter))
}

/// A JSON Web Signature (HS256) of a text that it leaves out.
fn signature(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(serde_json::json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_reconcile::client::Api;
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::json;

    fn token(id: &str, more: &[(&str, &str)]) -> Secret {
        let mut data =
            json!({"token-id": id, "token-secret": "abcdefghijklmnop", "usage-bootstrap-signing": "true"});
        for (key, value) in more {
            data[*key] = json!(value);
        }
        let values = data.as_object().expect("an object").iter();
        let values =
            values.map(|(k, v)| (k.clone(), k8s_openapi::ByteString(v.as_str().unwrap_or("").into())));
        let data = values.collect();
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(format!("bootstrap-token-{id}")),
            ..Default::default()
        };
        Secret { metadata, data: Some(data), type_: Some(TYPE.to_owned()), ..Secret::default() }
    }

    #[tokio::test]
    async fn what_is_over_goes_and_the_rest_signs() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
        let server = FakeApi::with_clock(Arc::new(kubewright_core::ManualClock::new(now)));
        let secrets = Api::<Secret>::namespaced(server.client(), SYSTEM);
        for secret in [
            token("ever00", &[]),
            token("later0", &[("expiration", "2026-01-03T00:00:00Z")]),
            token("over00", &[("expiration", "2026-01-01T00:00:00Z")]),
            token("nosign", &[("usage-bootstrap-signing", "false")]),
        ] {
            secrets.create(&secret).await.expect("created");
        }
        let maps = Api::<ConfigMap>::namespaced(server.client(), PUBLIC);
        let map = json!({"metadata": {"name": CLUSTER_INFO}, "data": {KUBECONFIG: "content", "jws-kubeconfig-gone00": "x"}});
        maps.create(&serde_json::from_value(map).expect("a map")).await.expect("created");
        let done = || server.count(&Secret::resource()) == 3;
        converges(&server, [cleaner(), signer()], done).await.expect("convergence");
        let map = maps.get(CLUSTER_INFO).await.expect("a map");
        let names: Vec<&str> = map.data.iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["jws-kubeconfig-ever00", "jws-kubeconfig-later0", KUBECONFIG]);
        assert!(secrets.get("bootstrap-token-nosign").await.is_ok());
        // {"alg":"HS256","kid":"ever00"}, no payload, and the HMAC of both.
        let signed = &map.data.as_ref().expect("data")["jws-kubeconfig-ever00"];
        let (header, tag) = signed.split_once("..").expect("a detached signature");
        assert_eq!(header, "eyJhbGciOiJIUzI1NiIsImtpZCI6ImV2ZXIwMCJ9");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"abcdefghijklmnop");
        let tag = URL_SAFE_NO_PAD.decode(tag).expect("base64");
        let whole = format!("{header}.{}", URL_SAFE_NO_PAD.encode("content"));
        hmac::verify(&key, whole.as_bytes(), &tag).expect("the signature holds");
    }
}
