//! The pure scheduling cycle under upstream's scheduler_perf workloads, read from plain descriptions in `benches/workloads/*.yaml`.
//!
//! `cargo bench -p kubewright-sched -- [NAME ...] [--nodes N] [--runs N] [--file PATH] [--explain off]`
//!
//! A line for each workload and size: pods placed per second of the cycle (queue, filters, scores, reservation, binding request), the
//! same with taking in the pods and their bindings, percentiles of one decision, memory of the process, and how many times the
//! peer's figure that is. A plugin of your own is benched by adding one line to [`profile`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kubewright_sched::{ClusterObject, Decision, PodKey, Profile, QueueOptions, Scheduler};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The profile under test. A plugin of your own goes here: `.plugin(MyPlugin)`.
fn profile() -> Profile {
    Profile::defaults("default-scheduler").build().expect("the default profile is complete")
}

/// A workload, as its file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Workload {
    name: String,
    sizes: Vec<Size>,
    /// What every node has besides its name and `kubernetes.io/hostname`.
    #[serde(default)]
    node: Value,
    /// Values of `topology.kubernetes.io/zone`, given out in turn.
    #[serde(default)]
    zones: Vec<String>,
    /// Pods that are there before, one list after the other, sharing the size's `init` evenly.
    #[serde(default)]
    init: Vec<Value>,
    /// Pods that are measured, in turn.
    pods: Vec<Value>,
    /// Pods that never fit and stay in the queue.
    #[serde(default)]
    unschedulable: Option<Value>,
    /// A node comes and goes after so many pods.
    #[serde(default)]
    churn: usize,
}

/// One size of a workload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Size {
    nodes: usize,
    #[serde(default)]
    init: usize,
    pods: usize,
    /// How many pods that never fit there are.
    #[serde(default)]
    unschedulable: usize,
    /// The peer's pods per second, where it was measured.
    #[serde(default)]
    peer: Option<f64>,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
struct Report {
    placed: usize,
    evicted: usize,
    cycle: Duration,
    intake: Duration,
    decisions: Vec<Duration>,
    unplaced: usize,
}

struct Bench {
    scheduler: Scheduler,
    now: Timestamp,
    report: Report,
    /// Bindings that the scheduler has not seen confirmed yet.
    unconfirmed: VecDeque<(Value, String)>,
}

fn node(workload: &Workload, n: usize) -> Arc<Node> {
    let name = format!("node-{n:05}");
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    });
    if let Some(zone) = workload.zones.get(n % workload.zones.len().max(1)) {
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
    }
    merge(&mut node, &workload.node);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}

fn pod(template: &Value, name: &str, node: Option<&str>) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": "sched-1", "name": name, "uid": name},
        "spec": {"containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
        }]},
    });
    merge(&mut pod, template);
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

fn typed(pod: &Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(pod.clone()).expect("a pod"))
}

impl Bench {
    fn new(workload: &Workload, size: &Size, explain: bool) -> Self {
        let mut scheduler =
            Scheduler::new(vec![profile()], QueueOptions::default(), 1).expect("one profile has one name");
        if !explain {
            scheduler.attempts_mut().keep(0, 0);
        }
        let now = Timestamp::UNIX_EPOCH;
        for name in ["sched-0", "sched-1"] {
            let namespace: Namespace =
                serde_json::from_value(json!({"metadata": {"name": name}})).expect("valid");
            scheduler.apply_object(&ClusterObject::Namespace(Arc::new(namespace)), now);
        }
        for n in 0..size.nodes {
            scheduler.apply_node(node(workload, n), now);
        }
        Bench { scheduler, now, report: Report::default(), unconfirmed: VecDeque::new() }
    }

    /// Takes pods in, which is timed.
    fn take_in(&mut self, pods: Vec<Arc<Pod>>) {
        let start = Instant::now();
        for pod in pods {
            self.scheduler.apply_pod(pod, self.now);
        }
        self.report.intake += start.elapsed();
    }

    /// Decides until nothing is ready; time that only waits is skipped.
    fn decide(&mut self, templates: &[Value], want: usize, most_waits: usize) {
        let mut waits = 0;
        while self.report.placed < want {
            let start = Instant::now();
            let decision = self.scheduler.schedule_one(self.now);
            if let Some(Decision::Bind { pod, .. }) = &decision {
                self.scheduler.bound(&pod.key);
            }
            let took = start.elapsed();
            self.report.cycle += took;
            match decision {
                Some(Decision::Bind { pod, node, .. }) => {
                    self.report.decisions.push(took);
                    self.report.placed += 1;
                    let n: usize = pod.key.name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                    let template = &templates[n % templates.len()];
                    self.unconfirmed.push_back((pod_of(template, &pod.key.name), node.to_string()));
                    if self.unconfirmed.len() >= 512 {
                        self.confirm();
                    }
                }
                Some(Decision::Unschedulable { nominated, .. }) => {
                    self.report.decisions.push(took);
                    self.evict(nominated.map(|(_, victims)| victims).unwrap_or_default());
                }
                Some(Decision::Wait { .. } | Decision::Prepare { .. }) => {}
                None => {
                    waits += 1;
                    if waits > most_waits || !self.wait() {
                        break;
                    }
                }
            }
        }
        self.confirm();
    }

    fn evict(&mut self, victims: Vec<PodKey>) {
        let start = Instant::now();
        for victim in victims {
            self.scheduler.remove_pod(&victim, self.now);
            self.report.evicted += 1;
        }
        self.report.cycle += start.elapsed();
    }

    /// Skips to the end of the next back-off.
    fn wait(&mut self) -> bool {
        let Some(wake) = self.scheduler.next_wake() else { return false };
        self.now = wake + SignedDuration::from_millis(1);
        let start = Instant::now();
        self.scheduler.advance(self.now);
        self.report.cycle += start.elapsed();
        true
    }

    /// Shows the scheduler its bindings, as its informer would.
    fn confirm(&mut self) {
        let pods: Vec<Arc<Pod>> = self
            .unconfirmed
            .drain(..)
            .map(|(mut pod, node)| {
                pod["spec"]["nodeName"] = json!(node);
                typed(&pod)
            })
            .collect();
        self.take_in(pods);
    }
}

fn pod_of(template: &Value, name: &str) -> Value {
    pod(template, name, None)
}

fn run(workload: &Workload, size: &Size, explain: bool) -> Report {
    let mut bench = Bench::new(workload, size, explain);
    if !workload.init.is_empty() {
        let init: Vec<_> = (0..size.init)
            .map(|n| typed(&pod(&workload.init[n % workload.init.len()], &format!("init-{n}"), None)))
            .collect();
        bench.take_in(init);
        bench.decide(&workload.init, size.init, 100);
        assert_eq!(bench.report.placed, size.init, "{}: the pods before do not all fit", workload.name);
    }
    if let Some(template) = &workload.unschedulable {
        let pods = (0..size.unschedulable).map(|n| typed(&pod(template, &format!("never-{n}"), None)));
        bench.take_in(pods.collect());
    }
    bench.report = Report::default();
    let mut left: Vec<Arc<Pod>> = (0..size.pods)
        .map(|n| typed(&pod(&workload.pods[n % workload.pods.len()], &format!("pod-{n}"), None)))
        .collect();
    left.reverse();
    let step = if workload.churn > 0 { workload.churn } else { size.pods.max(1) };
    let mut extra = size.nodes;
    while !left.is_empty() {
        let pods: Vec<_> = left.split_off(left.len().saturating_sub(step)).into_iter().rev().collect();
        let want = bench.report.placed + pods.len();
        bench.take_in(pods);
        bench.decide(&workload.pods, want, 100);
        if workload.churn > 0 {
            let start = Instant::now();
            bench.scheduler.apply_node(node(workload, extra), bench.now);
            bench.scheduler.remove_node(&format!("node-{extra:05}"), bench.now);
            bench.report.cycle += start.elapsed();
            extra += 1;
        }
    }
    bench.report.unplaced = size.pods - bench.report.placed;
    bench.report.decisions.sort_unstable();
    bench.report
}

/// Resident memory of this process, in MB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(workload: &Workload, size: &Size, mut reports: Vec<Report>) {
    let rate = |r: &Report| r.placed as f64 / r.cycle.as_secs_f64().max(1e-9);
    reports.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let r = &reports[reports.len() / 2];
    let whole = r.placed as f64 / (r.cycle + r.intake).as_secs_f64().max(1e-9);
    let at = |part: usize| r.decisions.get(r.decisions.len() * part / 1000).copied().unwrap_or_default();
    let ratio = size.peer.map_or(String::new(), |peer| format!("{:.0}x", rate(r) / peer));
    println!(
        "{:<32} {:>6} {:>6} {:>6} {:>9.0} {:>9.0} {:>8.1} {:>8.1} {:>8.1} {:>7} {:>6} {:>6}",
        workload.name,
        size.nodes,
        r.placed,
        r.evicted,
        rate(r),
        whole,
        at(500).as_secs_f64() * 1e6,
        at(990).as_secs_f64() * 1e6,
        at(999).as_secs_f64() * 1e6,
        ratio,
        memory(),
        r.unplaced,
    );
}

struct Options {
    names: Vec<String>,
    nodes: Option<usize>,
    runs: usize,
    files: Vec<PathBuf>,
    explain: bool,
}

fn options() -> Options {
    let mut options = Options { names: Vec::new(), nodes: None, runs: 3, files: Vec::new(), explain: true };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" | "--test" => {}
            "--nodes" => options.nodes = arguments.next().and_then(|n| n.parse().ok()),
            "--runs" => options.runs = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
            "--file" => options.files.extend(arguments.next().map(PathBuf::from)),
            "--explain" => options.explain = arguments.next().as_deref() != Some("off"),
            name => options.names.push(name.to_owned()),
        }
    }
    if options.files.is_empty() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/workloads");
        let files = std::fs::read_dir(folder).expect("the folder of workloads");
        options.files = files.filter_map(|f| f.ok().map(|f| f.path())).collect();
        options.files.sort();
    }
    options
}

fn main() {
    let options = options();
    println!(
        "{:<32} {:>6} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7} {:>6} {:>6}",
        "workload",
        "nodes",
        "placed",
        "evict",
        "cycle/s",
        "whole/s",
        "p50 µs",
        "p99 µs",
        "p999 µs",
        "peer",
        "RSS MB",
        "left",
    );
    for file in &options.files {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let workload: Workload =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        if !options.names.is_empty() && !options.names.iter().any(|n| workload.name.contains(n.as_str())) {
            continue;
        }
        for size in workload.sizes.iter().filter(|s| options.nodes.is_none_or(|n| n == s.nodes)) {
            let reports = (0..options.runs).map(|_| run(&workload, size, options.explain)).collect();
            print(&workload, size, reports);
        }
    }
}
