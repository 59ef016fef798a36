//! Requests over TLS against a plane on redb with fsync and RBAC: rates, delays, and the server's CPU: `cargo bench --bench requests`.
//!
//! The client is this program again, as a process of its own on the same machine, so that the CPU told is the server's alone.

mod client;
#[path = "../common/mod.rs"]
mod common;

use client::{Report, Workload};
use common::{cpu_seconds, median, resident_megabytes, row};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kubewright::client::Api;
use kubewright::store::RedbStore;
use kubewright::{ControlPlane, Https, RunningPlane, bundles, parts};
use serde_json::json;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the peer does: requests per second, and CPU seconds per 1,000 (apiserver and etcd).
struct Peer {
    rate: f64,
    cpu: f64,
}

fn main() {
    if let Some(workload) = client::asked() {
        return client::run(workload);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(serve());
}

async fn serve() {
    let folder = tempfile::tempdir().expect("a folder");
    let plane = plane(folder.path()).await;
    let kubeconfig = folder.path().join("kubeconfig");
    let text = plane.admin_kubeconfig().expect("a certificate").expect("HTTPS");
    text.write(&kubeconfig).expect("a file");
    targets(&plane).await;
    let peer = |rate, cpu| Some(Peer { rate, cpu });
    let rows = [
        ("create ConfigMap", Workload::ConfigMaps, 32, 20_000, peer(1614.0, 1.08)),
        ("create Pod", Workload::Pods, 32, 10_000, peer(990.0, 1.82)),
        ("get Pod", Workload::Gets, 32, 40_000, peer(2539.0, 0.65)),
        ("patch Pod status (strategic)", Workload::Patches, 32, 10_000, peer(684.0, 2.73)),
        ("create ConfigMap", Workload::ConfigMaps, 1, 2_000, peer(340.0, 2.8)),
    ];
    for (what, workload, connections, count, peer) in rows {
        measure(what, workload, connections, count, peer.as_ref(), &kubeconfig).await;
    }
    client(Workload::Fill, 32, client::LISTED, &kubeconfig).await;
    lists(&kubeconfig).await;
    row("resident at the end", resident_megabytes(), "MB", None);
    plane.shutdown().await.expect("it ends");
}

async fn plane(folder: &Path) -> RunningPlane {
    let store = RedbStore::open(folder.join("store.redb")).expect("a store");
    let builder = ControlPlane::builder()
        .with(parts::store(store))
        .with(bundles::kinds())
        .with(Https::on("127.0.0.1:0".parse().expect("an address")));
    builder.build().expect("a composition").start().await.expect("it starts")
}

/// The pods that are read and patched.
async fn targets(plane: &RunningPlane) {
    for namespace in ["default", "kube-system"] {
        let accounts = Api::<ServiceAccount>::namespaced(plane.client().clone(), namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an account");
        accounts.create(&account).await.expect("it is created");
    }
    let pods = Api::<Pod>::namespaced(plane.client().clone(), "default");
    let names = (0..client::PATCHED).map(|n| format!("one-{n}")).chain(["one".to_owned()]);
    for (number, name) in names.enumerate() {
        let pod = serde_json::from_value(client::pod(&name, number, 0)).expect("a pod");
        pods.create(&pod).await.expect("it is created");
    }
}

async fn measure(
    what: &str,
    workload: Workload,
    connections: usize,
    count: usize,
    peer: Option<&Peer>,
    kubeconfig: &Path,
) {
    // One round to warm up, three that count.
    client(workload, connections, count / 10, kubeconfig).await;
    let (mut rates, mut cpus, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let before = cpu_seconds();
        let report = client(workload, connections, count, kubeconfig).await;
        cpus.push((cpu_seconds() - before) * 1000.0 / count as f64);
        rates.push(report.rate);
        p99s.push(report.p99_ms);
    }
    let what = format!("{what}, {connections} connections");
    row(&what, median(rates), "/s", peer.map(|p| p.rate));
    row(&format!("{what}: server CPU per 1,000"), median(cpus), "s", peer.map(|p| p.cpu));
    row(&format!("{what}: p99"), median(p99s), "ms", None);
}

async fn lists(kubeconfig: &Path) {
    let count = 20;
    client(Workload::Lists, 1, 2, kubeconfig).await;
    let before = cpu_seconds();
    let report = client(Workload::Lists, 1, count, kubeconfig).await;
    let cpu = (cpu_seconds() - before) / count as f64;
    row("list of 5,000 pods: body", report.body_megabytes, "MB", Some(11.4));
    row("list of 5,000 pods", report.p50_ms, "ms", Some(253.0));
    row("list of 5,000 pods: server CPU each", cpu, "s", Some(0.228));
}

/// Runs the client as a process of its own.
async fn client(workload: Workload, connections: usize, count: usize, kubeconfig: &Path) -> Report {
    let program = std::env::current_exe().expect("this program");
    let order = serde_json::to_string(&(workload, connections, count, kubeconfig)).expect("an order");
    let run = tokio::process::Command::new(program).env(client::ORDER, order).output().await;
    let output = run.expect("the client ran");
    assert!(output.status.success(), "the client failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}
