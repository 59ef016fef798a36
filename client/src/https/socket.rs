//! A WebSocket on a connection of its own.

use super::config::Config;
use super::{failure, unreachable};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kubewright_core::ApiError;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

pub(super) async fn open(
    config: &Config,
    tls: Arc<rustls::ClientConfig>,
    mut request: Request<Full<Bytes>>,
) -> Result<Socket, ApiError> {
    let host = config.server.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
    let plain = config.server.scheme_str() == Some("http");
    let port = config.server.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|e| unreachable(config, &e))?;
    let _ = tcp.set_nodelay(true);
    if let Some(authority) = config.server.authority() {
        let value = http::HeaderValue::from_str(authority.as_str()).map_err(ApiError::internal)?;
        request.headers_mut().insert(http::header::HOST, value);
    }
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(ApiError::internal)?;
    if plain {
        return upgrade(config, tcp, request).await;
    }
    let name = config.tls_server_name.clone().unwrap_or(host);
    let name = ServerName::try_from(name).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|e| unreachable(config, &e))?;
    upgrade(config, stream, request).await
}

async fn upgrade<I>(config: &Config, io: I, request: Request<Full<Bytes>>) -> Result<Socket, ApiError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = handshake.map_err(|e| unreachable(config, &e))?;
    let mut connection = Box::pin(connection.with_upgrades());
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| unreachable(config, &e))?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(failure(response).await);
        }
        hyper::upgrade::on(response).await.map_err(|e| unreachable(config, &e))
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection has to be driven for the exchange to go on, and gives itself up to the upgrade at its end.
    let upgraded = tokio::select! {
        upgraded = exchange.as_mut() => upgraded,
        _ = connection.as_mut() => exchange.await,
    }?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}
