//! Upstream's scheduler_perf workloads end to end: pods created through the API server, placed by the scheduler and bound durably, all in
//! one process on redb with fsync: `cargo bench --bench scheduling -- [NAME ...] [--nodes N] [--runs N]`.
//!
//! The workloads are the files of the pure cycle's bench (`sched/benches/workloads`). The clock runs from the first creation until the
//! last pod is bound, so that creating is part of the figure.

mod common;
#[path = "../sched/benches/describe/mod.rs"]
mod describe;

use common::{cpu_seconds, median, resident_megabytes};
use describe::{Size, Workload};
use k8s_openapi::api::core::v1::Pod;
use kubewright::client::{Api, Client};
use kubewright::core::{ContentType, GroupVersionResource};
use kubewright::reconcile::Change;
use kubewright::store::RedbStore;
use kubewright::{ControlPlane, RunningPlane, bundles, parts};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many creations are under way at once.
const CREATORS: usize = 64;

struct Options {
    names: Vec<String>,
    nodes: usize,
    runs: usize,
}

fn options() -> Options {
    let mut options = Options { names: Vec::new(), nodes: 5000, runs: 3 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--nodes" => {
                options.nodes = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(options.nodes)
            }
            "--runs" => options.runs = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
            name => options.names.push(name.to_owned()),
        }
    }
    options
}

fn api(client: &Client, group: &str, resource: &str, kind: &str, namespace: Option<&str>) -> Api<Value> {
    Api::dynamic(client.clone(), GroupVersionResource::new(group, "v1", resource), kind, namespace)
}

/// Creates all of them, [`CREATORS`] at a time.
async fn create(client: &Client, resource: &'static str, kind: &'static str, objects: Vec<Value>) {
    let objects = Arc::new(std::sync::Mutex::new(objects.into_iter()));
    let mut tasks = JoinSet::new();
    for _ in 0..CREATORS {
        let (objects, client) = (objects.clone(), client.clone());
        tasks.spawn(async move {
            loop {
                let next = objects.lock().expect("no creator panicked").next();
                let Some(object) = next else { return };
                let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
                let api = api(&client, "", resource, kind, namespace.as_deref());
                api.create(&object).await.expect("it is created");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a creator ends well");
    }
}

/// A pod whose priority comes from a class, as the API wants it.
fn with_class(mut pod: Value, classes: &mut BTreeSet<i64>) -> Value {
    if let Some(spec) = pod["spec"].as_object_mut()
        && let Some(priority) = spec.remove("priority").and_then(|p| p.as_i64())
    {
        spec.insert("priorityClassName".to_owned(), json!(format!("bench-{priority}")));
        // Victims go at once, since no node agent would end them.
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(0));
        classes.insert(priority);
    }
    pod
}

/// The plane with its nodes and everything that pods need.
async fn furnished(workload: &Workload, size: &Size, folder: &std::path::Path) -> RunningPlane {
    let store = RedbStore::open(folder.join("store.redb")).expect("a store");
    let plane = ControlPlane::builder()
        .with(parts::store(store))
        .with(bundles::kinds())
        .with(bundles::scheduler())
        .build()
        .expect("a composition");
    let plane = plane.start().await.expect("it starts");
    let client = plane.client().clone();
    for name in ["sched-0", "sched-1"] {
        let namespace = json!({"metadata": {"name": name}});
        api(&client, "", "namespaces", "Namespace", None).create(&namespace).await.expect("a namespace");
        let account = json!({"metadata": {"name": "default"}});
        let accounts = api(&client, "", "serviceaccounts", "ServiceAccount", Some(name));
        accounts.create(&account).await.expect("an account");
    }
    let mut classes = BTreeSet::new();
    for template in workload.init.iter().chain(&workload.pods) {
        with_class(describe::pod(template, "any"), &mut classes);
    }
    for priority in classes {
        let class = json!({"metadata": {"name": format!("bench-{priority}")}, "value": priority});
        let api = api(&client, "scheduling.k8s.io", "priorityclasses", "PriorityClass", None);
        api.create(&class).await.expect("a class");
    }
    let nodes: Vec<Value> = (0..size.nodes).map(|n| describe::node(workload, n)).collect();
    create(&client, "nodes", "Node", nodes).await;
    let nodes = api(&client, "", "nodes", "Node", None);
    for n in 0..size.nodes {
        // What a controller would do for a node that is ready.
        let patch = json!({"spec": {"taints": null}});
        nodes.patch(&format!("node-{n:05}"), ContentType::MergePatch, patch).await.expect("no taints");
    }
    plane
}

/// Creates pods of some templates and waits until all are bound.
async fn place(plane: &RunningPlane, templates: &[Value], prefix: &str, count: usize) {
    let mut changes = plane.informers().of::<Pod>().subscribe();
    let mut classes = BTreeSet::new();
    let pods = (0..count)
        .map(|n| {
            with_class(describe::pod(&templates[n % templates.len()], &format!("{prefix}-{n}")), &mut classes)
        })
        .collect();
    let creating = tokio::spawn({
        let client = plane.client().clone();
        async move { create(&client, "pods", "Pod", pods).await }
    });
    let mut bound = 0;
    let is_ours = |p: &Pod| p.metadata.name.as_deref().is_some_and(|name| name.starts_with(prefix));
    let has_node = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    while bound < count {
        for change in changes.batch(1000).await {
            if let Change::Applied { object, old } = change {
                let before = old.is_some_and(|o| has_node(&o));
                bound += usize::from(is_ours(&object) && has_node(&object) && !before);
            }
        }
    }
    creating.await.expect("the creators end well");
}

/// Pods per second, and CPU seconds per 1,000 pods.
async fn run(workload: &Workload, size: &Size) -> (f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let plane = furnished(workload, size, folder.path()).await;
    if !workload.init.is_empty() {
        place(&plane, &workload.init, "init", size.init).await;
    }
    let (start, cpu) = (Instant::now(), cpu_seconds());
    place(&plane, &workload.pods, "pod", size.pods).await;
    let rate = size.pods as f64 / start.elapsed().as_secs_f64();
    let cpu = (cpu_seconds() - cpu) * 1000.0 / size.pods as f64;
    plane.shutdown().await.expect("it ends");
    (rate, cpu)
}

#[tokio::main]
async fn main() {
    let options = options();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sched/benches/workloads");
    println!(
        "{:<34} {:>6} {:>7} {:>9} {:>12} {:>7}",
        "workload", "nodes", "pods", "pods/s", "CPU s/1,000", "peer"
    );
    for file in describe::folder(&folder) {
        let workload = describe::read(&file);
        let wanted =
            options.names.is_empty() || options.names.iter().any(|n| workload.name.contains(n.as_str()));
        // Pods that wait for something else, and nodes that come and go, are the pure bench's.
        if !wanted || workload.unschedulable.is_some() || workload.churn > 0 {
            continue;
        }
        for size in workload.sizes.iter().filter(|s| s.nodes == options.nodes) {
            let mut runs = Vec::new();
            for _ in 0..options.runs {
                runs.push(run(&workload, size).await);
            }
            let rate = median(runs.iter().map(|r| r.0).collect());
            let cpu = median(runs.iter().map(|r| r.1).collect());
            let peer = size.peer.map_or(String::new(), |peer| format!("{:.0}x", rate / peer));
            println!(
                "{:<34} {:>6} {:>7} {rate:>9.0} {cpu:>12.3} {peer:>7}",
                workload.name, size.nodes, size.pods
            );
        }
    }
    println!("resident at the end: {:.0} MB", resident_megabytes());
}
