//! A whole API server with RBAC and the built-in admission, asked over HTTP: in process, or over TLS with a client certificate.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubewright_core::SystemClock;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_server::ApiServer;
use kubewright_server::auth::{Access, SigningKey, authenticated};
use kubewright_server::tls::{CertificateAuthority, Server};
use kubewright_store::MemoryStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

type Answer = Response<UnsyncBoxBody<Bytes, String>>;
type Door = Arc<dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Answer> + Send + Sync>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// A server, and the way to it.
pub(crate) struct Site {
    door: Door,
    pub(crate) server: ApiServer,
    shutdown: CancellationToken,
    agent: &'static str,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn server() -> (ApiServer, Access) {
    let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
    let mut builder = ApiServer::builder(Arc::new(MemoryStore::new()))
        .service_cidr("10.0.0.0/24")
        .advertise("10.1.2.3".parse().unwrap(), 6443)
        .ca_certificate("a certificate");
    for kind in builtin(&BuiltinOptions::default()) {
        builder = builder.kind(kind);
    }
    let server = access.install(builder).build().await.unwrap();
    access.start(&server).await.unwrap();
    (server, access)
}

/// A server that is called straight, everybody being its administrator who does not say otherwise.
pub(crate) async fn in_process() -> Site {
    let (server, access) = server().await;
    let root = authenticated("root", &["system:masters"]);
    let service = access.http(access.authorized(server.clone())).identity(root);
    let door: Door = Arc::new(move |request| {
        let service = service.clone();
        Box::pin(async move {
            let answer = service.oneshot(request).await.unwrap();
            answer.map(|body| UnsyncBoxBody::new(body.map_err(|e| e.to_string())))
        })
    });
    Site { door, server, shutdown: CancellationToken::new(), agent: "in-process" }
}

/// A server behind TLS, asked over one connection of HTTP/2 with an administrator's certificate.
pub(crate) async fn over_tls() -> Site {
    let (server, access) = server().await;
    let authority = CertificateAuthority::generate(&SystemClock).unwrap();
    let names = CertificateAuthority::server_names(None, &[]);
    let serving = authority.issue_server(&names, &SystemClock).unwrap();
    let config = authority.server_config(&serving).unwrap();
    let socket = Server::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    let address = socket.local_addr();
    let shutdown = CancellationToken::new();
    let http = access.http(access.authorized(server.clone())).closing(shutdown.clone());
    tokio::spawn(socket.serve(http, shutdown.clone()));

    let stream = TcpStream::connect(address).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(client(&authority)));
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let door: Door = Arc::new(move |mut request| {
        let mut sender = sender.clone();
        let path = request.uri().path_and_query().unwrap().to_string();
        *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        Box::pin(async move {
            let answer = sender.send_request(request).await.unwrap();
            answer.map(|body| UnsyncBoxBody::new(body.map_err(|e| e.to_string())))
        })
    });
    Site { door, server, shutdown, agent: "over-tls" }
}

fn client(authority: &CertificateAuthority) -> rustls::ClientConfig {
    let pair = authority.issue_client("admin", &["system:masters"], &SystemClock).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    asked: String,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}: no JSON: {}", self.asked, self.text))
    }

    /// The document of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(self.code == 200 || self.code == 201, "{}: {} {}", self.asked, self.code, self.text);
        self.json()
    }

    /// The status of a refusal with this code and reason.
    #[track_caller]
    pub(crate) fn refused(&self, code: u16, reason: &str) -> Value {
        assert_eq!(self.code, code, "{}: {}", self.asked, self.text);
        let status = self.json();
        assert_eq!(
            (&status["kind"], &status["status"]),
            (&json!("Status"), &json!("Failure")),
            "{}",
            self.text
        );
        assert_eq!((&status["code"], &status["reason"]), (&json!(code), &json!(reason)), "{}", self.text);
        status
    }

    /// A refusal whose message holds some words.
    #[track_caller]
    pub(crate) fn says(&self, code: u16, words: &str) {
        assert_eq!(self.code, code, "{}: {}", self.asked, self.text);
        let message = self.json()["message"].as_str().unwrap_or("").to_owned();
        assert!(message.contains(words), "{}: no {words:?} in {message}", self.asked);
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().map(|v| v.to_str().unwrap()).collect()
    }
}

impl Site {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("user-agent") {
            request = request.header("user-agent", format!("{}/v1", self.agent));
        }
        if !given("accept") {
            // What upstream's suite prefers; the second clause lets a server answer in JSON.
            request = request.header("accept", "application/vnd.kubernetes.protobuf, */*");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        (self.door)(request.body(Full::new(body)).unwrap()).await
    }

    /// Sends a request and takes the whole answer.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Got {
        let (head, body) = self.send(method, path, headers, body.into()).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Got {
            code: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            asked: format!("{method} {path}"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Got {
        self.call("POST", path, &[("content-type", JSON)], object.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Got {
        self.call("PUT", path, &[("content-type", JSON)], object.to_string()).await
    }

    pub(crate) async fn patch(&self, how: &str, path: &str, patch: &Value) -> Got {
        self.call("PATCH", path, &[("content-type", how)], patch.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, patch: Value) -> Got {
        self.patch(MERGE, path, &patch).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Got {
        self.call("DELETE", path, &[], "").await
    }

    /// Creates an object that must be accepted.
    #[track_caller]
    pub(crate) fn make<'a>(&'a self, path: &'a str, object: Value) -> impl Future<Output = Value> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let got = self.post(path, &object).await;
            assert_eq!(got.code, 201, "{at}: POST {path}: {}", got.text);
            got.json()
        }
    }

    /// Starts a watch; `path` holds the query without `watch`.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let separator = if path.contains('?') { '&' } else { '?' };
        let answer = self.send("GET", &format!("{path}{separator}watch=true"), &[], Bytes::new()).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], JSON, "{path}");
        Watch { body: answer.into_body(), rest: Vec::new(), events: VecDeque::new() }
    }

    /// A namespace with the service account that pods need.
    pub(crate) async fn namespace(&self, name: &str) -> String {
        self.make("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
        let path = format!("/api/v1/namespaces/{name}");
        self.make(&format!("{path}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
        path
    }
}

/// A running watch.
pub(crate) struct Watch {
    body: UnsyncBoxBody<Bytes, String>,
    rest: Vec<u8>,
    events: VecDeque<Value>,
}

impl Watch {
    /// The next event; panics where none comes for long.
    pub(crate) async fn event(&mut self) -> Value {
        while self.events.is_empty() {
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await;
            let frame = frame.expect("an event in time").expect("an open watch").expect("no error");
            self.rest.extend_from_slice(&frame.into_data().expect("data"));
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.events.push_back(serde_json::from_slice(&line).expect("a line of JSON"));
            }
        }
        self.events.pop_front().expect("an event")
    }

    /// The next event as `TYPE name`, and its object.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        let mut event = self.event().await;
        let object = event["object"].take();
        let name = object["metadata"]["name"].as_str().unwrap_or("");
        (format!("{} {name}", event["type"].as_str().unwrap()), object)
    }

    /// The next events are these, in this order.
    pub(crate) async fn expect(&mut self, wanted: &[&str]) {
        for want in wanted {
            let (got, object) = self.next().await;
            assert_eq!(&got, want, "{object}");
        }
    }
}
