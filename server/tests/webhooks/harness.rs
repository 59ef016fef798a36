//! What the tests share: a plane with Kubernetes' kinds, and a webhook server of their own behind TLS.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, ContentType, GroupVersionResource, Registry, ResponseBody, Target,
    Verb,
};
use kubewright_server::{ApiServer, ApiServerBuilder};
use kubewright_store::MemoryStore;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// A plane with the built-in kinds, and a namespace `n`.
#[derive(Clone)]
pub(crate) struct Plane(pub(crate) ApiServer);

pub(crate) async fn plane() -> Plane {
    plane_with(|builder| builder).await
}

pub(crate) async fn plane_with(change: impl FnOnce(ApiServerBuilder) -> ApiServerBuilder) -> Plane {
    let mut registry = Registry::new();
    for kind in builtin(&BuiltinOptions { allow_loopback_endpoints: true }) {
        registry.insert(kind).unwrap();
    }
    let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry);
    let server = change(builder).build().await.unwrap();
    let plane = Plane(server);
    plane
        .create("", "v1", "namespaces", json!({"metadata": {"name": "n", "labels": {"team": "blue"}}}))
        .await;
    plane.0.reader().consistent().await.unwrap();
    plane
}

pub(crate) fn resource(group: &str, version: &str, plural: &str) -> GroupVersionResource {
    GroupVersionResource::new(group, version, plural)
}

impl Plane {
    pub(crate) async fn send(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        self.0.clone().oneshot(request).await
    }

    pub(crate) async fn value(&self, request: ApiRequest) -> Result<Value, ApiError> {
        Ok(match self.send(request).await?.body {
            ResponseBody::Object(object) => object.value().unwrap(),
            ResponseBody::Value(value) => value,
            ResponseBody::List(list) => {
                let items: Vec<Value> = list.items.iter().map(|o| o.value().unwrap()).collect();
                json!({"items": items})
            }
            ResponseBody::Raw { bytes, .. } => serde_json::from_slice(&bytes).unwrap(),
            other => panic!("no document: {other:?}"),
        })
    }

    /// The document at a path.
    pub(crate) async fn path(&self, path: &str, accept: &str) -> Result<Value, ApiError> {
        let mut request = ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
        request.accept = accept.into();
        self.value(request).await
    }

    /// Creates an object that must be accepted; in no namespace for a cluster-scoped kind.
    pub(crate) async fn create(&self, group: &str, version: &str, plural: &str, object: Value) -> Value {
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let request =
            ApiRequest::resource(Verb::Create, resource(group, version, plural), namespace.as_deref(), None);
        let made = self.value(request.body(ContentType::Json, object)).await.unwrap();
        self.0.reader().consistent().await.unwrap();
        made
    }

    /// Creates a ConfigMap in `n`.
    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Result<ApiResponse, ApiError> {
        self.send(config_map(name, labels)).await
    }

    /// Puts up webhook configurations of a kind.
    pub(crate) async fn configure(&self, mutating: bool, name: &str, hooks: Value) {
        let (plural, kind) = if mutating {
            ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
        } else {
            ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
        };
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name}, "webhooks": hooks});
        self.create("admissionregistration.k8s.io", "v1", plural, object).await;
    }

    /// A Service of `n` that leads to an address.
    pub(crate) async fn service(&self, name: &str, port: u16, address: SocketAddr) {
        let service = json!({"metadata": {"name": name, "namespace": "n"},
            "spec": {"ports": [{"name": "https", "port": port}]}});
        self.create("", "v1", "services", service).await;
        let slice = json!({"metadata": {"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}]});
        self.create("discovery.k8s.io", "v1", "endpointslices", slice).await;
    }
}

pub(crate) fn config_map(name: &str, labels: Value) -> ApiRequest {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "n", "labels": labels}, "data": {"a": "b"}});
    ApiRequest::resource(Verb::Create, resource("", "v1", "configmaps"), Some("n"), None)
        .body(ContentType::Json, object)
}

/// A webhook of a configuration, about all writes of ConfigMaps, with some fields replaced.
pub(crate) fn hook(name: &str, config: Value, more: Value) -> Value {
    let mut hook = json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": config,
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (field, value) in more.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

/// A certificate authority of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// The authority as `caBundle` has it.
    pub(crate) fn bundle(&self) -> String {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(&self.pem)
    }

    /// A serving certificate, good until the end of a year.
    pub(crate) fn certificate(&self, names: &[&str], until_year: i32) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|n| match n.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*n).try_into().unwrap()),
            })
            .collect();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 12, 31);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn tls(&self, names: &[&str], until_year: i32) -> TlsAcceptor {
        let (certificate, key) = self.certificate(names, until_year);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a server was asked: its path and query, and the document.
pub(crate) type Asked = (String, Value);
type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, (u16, Vec<u8>)> + Send + Sync>;

/// A running webhook server; ends when dropped.
pub(crate) struct Hooks {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hooks {
    /// Answers every review with what `answer` makes of its path and request.
    pub(crate) async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        Self::raw(move |(path, review)| {
            let mut response = answer(&path, &review["request"]);
            if response["uid"].is_null() {
                response["uid"] = review["request"]["uid"].clone();
            }
            let body =
                json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
            Box::pin(std::future::ready((200, body.to_string().into_bytes())))
        })
        .await
    }

    /// Answers with whatever status and bytes.
    pub(crate) async fn raw(
        handler: impl Fn(Asked) -> BoxFuture<'static, (u16, Vec<u8>)> + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let acceptor = authority.tls(&["127.0.0.1", "localhost", "hooks.n.svc"], 2100);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(handler);
        let task = tokio::spawn(serve(listener, acceptor, handler, asked.clone()));
        Hooks { address, authority, asked, task }
    }

    /// A `clientConfig` with an address.
    pub(crate) fn url(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.authority.bundle()})
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().len()
    }

    /// The last request that it was sent.
    pub(crate) fn last(&self) -> Value {
        self.asked.lock().last().expect("a request").1["request"].clone()
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Handler,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, handler, asked) = (acceptor.clone(), handler.clone(), asked.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (handler, asked) = (handler.clone(), asked.clone());
                async move {
                    let path = request.uri().path_and_query().unwrap().to_string();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let document: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                    asked.lock().push((path.clone(), document.clone()));
                    let (code, bytes) = handler((path, document)).await;
                    let mut response = Response::new(Full::new(Bytes::from(bytes)));
                    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
                    if (300..400).contains(&code) {
                        response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A JSON patch as an answer has it.
pub(crate) fn patch(operations: Value) -> Value {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": text})
}
