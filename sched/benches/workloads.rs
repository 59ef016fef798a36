//! The pure scheduling cycle under upstream's scheduler_perf workloads, read from plain descriptions in
//! `benches/workloads/*.yaml`.
//!
//! `cargo bench -p kubewright-sched -- [NAME ...] [--nodes N] [--runs N] [--file PATH] [--explain off] [--report FILE] [--trace FOLDER]`
//!
//! A line for each workload and size: pods placed per CPU second of the cycle (queue, filters, scores, reservation, binding request), the
//! same with taking in the pods and their bindings, pods per second of wall time, percentiles of one decision (wall time), how many times
//! the peer's figure the first is, and memory of the process. There is one thread, so that CPU time is wall time on an idle machine. `--report` writes all that as a page with a chart of throughput over
//! time for each, `--trace` records what the scheduler was told, and
//! `--replay FILE` runs such a record under the profile here, and `--memory` weighs nodes and bound pods. A plugin of your own is benched by adding one line to [`profile`].

mod describe;

use describe::report::{self, Report as Page};
use describe::{Size, Workload};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kubewright_core::{ApiRequest, RequestBody, Target};
use kubewright_sched::{ClusterObject, Decision, PodInfo, Profile, QueueOptions, Scheduler, Trace};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The profile under test. A plugin of your own goes here: `.plugin(MyPlugin)`.
fn profile() -> Profile {
    Profile::defaults("default-scheduler").build().expect("the default profile is complete")
}

/// What a run found.
#[derive(Clone, Debug, Default)]
struct Report {
    placed: usize,
    evicted: usize,
    /// CPU time of deciding, and of taking pods in.
    cycle: Duration,
    wall: Duration,
    intake: Duration,
    decisions: Vec<Duration>,
    /// How many were placed in each slice of cycle time.
    slices: Vec<usize>,
    unplaced: usize,
}

/// A slice of the chart.
const SLICE: Duration = Duration::from_millis(5);

struct Bench {
    scheduler: Scheduler,
    now: Timestamp,
    report: Report,
    /// Bindings that the scheduler has not seen confirmed yet.
    unconfirmed: Vec<(Arc<PodInfo>, SmolStr)>,
    /// Objects of single pods, by resource and name.
    objects: HashMap<(String, String), Value>,
    /// Those that changed with bindings.
    changed: Vec<(String, String)>,
}

fn node(workload: &Workload, n: usize) -> Arc<Node> {
    Arc::new(serde_json::from_value(describe::node(workload, n)).expect("a node"))
}

/// A pod out of a template.
fn pod(template: &Value, name: &str) -> Arc<Pod> {
    let mut pod = describe::pod(template, name);
    pod["metadata"]["uid"] = json!(name);
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

impl Bench {
    fn new(workload: &Workload, size: &Size, options: &Options) -> Self {
        let mut scheduler =
            Scheduler::new(vec![profile()], QueueOptions::default(), 1).expect("one profile has one name");
        if options.trace.is_some() {
            scheduler.record_trace();
        }
        if !options.explain {
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
        let report = Report::default();
        let (unconfirmed, objects, changed) = (Vec::new(), HashMap::new(), Vec::new());
        let mut bench = Bench { scheduler, now, report, unconfirmed, objects, changed };
        workload.objects.iter().for_each(|o| bench.apply(o));
        for n in 0..size.nodes {
            let objects = describe::named(&workload.each_node, "$node", &format!("node-{n:05}"));
            objects.iter().for_each(|o| bench.apply(o));
        }
        bench
    }

    /// Takes pods in, which is timed.
    fn take_in(&mut self, pods: Vec<Arc<Pod>>) {
        let cpu = cpu_time();
        for pod in pods {
            self.scheduler.apply_pod(pod, self.now);
        }
        self.report.intake += cpu_time().saturating_sub(cpu);
    }

    /// Decides until nothing is ready; time that only waits is skipped.
    fn decide(&mut self, want: usize, most_waits: usize) {
        let mut waits = 0;
        while self.report.placed < want && waits <= most_waits {
            let (start, cpu) = (Instant::now(), cpu_time());
            let placed = self.report.placed;
            let going = self.decide_some(want);
            self.report.cycle += cpu_time().saturating_sub(cpu);
            self.report.wall += start.elapsed();
            let slice = usize::try_from(self.report.cycle.as_micros() / SLICE.as_micros()).unwrap_or(0);
            self.report.slices.resize(slice + 1, 0);
            self.report.slices[slice] += self.report.placed - placed;
            self.confirm();
            if !going {
                waits += 1;
                if !self.wait() {
                    break;
                }
            }
        }
        self.confirm();
    }

    /// So many decisions that their bindings are then confirmed together; whether there may be more at once.
    fn decide_some(&mut self, want: usize) -> bool {
        while self.report.placed < want && self.unconfirmed.len() < 256 {
            let start = Instant::now();
            let decision = self.scheduler.schedule_one(self.now);
            if let Some(Decision::Bind { pod, .. }) = &decision {
                self.scheduler.bound(&pod.key);
            }
            if decision.is_some() {
                self.report.decisions.push(start.elapsed());
            }
            match decision {
                Some(Decision::Bind { pod, node, requests, .. }) => {
                    self.carry_out(&requests);
                    self.report.placed += 1;
                    self.unconfirmed.push((pod, node));
                }
                Some(Decision::Unschedulable { nominated, .. }) => {
                    for victim in nominated.into_iter().flat_map(|(_, victims)| victims) {
                        self.scheduler.remove_pod(&victim, self.now);
                        self.report.evicted += 1;
                    }
                }
                Some(Decision::Prepare { pod, requests, .. }) => {
                    self.carry_out(&requests);
                    self.bind_claims(&requests);
                    if let Some(Decision::Bind { pod, node, .. }) =
                        self.scheduler.prepared(&pod.key, self.now)
                    {
                        self.scheduler.bound(&pod.key);
                        self.report.placed += 1;
                        self.unconfirmed.push((pod, node));
                    }
                }
                Some(_) => {}
                None => return false,
            }
        }
        true
    }

    /// Skips to the end of the next back-off.
    fn wait(&mut self) -> bool {
        let Some(wake) = self.scheduler.next_wake() else { return false };
        self.now = wake + SignedDuration::from_millis(1);
        let (start, cpu) = (Instant::now(), cpu_time());
        self.scheduler.advance(self.now);
        self.report.cycle += cpu_time().saturating_sub(cpu);
        self.report.wall += start.elapsed();
        true
    }

    /// Shows the scheduler its bindings, as its informer would.
    fn confirm(&mut self) {
        let pods: Vec<Arc<Pod>> = std::mem::take(&mut self.unconfirmed)
            .into_iter()
            .map(|(pod, node)| {
                let mut bound = pod.pod.as_deref().cloned().unwrap_or_default();
                bound.spec.get_or_insert_default().node_name = Some(node.to_string());
                Arc::new(bound)
            })
            .collect();
        self.take_in(pods);
        for key in std::mem::take(&mut self.changed) {
            if let Some(object) = self.objects.get(&key).cloned() {
                self.apply(&object);
            }
        }
    }

    /// Tells the scheduler of an object, if it looks at such.
    fn apply(&mut self, object: &Value) {
        let (_, resource) = describe::resource_of(object);
        let known = ClusterObject::from_value(resource, object).expect("valid");
        if let Some(object) = known {
            self.scheduler.apply_object(&object, self.now);
        }
    }

    /// Makes the objects of a pod.
    fn furnish(&mut self, workload: &Workload, name: &str) {
        for mut object in describe::named(&workload.each, "$name", name) {
            object["metadata"]["uid"] = json!(name);
            self.apply(&object);
            let (_, resource) = describe::resource_of(&object);
            self.objects.insert((resource.to_owned(), name.to_owned()), object);
        }
    }

    /// Carries requests out on the objects of pods; the scheduler sees that with the bindings.
    fn carry_out(&mut self, requests: &[ApiRequest]) {
        for request in requests {
            let (Target::Resource { resource, name: Some(name), .. }, RequestBody::Value { value, .. }) =
                (&request.target, &request.body)
            else {
                continue;
            };
            let key = (resource.resource.to_string(), name.to_string());
            if let Some(object) = self.objects.get_mut(&key) {
                describe::merge(object, value);
                self.changed.push(key);
            }
        }
    }

    /// What the binder of claims does: claims get the volumes that were set aside for them.
    fn bind_claims(&mut self, requests: &[ApiRequest]) {
        for request in requests {
            let RequestBody::Value { value, .. } = &request.body else { continue };
            let Target::Resource { name: Some(volume), .. } = &request.target else { continue };
            let Some(claim) = value["spec"]["claimRef"]["name"].as_str() else { continue };
            let key = ("persistentvolumeclaims".to_owned(), claim.to_owned());
            let Some(object) = self.objects.get_mut(&key) else { continue };
            let bound = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                "spec": {"volumeName": volume.as_str()}});
            describe::merge(object, &bound);
            let object = object.clone();
            self.apply(&object);
        }
    }
}

fn run(workload: &Workload, size: &Size, options: &Options) -> Report {
    let mut bench = Bench::new(workload, size, options);
    if !workload.init.is_empty() {
        let init: Vec<_> = (0..size.init)
            .map(|n| pod(&workload.init[n % workload.init.len()], &format!("init-{n}")))
            .collect();
        bench.take_in(init);
        bench.decide(size.init, 100);
        assert_eq!(bench.report.placed, size.init, "{}: the pods before do not all fit", workload.name);
    }
    if let Some(template) = &workload.unschedulable {
        let pods = (0..size.unschedulable).map(|n| pod(template, &format!("never-{n}")));
        bench.take_in(pods.collect());
    }
    let mut left: Vec<Arc<Pod>> =
        (0..size.pods).map(|n| pod(&workload.pods[n % workload.pods.len()], &format!("pod-{n}"))).collect();
    (0..size.pods).for_each(|n| bench.furnish(workload, &format!("pod-{n}")));
    bench.report = Report::default();
    left.reverse();
    let step = if workload.churn > 0 { workload.churn } else { size.pods.max(1) };
    let mut extra = size.nodes;
    while !left.is_empty() {
        let pods: Vec<_> = left.split_off(left.len().saturating_sub(step)).into_iter().rev().collect();
        let want = bench.report.placed + pods.len();
        bench.take_in(pods);
        bench.decide(want, 100);
        if workload.churn > 0 {
            let made = node(workload, extra);
            let cpu = cpu_time();
            bench.scheduler.apply_node(made, bench.now);
            bench.scheduler.remove_node(&format!("node-{extra:05}"), bench.now);
            bench.report.cycle += cpu_time().saturating_sub(cpu);
            extra += 1;
        }
    }
    if let (Some(folder), Some(trace)) = (&options.trace, bench.scheduler.take_trace()) {
        let file = folder.join(format!("{}-{}.jsonl", workload.name, size.nodes));
        std::fs::write(&file, trace.to_lines()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    bench.report.unplaced = size.pods - bench.report.placed;
    bench.report.decisions.sort_unstable();
    bench.report
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(workload: &Workload, size: &Size, mut reports: Vec<Report>, page: &mut Page) {
    let rate = |r: &Report| r.placed as f64 / r.cycle.as_secs_f64().max(1e-9);
    reports.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let r = &reports[reports.len() / 2];
    let whole = r.placed as f64 / (r.cycle + r.intake).as_secs_f64().max(1e-9);
    let at = |part: usize| r.decisions.get(r.decisions.len() * part / 1000).copied().unwrap_or_default();
    let ratio = size.peer.map_or(String::new(), |peer| format!("{:.0}x", rate(r) / peer));
    let micros = |part: usize| format!("{:.1}", at(part).as_secs_f64() * 1e6);
    let row = vec![
        workload.name.clone(),
        size.nodes.to_string(),
        r.placed.to_string(),
        r.evicted.to_string(),
        format!("{:.0}", rate(r)),
        format!("{whole:.0}"),
        format!("{:.0}", r.placed as f64 / r.wall.as_secs_f64().max(1e-9)),
        micros(500),
        micros(990),
        micros(999),
        ratio,
        (resident() / 1024).to_string(),
        r.unplaced.to_string(),
    ];
    println!("{}", line(row.iter().map(String::as_str)));
    let title = format!("{} on {} nodes: pods/s of cycle time", workload.name, size.nodes);
    page.add(row, Some(report::chart(&title, SLICE.as_secs_f64(), &r.slices)));
}

const COLUMNS: [&str; 13] = [
    "workload", "nodes", "placed", "evict", "cycle/s", "whole/s", "wall/s", "p50 µs", "p99 µs", "p999 µs",
    "peer", "RSS MB", "left",
];

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    const WIDTHS: [usize; 13] = [34, 6, 6, 6, 9, 9, 9, 8, 8, 8, 7, 6, 6];
    let cells = cells.zip(WIDTHS).enumerate().map(|(at, (text, width))| match at {
        0 => format!("{text:<width$}"),
        _ => format!(" {text:>width$}"),
    });
    cells.collect()
}

/// Replays a record under the profile here.
fn replay(file: &std::path::Path) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let trace = Trace::from_lines(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut scheduler =
        Scheduler::new(vec![profile()], QueueOptions::default(), 1).expect("one profile has one name");
    let start = Instant::now();
    let outcome = trace.replay(&mut scheduler, SignedDuration::from_secs(600));
    let outcome = outcome.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    println!(
        "{}: {} facts, {} placed, {} evicted, {} left over, {:.3} s",
        file.display(),
        trace.entries.len(),
        outcome.placed.len(),
        outcome.evicted.len(),
        outcome.refused.len(),
        start.elapsed().as_secs_f64(),
    );
}

struct Options {
    names: Vec<String>,
    nodes: Option<usize>,
    runs: usize,
    files: Vec<PathBuf>,
    explain: bool,
    report: Option<PathBuf>,
    trace: Option<PathBuf>,
    replay: Option<PathBuf>,
    memory: bool,
}

fn options() -> Options {
    let mut options = Options {
        names: Vec::new(),
        nodes: None,
        runs: 3,
        files: Vec::new(),
        explain: true,
        report: None,
        trace: None,
        replay: None,
        memory: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" | "--test" => {}
            "--nodes" => options.nodes = arguments.next().and_then(|n| n.parse().ok()),
            "--runs" => options.runs = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
            "--file" => options.files.extend(arguments.next().map(PathBuf::from)),
            "--report" => options.report = arguments.next().map(PathBuf::from),
            "--trace" => options.trace = arguments.next().map(PathBuf::from),
            "--replay" => options.replay = arguments.next().map(PathBuf::from),
            "--memory" => options.memory = true,
            "--explain" => options.explain = arguments.next().as_deref() != Some("off"),
            name => options.names.push(name.to_owned()),
        }
    }
    if options.files.is_empty() {
        let benches = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches");
        options.files = describe::folder(&benches.join("workloads"));
    }
    options
}

/// What a bound pod and a node weigh in the scheduler, from the growth of this process. Objects of nodes are counted, as the table keeps
/// them; those of bound pods are let go, as it does not.
fn weigh() {
    const NODES: usize = 5_000;
    const PODS: usize = 150_000;
    let workload = Workload {
        name: "Memory".to_owned(),
        sizes: Vec::new(),
        node: Value::Null,
        zones: vec!["a".to_owned(), "b".to_owned()],
        init: Vec::new(),
        pods: Vec::new(),
        unschedulable: None,
        churn: 0,
        objects: Vec::new(),
        each_node: Vec::new(),
        each: Vec::new(),
        binds: false,
    };
    let mut scheduler =
        Scheduler::new(vec![profile()], QueueOptions::default(), 1).expect("one profile has one name");
    let start = resident();
    (0..NODES).for_each(|n| scheduler.apply_node(node(&workload, n), Timestamp::UNIX_EPOCH));
    let nodes = resident();
    for n in 0..PODS {
        let template = json!({"spec": {"nodeName": format!("node-{:05}", n % NODES)}});
        scheduler.apply_pod(pod(&template, &format!("pod-{n}-abcdef-12345")), Timestamp::UNIX_EPOCH);
    }
    let pods = resident();
    println!(
        "{NODES} nodes: {} bytes each; {PODS} bound pods: {} bytes each",
        (nodes - start) * 1024 / NODES as u64,
        (pods - nodes) * 1024 / PODS as u64
    );
}

fn main() {
    let options = options();
    if options.memory {
        return weigh();
    }
    if let Some(file) = &options.replay {
        return replay(file);
    }
    println!("{}", line(COLUMNS.into_iter()));
    let mut page = Page::new("The pure scheduling cycle", &COLUMNS);
    for file in &options.files {
        let workload = describe::read(file);
        if !options.names.is_empty() && !options.names.iter().any(|n| workload.name.contains(n.as_str())) {
            continue;
        }
        for size in workload.sizes.iter().filter(|s| options.nodes.is_none_or(|n| n == s.nodes)) {
            let reports: Vec<Report> = (0..options.runs).map(|_| run(&workload, size, &options)).collect();
            print(&workload, size, reports, &mut page);
        }
    }
    if let Some(file) = &options.report {
        page.write(file);
    }
}
