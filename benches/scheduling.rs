//! Upstream's scheduler_perf workloads end to end: pods created through the API server, placed by the scheduler and bound durably, all in
//! one process on redb with fsync:
//! `cargo bench --bench scheduling -- [NAME ...] [--nodes N] [--runs N] [--file PATH] [--rate N] [--report FILE]`.
//!
//! The workloads are the files of the pure cycle's bench (`sched/benches/workloads`), or those named by `--file`. The clock runs from the
//! first creation until the last pod is bound, so that creating is part of the figure. Latencies are those of single pods: from the answer
//! to the creation until the binding is seen (`attempt`), and from the request to create (`whole`); they say little where all pods come at
//! once, so that `--rate N` creates N pods a second instead. `--report` writes the table as a page with a chart of throughput over time for
//! each workload. A plugin of your own is benched by adding one line to [`profiles`].

mod common;
#[path = "../sched/benches/describe/mod.rs"]
mod describe;

use common::{cpu_seconds, median, milliseconds, resident_megabytes};
use describe::report::{self, Report};
use describe::{Size, Workload};
use k8s_openapi::api::core::v1::Pod;
use kubewright::client::{Api, Client};
use kubewright::core::{ContentType, GroupVersionResource};
use kubewright::reconcile::Change;
use kubewright::sched::{Profile, ProfileBuilder};
use kubewright::store::RedbStore;
use kubewright::{ControlPlane, RunningPlane, bundles, parts};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many creations are under way at once.
const CREATORS: usize = 64;

/// A slice of the chart.
const SLICE: Duration = Duration::from_millis(100);

/// The profiles under test. A plugin of your own goes here: `.plugin(MyPlugin)`.
fn profiles() -> Vec<ProfileBuilder> {
    vec![Profile::defaults("default-scheduler")]
}

struct Options {
    names: Vec<String>,
    nodes: usize,
    runs: usize,
    files: Vec<PathBuf>,
    /// Pods a second; all at once where there is none.
    rate: Option<u32>,
    report: Option<PathBuf>,
}

fn options() -> Options {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sched/benches/workloads");
    let (names, files) = (Vec::new(), Vec::new());
    let mut options = Options { names, nodes: 5000, runs: 3, files, rate: None, report: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--nodes" => {
                options.nodes = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(options.nodes)
            }
            "--runs" => options.runs = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
            "--file" => options.files.extend(arguments.next().map(PathBuf::from)),
            "--rate" => options.rate = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0),
            "--report" => options.report = arguments.next().map(PathBuf::from),
            name => options.names.push(name.to_owned()),
        }
    }
    if options.files.is_empty() {
        options.files = describe::folder(&folder);
    }
    options
}

fn api(client: &Client, group: &str, resource: &str, kind: &str, namespace: Option<&str>) -> Api<Value> {
    Api::dynamic(client.clone(), GroupVersionResource::new(group, "v1", resource), kind, namespace)
}

/// When pods were asked for and when that was answered.
type Times = Arc<Mutex<HashMap<String, (Instant, Instant)>>>;

/// Creates all of them, [`CREATORS`] at a time, or so many a second.
async fn create(client: &Client, objects: Vec<(&'static str, Value)>, rate: Option<u32>, times: &Times) {
    let start = Instant::now();
    let objects = Arc::new(Mutex::new(objects.into_iter().enumerate()));
    let mut tasks = JoinSet::new();
    for _ in 0..CREATORS {
        let (objects, client, times) = (objects.clone(), client.clone(), times.clone());
        tasks.spawn(async move {
            loop {
                let next = objects.lock().expect("no creator panicked").next();
                let Some((n, (resource, object))) = next else { return };
                if let Some(rate) = rate {
                    let due = start + Duration::from_secs_f64(n as f64 / f64::from(rate));
                    tokio::time::sleep_until(due.into()).await;
                }
                let asked = Instant::now();
                create_one(&client, resource, &object).await;
                if resource == "pods" {
                    let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
                    times.lock().expect("no creator panicked").insert(name, (asked, Instant::now()));
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a creator ends well");
    }
}

async fn create_one(client: &Client, resource: &str, object: &Value) {
    let namespace = object["metadata"]["namespace"].as_str();
    let version = object["apiVersion"].as_str().unwrap_or("v1");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = match resource {
        "pods" => "Pod",
        "nodes" => "Node",
        _ => object["kind"].as_str().unwrap_or(""),
    };
    let created = api(client, group, resource, kind, namespace).create(object).await;
    created.unwrap_or_else(|e| panic!("{resource}: {e}: {object}"));
}

/// Whole objects with their resource.
fn whole(objects: Vec<Value>) -> impl Iterator<Item = (&'static str, Value)> {
    objects.into_iter().map(|o| (describe::resource_of(&o).1, o))
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
        .with(parts::scheduler(profiles));
    let plane = match workload.binds {
        true => {
            kubewright::controllers::volume_binder::controllers().into_iter().fold(plane, |p, c| p.with(c))
        }
        false => plane,
    };
    let plane = plane.build().expect("a composition").start().await.expect("it starts");
    let client = plane.client().clone();
    for name in ["sched-0", "sched-1"] {
        let namespace = json!({"metadata": {"name": name}});
        api(&client, "", "namespaces", "Namespace", None).create(&namespace).await.expect("a namespace");
        let account = json!({"metadata": {"name": "default"}});
        let accounts = api(&client, "", "serviceaccounts", "ServiceAccount", Some(name));
        accounts.create(&account).await.expect("an account");
    }
    let mut classes = BTreeSet::new();
    for template in workload.init.iter().chain(&workload.pods).chain(&workload.unschedulable) {
        with_class(describe::pod(template, "any"), &mut classes);
    }
    for priority in classes {
        let class = json!({"metadata": {"name": format!("bench-{priority}")}, "value": priority});
        let api = api(&client, "scheduling.k8s.io", "priorityclasses", "PriorityClass", None);
        api.create(&class).await.expect("a class");
    }
    let mut objects: Vec<(&'static str, Value)> = whole(workload.objects.clone()).collect();
    objects.extend((0..size.nodes).map(|n| ("nodes", describe::node(workload, n))));
    for n in 0..size.nodes {
        objects.extend(whole(describe::named(&workload.each_node, "$node", &format!("node-{n:05}"))));
    }
    for n in 0..size.pods {
        objects.extend(whole(describe::named(&workload.each, "$name", &format!("pod-{n}"))));
    }
    create(&client, objects, None, &Times::default()).await;
    for n in 0..size.nodes {
        ready(&client, &format!("node-{n:05}")).await;
    }
    plane
}

/// What a controller would do for a node that is ready.
async fn ready(client: &Client, name: &str) {
    let patch = json!({"spec": {"taints": null}});
    let nodes = api(client, "", "nodes", "Node", None);
    nodes.patch(name, ContentType::MergePatch, patch).await.expect("no taints");
}

/// The pods of some templates.
fn pods(templates: &[Value], prefix: &str, count: usize) -> Vec<(&'static str, Value)> {
    let mut classes = BTreeSet::new();
    let mut pod = |n: usize| {
        with_class(describe::pod(&templates[n % templates.len()], &format!("{prefix}-{n}")), &mut classes)
    };
    (0..count).map(|n| ("pods", pod(n))).collect()
}

/// Lets a node come and go each time so many pods were bound.
async fn churn(client: Client, workload: Workload, mut bound: tokio::sync::watch::Receiver<usize>) {
    let mut next = workload.churn;
    while bound.wait_for(|n| *n >= next).await.is_ok() {
        let node = describe::node(&workload, 100_000 + next);
        let name = node["metadata"]["name"].as_str().unwrap_or("").to_owned();
        create_one(&client, "nodes", &node).await;
        ready(&client, &name).await;
        let nodes = api(&client, "", "nodes", "Node", None);
        // Pods may have been bound to it meanwhile; they stay counted.
        nodes.delete(&name, &Default::default()).await.expect("it goes");
        next += workload.churn;
    }
}

/// When each pod was bound, in seconds from the start, and its latencies.
#[derive(Default)]
struct Placed {
    at: Vec<Duration>,
    attempts: Vec<Duration>,
    wholes: Vec<Duration>,
}

/// Creates pods of some templates and waits until all are bound.
async fn place(
    plane: &RunningPlane,
    workload: &Workload,
    templates: &[Value],
    prefix: &str,
    count: usize,
    rate: Option<u32>,
) -> Placed {
    let mut changes = plane.informers().of::<Pod>().subscribe();
    let pods = pods(templates, prefix, count);
    let (start, times) = (Instant::now(), Times::default());
    let mut tasks = JoinSet::new();
    let (client, noted) = (plane.client().clone(), times.clone());
    tasks.spawn(async move { create(&client, pods, rate, &noted).await });
    let (tell, told) = tokio::sync::watch::channel(0);
    let mut churning = JoinSet::new();
    if workload.churn > 0 && prefix == "pod" {
        churning.spawn(churn(plane.client().clone(), workload.clone(), told));
    }
    let mut seen: Vec<(String, Instant)> = Vec::with_capacity(count);
    let is_ours = |p: &Pod| p.metadata.name.as_deref().is_some_and(|name| name.starts_with(prefix));
    let has_node = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    while seen.len() < count {
        for change in changes.batch(1000).await {
            if let Change::Applied { object, old } = change {
                let before = old.is_some_and(|o| has_node(&o));
                if is_ours(&object) && has_node(&object) && !before {
                    seen.push((object.metadata.name.clone().unwrap_or_default(), Instant::now()));
                }
            }
        }
        let _ = tell.send(seen.len());
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("the creators end well");
    }
    churning.shutdown().await;
    let mut placed = Placed::default();
    let times = times.lock().expect("no creator panicked");
    for (name, at) in seen {
        let Some((asked, answered)) = times.get(&name) else { continue };
        placed.at.push(at - start);
        placed.attempts.push(at.saturating_duration_since(*answered));
        placed.wholes.push(at - *asked);
    }
    placed.attempts.sort_unstable();
    placed.wholes.sort_unstable();
    placed
}

/// What a run found.
struct Run {
    /// Pods per second.
    rate: f64,
    /// CPU seconds per 1,000 pods.
    cpu: f64,
    placed: Placed,
}

async fn run(workload: &Workload, size: &Size, rate: Option<u32>) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let plane = furnished(workload, size, folder.path()).await;
    if !workload.init.is_empty() {
        place(&plane, workload, &workload.init, "init", size.init, None).await;
    }
    if let Some(template) = &workload.unschedulable {
        let never = pods(std::slice::from_ref(template), "never", size.unschedulable);
        create(plane.client(), never, None, &Times::default()).await;
    }
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let placed = place(&plane, workload, &workload.pods, "pod", size.pods, rate).await;
    let rate = size.pods as f64 / start.elapsed().as_secs_f64();
    let cpu = (cpu_seconds() - cpu) * 1000.0 / size.pods as f64;
    plane.shutdown().await.expect("it ends");
    Run { rate, cpu, placed }
}

const COLUMNS: [&str; 11] = [
    "workload",
    "nodes",
    "pods",
    "pods/s",
    "CPU s/1,000",
    "attempt p50 ms",
    "attempt p99 ms",
    "whole p50 ms",
    "whole p99 ms",
    "peer",
    "RSS MB",
];

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    const WIDTHS: [usize; 11] = [34, 6, 7, 7, 12, 15, 15, 13, 13, 6, 7];
    let cells = cells.zip(WIDTHS).enumerate().map(|(at, (text, width))| match at {
        0 => format!("{text:<width$}"),
        _ => format!(" {text:>width$}"),
    });
    cells.collect()
}

/// The row of a workload, and its chart.
fn summary(workload: &Workload, size: &Size, mut runs: Vec<Run>) -> (Vec<String>, String) {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let cpu = median(runs.iter().map(|r| r.cpu).collect());
    let middle = runs.swap_remove(runs.len() / 2);
    let part = |list: &[Duration], per_mille: usize| {
        let at = list.get(list.len() * per_mille / 1000).copied().unwrap_or_default();
        format!("{:.1}", milliseconds(at))
    };
    let placed = &middle.placed;
    let row = vec![
        workload.name.clone(),
        size.nodes.to_string(),
        size.pods.to_string(),
        format!("{:.0}", middle.rate),
        format!("{cpu:.3}"),
        part(&placed.attempts, 500),
        part(&placed.attempts, 990),
        part(&placed.wholes, 500),
        part(&placed.wholes, 990),
        size.peer.map_or(String::new(), |peer| format!("{:.0}x", middle.rate / peer)),
        format!("{:.0}", resident_megabytes()),
    ];
    let mut slices = Vec::new();
    for at in &placed.at {
        let slice = usize::try_from(at.as_millis() / SLICE.as_millis()).unwrap_or(0);
        if slices.len() <= slice {
            slices.resize(slice + 1, 0);
        }
        slices[slice] += 1;
    }
    let title = format!("{} on {} nodes: pods bound", workload.name, size.nodes);
    (row, report::chart(&title, SLICE.as_secs_f64(), &slices))
}

#[tokio::main]
async fn main() {
    let options = options();
    println!("{}", line(COLUMNS.into_iter()));
    let mut page = Report::new("Scheduling end to end", &COLUMNS);
    for file in &options.files {
        let workload = describe::read(file);
        let wanted =
            options.names.is_empty() || options.names.iter().any(|n| workload.name.contains(n.as_str()));
        if !wanted {
            continue;
        }
        for size in workload.sizes.iter().filter(|s| s.nodes == options.nodes) {
            let mut runs = Vec::new();
            for _ in 0..options.runs {
                runs.push(run(&workload, size, options.rate).await);
            }
            let (row, chart) = summary(&workload, size, runs);
            println!("{}", line(row.iter().map(String::as_str)));
            page.add(row, Some(chart));
        }
    }
    if let Some(file) = &options.report {
        page.write(file);
    }
}
