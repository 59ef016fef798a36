//! Authorization that a webhook decides on.

use super::endpoint::WebhookEndpoint;
use super::memory::Memory;
use crate::auth::authorizer::{Attributes, Authorizer, Decision};
use futures::future::BoxFuture;
use kubewright_core::SharedClock;
use serde_json::{Value, json};
use std::fmt;

/// Upstream's `--authorization-webhook-cache-authorized-ttl` and `...-unauthorized-ttl`, in seconds.
const ALLOWED_SECONDS: i64 = 300;
const REFUSED_SECONDS: i64 = 30;
/// Longer questions are not remembered, so that nobody fills the memory.
const QUESTION_BYTES_MAX: usize = 10_000;

/// What it means that a webhook can't be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFailure {
    /// Others may decide.
    NoOpinion,
    /// No.
    Deny,
}

/// Asks a webhook who may do what, by `SubjectAccessReview` of `authorization.k8s.io/v1`. What it allows is remembered for five minutes, what it
/// does not for half a minute.
pub struct WebhookAuthorizer {
    endpoint: WebhookEndpoint,
    failure: WebhookFailure,
    allowed_seconds: i64,
    refused_seconds: i64,
    clock: SharedClock,
    known: Memory<Decision>,
}

impl WebhookAuthorizer {
    /// Asks this webhook; where that fails it has no opinion.
    pub fn new(endpoint: WebhookEndpoint, clock: SharedClock) -> Self {
        WebhookAuthorizer {
            endpoint,
            failure: WebhookFailure::NoOpinion,
            allowed_seconds: ALLOWED_SECONDS,
            refused_seconds: REFUSED_SECONDS,
            clock,
            known: Memory::new(),
        }
    }

    /// What it means that the webhook can't be asked.
    #[must_use]
    pub fn on_failure(mut self, failure: WebhookFailure) -> Self {
        self.failure = failure;
        self
    }

    /// For how many seconds a yes and anything else are remembered; 0 for not at all.
    #[must_use]
    pub fn cache_seconds(mut self, allowed: u32, refused: u32) -> Self {
        (self.allowed_seconds, self.refused_seconds) = (i64::from(allowed), i64::from(refused));
        self
    }

    async fn ask(&self, attributes: &Attributes<'_>) -> Decision {
        let spec = spec(attributes);
        let question = spec.to_string();
        let (key, now) = (Memory::<()>::key(question.as_bytes()), self.clock.now().as_second());
        if let Some(decision) = self.known.get(&key, now) {
            return decision;
        }
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer = self.endpoint.review(&review).await.and_then(|answer| understood(&answer["status"]));
        let decision = match answer {
            Ok(decision) => decision,
            Err(why) => {
                tracing::warn!(error = %why, "the webhook of access reviews could not be asked");
                return match self.failure {
                    WebhookFailure::NoOpinion => Decision::NoOpinion(String::new()),
                    WebhookFailure::Deny => Decision::Deny(why),
                };
            }
        };
        if question.len() <= QUESTION_BYTES_MAX {
            let seconds =
                if decision == Decision::Allow { self.allowed_seconds } else { self.refused_seconds };
            self.known.put(key, now, seconds, decision.clone());
        }
        decision
    }
}

/// The question: who wants to do what.
fn spec(attributes: &Attributes<'_>) -> Value {
    let user = &attributes.user;
    let mut spec = json!({"user": user.username.as_deref().unwrap_or("")});
    if let Some(uid) = user.uid.as_deref().filter(|u| !u.is_empty()) {
        spec["uid"] = json!(uid);
    }
    if let Some(groups) = &user.groups {
        spec["groups"] = json!(groups);
    }
    if let Some(extra) = &user.extra {
        spec["extra"] = json!(extra);
    }
    if let Some(path) = attributes.path {
        spec["nonResourceAttributes"] = json!({"path": path, "verb": attributes.verb});
        return spec;
    }
    let mut wanted = json!({"verb": attributes.verb});
    for (field, text) in [
        ("namespace", attributes.namespace),
        ("group", attributes.group),
        ("version", attributes.version),
        ("resource", attributes.resource),
        ("subresource", attributes.subresource),
        ("name", attributes.name),
    ] {
        if !text.is_empty() {
            wanted[field] = json!(text);
        }
    }
    if let Some(selector) = attributes.field_selector {
        wanted["fieldSelector"] = json!({"rawSelector": selector});
    }
    spec["resourceAttributes"] = wanted;
    spec
}

fn understood(status: &Value) -> Result<Decision, String> {
    let reason = status["reason"].as_str().unwrap_or("").to_owned();
    match (status["allowed"].as_bool(), status["denied"] == true) {
        (Some(true), true) => {
            Err("webhook subject access review returned both allow and deny response".to_owned())
        }
        (_, true) => Ok(Decision::Deny(reason)),
        (Some(true), false) => Ok(Decision::Allow),
        (Some(false), false) => Ok(Decision::NoOpinion(reason)),
        (None, false) => Err("the answer has no status".to_owned()),
    }
}

impl fmt::Debug for WebhookAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookAuthorizer({:?})", self.endpoint)
    }
}

impl Authorizer for WebhookAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(self.ask(attributes))
    }
}
