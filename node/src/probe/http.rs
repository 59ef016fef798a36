//! HTTP and HTTPS requests of probes and hooks: one connection a request, any certificate accepted, as upstream does it.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How much of an answer's body is read.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// A port by number or by name in the container.
pub(crate) fn port_of(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let found = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name.as_str()));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    match found.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
        Some(n) => Ok(n),
        None => Err(format!("invalid port number: {port:?}")),
    }
}

/// A host and port as an address is written.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects; the error reads as Go's does.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let at = address(host, port);
    TcpStream::connect(&at).await.map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
            std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
            _ => e.to_string(),
        };
        format!("dial tcp {at}: connect: {why}")
    })
}

/// Sends the GET of an action to a pod. Gives the status code, or why there was no answer.
pub(crate) async fn get(action: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<u16, String> {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let port = port_of(&action.port, container)?;
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let https = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let scheme = if https { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", address(host, port));
    let fails = |why: String| format!("Get \"{url}\": {why}");
    let request = request(action, &path, &address(host, port)).map_err(fails)?;
    let stream = dial(host, port).await.map_err(fails)?;
    let answer = if https {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(accept_any().map_err(fails)?));
        let name =
            rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|e| fails(e.to_string()))?;
        let stream = connector.connect(name, stream).await.map_err(|e| fails(e.to_string()))?;
        send(stream, request).await
    } else {
        send(stream, request).await
    };
    answer.map_err(fails)
}

fn request(action: &HTTPGetAction, path: &str, host: &str) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(path).body(Empty::new()).map_err(|e| e.to_string())?;
    let headers = request.headers_mut();
    headers.insert("user-agent", HeaderValue::from_static("kube-probe/1.36"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers.insert("connection", HeaderValue::from_static("close"));
    headers.insert("host", HeaderValue::from_str(host).map_err(|e| e.to_string())?);
    for header in action.http_headers.iter().flatten() {
        let name: HeaderName =
            header.name.parse().map_err(|_| format!("invalid header name {:?}", header.name))?;
        let value = HeaderValue::from_str(&header.value).map_err(|e| e.to_string())?;
        if matches!(name.as_str(), "host" | "user-agent" | "accept") {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(request)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<u16, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = answer.status().as_u16();
        // Read the body, so that the server does not see a reset; its content does not matter.
        let _ = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(code)
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        code = &mut exchange => code,
        ended = &mut connection => match ended {
            // The answer may be complete although the server closed the connection.
            Ok(()) => exchange.await,
            Err(e) => Err(e.to_string()),
        },
    }
}

fn accept_any() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        .with_no_client_auth())
}

/// Probes do not check who answers: pods have no certificates that a node could know.
#[derive(Debug)]
struct AcceptAny(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
