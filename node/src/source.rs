//! Objects and tokens for volumes and environments: from shared informers, and from the API where those lag behind.

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, ServiceAccount,
};
use kubewright_core::{ApiError, Resource, ResponseBody, SharedClock};
use kubewright_reconcile::Informers;
use kubewright_reconcile::client::Api;
use kubewright_storage::{Error, Reason, TokenOrder, VolumeSource};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// How many pods' tokens are kept.
const PODS_MAX: usize = 65_536;

struct Token {
    text: String,
    /// After four fifths of its life a new one is asked for.
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// Service account, audience and life: what tells a pod's tokens apart.
type TokenKey = (String, String, i64);

/// Objects out of the API.
pub(crate) struct ApiSource {
    informers: Informers,
    clock: SharedClock,
    /// By pod uid.
    tokens: Mutex<FxHashMap<String, Vec<(TokenKey, Token)>>>,
}

fn failed(e: &ApiError) -> Error {
    Error::new(Reason::Failed, e.message())
}

impl ApiSource {
    pub(crate) fn new(informers: Informers, clock: SharedClock) -> Self {
        ApiSource { informers, clock, tokens: Mutex::default() }
    }

    async fn find<K: Resource>(
        &self,
        namespace: Option<String>,
        name: String,
    ) -> Result<Option<Arc<K>>, Error> {
        let informer = self.informers.of::<K>();
        informer.synced().await;
        if let Some(found) = informer.get(namespace.as_deref().unwrap_or(""), &name) {
            return Ok(Some(found));
        }
        // The object may be newer than what the informer has seen.
        let client = self.informers.client().clone();
        let api = match &namespace {
            Some(ns) => Api::<K>::namespaced(client, ns),
            None => Api::<K>::all(client),
        };
        api.get_opt(&name).await.map_err(|e| failed(&e))
    }

    /// The text of a kept token that is good by this measure.
    fn kept(&self, uid: &str, key: &TokenKey, good: impl Fn(&Token) -> bool) -> Option<String> {
        let tokens = self.tokens.lock();
        let of_pod = tokens.get(uid)?;
        of_pod.iter().find(|(k, t)| k == key && good(t)).map(|(_, t)| t.text.clone())
    }

    async fn request(&self, order: TokenOrder) -> Result<String, Error> {
        let uid = order.pod_uid.clone();
        let key = (order.service_account.clone(), order.audience.clone(), order.expiration_seconds);
        let now = self.clock.now();
        if let Some(text) = self.kept(&uid, &key, |t| t.renew_at > now) {
            return Ok(text);
        }
        let mut spec = json!({
            "expirationSeconds": order.expiration_seconds,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": order.pod, "uid": order.pod_uid},
        });
        spec["audiences"] = if order.audience.is_empty() { json!([]) } else { json!([order.audience]) };
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let api = Api::<ServiceAccount>::namespaced(self.informers.client().clone(), &order.namespace);
        let answer = api.create_subresource(&order.service_account, "token", body).await;
        let answer = match answer {
            Ok(response) => response,
            Err(e) => {
                let message = format!("failed to fetch token: {}", e.message());
                // A token that is still good serves while no new one can be had.
                let old = self.kept(&uid, &key, |t| t.expires_at > now);
                return old.ok_or_else(|| Error::new(Reason::Failed, message));
            }
        };
        let value = match answer.body {
            ResponseBody::Value(value) => value,
            ResponseBody::Object(object) => object.value().map_err(|e| failed(&e))?,
            other => return Err(Error::new(Reason::Failed, format!("no TokenRequest came back: {other:?}"))),
        };
        let text = value["status"]["token"].as_str().unwrap_or("").to_owned();
        if text.is_empty() {
            return Err(Error::new(Reason::Failed, "the API server gave no token"));
        }
        self.keep(uid, key, text.clone(), &value);
        Ok(text)
    }

    fn keep(&self, uid: String, key: TokenKey, text: String, answer: &Value) {
        let now = self.clock.now();
        let said = answer["status"]["expirationTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
        let expires_at =
            said.or_else(|| now.checked_add(SignedDuration::from_secs(key.2)).ok()).unwrap_or(now);
        let life = expires_at.duration_since(now);
        let renew_at = now.checked_add(life * 4 / 5).unwrap_or(now);
        let mut tokens = self.tokens.lock();
        if tokens.len() >= PODS_MAX {
            tokens.retain(|_, of_pod| of_pod.iter().any(|(_, t)| t.expires_at > now));
        }
        let of_pod = tokens.entry(uid).or_default();
        of_pod.retain(|(k, _)| *k != key);
        of_pod.push((key, Token { text, renew_at, expires_at }));
    }

    /// Forgets the tokens of a pod that is gone.
    pub(crate) fn forget_pod(&self, uid: &str) {
        self.tokens.lock().remove(uid);
    }
}

impl VolumeSource for ApiSource {
    fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Option<Arc<ConfigMap>>, Error>> {
        Box::pin(self.find(Some(namespace.to_owned()), name.to_owned()))
    }

    fn secret(&self, namespace: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<Secret>>, Error>> {
        Box::pin(self.find(Some(namespace.to_owned()), name.to_owned()))
    }

    fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Option<Arc<PersistentVolumeClaim>>, Error>> {
        Box::pin(self.find(Some(namespace.to_owned()), name.to_owned()))
    }

    fn persistent_volume(&self, name: &str) -> BoxFuture<'_, Result<Option<Arc<PersistentVolume>>, Error>> {
        Box::pin(self.find(None, name.to_owned()))
    }

    fn token(&self, order: TokenOrder) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(self.request(order))
    }
}
