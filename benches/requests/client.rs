//! The client's half: some connections that send requests as fast as they are answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The variable that makes this program the client.
pub(crate) const ORDER: &str = "KUBEWRIGHT_BENCH_CLIENT";
/// How many pods the lists have.
pub(crate) const LISTED: usize = 5000;
/// How many pods get new statuses in turn.
pub(crate) const PATCHED: usize = 100;
/// Fills a listed pod up to the size that it has upstream.
const PADDING_BYTES: usize = 42;

/// What the client does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Creates small ConfigMaps.
    ConfigMaps,
    /// Creates pods of one container.
    Pods,
    /// Reads one pod.
    Gets,
    /// Patches the status of pods that exist.
    Patches,
    /// Creates the pods that are listed.
    Fill,
    /// Lists them.
    Lists,
}

/// What the client saw.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Half of the requests took no longer.
    pub(crate) p50_ms: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ms: f64,
    /// The last answer's size in 10^6 bytes.
    pub(crate) body_megabytes: f64,
}

type Order = (Workload, usize, usize, PathBuf);

/// The order that this process was given, if it is a client.
pub(crate) fn asked() -> Option<Order> {
    std::env::var(ORDER).ok().map(|order| serde_json::from_str(&order).expect("an order"))
}

/// Carries an order out and prints the report.
pub(crate) fn run((workload, connections, count, kubeconfig): Order) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(async {
        let target = Arc::new(Target::read(&kubeconfig));
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(target.connect().await);
        }
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for sender in clients {
            tasks.spawn(requests(sender, workload, next.clone(), count, target.clone()));
        }
        let (mut times, mut body) = (Vec::with_capacity(count), 0);
        while let Some(done) = tasks.join_next().await {
            let (took, len) = done.expect("a client ends well");
            times.extend(took);
            body = len.max(body);
        }
        report(times, start.elapsed(), body)
    });
    println!("{}", serde_json::to_string(&report).expect("a report"));
}

fn report(mut times: Vec<Duration>, total: Duration, body: usize) -> Report {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    Report {
        rate: times.len() as f64 / total.as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        body_megabytes: body as f64 / 1e6,
    }
}

/// Where the server is and who asks.
struct Target {
    address: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    fn read(kubeconfig: &PathBuf) -> Self {
        let text = std::fs::read(kubeconfig).expect("a kubeconfig");
        let config: Value = serde_saphyr::from_slice(&text).expect("YAML");
        let pem = |part: &str, field: &str, inner: &str| {
            let data = config[part][0][inner][field].as_str().expect("data").to_owned();
            STANDARD.decode(data).expect("base64")
        };
        let authority = pem("clusters", "certificate-authority-data", "cluster");
        let certificate = pem("users", "client-certificate-data", "user");
        let key = pem("users", "client-key-data", "user");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority).expect("an authority")).expect("an authority");
        let certificate = CertificateDer::from_pem_slice(&certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(&key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
        let tls = tls.with_client_auth_cert(vec![certificate], key).expect("a client certificate");
        let server = config["clusters"][0]["cluster"]["server"].as_str().expect("a server");
        Target { address: server.trim_start_matches("https://").to_owned(), tls: Arc::new(tls) }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let socket = tokio::net::TcpStream::connect(&self.address).await.expect("a connection");
        socket.set_nodelay(true).expect("a socket option");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, socket).await;
        let io = TokioIo::new(stream.expect("TLS"));
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        sender
    }
}

/// Sends requests until `count` were sent by all connections together; gives the delays and the largest body's size.
async fn requests(
    mut sender: SendRequest<Full<Bytes>>,
    workload: Workload,
    next: Arc<AtomicUsize>,
    count: usize,
    target: Arc<Target>,
) -> (Vec<Duration>, usize) {
    let (mut times, mut largest) = (Vec::new(), 0);
    let run = std::process::id();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return (times, largest);
        }
        let request = request(workload, &format!("{run}-{number}"), number, &target.address);
        let start = Instant::now();
        sender.ready().await.expect("a connection");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        times.push(start.elapsed());
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        largest = largest.max(body.len());
    }
}

fn request(workload: Workload, id: &str, number: usize, host: &str) -> Request<Full<Bytes>> {
    let pods = "/api/v1/namespaces/default/pods";
    let (method, path, content, body) = match workload {
        Workload::ConfigMaps => {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{id}")},
                "data": {"key": "value"}});
            (Method::POST, "/api/v1/namespaces/default/configmaps".to_owned(), "application/json", map)
        }
        Workload::Pods => {
            (Method::POST, pods.to_owned(), "application/json", pod(&format!("pod-{id}"), number, 0))
        }
        Workload::Fill => {
            let pod = pod(&format!("listed-{id}"), number, PADDING_BYTES);
            (Method::POST, "/api/v1/namespaces/kube-system/pods".to_owned(), "application/json", pod)
        }
        Workload::Gets => (Method::GET, format!("{pods}/one"), "application/json", Value::Null),
        Workload::Patches => {
            let patch = json!({"status": {"message": format!("at {id}")}});
            let path = format!("{pods}/one-{}/status", number % PATCHED);
            (Method::PATCH, path, "application/strategic-merge-patch+json", patch)
        }
        Workload::Lists => {
            (Method::GET, "/api/v1/namespaces/kube-system/pods".to_owned(), "application/json", Value::Null)
        }
    };
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    request.header(header::CONTENT_TYPE, content).body(Full::new(body)).expect("a request")
}

/// A pod of one container.
pub(crate) fn pod(name: &str, number: usize, padding: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "number": number.to_string()},
            "annotations": {"example.com/padding": "x".repeat(padding)}},
        "spec": {"containers": [{"name": "c", "image": "registry.example.com/web:v1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}
