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
    get_as(connector, address, "").await
}

async fn get_as(connector: &tokio_rustls::TlsConnector, address: SocketAddr, headers: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut tls = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let request = format!("GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    tls.write_all(request.as_bytes()).await.unwrap();
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
        let name = request.user.username.clone().unwrap_or_default();
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

#[tokio::test]
async fn front_proxies_name_users_and_certificates_change() {
    let (ca, proxies) = (
        CertificateAuthority::generate(&SystemClock).unwrap(),
        CertificateAuthority::generate(&SystemClock).unwrap(),
    );
    let names = ["localhost".to_owned()];
    let first = ca.issue_server(&names, &SystemClock).unwrap();
    let shown = ServingCertificate::new(&first).unwrap();
    let front = FrontProxyAuthority::from_pem(proxies.certificate_pem()).unwrap();
    assert!(FrontProxyAuthority::from_pem("nothing").is_err());
    let config = ca.changeable_config(shown.clone(), Some(&front)).unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap().front_proxies(front);
    let address = server.local_addr();
    let inner = tower::service_fn(async |request: ApiRequest| {
        let name = request.user.username.clone().unwrap_or_default();
        Ok::<_, ApiError>(ApiResponse::new(200, ResponseBody::Value(serde_json::json!({ "name": name }))))
    });
    let shutdown = CancellationToken::new();
    let believed = crate::auth::FrontProxy { allowed_names: vec!["front".to_owned()], ..Default::default() };
    let service = HttpService::new(inner)
        .anonymous(true)
        .anonymous_paths(vec!["/whoami".to_owned()])
        .front_proxy(believed)
        .closing(shutdown.clone());
    let running = tokio::spawn(server.serve(service, shutdown.clone()));
    let named = "X-Remote-User: jane\r\nX-Remote-Group: dev\r\n";
    let check = async |of: &CertificateAuthority, user: &str, headers: &str, want: &str| {
        let certificate = of.issue_client(user, &["system:masters"], &SystemClock).unwrap();
        let body = get_as(&client(&ca, Some(&certificate)), address, headers).await;
        assert!(body.ends_with(&format!("{{\"name\":\"{want}\"}}")), "{user} {headers}: {body}");
    };
    check(&proxies, "front", named, "jane").await;
    // Another certificate of that authority, and the believed one without a name, are nobody.
    check(&proxies, "back", named, "system:anonymous").await;
    check(&proxies, "front", "", "system:anonymous").await;
    // A user of the cluster's own authority does not become somebody else by a header.
    check(&ca, "front", named, "front").await;
    let second = ca.issue_server(&names, &SystemClock).unwrap();
    assert!(ca.renewed(&second, &names, &SystemClock).unwrap().is_none());
    assert!(ca.renewed(&second, &["other".to_owned()], &SystemClock).unwrap().is_some());
    shown.replace(&second).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let tls = client(&ca, None).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let served = tls.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(served, CertificateDer::from_pem_slice(second.certificate_pem.as_bytes()).unwrap());
    let mut damaged = first;
    damaged.key_pem.clone_from(&second.key_pem);
    assert!(shown.replace(&damaged).is_err(), "certificate and key must fit");
    shutdown.cancel();
    drop(tls);
    running.await.unwrap();
}
