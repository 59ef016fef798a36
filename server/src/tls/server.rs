//! The listening socket: TLS, HTTP/1.1 and 2, limits, and a shutdown that drains.

use super::identity::user_of;
use super::stall::Stall;
use super::{FrontProxyAuthority, TlsError};
use crate::auth::FrontProxyName;
use crate::http::{Body, PeerAddress, PeerIdentity};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// What a server grants its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Bytes of all the headers of a request.
    pub header_bytes_max: u32,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long the headers of a request may take, the idle time before it included (HTTP/1.1).
    pub header_timeout: Duration,
    /// How long a client may take nothing of what is sent to it before its connection is cut off. Whoever pages through a log slowly
    /// reads nothing for a while, too.
    pub write_timeout: Duration,
    /// How long open requests may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 8192,
            streams_max: 250,
            header_bytes_max: 64 * 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(900),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A bound socket that is not served yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    limits: Limits,
    front: Option<Arc<FrontProxyAuthority>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

impl Server {
    /// Listens on an address; port 0 takes any free one.
    ///
    /// # Errors
    /// [`TlsError::AddressInUse`] where another program has the port, [`TlsError::Listen`] for any other refusal.
    pub async fn bind(address: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Result<Self, TlsError> {
        let refused = |source: std::io::Error| match source.kind() {
            ErrorKind::AddrInUse => TlsError::AddressInUse { address },
            _ => TlsError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Server {
            listener,
            address,
            acceptor: TlsAcceptor::from(tls),
            limits: Limits::default(),
            front: None,
        })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The same server with other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Client certificates of this authority are those of front proxies, which name the user in headers; they are nobody's own. The
    /// TLS configuration has to take them ([`crate::tls::CertificateAuthority::changeable_config`]).
    #[must_use]
    pub fn front_proxies(mut self, authority: FrontProxyAuthority) -> Self {
        self.front = Some(Arc::new(authority));
        self
    }

    /// Serves until `shutdown` is cancelled, then lets open requests end within the drain timeout.
    ///
    /// Give the same token to [`crate::http::HttpService::closing`], so that watches and sessions end too.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket and every connection at once.
    pub async fn serve<S>(self, service: S, shutdown: CancellationToken)
    where
        S: Service<hyper::Request<Incoming>, Response = hyper::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let tasks = TaskTracker::new();
        // Cancelled when this future ends or is dropped, so that no connection outlives it.
        let abort = CancellationToken::new();
        let abort_guard = abort.clone().drop_guard();
        let connections = Arc::new(Connections {
            builder: builder(&self.limits),
            acceptor: self.acceptor,
            front: self.front,
            handshake_timeout: self.limits.handshake_timeout,
            write_timeout: self.limits.write_timeout,
            shutdown: shutdown.clone(),
        });
        loop {
            let accept = async {
                let place = places.clone().acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, stream) = tokio::select! {
                () = shutdown.cancelled() => break,
                (place, stream) = accept => (place, stream),
            };
            match stream {
                Ok((stream, _)) => {
                    let work = connections.clone().run(stream, service.clone());
                    let abort = abort.clone();
                    tasks.spawn(async move {
                        let _place = place;
                        tokio::select! { () = work => {}, () = abort.cancelled() => {} }
                    });
                }
                Err(e) => {
                    // Mostly too many open files: wait for some to close.
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        tasks.close();
        let drained = tokio::time::timeout(self.limits.drain_timeout, tasks.wait()).await;
        if drained.is_err() {
            tracing::warn!(connections = tasks.len(), "connections are cut off after the drain timeout");
        }
        drop(abort_guard);
        tasks.wait().await;
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max.max(128 * 1024) as usize)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_bytes_max)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Connections {
    builder: auto::Builder<TokioExecutor>,
    acceptor: TlsAcceptor,
    front: Option<Arc<FrontProxyAuthority>>,
    handshake_timeout: Duration,
    write_timeout: Duration,
    shutdown: CancellationToken,
}

impl Connections {
    async fn run<S>(self: Arc<Self>, stream: TcpStream, service: S)
    where
        S: Service<hyper::Request<Incoming>, Response = hyper::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let _ = stream.set_nodelay(true);
        let address = stream.peer_addr().ok();
        let stream = Stall::new(stream, self.write_timeout);
        let handshake = tokio::time::timeout(self.handshake_timeout, self.acceptor.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return tracing::debug!(error = %e, "TLS handshake"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|c| c.first());
        let proxy = leaf.and_then(|c| self.front.as_ref()?.name_of(c));
        let proxy = proxy.map(|name| FrontProxyName(name.into()));
        let peer = leaf.filter(|_| proxy.is_none()).and_then(|c| user_of(c));
        let peer = peer.map(|user| PeerIdentity(Arc::new(user)));
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            if let Some(address) = address {
                request.extensions_mut().insert(PeerAddress(address));
            }
            if let Some(proxy) = &proxy {
                request.extensions_mut().insert(proxy.clone());
            }
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            // Every service here is ready at once; `HttpService` waits for its inner one by itself.
            service.clone().call(request)
        });
        let connection = self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!(error = %e, "a connection ended");
        }
    }
}
