//! The accept loop with a real TLS client.

use super::*;
use crate::auth::anonymous;
use crate::http::HttpService;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ResponseBody, SystemClock};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

fn client(ca: &CertificateAuthority, user: Option<&KeyCertificate>) -> tokio_rustls::TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match user {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

async fn get(connector: &tokio_rustls::TlsConnector, address: SocketAddr) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut tls = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    tls.write_all(b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tls.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_certificate_is_an_identity_and_shutdown_ends_watches() {
    let ca = CertificateAuthority::generate(&SystemClock).unwrap();
    let serving = ca.issue_server(&CertificateAuthority::server_names(None, &[]), &SystemClock).unwrap();
    let config = ca.server_config(&serving).unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), config.clone()).await.unwrap();
    let address = server.local_addr();
    let taken = Server::bind(address, config).await.unwrap_err();
    assert!(matches!(taken, TlsError::AddressInUse { .. }), "{taken}");

    let shutdown = CancellationToken::new();
    let inner = tower::service_fn(async |request: ApiRequest| {
        let name = request.user.username.unwrap_or_default();
        Ok::<_, ApiError>(ApiResponse::new(200, ResponseBody::Value(serde_json::json!({ "name": name }))))
    });
    let service = HttpService::new(inner).anonymous(true).closing(shutdown.clone());
    let running = tokio::spawn(server.serve(service, shutdown.clone()));

    let jane = ca.issue_client("jane", &["dev"], &SystemClock).unwrap();
    let body = get(&client(&ca, Some(&jane)), address).await;
    assert!(body.ends_with("{\"name\":\"jane\"}"), "{body}");
    let body = get(&client(&ca, None), address).await;
    assert!(body.contains(anonymous().username.as_deref().unwrap()), "{body}");

    let stranger = CertificateAuthority::generate(&SystemClock).unwrap();
    let forged = stranger.issue_client("jane", &["system:masters"], &SystemClock).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let refused = async {
        let mut tls = client(&ca, Some(&forged)).connect(name, stream).await?;
        tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let mut text = String::new();
        tls.read_to_string(&mut text).await
    };
    assert!(refused.await.is_err(), "a foreign certificate must not be served");

    shutdown.cancel();
    running.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
