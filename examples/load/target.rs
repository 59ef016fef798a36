//! Connections to the server, each one socket of HTTP/1.1.

use crate::Failed;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use kubewright::client::{Config, Credentials};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the server is and who asks.
pub(crate) struct Target {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    bearer: Option<String>,
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Arc<Target>,
}

/// A request yet to be sent.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Ask { method: Method::GET, path: path.into(), content_type: "", body: Bytes::new() }
    }

    pub(crate) fn post(path: impl Into<String>, object: &Value) -> Self {
        let body = object.to_string().into();
        Ask { method: Method::POST, path: path.into(), content_type: "application/json", body }
    }

    pub(crate) fn patch(path: impl Into<String>, content_type: &'static str, patch: &Value) -> Self {
        Ask { method: Method::PATCH, path: path.into(), content_type, body: patch.to_string().into() }
    }
}

impl Target {
    pub(crate) fn read(kubeconfig: PathBuf) -> Result<Arc<Self>, Failed> {
        let config = Config::from_kubeconfig(&[kubeconfig], None)?;
        let host = config.server.host().ok_or("the server has no host")?.to_owned();
        let name = config.tls_server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let bearer = match &config.credentials {
            Credentials::Token(token) => Some(format!("Bearer {token}")),
            Credentials::TokenFile(path) => Some(format!("Bearer {}", std::fs::read_to_string(path)?.trim())),
            _ => None,
        };
        Ok(Arc::new(Target {
            port: config.server.port_u16().unwrap_or(443),
            name: ServerName::try_from(name)?,
            tls: Arc::new(config.tls()?),
            host,
            bearer,
        }))
    }

    pub(crate) async fn connect(self: &Arc<Self>) -> Result<Connection, Failed> {
        let socket = tokio::net::TcpStream::connect((self.host.as_str(), self.port)).await?;
        socket.set_nodelay(true)?;
        let stream =
            tokio_rustls::TlsConnector::from(self.tls.clone()).connect(self.name.clone(), socket).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        Ok(Connection { sender, target: self.clone() })
    }
}

impl Connection {
    /// Sends a request and gives the answer's head; what is no success is an error with the body's words.
    pub(crate) async fn open(&mut self, ask: Ask) -> Result<Response<Incoming>, Failed> {
        let mut request =
            Request::builder().method(ask.method).uri(ask.path).header(header::HOST, &self.target.host);
        if !ask.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, ask.content_type);
        }
        if let Some(bearer) = &self.target.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(ask.body))?).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
    }

    /// Sends a request and gives the answer's body.
    pub(crate) async fn send(&mut self, ask: Ask) -> Result<Bytes, Failed> {
        Ok(self.open(ask).await?.into_body().collect().await?.to_bytes())
    }
}
