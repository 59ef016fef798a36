//! The HTTP face of a service over [`ApiRequest`]: authenticate, decode, call, encode.

use super::body::Body;
use super::cors::{self, AllowedOrigins};
use super::decode::{self, Shape};
use super::{encode, passing, path, upgrade};
use crate::audit::Audit;
use crate::auth::{AuthenticationCounts, Authenticator, Authorizer, FrontProxy, Impersonation, anonymous};
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, Entropy, Notes, Origin, Reason, SharedClock, SystemClock, Target,
    UserInfo, Verb,
};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Upstream's limit of a request that is no watch.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Who stands behind a connection, put into a request's extensions by the server that accepted it.
#[derive(Clone, Debug)]
pub struct PeerIdentity(pub Arc<UserInfo>);

/// A service over HTTP requests, around any service over [`ApiRequest`].
///
/// A request is answered with 401 until an identity, an authenticator or anonymous access is configured. It needs no socket:
/// `kube::Client::new(service, "default")` runs on it in process.
///
/// # Cancel safety
/// Dropping the response future of a write leaves open whether the write happened.
pub struct HttpService<S> {
    inner: S,
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    closing: CancellationToken,
    sessions: upgrade::Sessions,
    entropy: Entropy,
}

#[derive(Clone)]
struct Config {
    /// Who callers without credentials are; for the host's own in-process clients.
    identity: Option<Arc<UserInfo>>,
    counts: Option<Arc<AuthenticationCounts>>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: bool,
    /// The paths that anonymous callers may ask for; all when empty.
    anonymous_paths: Vec<String>,
    front_proxy: Option<FrontProxy>,
    /// Decides on `Impersonate-*` headers; without it they are refused.
    impersonation: Option<Impersonation>,
    clock: SharedClock,
    timeout: Duration,
    /// Wants to know of every request where it came from, and which ones were refused at the door.
    audit: Option<Audit>,
    origins: Option<Arc<AllowedOrigins>>,
    /// `Strict-Transport-Security`.
    strict_transport: Option<HeaderValue>,
}

impl Config {
    fn lets_strangers(&self, parts: &Parts) -> bool {
        let paths = &self.anonymous_paths;
        self.anonymous && (paths.is_empty() || paths.iter().any(|p| p == parts.uri.path()))
    }
}

impl<S> HttpService<S> {
    /// Puts the HTTP codec in front of `inner`.
    pub fn new(inner: S) -> Self {
        let config = Config {
            identity: None,
            counts: None,
            authenticators: Vec::new(),
            anonymous: false,
            anonymous_paths: Vec::new(),
            front_proxy: None,
            impersonation: None,
            clock: Arc::new(SystemClock),
            timeout: REQUEST_TIMEOUT,
            audit: None,
            origins: None,
            strict_transport: None,
        };
        Self::with(inner, config, CancellationToken::new())
    }

    fn with(inner: S, config: Config, closing: CancellationToken) -> Self {
        let sessions = upgrade::Sessions::new(closing.clone());
        let entropy = Entropy::from_system();
        HttpService { inner, shared: Arc::new(Shared { config, closing, sessions, entropy }) }
    }

    fn map(self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.shared.config.clone();
        change(&mut config);
        let closing = self.shared.closing.clone();
        Self::with(self.inner, config, closing)
    }

    /// Callers without credentials act as `user`. Only for a service that no stranger reaches.
    #[must_use]
    pub fn identity(self, user: UserInfo) -> Self {
        self.map(|c| c.identity = Some(Arc::new(user)))
    }

    /// Counts who is let in here.
    pub(crate) fn counting(self, counts: Arc<AuthenticationCounts>) -> Self {
        self.map(|c| c.counts = Some(counts))
    }

    /// Asks this authenticator too, after those added before it.
    #[must_use]
    pub fn authenticator(self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.map(|c| c.authenticators.push(authenticator))
    }

    /// Lets callers without credentials in as `system:anonymous`.
    #[must_use]
    pub fn anonymous(self, allowed: bool) -> Self {
        self.map(|c| c.anonymous = allowed)
    }

    /// Lets callers without credentials ask for these paths only; for everything, without any.
    #[must_use]
    pub fn anonymous_paths(self, paths: Vec<String>) -> Self {
        self.map(|c| c.anonymous_paths = paths)
    }

    /// Believes the user that a front proxy names in headers.
    #[must_use]
    pub fn front_proxy(self, proxy: FrontProxy) -> Self {
        self.map(|c| c.front_proxy = Some(proxy))
    }

    /// Lets callers impersonate whom this authorizer allows them to.
    #[must_use]
    pub fn impersonation(self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.map(|c| c.impersonation = Some(Impersonation::new(authorizer)))
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(self, clock: SharedClock) -> Self {
        self.map(|c| c.clock = clock)
    }

    /// How long a request that is no stream may take; 60 s without this.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|c| c.timeout = timeout)
    }

    /// Notes where each request came from for this audit, which is a layer below, and tells it of those refused at the door.
    #[must_use]
    pub fn audit(self, audit: Audit) -> Self {
        self.map(|c| c.audit = Some(audit))
    }

    /// Lets web pages of these origins ask.
    #[must_use]
    pub fn allowed_origins(self, origins: AllowedOrigins) -> Self {
        self.map(|c| c.origins = Some(Arc::new(origins)))
    }

    /// Sends `Strict-Transport-Security` with these directives (`max-age=31536000,includeSubDomains`).
    ///
    /// # Errors
    /// Where they are no header.
    pub fn strict_transport(self, directives: &str) -> Result<Self, String> {
        let text = directives.split(',').map(str::trim).collect::<Vec<_>>().join("; ");
        let value = HeaderValue::try_from(text).map_err(|e| e.to_string())?;
        Ok(self.map(|c| c.strict_transport = Some(value)))
    }

    /// Ends watches, logs and sessions once `token` is cancelled, so that connections can drain.
    #[must_use]
    pub fn closing(self, token: CancellationToken) -> Self {
        Self::with(self.inner, self.shared.config.clone(), token)
    }
}

impl<S: Clone> Clone for HttpService<S> {
    fn clone(&self) -> Self {
        HttpService { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S> fmt::Debug for HttpService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.shared.config;
        write!(
            f,
            "HttpService({} authenticators, anonymous {})",
            config.authenticators.len(),
            config.anonymous
        )
    }
}

impl<S, B> Service<Request<B>> for HttpService<S>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: fmt::Display + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The inner service is cloned for each request and waited for there, so that a busy one gives a 503 and no stall.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        Box::pin(async move { Ok(shared.answer(inner, request).await) })
    }
}

impl Shared {
    async fn answer<S, B>(&self, inner: S, request: Request<B>) -> Response<Body>
    where
        S: Service<ApiRequest, Response = ApiResponse, Error = ApiError>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: fmt::Display + Send,
    {
        let (mut parts, body) = request.into_parts();
        let head_only = parts.method == Method::HEAD;
        let audit_id = self.audit_id(&parts);
        let origin = self.config.origins.as_ref().and_then(|o| o.of(&parts.headers));
        let (mut progress, notes) = (Progress::default(), Notes::default());
        let mut response = if parts.method == Method::OPTIONS && origin.is_some() {
            no_content()
        } else {
            match self.run(inner, &mut parts, body, &mut progress, &notes, &audit_id).await {
                Ok(response) => response,
                Err(error) => {
                    if !progress.arrived {
                        self.refused(&parts, &notes, &audit_id, progress.user, &error);
                    }
                    encode::error(&error, progress.shape, &notes.warnings())
                }
            }
        };
        if let Some(origin) = origin {
            cors::allow(response.headers_mut(), origin);
        }
        if let Some(directives) = &self.config.strict_transport {
            response.headers_mut().insert(http::header::STRICT_TRANSPORT_SECURITY, directives.clone());
        }
        response.headers_mut().insert(AUDIT_ID, audit_id);
        flow_headers(response.headers_mut(), &notes);
        if head_only {
            *response.body_mut() = Body::empty();
        }
        response
    }

    fn audit_id(&self, parts: &Parts) -> HeaderValue {
        match parts.headers.get(AUDIT_ID).filter(|v| !v.is_empty() && v.len() <= 64) {
            Some(given) => given.clone(),
            None => HeaderValue::try_from(self.entropy.uid()).unwrap_or(HeaderValue::from_static("-")),
        }
    }

    async fn run<S, B>(
        &self,
        mut inner: S,
        parts: &mut Parts,
        body: B,
        progress: &mut Progress,
        notes: &Notes,
        audit_id: &HeaderValue,
    ) -> Result<Response<Body>, ApiError>
    where
        S: Service<ApiRequest, Response = ApiResponse, Error = ApiError>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: fmt::Display + Send,
    {
        let (user, sender) = self.authenticate(parts).await?;
        if self.config.audit.is_some() {
            notes.set_origin(origin(parts, audit_id, sender));
            progress.user = Some(user.clone());
        }
        let candidate = passing::candidate(parts.uri.path());
        let (clock, timeout) = (&*self.config.clock, self.config.timeout);
        let (head, unread) = match candidate {
            None => (decode::head(parts, user, clock, timeout)?, None),
            Some(_) => passing::head(parts, user, clock, timeout),
        };
        progress.shape = head.shape;
        let mut request = head.request;
        request.notes = notes.clone();
        let upgrade = if candidate.is_none() { upgrade::requested(&request, parts)? } else { None };
        let work = async {
            match candidate {
                Some(candidate) => passing::keep(candidate, &mut request, parts, body, unread).await?,
                None => {
                    if upgrade.is_none() {
                        request.body = decode::body(&request, parts, body).await?;
                    }
                    super::query::check(&request.options, request.verb, decode::is_apply(&request.body))?;
                }
            }
            std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
            progress.arrived = true;
            inner.call(request).await
        };
        let answer = match head.timeout {
            Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| timed_out())??,
            None => work.await?,
        };
        match upgrade {
            Some(upgrade) => upgrade.accept(parts, answer, &self.sessions),
            None => encode::response(answer, head.shape, &parts.headers, &self.closing),
        }
    }

    /// Tells the audit of a request that the API never saw.
    fn refused(
        &self,
        parts: &Parts,
        notes: &Notes,
        audit_id: &HeaderValue,
        user: Option<Arc<UserInfo>>,
        error: &ApiError,
    ) {
        let Some(audit) = &self.config.audit else { return };
        notes.set_origin(origin(parts, audit_id, None));
        let path = || Target::Path(parts.uri.path().to_owned());
        let target = path::parse(parts.uri.path(), parts.uri.query()).map_or_else(|_| path(), |r| r.target);
        let verb = path::verb(&parts.method, &target, false).unwrap_or(Verb::Get);
        let mut request = ApiRequest::new(verb, target);
        request.user = user.unwrap_or_default();
        request.user_agent = decode::header(&parts.headers, &http::header::USER_AGENT).into();
        request.notes = notes.clone();
        audit.refused(&request, error);
    }

    /// The user behind the credentials of a request, where there are any.
    async fn known(&self, parts: &mut Parts) -> Result<Option<Arc<UserInfo>>, ApiError> {
        let config = &self.config;
        if let Some(user) = config.front_proxy.as_ref().and_then(|proxy| proxy.user_of(parts)) {
            return Ok(Some(Arc::new(user)));
        }
        if let Some(peer) = parts.extensions.get::<PeerIdentity>() {
            return Ok(Some(peer.0.clone()));
        }
        for authenticator in &config.authenticators {
            if let Some(user) = authenticator.authenticate(parts).await? {
                return Ok(Some(Arc::new(user)));
            }
        }
        Ok(None)
    }

    /// Who asks (the connection's certificate, then a header, then nobody), and who sent it, where that is someone else.
    async fn authenticate(
        &self,
        parts: &mut Parts,
    ) -> Result<(Arc<UserInfo>, Option<Arc<UserInfo>>), ApiError> {
        let (config, since) = (&self.config, Instant::now());
        let found = self.known(parts).await;
        if let Some(counts) = &config.counts {
            counts.count(&found, since.elapsed());
        }
        let found = found?;
        let credentials = parts.headers.contains_key(http::header::AUTHORIZATION);
        let user = match (found, &config.identity) {
            (Some(user), _) => user,
            (None, Some(user)) if !credentials => user.clone(),
            (None, None) if config.lets_strangers(parts) && !credentials => Arc::new(anonymous()),
            _ => return Err(ApiError::new(Reason::Unauthorized, "Unauthorized")),
        };
        let sender = Impersonation::is_asked(&parts.headers).then(|| user.clone());
        let user = match &config.impersonation {
            Some(impersonation) => impersonation.apply(user, &parts.headers).await?,
            None => Impersonation::refuse(user, &parts.headers)?,
        };
        Ok((user, sender))
    }
}

/// How far a request has come.
#[derive(Default)]
struct Progress {
    shape: Shape,
    /// Who asks, once that is known and someone wants to know.
    user: Option<Arc<UserInfo>>,
    /// Whether the service below has it.
    arrived: bool,
}

/// The answer to a browser that asks whether it may ask.
fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    response
}

/// What an audit log wants to know of a request beside the request itself.
fn origin(parts: &Parts, audit_id: &HeaderValue, sender: Option<Arc<UserInfo>>) -> Origin {
    Origin {
        audit_id: audit_id.to_str().unwrap_or("").to_owned(),
        uri: parts.uri.path_and_query().map(|p| p.as_str().to_owned()).unwrap_or_default(),
        source_ips: super::sources::of(parts),
        sender,
    }
}

/// Says under which flow schema and priority level the request ran, where flow control is on.
fn flow_headers(headers: &mut HeaderMap, notes: &Notes) {
    let Some(flow) = notes.flow() else { return };
    for (name, uid) in [(FLOW_SCHEMA, &flow.schema_uid), (PRIORITY_LEVEL, &flow.level_uid)] {
        if let Ok(value) = HeaderValue::from_str(uid) {
            headers.insert(name, value);
        }
    }
}

fn timed_out() -> ApiError {
    ApiError::new(Reason::Timeout, "Timeout: request did not complete within the allotted timeout")
}
