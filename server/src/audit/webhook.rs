//! Audit events posted to a webhook, in batches and with retries.

use super::AuditSink;
use super::event::Event;
use crate::outbound::{Client, Destination, Endpoint, Identity, Outbound, Resolver, Trust};
use crate::server::ApiServer;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const TRIES_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Posts `EventList`s of `audit.k8s.io/v1` to an address.
pub struct WebhookSink {
    endpoint: Endpoint,
    bearer: Option<String>,
    first_pause: Duration,
    /// Made when the server is known.
    outbound: OnceLock<Outbound>,
}

impl WebhookSink {
    /// Posts to an `https` URL whose certificate is of these authorities (PEM); of the system's, when there are none.
    ///
    /// # Errors
    /// Where the URL is none.
    pub fn new(url: &str, authorities_pem: Option<&str>) -> Result<Self, String> {
        let mut endpoint = Endpoint::of_client_config(&json!({"url": url}))?;
        if let (Some(pem), false) = (authorities_pem, endpoint.destination.trust == Trust::Plain) {
            endpoint.destination.trust = Trust::Bundle(pem.into());
        }
        Ok(WebhookSink { endpoint, bearer: None, first_pause: FIRST_PAUSE, outbound: OnceLock::new() })
    }

    /// Shows this client certificate (PEM).
    #[must_use]
    pub fn identity(mut self, certificate_pem: &str, key_pem: &str) -> Self {
        let identity = Identity { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() };
        self.endpoint.destination.identity = Some(Arc::new(identity));
        self
    }

    /// Sends this bearer token.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// How long it waits before the second try; each further pause is half as long again.
    #[must_use]
    pub fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    fn client(&self) -> Result<Arc<Client>, String> {
        let destination: &Destination = &self.endpoint.destination;
        let outbound = self.outbound.get().ok_or("the server has not started yet")?;
        outbound.client(destination).map_err(|e| e.to_string())
    }

    async fn deliver(&self, body: Bytes) -> Result<(), String> {
        let mut pause = self.first_pause;
        let mut failed = String::new();
        for attempt in 0..TRIES_MAX {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
            let client = self.client()?;
            let (path, bearer) = (&self.endpoint.path, self.bearer.as_deref());
            match client.post(path, body.clone(), bearer, CALL_TIMEOUT, ANSWER_BYTES_MAX).await {
                Ok(answer) if answer.status < 300 => return Ok(()),
                // The other side will not take it the next time either.
                Ok(answer) if answer.status < 500 && answer.status != 429 => {
                    return Err(format!("the webhook answered {}", answer.status));
                }
                Ok(answer) => failed = format!("the webhook answered {}", answer.status),
                Err(e) => failed = e.to_string(),
            }
        }
        Err(failed)
    }
}

impl std::fmt::Debug for WebhookSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebhookSink({:?}{})", self.endpoint.destination, self.endpoint.path)
    }
}

impl AuditSink for WebhookSink {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn write(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let items: Vec<Value> = events.iter().map(|e| e.to_value()).collect();
            let list =
                json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items});
            let body = serde_json::to_vec(&list).map_err(|e| e.to_string())?;
            self.deliver(Bytes::from(body)).await
        })
    }

    fn started(&self, server: &ApiServer) {
        self.outbound.get_or_init(|| Outbound::new(Resolver::new(server.reader().clone())));
    }
}
