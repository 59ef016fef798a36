//! The client against the server over TLS, and kube-rs on the server in process.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use futures::{FutureExt, SinkExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kubewright_client::{Api, Client, Config, DeleteOptions, Event, HttpsTransport};
use kubewright_core::node_api::{ContainerRef, ExecOptions, LogOptions, NodeApi};
use kubewright_core::streams::{ExecInput, ExecOutput, ExecSession, PortForwardSession};
use kubewright_core::{
    ApiError, ApiRequest, ContentType, GroupVersionResource, Options, Registry, ResponseBody, SystemClock,
    Target, Verb,
};
use kubewright_server::auth::{Access, Authorized, SigningKey, authenticated};
use kubewright_server::tls::{CertificateAuthority, Kubeconfig, KubeconfigCredentials, Server};
use kubewright_server::{ApiServer, NodeConnections};
use kubewright_store::MemoryStore;
use serde_json::json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A node whose programs echo and whose ports shout.
struct Echo;

impl NodeApi for Echo {
    fn logs(
        &self,
        _: ContainerRef,
        _: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Bytes, ApiError>>, ApiError>> {
        std::future::ready(Ok(futures::stream::iter([Ok(Bytes::from_static(b"a line\n"))]).boxed())).boxed()
    }

    fn exec(&self, _: ContainerRef, _: ExecOptions) -> BoxFuture<'_, Result<ExecSession, ApiError>> {
        let (session, mut peer) = ExecSession::pair();
        tokio::spawn(async move {
            while let Some(event) = peer.input.next().await {
                let out = match event {
                    ExecInput::Stdin(bytes) => ExecOutput::Stdout(bytes),
                    ExecInput::Resize { width, height } => {
                        ExecOutput::Stderr(Bytes::from(format!("{width}x{height}")))
                    }
                    ExecInput::CloseStdin => ExecOutput::Exit(Ok(3)),
                };
                let _ = peer.output.send(out).await;
            }
        });
        std::future::ready(Ok(session)).boxed()
    }

    fn attach(&self, _: ContainerRef, _: ExecOptions) -> BoxFuture<'_, Result<ExecSession, ApiError>> {
        std::future::ready(Err(ApiError::not_implemented("attach"))).boxed()
    }

    fn port_forward(
        &self,
        _: ContainerRef,
        port: u16,
    ) -> BoxFuture<'_, Result<PortForwardSession, ApiError>> {
        if port == 1 {
            return std::future::ready(Err(ApiError::internal("nothing listens"))).boxed();
        }
        let (session, mut peer) = PortForwardSession::pair();
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = peer.receiver.next().await {
                let _ = peer.sender.send(Ok(Bytes::from(bytes.to_ascii_uppercase()))).await;
            }
        });
        std::future::ready(Ok(session)).boxed()
    }
}

struct Plane {
    server: ApiServer,
    access: Access,
    config: Config,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

async fn plane() -> Plane {
    let mut registry = Registry::new();
    for kind in kubewright_core::api::builtin(&Default::default()) {
        registry.insert(kind).unwrap();
    }
    let nodes = NodeConnections::new();
    nodes.insert("n1", Arc::new(Echo));
    let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
    let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry).nodes(nodes);
    let server = access.install(builder).build().await.unwrap();
    access.start(&server).await.unwrap();
    let ca = CertificateAuthority::generate(&SystemClock).unwrap();
    let serving = ca.issue_server(&CertificateAuthority::server_names(None, &[]), &SystemClock).unwrap();
    let socket =
        Server::bind("127.0.0.1:0".parse().unwrap(), ca.server_config(&serving).unwrap()).await.unwrap();
    let kubeconfig = Kubeconfig {
        cluster: "test".to_owned(),
        server: format!("https://{}", socket.local_addr()),
        certificate_authority_pem: ca.certificate_pem().to_owned(),
        user: "admin".to_owned(),
        credentials: KubeconfigCredentials::Certificate(
            ca.issue_client("admin", &["system:masters"], &SystemClock).unwrap(),
        ),
        namespace: None,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    kubeconfig.write(&path).unwrap();
    let config = Config::from_kubeconfig(&[path], None).unwrap();
    let shutdown = CancellationToken::new();
    let http = access.http(access.authorized(server.clone())).closing(shutdown.clone());
    let running = tokio::spawn(socket.serve(http, shutdown.clone()));
    Plane { server, access, config, shutdown, running }
}

impl Plane {
    fn client(&self) -> Client {
        Client::new(HttpsTransport::new(self.config.clone()).unwrap(), Default::default())
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
        self.server.shutdown().await;
    }
}

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

async fn post(client: &Client, resource: &str, namespace: Option<&str>, value: serde_json::Value) {
    let resource = GroupVersionResource::new("", "v1", resource);
    let request =
        ApiRequest::resource(Verb::Create, resource, namespace, None).body(ContentType::Json, value);
    match client.send(request).await {
        Err(e) if !e.is_already_exists() => panic!("{e}"),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_travel_over_https() {
    let plane = plane().await;
    let client = plane.client();
    let object =
        |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    post(&client, "namespaces", None, object("Namespace", "default")).await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let start = maps.list(Options::default()).await.unwrap().resource_version;
    let mut events = maps
        .watch(Options { resource_version: Some(start.to_string()), ..Options::default() })
        .await
        .unwrap();
    let made = maps.create(&config_map("a")).await.unwrap();
    assert!(
        matches!(events.next().await, Some(Ok(Event::Applied(m))) if m.metadata.uid == made.metadata.uid)
    );
    assert!(maps.create(&config_map("a")).await.unwrap_err().is_already_exists());
    assert!(maps.get("none").await.unwrap_err().is_not_found());
    let patched = maps.patch("a", ContentType::MergePatch, json!({"data": {"k": "v"}})).await.unwrap();
    assert_eq!(patched.data.as_ref().unwrap()["k"], "v");
    assert_eq!(maps.list(Options::default()).await.unwrap().items.len(), 1);
    maps.delete("a", &DeleteOptions::now()).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Applied(_)))));
    assert!(matches!(events.next().await, Some(Ok(Event::Deleted(_)))));

    let mut joe = plane.config.clone();
    joe.impersonate = Some("joe".to_owned());
    let joe = Client::new(HttpsTransport::new(joe).unwrap(), Default::default());
    let e = Api::<ConfigMap>::namespaced(joe, "default").get("a").await.unwrap_err();
    assert!(e.message().contains("User \"joe\" cannot get resource \"configmaps\""), "{e}");
    let version = client.send(ApiRequest::new(Verb::Get, Target::Path("/version".to_owned()))).await.unwrap();
    assert!(matches!(version.body, ResponseBody::Value(v) if v["major"] == "1"));
    let mut nowhere = plane.config.clone();
    nowhere.server = "https://127.0.0.1:9".parse().unwrap();
    let nowhere = Client::new(HttpsTransport::new(nowhere).unwrap(), Default::default());
    let e = Api::<ConfigMap>::namespaced(nowhere, "default").get("a").await.unwrap_err();
    assert!(e.code() == 503 && e.message().contains("could not be reached"), "{e}");
    plane.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_ports_are_reached_over_https() {
    let plane = plane().await;
    let client = plane.client();
    let object =
        |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    post(&client, "namespaces", None, object("Namespace", "default")).await;
    post(&client, "nodes", None, object("Node", "n1")).await;
    post(&client, "serviceaccounts", Some("default"), object("ServiceAccount", "default")).await;
    let mut pod = object("Pod", "web");
    pod["spec"] = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]});
    post(&client, "pods", Some("default"), pod).await;
    let call = |subresource: &str| {
        let pods = GroupVersionResource::new("", "v1", "pods");
        ApiRequest::resource(Verb::Get, pods, Some("default"), Some("web")).subresource(subresource)
    };
    let mut exec = call("exec");
    let options =
        ExecOptions { command: vec!["x".to_owned()], stdin: true, stdout: true, stderr: true, tty: false };
    exec.options.exec = Some(Box::new(options));
    let ResponseBody::Exec(mut session) = client.send(exec).await.unwrap().body else { panic!("no session") };
    session.input.send(ExecInput::Stdin(Bytes::from_static(b"hello"))).await.unwrap();
    assert_eq!(session.output.next().await, Some(ExecOutput::Stdout(Bytes::from_static(b"hello"))));
    session.input.send(ExecInput::Resize { width: 80, height: 24 }).await.unwrap();
    assert_eq!(session.output.next().await, Some(ExecOutput::Stderr(Bytes::from_static(b"80x24"))));
    session.input.send(ExecInput::CloseStdin).await.unwrap();
    assert_eq!(session.output.next().await, Some(ExecOutput::Exit(Ok(3))));

    let ResponseBody::Text(mut log) = client.send(call("log")).await.unwrap().body else { panic!("no text") };
    assert_eq!(log.next().await.unwrap().unwrap(), "a line\n");

    let ResponseBody::PortForward(forward) = client.send(call("portforward")).await.unwrap().body else {
        panic!("no forwarder")
    };
    for _ in 0..2 {
        let mut connection = forward(80).await.unwrap();
        connection.sender.send(Ok(Bytes::from_static(b"quiet"))).await.unwrap();
        assert_eq!(connection.receiver.next().await.unwrap().unwrap(), "QUIET");
        drop(connection.sender);
        assert!(connection.receiver.next().await.is_none());
    }
    let mut refused = forward(1).await.unwrap();
    let e = refused.receiver.next().await.unwrap().unwrap_err();
    assert!(e.message().contains("nothing listens"), "{e}");
    plane.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_runs_on_the_server_in_process() {
    let plane = plane().await;
    let inner: Authorized<ApiServer> = plane.access.authorized(plane.server.clone());
    let service = plane.access.http(inner).identity(authenticated("admin", &["system:masters"]));
    let client = kube::Client::new(service, "default");
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    post(&plane.client(), "namespaces", None, object).await;
    let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), "default");
    let made = maps.create(&Default::default(), &config_map("k")).await.unwrap();
    assert_eq!(made.metadata.name.as_deref(), Some("k"));
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.major, "1");
    let mut events = maps.watch(&Default::default(), "0").await.unwrap().boxed();
    assert!(
        matches!(events.next().await, Some(Ok(kube::api::WatchEvent::Added(m))) if m.metadata.uid == made.metadata.uid)
    );
    maps.delete("k", &Default::default()).await.unwrap();
    let gone = maps.get_opt("k").await.unwrap();
    assert!(gone.is_none());
    plane.end().await;
}

#[tokio::test]
async fn the_issuer_of_tokens_tells_its_keys() {
    let plane = plane().await;
    let client = plane.client();
    let ask = async |path: &str| {
        let answer = client.send(ApiRequest::new(Verb::Get, Target::Path(path.to_owned()))).await.unwrap();
        match answer.body {
            ResponseBody::Value(value) => value,
            ResponseBody::Raw { bytes, .. } => serde_json::from_slice(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("/openid/v1/jwks").await, plane.access.tokens().key_set().unwrap());
    let configuration = ask("/.well-known/openid-configuration").await;
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert!(configuration["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"), "{configuration}");
    plane.end().await;
}

#[tokio::test]
async fn aggregated_roles_are_kept_written_down() {
    let plane = plane().await;
    let roles = GroupVersionResource::new("rbac.authorization.k8s.io", "v1", "clusterroles");
    let roles = Api::dynamic(plane.client(), roles, "ClusterRole", None);
    let label = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    let rule = json!({"apiGroups": ["play.dev"], "resources": ["toys"], "verbs": ["get"]});
    roles.create(&json!({"metadata": {"name": "toys", "labels": label}, "rules": [rule]})).await.unwrap();
    for _ in 0..200 {
        let view = roles.get("view").await.unwrap();
        if view["rules"].as_array().is_some_and(|rules| rules.contains(&rule)) {
            return plane.end().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the role view never got the rule");
}
