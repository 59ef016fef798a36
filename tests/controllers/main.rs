//! The controllers on the real server, in process: rollouts, endpoints, garbage, namespaces. Nodes are only objects here, and a
//! controller of the test plays all kubelets.
//!
//! `KUBEWRIGHT_MEASURE=1` adds the workload of one large Deployment on 100 nodes and prints its times.

mod quotas;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kubewright::client::{Api, Client, DeleteOptions};
use kubewright::core::{ApiError, ContentType, Resource};
use kubewright::reconcile::{Action, Change, Context, Controller};
use kubewright::store::MemoryStore;
use kubewright::store::Store;
use kubewright::{ControlPlane, RunningPlane, bundles, parts};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Makes bound pods run and be ready, and ends those that are being deleted, as nodes do.
fn kubelets() -> Controller {
    let addresses = Arc::new(AtomicU32::new(256));
    Controller::for_kind::<Pod>("kubelets").concurrency(64).with(move |pod: Arc<Pod>, cx: Context| {
        let addresses = addresses.clone();
        async move {
            let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
            let bound = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
            if bound && pod.metadata.deletion_timestamp.is_some() {
                let done = api.delete(pod.name(), &DeleteOptions::now()).await;
                done.or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) })?;
            } else if bound && pod.status.as_ref().is_none_or(|s| s.pod_ip.is_none()) {
                let number = addresses.fetch_add(1, Ordering::Relaxed);
                let [_, a, b, c] = number.to_be_bytes();
                let ip = format!("10.{a}.{b}.{c}");
                let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions":
                    [{"type": "Ready", "status": "True", "lastTransitionTime": cx.time()}]});
                let patch = json!({"status": status});
                api.patch_subresource(pod.name(), "status", ContentType::MergePatch, patch).await?;
            }
            Ok::<_, ApiError>(Action::Done)
        }
    })
}

struct Cluster {
    plane: RunningPlane,
    client: Client,
}

impl Cluster {
    async fn start(store: Arc<dyn Store>, nodes: usize, kubelet: bool) -> Self {
        let mut builder =
            ControlPlane::builder().with(parts::shared_store(store)).with(bundles::kubernetes());
        if kubelet {
            builder = builder.with(kubelets());
        }
        let plane = builder.build().expect("a whole composition").start().await.expect("it starts");
        let client = plane.client().clone();
        let api = Api::<Node>::all(client.clone());
        for n in 0..nodes {
            let room = json!({"cpu": "1000", "memory": "1000Gi", "pods": "5000"});
            let node = json!({"metadata": {"name": format!("node-{n}")}, "status": {"capacity": room, "allocatable": room,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "",
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let node: Node = serde_json::from_value(node).unwrap();
            api.create(&node).await.unwrap();
        }
        Cluster { plane, client }
    }

    async fn memory() -> Self {
        Self::start(Arc::new(MemoryStore::new()), 2, true).await
    }

    fn api<K: Resource>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K: Resource>(&self, object: Value) -> Arc<K> {
        let object: K = serde_json::from_value(object).unwrap();
        // The namespace `default` may be a moment away.
        for _ in 0..100 {
            match self.api::<K>().create(&object).await {
                Err(e) if e.is_not_found() => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other.unwrap(),
            }
        }
        panic!("the namespace never came");
    }

    async fn all<K: Resource>(&self) -> Vec<Arc<K>> {
        self.api::<K>().list(Default::default()).await.unwrap().items
    }
}

/// Asks until `check` gives something.
async fn eventually<T, Fut: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> Fut) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn web(image: &str, replicas: usize) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers":
            [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}}}})
}

/// What `kubectl rollout status` waits for.
async fn rolled_out(cluster: &Cluster, replicas: i32) -> Arc<Deployment> {
    eventually("the rollout", || async {
        let d = cluster.api::<Deployment>().get("web").await.unwrap();
        let s = d.status.clone().unwrap_or_default();
        let of = |n: Option<i32>| n.unwrap_or(0);
        let seen = s.observed_generation >= d.metadata.generation;
        let done = of(s.updated_replicas) == replicas
            && of(s.replicas) == replicas
            && of(s.available_replicas) == replicas;
        (seen && done).then_some(d)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_with_a_service_lives_and_dies() {
    let cluster = Cluster::memory().await;
    cluster.create::<Deployment>(web("v1", 3)).await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    cluster
        .create::<Service>(
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}),
        )
        .await;
    rolled_out(&cluster, 3).await;
    eventually("three ready endpoints on the named port", || async {
        let slices = cluster.all::<EndpointSlice>().await;
        let ours = slices
            .iter()
            .find(|s| s.metadata.labels.as_ref().is_some_and(|l| l["kubernetes.io/service-name"] == "web"))?;
        let ready = ours
            .endpoints
            .iter()
            .flatten()
            .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        let port = ours.ports.as_ref()?.first()?.port;
        (ready.count() == 3 && port == Some(8080)).then_some(())
    })
    .await;
    let endpoints = eventually("Endpoints", || async {
        let e = cluster.api::<Endpoints>().get_opt("web").await.unwrap()?;
        (e.subsets.as_ref()?.first()?.addresses.as_ref()?.len() == 3).then_some(e)
    })
    .await;
    assert_eq!(endpoints.subsets.as_ref().unwrap()[0].ports.as_ref().unwrap()[0].port, 8080);

    let template = web("v2", 3)["spec"]["template"].clone();
    cluster
        .api::<Deployment>()
        .patch("web", ContentType::MergePatch, json!({"spec": {"template": template}}))
        .await
        .unwrap();
    let second = eventually("the second revision", || async {
        let d = rolled_out(&cluster, 3).await;
        let revision = d.metadata.annotations.as_ref()?.get("deployment.kubernetes.io/revision")?.clone();
        (revision == "2").then_some(d)
    })
    .await;
    let progressing = second
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap()
        .iter()
        .find(|c| c.type_ == "Progressing");
    assert_eq!(progressing.unwrap().reason.as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(cluster.all::<ReplicaSet>().await.len(), 2);

    let options = DeleteOptions { propagation_policy: Some("Foreground"), ..DeleteOptions::default() };
    cluster.api::<Deployment>().delete("web", &options).await.unwrap();
    eventually("everything is gone", || async {
        let left = cluster.all::<Pod>().await.len() + cluster.all::<ReplicaSet>().await.len();
        let there = cluster.api::<Deployment>().get_opt("web").await.unwrap().is_some();
        (left == 0 && !there).then_some(())
    })
    .await;
    cluster.plane.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let cluster = Cluster::memory().await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let shop: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&shop).await.unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), "shop");
    eventually("its service account", || async { accounts.get_opt("default").await.unwrap() }).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "shop");
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "m", "finalizers": ["example.com/hold"]}}))
            .unwrap();
    maps.create(&map).await.unwrap();
    namespaces.delete("shop", &DeleteOptions::default()).await.unwrap();
    eventually("it tells what remains", || async {
        let shop = namespaces.get("shop").await.unwrap();
        let conditions = shop.status.clone()?.conditions?;
        let held =
            conditions.iter().find(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True")?;
        held.message.as_ref()?.contains("example.com/hold").then_some(())
    })
    .await;
    maps.patch("m", ContentType::MergePatch, json!({"metadata": {"finalizers": null}})).await.unwrap();
    eventually("it is gone", || async { namespaces.get_opt("shop").await.unwrap().is_none().then_some(()) })
        .await;
    cluster.plane.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_large_deployment_is_measured() {
    if std::env::var_os("KUBEWRIGHT_MEASURE").is_none() {
        println!("skipped: the large Deployment because KUBEWRIGHT_MEASURE is not set");
        return;
    }
    for replicas in [1000, 3000] {
        let folder = tempfile::tempdir().unwrap();
        let store = kubewright::store::RedbStore::open(folder.path().join("state.redb")).unwrap();
        let cluster = Cluster::start(Arc::new(store), 100, false).await;
        let start = Instant::now();
        cluster.create::<Deployment>(web("v1", replicas)).await;
        let mut exist = None;
        let mut bound = 0;
        let mut changes = cluster.plane.informers().of::<Pod>().subscribe();
        let pods = cluster.plane.informers().of::<Pod>();
        while bound < replicas {
            let node = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
            for change in changes.batch(1000).await {
                if let Change::Applied { object, old } = change {
                    bound += usize::from(node(&object) && !old.is_some_and(|o| node(&o)));
                }
            }
            if pods.len() == replicas && exist.is_none() {
                exist = Some(start.elapsed());
            }
        }
        println!("{replicas} replicas: all exist after {exist:?}, all bound after {:?}", start.elapsed());
        cluster.plane.shutdown().await.unwrap();
    }
}
