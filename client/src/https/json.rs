//! JSON over HTTP for services beside the API server: a bounded answer within a bounded time.

use super::config::{Config, ConfigError};
use super::{Http, http_client, unreachable};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use kubewright_core::{ApiError, Reason};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// How much of a refusal's text is told.
const REFUSAL_BYTES_MAX: usize = 512;

/// Posts JSON to a service and reads its JSON answer. Connections are shared and kept.
pub struct JsonClient {
    config: Config,
    http: Http,
    timeout: Duration,
    answer_bytes_max: usize,
}

impl fmt::Debug for JsonClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonClient({})", self.config.server)
    }
}

impl JsonClient {
    /// A client that connects when the first request comes. Of the credentials only a certificate counts.
    ///
    /// # Errors
    /// Where a certificate or key of the configuration is damaged.
    pub fn new(config: Config, timeout: Duration, answer_bytes_max: usize) -> Result<Self, ConfigError> {
        let (http, _) = http_client(&config)?;
        Ok(JsonClient { config, http, timeout, answer_bytes_max })
    }

    /// Posts a document to a path below the server's.
    ///
    /// # Errors
    /// The service can't be reached, takes too long, answers with another status than 200, with too much, or not with JSON.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have reached the service.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let late = |_| {
            let text = format!("{} did not answer within {:?}", self.config.server, self.timeout);
            ApiError::new(Reason::Timeout, text)
        };
        tokio::time::timeout(self.timeout, self.call(path, body)).await.map_err(late)?
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let base = self.config.server.to_string();
        let url = format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'));
        let bytes = serde_json::to_vec(body).map_err(ApiError::internal)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|e| ApiError::bad_request(format!("{url}: {e}")))?;
        let response = self.http.request(request).await.map_err(|e| unreachable(&self.config, &e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), self.answer_bytes_max).collect().await;
        let body = body.map_err(|e| ApiError::unavailable(format!("the answer of {url}: {e}")))?.to_bytes();
        if status != http::StatusCode::OK {
            let text = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]).trim().to_owned();
            return Err(ApiError::unavailable(format!("{url} answered {status}: {text}")));
        }
        serde_json::from_slice(&body)
            .map_err(|e| ApiError::unavailable(format!("the answer of {url} is no JSON: {e}")))
    }
}
