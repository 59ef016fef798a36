//! The stock kube-scheduler on this API server, in place of ours, where the machine has one: `KUBE_SCHEDULER` names the program.

use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright::client::Api;
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, Https, bundles, parts};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program, ended with the test.
struct Stock(Child);

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KUBE_SCHEDULER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("kube-scheduler")).find(|file| file.is_file())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_scheduler_places_pods_of_this_server() {
    let Some(program) = program() else {
        println!("skipped: the stock kube-scheduler because none is installed (KUBE_SCHEDULER may name one)");
        return;
    };
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(Https::on("127.0.0.1:0".parse().unwrap()))
        .with(bundles::kinds())
        .with(bundles::controllers());
    let plane = plane.build().expect("a composition").start().await.expect("it starts");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    plane.admin_kubeconfig().unwrap().expect("it serves HTTPS").write(&file).unwrap();
    let kubeconfig = |flag: &str| format!("--{flag}={}", file.display());
    let child = Command::new(program)
        .args([
            kubeconfig("kubeconfig"),
            kubeconfig("authentication-kubeconfig"),
            kubeconfig("authorization-kubeconfig"),
        ])
        .args(["--leader-elect=false", "--secure-port=0"])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("it starts");
    let _stock = Stock(child);
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let nodes = Api::<Node>::all(plane.client().clone());
    for name in ["one", "two"] {
        let node = json!({"metadata": {"name": name}, "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready",
            "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": "2030-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        nodes.create(&serde_json::from_value(node).unwrap()).await.unwrap();
    }
    let pods = Api::<Pod>::namespaced(plane.client().clone(), "default");
    for n in 0..20 {
        let pod = json!({"metadata": {"name": format!("pod-{n}")}, "spec": {"schedulerName": "default-scheduler",
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}});
        pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    }
    let start = Instant::now();
    loop {
        let all = pods.list(Default::default()).await.unwrap().items;
        let bound = all.iter().filter(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some())).count();
        if bound == 20 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{bound} of 20 pods are bound");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    plane.shutdown().await.unwrap();
}
