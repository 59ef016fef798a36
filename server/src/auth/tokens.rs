//! Tokens of service accounts: signed by the plane's own key, bound to objects and dead with them.

mod claims;
mod key;

pub use key::{SigningKey, VerifyingKey};

use super::authenticator::{Authenticator, add_authenticated, bearer};
use super::objects::ObjectReader;
use arc_swap::ArcSwap;
use claims::{Claims, Kubernetes, Named};
use futures::future::BoxFuture;
use http::request::Parts;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use kubewright_core::{
    ApiError, Entropy, FieldError, FieldPath, GroupVersionResource, Reason, Resource, SharedClock, UserInfo,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// Who signs, and whom tokens without other audiences are for, unless the host names another.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const LIFETIME_SECONDS_MIN: i64 = 600;
const LIFETIME_SECONDS_MAX: i64 = 1 << 32;
const LIFETIME_SECONDS_DEFAULT: i64 = 3600;
/// What node agents ask for; pods of old clients never ask again, so that they get a year.
const POD_TOKEN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;
/// How many checked signatures are remembered.
const CHECKED_TOKENS_MAX: usize = 4096;
/// A pod that is being deleted keeps its token for this long.
const DELETED_LEEWAY_SECONDS: i64 = 60;

/// An object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBinding {
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The name and uid of the node of a bound pod.
    pub node: Option<(String, String)>,
}

/// Signs and checks the tokens of service accounts.
pub struct ServiceAccountTokens {
    key: SigningKey,
    issuer: String,
    reader: Arc<dyn ObjectReader>,
    clock: SharedClock,
    entropy: Entropy,
    /// Tokens whose signature held, by digest; what they are bound to is looked up anew each time.
    checked: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
    /// Keys that signed before; their tokens hold until they end.
    former: ArcSwap<Vec<VerifyingKey>>,
}

impl fmt::Debug for ServiceAccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccountTokens(of {})", self.issuer)
    }
}

impl ServiceAccountTokens {
    /// Signs with `key` and looks accounts and bound objects up with `reader`.
    pub fn new(key: SigningKey, reader: Arc<dyn ObjectReader>, clock: SharedClock) -> Self {
        ServiceAccountTokens {
            key,
            issuer: DEFAULT_ISSUER.to_owned(),
            reader,
            clock,
            entropy: Entropy::from_system(),
            checked: Mutex::default(),
            former: ArcSwap::default(),
        }
    }

    /// Names another issuer, which is the default audience too.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        issuer.clone_into(&mut self.issuer);
        self
    }

    /// Who signs.
    pub fn issuer_name(&self) -> &str {
        &self.issuer
    }

    /// The public keys as a JSON Web Key Set: the one that signs, then those that did before.
    ///
    /// # Errors
    /// 500 where the key had to be made and the system gave no randomness.
    pub fn key_set(&self) -> Result<Value, ApiError> {
        let mut set = self.key.key_set()?;
        if let Some(keys) = set["keys"].as_array_mut() {
            keys.extend(self.former.load().iter().map(VerifyingKey::jwk));
        }
        Ok(set)
    }

    /// Takes tokens that this key signed, too: for a change of the key that signs.
    pub fn add_former_key(&self, key: VerifyingKey) {
        self.former.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(key.clone());
            all
        });
    }

    /// Answers a `TokenRequest` for an account: the request with its status filled in.
    ///
    /// # Errors
    /// 422 for a lifetime below ten minutes or above 2^32 seconds.
    pub fn issue_token(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        bound: Option<&TokenBinding>,
        mut request: Value,
    ) -> Result<Value, ApiError> {
        let spec = &request["spec"];
        let lifetime = match &spec["expirationSeconds"] {
            Value::Null => LIFETIME_SECONDS_DEFAULT,
            seconds => seconds
                .as_i64()
                .ok_or_else(|| ApiError::bad_request("spec.expirationSeconds is no integer"))?,
        };
        check_lifetime(name, lifetime)?;
        let asked: Vec<String> = spec["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let audiences = if asked.is_empty() { vec![self.issuer.clone()] } else { asked };
        let now = self.clock.now().as_second();
        let expires = now + lifetime;
        let pod = bound.is_some_and(|b| b.kind == "Pod");
        let stretched = pod && lifetime == POD_TOKEN_SECONDS && audiences == [self.issuer.clone()];
        let mut kubernetes = Kubernetes::of(namespace, Named::new(name, uid), bound);
        kubernetes.warnafter = stretched.then_some(expires);
        let claims = Claims {
            aud: audiences.clone(),
            exp: if stretched { now + EXTENDED_SECONDS } else { expires },
            iat: now,
            iss: self.issuer.clone(),
            jti: self.entropy.uid(),
            kubernetes,
            nbf: now,
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let token = self.key.sign(&claims)?;
        let until = jiff::Timestamp::from_second(expires).map_err(ApiError::internal)?;
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = json!(lifetime);
        request["status"] = json!({"token": token, "expirationTimestamp": until.to_string()});
        Ok(request)
    }

    /// The account behind a token that is meant for one of `audiences` (for this server, when there are none), and which of them it names.
    ///
    /// # Errors
    /// 401 with the reason, for a token that is not of this issuer or does not hold any more.
    pub fn validate(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), ApiError> {
        let claims = self.claims(token)?;
        let now = self.clock.now().as_second();
        if now >= claims.exp {
            return Err(refused("service account token has expired"));
        }
        if now < claims.nbf {
            return Err(refused("service account token is not valid yet"));
        }
        let own = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let common: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if common.is_empty() {
            return Err(refused("token audiences are not those of the server"));
        }
        self.check_objects(&claims.kubernetes, now)?;
        Ok((user_of(&claims), common))
    }

    /// Whether a token names this issuer's key, be it good or not.
    pub(crate) fn issued(&self, token: &str) -> bool {
        self.key.signed(token) || self.former.load().iter().any(|k| k.signed(token))
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, ApiError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.checked.lock().get(&digest) {
            return Ok(claims.clone());
        }
        let former = self.former.load();
        let claims: Claims = match former.iter().find(|k| k.signed(token)) {
            Some(former) => former.verify(token),
            None => self.key.verify(token),
        }
        .map_err(|e| refused(&e))?;
        if claims.iss != self.issuer {
            return Err(refused("the token is of another issuer"));
        }
        let claims = Arc::new(claims);
        let mut checked = self.checked.lock();
        if checked.len() >= CHECKED_TOKENS_MAX {
            checked.clear();
        }
        checked.insert(digest, claims.clone());
        Ok(claims)
    }

    /// The account and what the token is bound to must still be the same objects.
    fn check_objects(&self, k: &Kubernetes, now: i64) -> Result<(), ApiError> {
        let account = &k.serviceaccount;
        self.check_object(&ServiceAccount::resource(), &k.namespace, account, now)?;
        if let Some(pod) = &k.pod {
            self.check_object(&Pod::resource(), &k.namespace, pod, now)?;
        }
        if let Some(secret) = &k.secret {
            self.check_object(&Secret::resource(), &k.namespace, secret, now)?;
        }
        match &k.node {
            // A pod's node is told, but the token lives as long as the pod.
            Some(node) if k.pod.is_none() => self.check_object(&Node::resource(), "", node, now),
            _ => Ok(()),
        }
    }

    fn check_object(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        named: &Named,
        now: i64,
    ) -> Result<(), ApiError> {
        let found = self.reader.get(resource, namespace, &named.name)?;
        let Some(object) = found.filter(|o| o.header().uid == named.uid) else {
            return Err(refused(&format!("{} {:?} of the token is gone", resource.resource, named.name)));
        };
        // Rare: only objects that are being deleted are parsed.
        if memchr_deletion(object.bytes()) {
            let value = object.value()?;
            let deleted = value["metadata"]["deletionTimestamp"]
                .as_str()
                .and_then(|t| t.parse::<jiff::Timestamp>().ok());
            if deleted.is_some_and(|t| t.as_second() + DELETED_LEEWAY_SECONDS < now) {
                return Err(refused(&format!(
                    "{} {:?} of the token is deleted",
                    resource.resource, named.name
                )));
            }
        }
        Ok(())
    }
}

fn memchr_deletion(bytes: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"deletionTimestamp\"";
    bytes.windows(FIELD.len()).any(|w| w == FIELD)
}

fn check_lifetime(name: &str, seconds: i64) -> Result<(), ApiError> {
    let why = match seconds {
        n if n < LIFETIME_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        n if n > LIFETIME_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let field = FieldPath::new("spec").child("expirationSeconds");
    let error = FieldError::invalid(&field, seconds, why);
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &[error]))
}

fn refused(why: &str) -> ApiError {
    ApiError::new(Reason::Unauthorized, why)
}

fn user_of(claims: &Claims) -> UserInfo {
    let k = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: &str| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    tell("credential-id", &format!("JTI={}", claims.jti));
    for (kind, named) in [("pod", &k.pod), ("node", &k.node)] {
        if let Some(named) = named {
            tell(&format!("{kind}-name"), &named.name);
            tell(&format!("{kind}-uid"), &named.uid);
        }
    }
    let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", k.namespace)];
    let mut user = UserInfo {
        username: Some(claims.sub.clone()),
        uid: Some(k.serviceaccount.uid.clone()),
        groups: Some(groups),
        extra: Some(extra),
    };
    add_authenticated(&mut user);
    user
}

impl Authenticator for ServiceAccountTokens {
    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
        Box::pin(async move {
            let Some(token) = bearer(parts).filter(|t| self.issued(t)) else { return Ok(None) };
            match self.validate(&token, &[]) {
                Ok((user, _)) => Ok(Some(user)),
                Err(e) => {
                    tracing::debug!(error = %e, "a service account token was refused");
                    Err(ApiError::new(Reason::Unauthorized, "Unauthorized"))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
