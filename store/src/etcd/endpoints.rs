//! The members of the cluster: connections, which one is asked, logging in, and going on to the next when one fails.

use super::EtcdOptions;
use super::errors::{Next, judge, told};
use super::wire::AuthenticateRequest;
use super::wire::auth_client::AuthClient;
use crate::{Error, Reason};
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

/// The pause before the cluster is asked again when every member failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The members, in the order given.
pub(super) struct Endpoints {
    options: EtcdOptions,
    members: Vec<Member>,
    /// Whom the next call asks.
    current: AtomicUsize,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    closed: watch::Sender<bool>,
}

struct Member {
    url: String,
    /// Connects when it is used, and again after it broke.
    channel: Channel,
}

/// One try of a call at one member.
pub(super) struct Call {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Call {
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The request with what every call carries: the token, and that a member without a leader shall refuse.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

impl Endpoints {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, Error> {
        if options.endpoints.is_empty() {
            return Err(Error::new(Reason::Invalid, "no etcd endpoint is given"));
        }
        let members = options.endpoints.iter().map(|url| member(url, &options)).collect::<Result<_, _>>()?;
        let closed = watch::Sender::new(false);
        Ok(Endpoints { options, members, current: AtomicUsize::new(0), token: Mutex::new(None), closed })
    }

    pub(super) fn options(&self) -> &EtcdOptions {
        &self.options
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Ends every watch and call.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Tells when the store is closed.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// The member to ask now.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len()
    }

    /// The member failed: others go to the next one.
    pub(super) fn leave(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        // Where another call moved on already, this changes nothing.
        let _ = self.current.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A try at a member, logged in where there is a user.
    pub(super) async fn call(&self, member: usize) -> Result<Call, Status> {
        let channel = self.members[member].channel.clone();
        let token = self.token.lock().clone();
        match (&self.options.credentials, token) {
            (None, _) => Ok(Call { channel, token: None }),
            (Some(_), Some(token)) => Ok(Call { channel, token: Some(token) }),
            (Some((name, password)), None) => {
                let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
                let answer = AuthClient::new(channel.clone()).authenticate(request).await?.into_inner();
                let token: MetadataValue<Ascii> =
                    answer.token.parse().map_err(|_| Status::internal("the token can't be sent"))?;
                *self.token.lock() = Some(token.clone());
                Ok(Call { channel, token: Some(token) })
            }
        }
    }

    /// Makes the next call log in anew.
    pub(super) fn forget_token(&self) {
        *self.token.lock() = None;
    }

    /// The address of a member.
    pub(super) fn url(&self, member: usize) -> &str {
        &self.members[member].url
    }

    /// A call that may be repeated.
    pub(super) async fn read<T, F>(&self, call: impl Fn(Call) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.run(call, true).await
    }

    /// A call that is repeated only where it was surely not done.
    pub(super) async fn write<T, F>(&self, call: impl Fn(Call) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.run(call, false).await
    }

    async fn run<T, F>(&self, call: impl Fn(Call) -> F, repeatable: bool) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut closing = self.closing();
        if *closing.borrow() {
            return Err(closed());
        }
        tokio::select! {
            result = self.run_open(call, repeatable) => result,
            // A commit that was under way may have happened.
            _ = closing.wait_for(|closed| *closed) => Err(if repeatable { closed() } else { closed().indeterminate() }),
        }
    }

    async fn run_open<T, F>(&self, call: impl Fn(Call) -> F, repeatable: bool) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let give_up = Instant::now() + self.options.give_up_after;
        let (mut pause, mut failed, mut logged_in) = (PAUSE_MIN, 0, false);
        loop {
            let member = self.current();
            let status = match self.attempt(member, &call).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let (_, next) = judge(&status);
            match next {
                Next::Stop => return Err(told(self.url(member), status)),
                Next::LogIn if logged_in || self.options.credentials.is_none() => {
                    return Err(told(self.url(member), status));
                }
                Next::LogIn => {
                    logged_in = true;
                    self.forget_token();
                    continue;
                }
                Next::MaybeDone if !repeatable => {
                    self.leave(member);
                    return Err(told(self.url(member), status).indeterminate());
                }
                Next::MaybeDone | Next::NotDone => self.leave(member),
            }
            failed += 1;
            if Instant::now() >= give_up {
                return Err(told(self.url(member), status));
            }
            if failed % self.members.len() == 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn attempt<T, F>(&self, member: usize, call: impl Fn(Call) -> F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let once = async { call(self.call(member).await?).await };
        let late =
            |_| Status::deadline_exceeded(format!("{} did not answer in time", self.members[member].url));
        timeout(self.options.call_timeout, once).await.map_err(late)?
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.options.endpoints.join(","))
    }
}

pub(super) fn closed() -> Error {
    Error::new(Reason::Closed, "the store was closed")
}

fn member(url: &str, options: &EtcdOptions) -> Result<Member, Error> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let bad = |error: tonic::transport::Error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::new(Reason::Invalid, format!("etcd endpoint {url:?}: {why}")).with_source(error)
    };
    let mut endpoint = Endpoint::from_shared(url.clone()).map_err(bad)?;
    if endpoint.uri().host().is_none() || endpoint.uri().port().is_none() {
        return Err(Error::new(Reason::Invalid, format!("etcd endpoint {url:?} has no host or no port")));
    }
    endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20);
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(tls(options)).map_err(bad)?;
    }
    Ok(Member { url, channel: endpoint.connect_lazy() })
}

fn tls(options: &EtcdOptions) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    if !options.tls.ca.is_empty() {
        config = config.ca_certificate(Certificate::from_pem(&options.tls.ca));
    }
    if !options.tls.certificate.is_empty() {
        config = config.identity(Identity::from_pem(&options.tls.certificate, &options.tls.key));
    }
    config
}
