//! One large Deployment on 100 nodes that only exist as objects, redb with fsync, all in process: `cargo bench --bench deployment`.
//!
//! The clock runs from the creation of the Deployment until the last pod is bound; every write is durable before it is acknowledged.

mod common;

use common::{cpu_seconds, median, resident_megabytes, row};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright::client::Api;
use kubewright::reconcile::Change;
use kubewright::store::RedbStore;
use kubewright::{ControlPlane, RunningPlane, bundles, parts};
use serde_json::json;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NODES: usize = 100;
const RUNS: usize = 5;

async fn nodes(plane: &RunningPlane) {
    let api = Api::<Node>::all(plane.client().clone());
    for n in 0..NODES {
        let room = json!({"cpu": "64", "memory": "256Gi", "pods": "110"});
        let node = json!({"metadata": {"name": format!("node-{n}"), "labels": {"kubernetes.io/hostname": format!("node-{n}")}},
            "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True",
                "reason": "Bench", "message": "", "lastHeartbeatTime": "2030-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        api.create(&serde_json::from_value(node).expect("a node")).await.expect("it is created");
    }
}

/// Seconds until all exist and until all are bound, and the CPU seconds of everything.
async fn run(replicas: usize) -> (f64, f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RedbStore::open(folder.path().join("store.redb")).expect("a store");
    let plane = ControlPlane::builder().with(parts::store(store)).with(bundles::kubernetes());
    let plane = plane.build().expect("a composition").start().await.expect("it starts");
    nodes(&plane).await;
    // The taints of new nodes are taken away before it begins.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let labels = json!({"app": "web"});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web",
            "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}}]}}}});
    let pods = plane.informers().of::<Pod>();
    let mut changes = pods.subscribe();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let api = Api::<Deployment>::namespaced(plane.client().clone(), "default");
    api.create(&serde_json::from_value(deployment).expect("a Deployment")).await.expect("it is created");
    let (mut exist, mut bound) = (None, 0);
    while bound < replicas {
        let node = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        for change in changes.batch(1000).await {
            if let Change::Applied { object, old } = change {
                bound += usize::from(node(&object) && !old.is_some_and(|o| node(&o)));
            }
        }
        if exist.is_none() && pods.len() == replicas {
            exist = Some(start.elapsed());
        }
    }
    let (all, cpu) = (start.elapsed(), cpu_seconds() - cpu);
    plane.shutdown().await.expect("it ends");
    (exist.unwrap_or(all).as_secs_f64(), all.as_secs_f64(), cpu)
}

#[tokio::main]
async fn main() {
    for (replicas, peer_exist, peer_bound) in [(1000, 3.4, 5.3), (3000, 11.5, 12.6)] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(run(replicas).await);
        }
        let middle = |of: fn(&(f64, f64, f64)) -> f64| median(runs.iter().map(of).collect());
        row(&format!("{replicas} replicas: all pods exist"), middle(|r| r.0), "s", Some(peer_exist));
        row(&format!("{replicas} replicas: all pods bound"), middle(|r| r.1), "s", Some(peer_bound));
        let per_thousand = middle(|r| r.2) * 1000.0 / replicas as f64;
        row(&format!("{replicas} replicas: CPU per 1,000 pods"), per_thousand, "s", Some(7.0));
    }
    row("resident at the end", resident_megabytes(), "MB", None);
}
