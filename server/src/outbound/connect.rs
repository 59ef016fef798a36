//! Connections to a destination: resolved anew for each, with TLS where there is any.

use super::words::{of_dial, of_handshake};
use super::{CallError, Place, Resolver};
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

/// How long a connection, its TLS handshake included, may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many addresses of a destination are tried.
const ADDRESSES_MAX: usize = 3;

/// Bytes in both directions, with or without TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// An open connection.
pub(crate) struct Stream(TokioIo<Box<dyn Duplex>>);

/// Opens connections to one place.
#[derive(Clone)]
pub(super) struct Connector {
    place: Place,
    tls: Option<Arc<ClientConfig>>,
    resolver: Resolver,
}

impl Connector {
    pub(super) fn new(place: Place, tls: Option<Arc<ClientConfig>>, resolver: Resolver) -> Self {
        Connector { place, tls, resolver }
    }

    async fn connect(self) -> Result<Stream, CallError> {
        let addresses = self.resolver.addresses(&self.place).await?;
        let mut failed =
            CallError::Connect(format!("dial tcp: lookup {}: no such host", self.place.server_name()));
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            match self.dial(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    async fn dial(&self, address: SocketAddr) -> Result<Stream, CallError> {
        let stand = async {
            let tcp = TcpStream::connect(address).await.map_err(|e| of_dial(address, &e))?;
            let _ = tcp.set_nodelay(true);
            let Some(tls) = &self.tls else {
                return Ok(Stream(TokioIo::new(Box::new(tcp) as Box<dyn Duplex>)));
            };
            let name = self.place.server_name();
            let wanted = ServerName::try_from(name.clone()).map_err(|_| {
                CallError::Unusable(format!("{name:?} is no name that a certificate can carry"))
            })?;
            let stream = TlsConnector::from(tls.clone()).connect(wanted, tcp).await;
            let stream = stream.map_err(|e| of_handshake(&e, &name))?;
            Ok(Stream(TokioIo::new(Box::new(stream) as Box<dyn Duplex>)))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, stand).await {
            Ok(done) => done,
            Err(_) => Err(CallError::Connect(format!("dial tcp {address}: i/o timeout"))),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Stream, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
