//! An agent over the fake API and the fake runtime: pods come, run, end and go.

use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright_core::node_api::{ContainerRef, LogOptions, NodeApi};
use kubewright_core::{ContentType, SystemClock};
use kubewright_node::{NodeAgent, NodeHub};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{CancellationToken, Informers};
use kubewright_runtime::fake::{Behaviour, FakeConfig, FakeRuntime};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

struct Bed {
    api: FakeApi,
    pods: Api<Pod>,
    runtime: FakeRuntime,
    dir: tempfile::TempDir,
    agent: Option<(NodeAgent, CancellationToken, JoinHandle<()>)>,
}

impl Bed {
    async fn new(config: FakeConfig) -> Self {
        let clock = Arc::new(SystemClock);
        let api = FakeApi::with_clock(clock.clone());
        let mut bed = Bed {
            pods: Api::namespaced(api.client(), "n"),
            api,
            runtime: FakeRuntime::new(config, clock, 1),
            dir: tempfile::tempdir().unwrap(),
            agent: None,
        };
        bed.start();
        bed
    }

    /// Starts an agent that knows nothing of an earlier one.
    fn start(&mut self) {
        let informers = Informers::new(self.api.client());
        let hub = NodeHub::new(&informers, Arc::new(SystemClock));
        let agent = NodeAgent::builder("node-1", hub)
            .runtime(Arc::new(self.runtime.clone()))
            .images(Arc::new(self.runtime.clone()))
            .root_dir(self.dir.path())
            .capacity("cpu", "4")
            .build()
            .unwrap();
        let cancel = CancellationToken::new();
        let (run, token) = (agent.clone(), cancel.clone());
        let task = tokio::spawn(async move { run.run(token).await });
        self.agent = Some((agent, cancel, task));
    }

    async fn stop(&mut self) {
        let (_, cancel, task) = self.agent.take().unwrap();
        cancel.cancel();
        task.await.unwrap();
    }

    async fn create(&self, name: &str, spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        spec["nodeName"] = json!("node-1");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "finalizers": ["test/hold"]}, "spec": spec,
        }))
        .unwrap();
        self.pods.create(&pod).await.unwrap()
    }

    async fn pod(&self, name: &str) -> Value {
        let pod = self.pods.get_opt(name).await.unwrap();
        pod.map_or(Value::Null, |p| serde_json::to_value(&*p).unwrap())
    }

    /// Waits until the pod is as wanted; the pod as it is goes into the panic otherwise.
    async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..600 {
            let pod = self.pod(name).await;
            if wanted(&pod) {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the pod never got there: {:#}", self.pod(name).await);
    }
}

fn ready(pod: &Value) -> bool {
    let all = pod["status"]["conditions"].as_array();
    all.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn phase(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["phase"] == wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_goes() {
    let config = FakeConfig::default()
        .with_behaviour("web", Behaviour { log_lines: vec!["hello".to_owned()], ..Behaviour::default() });
    let bed = Bed::new(config).await;
    bed.create("web", json!({"containers": [{"name": "c", "image": "web"}]})).await;
    let pod = bed.until("web", ready).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.64.0.1");
    let nodes: Api<Node> = Api::all(bed.api.client());
    let node = serde_json::to_value(&*nodes.get("node-1").await.unwrap()).unwrap();
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.0");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node-1");

    let target = ContainerRef {
        namespace: "n".to_owned(),
        pod: "web".to_owned(),
        uid: pod["metadata"]["uid"].as_str().unwrap().to_owned(),
        container: "c".to_owned(),
    };
    let agent = &bed.agent.as_ref().unwrap().0;
    let log = agent.logs(target.clone(), LogOptions::default()).await.unwrap();
    let text: Vec<_> = futures::StreamExt::collect(log).await;
    assert_eq!(text[0].as_ref().unwrap(), "hello\n");
    let error =
        agent.logs(target, LogOptions { previous: true, ..LogOptions::default() }).await.err().unwrap();
    assert_eq!(error.message(), "previous terminated container \"c\" in pod \"web\" not found");

    bed.pods.delete("web", &DeleteOptions::default()).await.unwrap();
    bed.until("web", |p| p["status"]["containerStatuses"][0]["state"]["terminated"].is_object()).await;
    let free = json!({"metadata": {"finalizers": null}});
    bed.pods.patch("web", ContentType::MergePatch, free).await.unwrap();
    bed.until("web", Value::is_null).await;
    for _ in 0..100 {
        if bed.runtime.counts() == (0, 0)
            && !bed.dir.path().join("pods").read_dir().is_ok_and(|mut d| d.next().is_some())
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("something is left: {:?}", bed.runtime);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_as_their_policy_says() {
    let quick = |code| Behaviour::exits_after(Duration::from_millis(50), code);
    let config = FakeConfig::default().with_behaviour("ok", quick(0)).with_behaviour("bad", quick(3));
    let bed = Bed::new(config).await;
    let spec = |policy: &str, image: &str| json!({"restartPolicy": policy, "containers": [{"name": "c", "image": image}]});
    bed.create("ok", spec("Never", "ok")).await;
    bed.create("bad", spec("Never", "bad")).await;
    bed.create("loop", spec("Always", "bad")).await;
    bed.create(
        "init",
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "ok"}],
        "containers": [{"name": "c", "image": "ok"}]}),
    )
    .await;
    bed.until("ok", phase("Succeeded")).await;
    let pod = bed.until("bad", phase("Failed")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    bed.until("init", phase("Succeeded")).await;
    let pod = bed
        .until("loop", |p| {
            p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let c = &pod["status"]["containerStatuses"][0];
    assert_eq!((&c["restartCount"], &c["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_takes_over_what_runs() {
    let mut bed = Bed::new(FakeConfig::default()).await;
    bed.create("web", json!({"containers": [{"name": "c", "image": "web"}]})).await;
    bed.create("gone", json!({"containers": [{"name": "c", "image": "web"}]})).await;
    let before = bed.until("web", ready).await;
    bed.until("gone", ready).await;
    bed.stop().await;
    let free = json!({"metadata": {"finalizers": null}});
    bed.pods.patch("gone", ContentType::MergePatch, free).await.unwrap();
    bed.pods.delete("gone", &DeleteOptions::now()).await.unwrap();
    bed.start();
    for _ in 0..200 {
        if bed.runtime.counts() == (1, 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bed.runtime.counts(), (1, 1), "the orphan is ended, the other one goes on");
    let after = bed.until("web", ready).await;
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id(&before), id(&after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_run_says_why() {
    let config = FakeConfig { unpullable: vec!["none".to_owned()], ..FakeConfig::default() };
    let bed = Bed::new(config).await;
    bed.create("image", json!({"containers": [{"name": "c", "image": "none", "imagePullPolicy": "Always"}]}))
        .await;
    bed.create(
        "env",
        json!({"containers": [{"name": "c", "image": "a", "env": [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}),
    )
    .await;
    bed.create(
        "big",
        json!({"containers": [{"name": "c", "image": "a", "resources": {"requests": {"cpu": "5"}}}]}),
    )
    .await;
    let reason = |wanted: &'static str| {
        move |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == wanted
    };
    bed.until("image", reason("ErrImagePull")).await;
    bed.until("image", reason("ImagePullBackOff")).await;
    let pod = bed.until("env", reason("CreateContainerConfigError")).await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "secret \"s\" not found");
    let pod = bed.until("big", phase("Failed")).await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
}
