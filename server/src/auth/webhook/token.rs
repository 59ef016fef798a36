//! Bearer tokens that a webhook knows.

use super::endpoint::WebhookEndpoint;
use super::memory::Memory;
use crate::auth::bearer_tokens::TokenAuthenticator;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, Reason, SharedClock, UserInfo};
use serde_json::{Value, json};
use std::fmt;

/// Upstream's `--authentication-token-webhook-cache-ttl`, in seconds.
const CACHE_SECONDS: i64 = 120;

/// Asks a webhook whose a token is, by `TokenReview` of `authentication.k8s.io/v1`. Answers are remembered for two minutes, failed calls are not.
pub struct WebhookTokens {
    endpoint: WebhookEndpoint,
    audiences: Vec<String>,
    cache_seconds: i64,
    clock: SharedClock,
    known: Memory<Result<Option<UserInfo>, ApiError>>,
}

impl WebhookTokens {
    /// Asks this webhook.
    pub fn new(endpoint: WebhookEndpoint, clock: SharedClock) -> Self {
        WebhookTokens {
            endpoint,
            audiences: Vec::new(),
            cache_seconds: CACHE_SECONDS,
            clock,
            known: Memory::new(),
        }
    }

    /// Takes only tokens that are meant for one of these.
    #[must_use]
    pub fn audiences(mut self, audiences: &[&str]) -> Self {
        self.audiences = audiences.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// For how many seconds answers are remembered; 0 for not at all.
    #[must_use]
    pub fn cache_seconds(mut self, seconds: u32) -> Self {
        self.cache_seconds = i64::from(seconds);
        self
    }

    async fn ask(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let (key, now) = (Memory::<()>::key(token.as_bytes()), self.clock.now().as_second());
        if let Some(answer) = self.known.get(&key, now) {
            return answer;
        }
        let mut spec = json!({"token": token});
        if !self.audiences.is_empty() {
            spec["audiences"] = json!(self.audiences);
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let answer = self.endpoint.review(&review).await.map_err(|why| {
            tracing::warn!(error = %why, "the webhook of token reviews could not be asked");
            unauthorized(&why)
        })?;
        let answer = self.understood(&answer["status"]);
        self.known.put(key, now, self.cache_seconds, answer.clone());
        answer
    }

    fn understood(&self, status: &Value) -> Result<Option<UserInfo>, ApiError> {
        if status["authenticated"] != true {
            return match status["error"].as_str().filter(|e| !e.is_empty()) {
                Some(why) => Err(unauthorized(why)),
                None => Ok(None),
            };
        }
        let meant: Vec<&str> =
            status["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !self.audiences.is_empty()
            && !meant.is_empty()
            && !self.audiences.iter().any(|a| meant.contains(&a.as_str()))
        {
            return Err(unauthorized("the token is meant for others"));
        }
        let user: UserInfo = serde_json::from_value(status["user"].clone())
            .map_err(|e| unauthorized(&format!("the answer names no user: {e}")))?;
        Ok(Some(user))
    }
}

fn unauthorized(why: &str) -> ApiError {
    ApiError::new(Reason::Unauthorized, why)
}

impl fmt::Debug for WebhookTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookTokens({:?})", self.endpoint)
    }
}

impl TokenAuthenticator for WebhookTokens {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
        Box::pin(self.ask(token))
    }
}
