//! The transport to a server elsewhere: HTTPS as kubectl and client-go speak it.

mod channels;
mod config;
mod decode;
mod encode;
mod forward;
mod json;
mod kubeconfig;
mod socket;
mod tls;

pub use config::{Config, ConfigError, Credentials};
pub use json::JsonClient;

use bytes::Bytes;
use config::Token;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kubewright_core::{ApiError, ApiRequest, ApiResponse, Reason, Target, Verb};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take; the server itself gives up after 60 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Carries requests to a server over HTTPS; connections are shared and kept.
///
/// ```no_run
/// use kubewright_client::{Client, Config, HttpsTransport};
///
/// # fn main() -> Result<(), kubewright_client::ConfigError> {
/// let config = Config::from_kubeconfig(&["/home/me/.kube/config".into()], None)?;
/// let client = Client::new(HttpsTransport::new(config)?, Default::default());
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpsTransport {
    shared: Arc<Shared>,
}

type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

struct Shared {
    config: Config,
    http: Http,
    /// For upgrades, which only HTTP/1.1 has.
    upgrades: Arc<rustls::ClientConfig>,
    token: Option<Token>,
}

impl fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpsTransport({})", self.shared.config.server)
    }
}

impl HttpsTransport {
    /// A transport that connects when the first request comes.
    ///
    /// # Errors
    /// Where a certificate or key of the configuration is damaged.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let (http, mut upgrades) = http_client(&config)?;
        upgrades.alpn_protocols = vec![b"http/1.1".to_vec()];
        let token = Token::of(&config);
        Ok(HttpsTransport { shared: Arc::new(Shared { config, http, upgrades: Arc::new(upgrades), token }) })
    }

    /// What it connects to and as whom.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }
}

/// What sends requests to a configuration's server, and the TLS settings underneath.
fn http_client(config: &Config) -> Result<(Http, rustls::ClientConfig), ConfigError> {
    let tls = tls::client_config(config)?;
    let bare = tls.clone();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let builder = match &config.tls_server_name {
        Some(name) => {
            let name = rustls::pki_types::ServerName::try_from(name.clone())
                .map_err(|e| ConfigError::new(format!("tls-server-name {name:?}: {e}")))?;
            builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    let connector = builder.enable_all_versions().wrap_connector(tcp);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_adaptive_window(true)
        .build(connector);
    Ok((http, bare))
}

impl Service<ApiRequest> for HttpsTransport {
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<ApiResponse, ApiError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { shared.send(request).await })
    }
}

/// What a target is besides an object or a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    None,
    Log,
    Exec,
    Forward,
}

impl Stream {
    fn of(target: &Target) -> Self {
        let Target::Resource { subresource: Some(subresource), .. } = target else { return Stream::None };
        match subresource.as_str() {
            "log" => Stream::Log,
            "exec" | "attach" => Stream::Exec,
            "portforward" => Stream::Forward,
            _ => Stream::None,
        }
    }
}

impl Shared {
    async fn send(self: Arc<Self>, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        match Stream::of(&request.target) {
            Stream::Exec => return channels::exec(&self, &request).await,
            Stream::Forward => return forward::forwarder(self, &request).await,
            Stream::Log | Stream::None => {}
        }
        let http = self.authorized(encode::request(&self.config, &request)?).await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.http.request(http));
        let response = answer.await.map_err(|_| timed_out())?.map_err(|e| unreachable(&self.config, &e))?;
        let streams = request.verb == Verb::Watch || Stream::of(&request.target) == Stream::Log;
        if streams && response.status().is_success() {
            return Ok(decode::stream(response, request.verb));
        }
        tokio::time::timeout(ANSWER_TIMEOUT, decode::response(response, &request))
            .await
            .map_err(|_| timed_out())?
    }

    /// Adds the token, freshly read where it stands in a file.
    async fn authorized(&self, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, ApiError> {
        if let Some(token) = &self.token {
            let text = token.read().await?;
            let value = HeaderValue::try_from(format!("Bearer {text}"));
            let mut value = value.map_err(|_| ApiError::bad_request("the token is no header's value"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// Opens a connection of its own for a request that upgrades.
    async fn upgrade(
        &self,
        request: &ApiRequest,
        protocol: &'static str,
    ) -> Result<socket::Socket, ApiError> {
        let http = self.authorized(encode::upgrade(&self.config, request, protocol)?).await?;
        let opening = socket::open(&self.config, self.upgrades.clone(), http);
        tokio::time::timeout(ANSWER_TIMEOUT, opening).await.map_err(|_| timed_out())?
    }
}

fn timed_out() -> ApiError {
    ApiError::new(Reason::Timeout, "the server did not answer in time; the request may have been carried out")
}

/// The error of a server that could not be reached, with all that lies behind it.
fn unreachable(config: &Config, error: &dyn std::error::Error) -> ApiError {
    let mut text = format!("the server {} could not be reached: {error}", config.server);
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    ApiError::unavailable(text)
}

/// An answer that is no success, as its `Status`.
async fn failure(response: Response<Incoming>) -> ApiError {
    decode::failure(response).await
}
