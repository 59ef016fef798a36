//! HTTP extenders against a real HTTP server that answers, refuses, lies, is slow, or hangs up.

use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright_controllers::scheduling;
use kubewright_core::{Entropy, SystemClock};
use kubewright_reconcile::client::Api;
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{CancellationToken, Context, Informers};
use kubewright_sched::{Configuration, Registry};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What the server does with a call.
#[derive(Clone)]
enum Does {
    Answers(Value),
    Refuses,
    Garbage,
    HangsUp,
    Sleeps,
}

type Handler = Arc<dyn Fn(&str, &Value) -> Does + Send + Sync>;
type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that ends when it is dropped.
struct Server {
    address: String,
    calls: Calls,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(handler: impl Fn(&str, &Value) -> Does + Send + Sync + 'static) -> Self {
        Self::with_tls(handler, None).await
    }

    async fn with_tls(
        handler: impl Fn(&str, &Value) -> Does + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (calls, handler): (Calls, Handler) = (Calls::default(), Arc::new(handler));
        let (seen, mut tasks) = (calls.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (handler, seen, tls) = (handler.clone(), seen.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, handler, seen).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, handler, seen).await;
                            }
                        }
                    }
                });
            }
        });
        Server { address, calls, _tasks: tasks }
    }

    fn called(&self, verb: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(v, _)| v == verb).map(|(_, body)| body.clone()).collect()
    }
}

async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, handler: Handler, seen: Calls) {
    while let Some((path, body)) = request(&mut socket).await {
        let verb = path.rsplit('/').next().unwrap_or("").to_owned();
        let does = handler(&verb, &body);
        seen.lock().unwrap().push((verb, body));
        let (status, text) = match does {
            Does::Answers(value) => ("200 OK", value.to_string()),
            Does::Refuses => ("500 Internal Server Error", "on fire".to_owned()),
            Does::Garbage => ("200 OK", "<html>".to_owned()),
            Does::HangsUp => return,
            Does::Sleeps => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                return;
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One request of HTTP/1.1: its path and its JSON.
async fn request(socket: &mut (impl AsyncRead + Unpin)) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?.to_ascii_lowercase();
    let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    while bytes.len() < end + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let path = String::from_utf8(bytes[..end].to_vec()).ok()?.split(' ').nth(1)?.to_owned();
    Some((path, serde_json::from_slice(&bytes[end..end + length]).ok()?))
}

/// Two nodes, and a scheduler that runs until this is dropped.
struct Cluster {
    api: FakeApi,
    pods: Api<Pod>,
    tasks: JoinSet<()>,
}

impl Cluster {
    async fn new() -> Self {
        let api = FakeApi::with_clock(Arc::new(SystemClock));
        for name in ["a", "b"] {
            let node = json!({"metadata": {"name": name},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}});
            Api::<Node>::all(api.client()).create(&serde_json::from_value(node).unwrap()).await.unwrap();
        }
        Cluster { pods: Api::namespaced(api.client(), "n"), api, tasks: JoinSet::new() }
    }

    fn schedule(&mut self, extenders: Value) {
        let config = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 1, "extenders": extenders});
        let config = Configuration::from_value(config).unwrap();
        let controller = scheduling(move || config.scheduler(&Registry::builtin(), 1).unwrap());
        let entropy = Arc::new(Entropy::from_seed(7));
        let informers = Informers::with_entropy(self.api.client(), entropy.clone());
        let cx = Context::with(self.api.client(), informers, self.api.clock(), entropy);
        self.tasks.spawn(async move { controller.run(cx, CancellationToken::new()).await });
    }

    async fn add(&self, name: &str, spec: Value) {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": "1"}}}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        self.pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn until<T>(&self, what: &str, mut check: impl FnMut(&Pod) -> Option<T>, name: &str) -> T {
        let start = Instant::now();
        loop {
            let pod = self.pods.get(name).await.unwrap();
            if let Some(found) = check(&pod) {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "never {what}: {:?}", pod.status);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn node_of(&self, name: &str) -> String {
        self.until("bound", |p| p.spec.as_ref()?.node_name.clone(), name).await
    }

    /// Reason and message of the pod's condition.
    async fn refusal_of(&self, name: &str) -> (String, String) {
        let condition = |p: &Pod| {
            let all = p.status.as_ref()?.conditions.as_ref()?;
            let found = all.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            Some((found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
        };
        self.until("refused", condition, name).await
    }
}

/// An extender that only takes node `b`.
fn takes_b(verb: &str, body: &Value) -> Does {
    match verb {
        "filter" if body["nodenames"].is_array() => {
            Does::Answers(json!({"nodenames": ["b"], "failedNodes": {"a": "not a"}}))
        }
        "filter" => {
            let items = body["nodes"]["items"].as_array().cloned().unwrap_or_default();
            let b: Vec<_> = items.into_iter().filter(|n| n["metadata"]["name"] == "b").collect();
            Does::Answers(json!({"nodes": {"items": b}, "failedNodes": {"a": "not a"}}))
        }
        "score" => Does::Answers(json!([{"host": "a", "score": 0}, {"host": "b", "score": 10}])),
        _ => Does::Refuses,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_filters_and_scores_by_names_or_whole_nodes() {
    for cached in [true, false] {
        for verb in ["filterVerb", "prioritizeVerb"] {
            let server = Server::start(takes_b).await;
            let mut c = Cluster::new().await;
            let path = if verb == "filterVerb" { "filter" } else { "score" };
            let url = format!("http://{}/prefix", server.address);
            c.schedule(json!([{"urlPrefix": url, verb: path, "weight": 10, "nodeCacheCapable": cached}]));
            c.add("p", json!({})).await;
            assert_eq!(c.node_of("p").await, "b");
            let call = &server.called(path)[0];
            assert_eq!(call["pod"]["metadata"]["name"], "p");
            assert_eq!(call["nodenames"].is_array(), cached);
            assert_eq!(call["nodes"]["items"].as_array().map(Vec::len), (!cached).then_some(2));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_extender_refuses_stands_in_the_pod() {
    let refuses = |_: &str, _: &Value| {
        Does::Answers(json!({"nodenames": [], "failedNodes": {"a": "no luck", "b": "no luck"}}))
    };
    let server = Server::start(refuses).await;
    let mut c = Cluster::new().await;
    c.schedule(json!([{"urlPrefix": server.address, "filterVerb": "filter", "nodeCacheCapable": true}]));
    c.add("p", json!({})).await;
    let (reason, message) = c.refusal_of("p").await;
    assert_eq!(reason, "Unschedulable");
    assert!(message.starts_with("0/2 nodes are available: 2 no luck."), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn extenders_that_fail_hold_the_pod_unless_they_may_be_ignored() {
    let lies = Does::Answers(json!({"nodenames": ["nowhere"]}));
    let fails = Does::Answers(json!({"error": "no idea"}));
    for (does, words) in [
        (Does::Sleeps, "did not answer within 200ms"),
        (Does::HangsUp, "could not be reached"),
        (Does::Garbage, "is no JSON"),
        (Does::Refuses, "500 Internal Server Error: on fire"),
        (lies, "nowhere which is not found in the input node list"),
        (fails, "no idea"),
    ] {
        let server = Server::start(move |_, _| does.clone()).await;
        let extender = |ignorable: bool| {
            json!([{"urlPrefix": format!("http://{}", server.address), "filterVerb": "filter", "httpTimeout": "200ms",
                "nodeCacheCapable": true, "ignorable": ignorable}])
        };
        let mut c = Cluster::new().await;
        c.schedule(extender(false));
        c.add("p", json!({})).await;
        let (reason, message) = c.refusal_of("p").await;
        assert_eq!(reason, "SchedulerError");
        assert!(message.contains(words), "{message}");
        let mut c = Cluster::new().await;
        c.schedule(extender(true));
        c.add("p", json!({})).await;
        c.node_of("p").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_binds_the_pods_that_are_its_business() {
    let mut c = Cluster::new().await;
    let (client, runtime) = (c.api.client(), tokio::runtime::Handle::current());
    let binds = move |_: &str, body: &Value| {
        let (api, node) = (Api::<Pod>::namespaced(client.clone(), "n"), body["node"].clone());
        let name = body["podName"].as_str().unwrap_or("").to_owned();
        runtime.spawn(async move {
            api.create_subresource(&name, "binding", json!({"target": {"name": node}})).await
        });
        Does::Answers(json!({}))
    };
    let server = Server::start(binds).await;
    c.schedule(json!([{"urlPrefix": server.address, "bindVerb": "bind",
        "managedResources": [{"name": "example.com/gpu", "ignoredByScheduler": true}]}]));
    c.add("plain", json!({})).await;
    c.node_of("plain").await;
    assert!(server.called("bind").is_empty(), "it has no gpu");
    let gpu = json!([{"name": "c", "image": "i", "resources": {"requests": {"example.com/gpu": "1"}}}]);
    c.add("gpu", json!({"containers": gpu})).await;
    let node = c.node_of("gpu").await;
    let call = &server.called("bind")[0];
    assert_eq!(
        (&call["podName"], &call["podNamespace"], &call["node"]),
        (&json!("gpu"), &json!("n"), &json!(node))
    );
    assert!(call["podUID"].as_str().is_some_and(|uid| !uid.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_has_a_say_in_who_is_evicted() {
    let spares_a = |_: &str, body: &Value| {
        let of_b = body["nodeNameToMetaVictims"]["b"].clone();
        Does::Answers(json!({"nodeNameToMetaVictims": {"b": of_b}}))
    };
    let server = Server::start(spares_a).await;
    let mut c = Cluster::new().await;
    let whole = |node: &str, priority: i32| {
        json!({"nodeName": node, "priority": priority, "containers": [{"name": "c",
        "image": "i", "resources": {"requests": {"cpu": "4"}}}]})
    };
    // By itself the scheduler would evict the less important one.
    c.add("on-a", whole("a", 1)).await;
    c.add("on-b", whole("b", 5)).await;
    c.schedule(json!([{"urlPrefix": server.address, "preemptVerb": "preempt", "nodeCacheCapable": true}]));
    c.add("urgent", json!({"priority": 100})).await;
    assert_eq!(c.node_of("urgent").await, "b");
    assert!(c.pods.get("on-a").await.unwrap().metadata.deletion_timestamp.is_none());
    assert_eq!(
        server.called("preempt")[0]["nodeNameToMetaVictims"].as_object().map(serde_json::Map::len),
        Some(2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_speaks_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["extender.example".to_owned()]).unwrap();
    let key =
        tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = Server::with_tls(takes_b, Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let trusted = json!({"caFile": file, "serverName": "extender.example"});
    let other = json!({"caFile": file, "serverName": "other.example"});
    for (tls, bound) in [(trusted, true), (json!(null), true), (other, false)] {
        let mut c = Cluster::new().await;
        c.schedule(json!([{"urlPrefix": format!("https://{}", server.address), "filterVerb": "filter", "enableHTTPS": true,
            "nodeCacheCapable": true, "tlsConfig": tls}]));
        c.add("p", json!({})).await;
        if bound {
            assert_eq!(c.node_of("p").await, "b");
        } else {
            assert!(c.refusal_of("p").await.1.contains("certificate"), "{:?}", c.refusal_of("p").await);
        }
    }
}
