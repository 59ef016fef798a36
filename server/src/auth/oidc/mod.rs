//! OpenID Connect: tokens of other issuers, checked by the keys that they publish.
//!
//! The discovery document and the keys are fetched when the first token comes, and again when a token names a key that is not known,
//! but no more often than every ten seconds.

mod config;
mod keys;
#[cfg(test)]
mod tests;

pub use config::{AuthenticationConfiguration, ConfigurationError, OidcIssuer};

use super::bearer_tokens::TokenAuthenticator;
use crate::outbound::{Endpoint, Outbound, Resolver, Trust};
use crate::server::ApiServer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use keys::Key;
use kubewright_core::{ApiError, Reason, SharedClock, UserInfo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Keys are fetched at most once in so many seconds.
const FETCH_PAUSE_SECONDS: i64 = 10;
/// How far clocks may differ for a token that is not valid yet.
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 300;
/// No token of sense is longer.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Knows the tokens of one issuer.
pub struct Oidc {
    issuer: OidcIssuer,
    clock: SharedClock,
    outbound: OnceLock<Outbound>,
    keys: Mutex<Known>,
    /// One fetch at a time; the others wait for its keys.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    /// The second of the last fetch.
    fetched: Option<i64>,
}

/// The three parts of a token, taken apart.
struct Token<'a> {
    message: &'a str,
    signature: Vec<u8>,
    header: Value,
    claims: Value,
}

impl Oidc {
    /// Tokens of this issuer.
    ///
    /// # Errors
    /// Every mistake of its description.
    pub fn new(issuer: OidcIssuer, clock: SharedClock) -> Result<Self, ConfigurationError> {
        let mut wrong = Vec::new();
        issuer.check("oidc", &mut wrong);
        if !wrong.is_empty() {
            return Err(ConfigurationError(wrong));
        }
        Ok(Oidc {
            issuer,
            clock,
            outbound: OnceLock::new(),
            keys: Mutex::default(),
            fetching: tokio::sync::Mutex::new(()),
        })
    }

    async fn user_of(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let Some(token) = take_apart(token) else { return Ok(None) };
        if token.claims["iss"] != self.issuer.url.as_str() {
            return Ok(None);
        }
        let algorithm = token.header["alg"].as_str().unwrap_or("");
        if !self.issuer.algorithms.contains(algorithm) {
            return Err(refused(format!("signatures by {algorithm:?} are not taken")));
        }
        self.check_signature(&token, algorithm).await?;
        self.check_claims(&token.claims)?;
        self.user(&token.claims).map(Some)
    }

    async fn check_signature(&self, token: &Token<'_>, algorithm: &str) -> Result<(), ApiError> {
        let id = token.header["kid"].as_str().unwrap_or("");
        let before = self.keys.lock().keys.clone();
        let holds = |keys: &[Key]| {
            let fits = |key: &&Key| id.is_empty() || key.id.is_empty() || key.id == id;
            keys.iter().filter(fits).any(|k| k.made(algorithm, token.message.as_bytes(), &token.signature))
        };
        if holds(&before) {
            return Ok(());
        }
        let now = self.fetched_after(&before).await?;
        if holds(&now) { Ok(()) } else { Err(refused("no key of the issuer made the signature".to_owned())) }
    }

    /// The keys as they are now, unless they were fetched a moment ago.
    async fn fetched_after(&self, before: &Arc<Vec<Key>>) -> Result<Arc<Vec<Key>>, ApiError> {
        let _one_at_a_time = self.fetching.lock().await;
        let now = self.clock.now().as_second();
        {
            let known = self.keys.lock();
            let recent = known.fetched.is_some_and(|at| now - at < FETCH_PAUSE_SECONDS);
            if recent || !Arc::ptr_eq(&known.keys, before) {
                return Ok(known.keys.clone());
            }
        }
        let fetched = self.fetch().await;
        let mut known = self.keys.lock();
        known.fetched = Some(now);
        known.keys = Arc::new(fetched.map_err(|why| refused(format!("the keys of the issuer: {why}")))?);
        Ok(known.keys.clone())
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let below = || format!("{}/.well-known/openid-configuration", self.issuer.url.trim_end_matches('/'));
        let document = self.get(&self.issuer.discovery_url.clone().unwrap_or_else(below)).await?;
        if document["issuer"] != self.issuer.url.as_str() {
            return Err(format!("the discovery document is of {}", document["issuer"]));
        }
        let keys = document["jwks_uri"].as_str().ok_or("the discovery document names no keys")?;
        if !keys.starts_with("https://") {
            return Err("the keys are not served by https".to_owned());
        }
        Ok(keys::of_set(&self.get(keys).await?))
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let mut endpoint = Endpoint::of_client_config(&json!({"url": url}))?;
        if let Some(pem) = &self.issuer.authorities_pem {
            endpoint.destination.trust = Trust::Bundle(pem.as_str().into());
        }
        let outbound = self.outbound.get().ok_or("the server has not started yet")?;
        let client = outbound.client(&endpoint.destination).map_err(|e| e.to_string())?;
        let answer = client.get(&endpoint.path, FETCH_TIMEOUT, DOCUMENT_BYTES_MAX).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if answer.status != 200 {
            return Err(format!("{url} answered {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|e| format!("{url} is no JSON: {e}"))
    }

    fn check_claims(&self, claims: &Value) -> Result<(), ApiError> {
        let now = self.clock.now().as_second();
        let time = |name: &str| claims[name].as_f64().map(|t| t as i64);
        match time("exp") {
            None => return Err(refused("the token never expires".to_owned())),
            Some(at) if at <= now => return Err(refused("the token is expired".to_owned())),
            Some(_) => {}
        }
        if time("nbf").is_some_and(|at| at > now + NOT_BEFORE_LEEWAY_SECONDS) {
            return Err(refused("the token is not valid yet".to_owned()));
        }
        let audiences = texts(&claims["aud"]).unwrap_or_default();
        if !audiences.iter().any(|a| self.issuer.audiences.contains(a)) {
            return Err(refused(format!("the token is meant for {audiences:?}")));
        }
        for (claim, wanted) in &self.issuer.required_claims {
            if claims[claim].as_str() != Some(wanted) {
                return Err(refused(format!("the claim {claim:?} is {}, not {wanted:?}", claims[claim])));
            }
        }
        Ok(())
    }

    fn user(&self, claims: &Value) -> Result<UserInfo, ApiError> {
        let issuer = &self.issuer;
        let claim = &issuer.username_claim;
        let name = claims[claim].as_str().filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| refused(format!("the claim {claim:?} names no user")))?;
        let unverified = || claims.get("email_verified").is_some_and(|v| v != true);
        if claim == "email" && unverified() {
            return Err(refused("the e-mail address is not verified".to_owned()));
        }
        let mut groups = Vec::new();
        if let Some(claim) = &issuer.groups_claim
            && !claims[claim].is_null()
        {
            let found = texts(&claims[claim]);
            let found = found.ok_or_else(|| refused(format!("the claim {claim:?} is no list of groups")))?;
            groups.extend(
                found.iter().filter(|g| !g.is_empty()).map(|g| format!("{}{g}", issuer.groups_prefix)),
            );
        }
        let uid = match &issuer.uid_claim {
            None => None,
            Some(claim) => {
                let uid = claims[claim].as_str();
                Some(uid.ok_or_else(|| refused(format!("the claim {claim:?} is no text")))?.to_owned())
            }
        };
        let extra = claims["jti"].as_str().filter(|id| !id.is_empty()).map(|id| {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            BTreeMap::from([(key, vec![format!("JTI={id}")])])
        });
        let username = Some(format!("{}{name}", issuer.username_prefix));
        Ok(UserInfo { username, groups: Some(groups), uid, extra })
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oidc({})", self.issuer.url)
    }
}

impl TokenAuthenticator for Oidc {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
        Box::pin(self.user_of(token))
    }

    fn started(&self, server: &ApiServer) {
        self.outbound.get_or_init(|| Outbound::new(Resolver::new(server.reader().clone())));
    }
}

fn refused(why: String) -> ApiError {
    ApiError::new(Reason::Unauthorized, format!("oidc: {why}"))
}

/// One text, or a list of them.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// `None` for what is no JSON Web Token at all.
fn take_apart(token: &str) -> Option<Token<'_>> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    Some(Token {
        message,
        signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        header: json(header)?,
        claims: json(claims)?,
    })
}
