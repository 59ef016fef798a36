//! The works, one after the other, each with its rows.

use crate::Failed;
use crate::measure::{Table, cpu_seconds, median, percentile, resident_megabytes};
use crate::options::Options;
use crate::requests::{NAMESPACE, PADDING_BYTES, Seen, path, pod, send};
use crate::target::{Ask, Target};
use crate::watches::{self, Watched};
use crate::{plane, requests};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many pods get new statuses in turn.
const PATCHED: usize = 100;
/// The size of a watched pod comes to 2.7 kB with so much padding.
const WATCHED_PADDING_BYTES: usize = 1100;

/// What all works share.
struct Load<'a> {
    options: &'a Options,
    target: Arc<Target>,
    servers: Vec<u32>,
    table: Table,
}

/// Runs what the options ask for.
pub(crate) async fn run(options: &Options) -> Result<(), Failed> {
    let own = match &options.kubeconfig {
        None => Some(plane::start(&options.store).await?),
        Some(_) => None,
    };
    let kubeconfig =
        own.as_ref().map(|plane| plane.kubeconfig.clone()).or_else(|| options.kubeconfig.clone());
    let target = Target::read(kubeconfig.ok_or("no kubeconfig")?)?;
    let servers = own.as_ref().map_or_else(|| options.servers.clone(), |plane| vec![plane.process]);
    let table = Table::against(options.against.as_deref())?;
    let mut load = Load { options, target, servers, table };
    load.furnish().await?;
    load.writes_and_reads().await?;
    load.lists_and_watches().await?;
    load.many().await?;
    match &options.save {
        Some(path) => load.table.save(path),
        None => Ok(()),
    }
}

impl Load<'_> {
    /// The namespace with the account of its pods, and the pods that are read and patched.
    async fn furnish(&self) -> Result<(), Failed> {
        let mut connection = self.target.connect().await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        for (path, object) in
            [("/api/v1/namespaces".to_owned(), namespace), (path("serviceaccounts"), account)]
        {
            match connection.send(Ask::post(path, &object)).await {
                Err(e) if !e.to_string().contains("AlreadyExists") => return Err(e),
                _ => {}
            }
        }
        send(&self.target, 4, PATCHED, |n| Ask::post(path("pods"), &pod(&format!("one-{n}"), n, 0))).await?;
        Ok(())
    }

    async fn writes_and_reads(&mut self) -> Result<(), Failed> {
        let (run, many) = (std::process::id(), self.options.connections);
        let number = Arc::new(AtomicUsize::new(0));
        let map = move |_| {
            let n = number.fetch_add(1, Ordering::Relaxed);
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("map-{run}-{n}")}, "data": {"key": "value"}});
            Ask::post(path("configmaps"), &map)
        };
        self.requests("create-configmap", many, 20_000, map.clone()).await?;
        let number = Arc::new(AtomicUsize::new(0));
        let new = move |_| {
            let n = number.fetch_add(1, Ordering::Relaxed);
            Ask::post(path("pods"), &pod(&format!("pod-{run}-{n}"), n, 0))
        };
        self.requests("create-pod", many, 10_000, new).await?;
        self.requests("get-pod", many, 40_000, |_| Ask::get(path("pods/one-0"))).await?;
        let status = |n: usize| {
            let patch = json!({"status": {"message": format!("at {n} {:?}", std::time::Instant::now())}});
            let path = path(&format!("pods/one-{}/status", n % PATCHED));
            Ask::patch(path, "application/strategic-merge-patch+json", &patch)
        };
        self.requests("patch-pod-status", many, 10_000, status).await?;
        self.requests("create-configmap-alone", 1, 2_000, map).await
    }

    /// One work of requests: a round to warm up, then those that count.
    async fn requests(
        &mut self,
        name: &str,
        connections: usize,
        count: usize,
        ask: impl Fn(usize) -> Ask + Clone + Send + Sync + 'static,
    ) -> Result<(), Failed> {
        if !self.options.wants(name) {
            return Ok(());
        }
        let count = self.options.count(count);
        send(&self.target, connections, count.div_ceil(10), ask.clone()).await?;
        let (mut rates, mut cpus, mut p50s, mut p99s) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.runs.max(1) {
            let before = cpu_seconds(&self.servers)?;
            let Seen { took, mut times, .. } = send(&self.target, connections, count, ask.clone()).await?;
            cpus.push((cpu_seconds(&self.servers)? - before) * 1000.0 / count as f64);
            rates.push(count as f64 / took.as_secs_f64());
            p50s.push(percentile(&mut times, 0.5));
            p99s.push(percentile(&mut times, 0.99));
        }
        self.table.row(format!("{name}: per s"), median(rates));
        self.table.row(format!("{name}: server CPU s per 1,000"), median(cpus));
        self.table.row(format!("{name}: p50 ms"), median(p50s));
        self.table.row(format!("{name}: p99 ms"), median(p99s));
        Ok(())
    }

    async fn lists_and_watches(&mut self) -> Result<(), Failed> {
        let wanted = ["list-5000", "list-5000-pages", "watch", "watch-paced"];
        if !wanted.iter().any(|work| self.options.wants(work)) {
            return Ok(());
        }
        let pods = self.options.count(5000);
        self.fill("kube-system", 0, pods, PADDING_BYTES).await?;
        self.list("list-5000", "/api/v1/namespaces/kube-system/pods", 20).await?;
        if self.options.wants("list-5000-pages") {
            self.pages(pods).await?;
        }
        if !self.options.wants("watch") && !self.options.wants("watch-paced") {
            return Ok(());
        }
        self.fill(NAMESPACE, 0, pods, WATCHED_PADDING_BYTES).await?;
        if self.options.wants("watch") {
            let (mut rates, mut cpus) = (Vec::new(), Vec::new());
            for _ in 0..self.options.runs.max(1) {
                let count = self.options.count(1000);
                let Watched { events_per_second, cpu_per_thousand, .. } =
                    watches::watch(&self.target, &self.servers, count, pods, None).await?;
                rates.push(events_per_second);
                cpus.push(cpu_per_thousand);
            }
            self.table.row("watch: events per s to 100 watchers".to_owned(), median(rates));
            self.table.row("watch: server CPU s per 1,000 events".to_owned(), median(cpus));
        }
        if self.options.wants("watch-paced") {
            let (count, pace) = (self.options.count(1000), Some(Duration::from_millis(10)));
            let seen = watches::watch(&self.target, &self.servers, count, pods, pace).await?;
            self.table.row("watch-paced: p99 ms from answer to event".to_owned(), seen.delay_p99_ms);
            self.table.row("watch-paced: server CPU s per 1,000 events".to_owned(), seen.cpu_per_thousand);
        }
        Ok(())
    }

    /// Pods to be listed or watched, in a namespace that has an account for them or is made so.
    async fn fill(&self, namespace: &str, from: usize, count: usize, padding: usize) -> Result<(), Failed> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        match self.target.connect().await?.send(Ask::post(accounts, &account)).await {
            Err(e) if !e.to_string().contains("AlreadyExists") => return Err(e),
            _ => {}
        }
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let ask = move |n| {
            let number = from + n;
            Ask::post(pods.clone(), &pod(&format!("listed-{number}"), number, padding))
        };
        send(&self.target, self.options.connections, count, ask).await?;
        Ok(())
    }

    async fn list(&mut self, name: &str, path: &str, count: usize) -> Result<(), Failed> {
        if !self.options.wants(name) {
            return Ok(());
        }
        let ask = {
            let path = path.to_owned();
            move |_| Ask::get(path.clone())
        };
        send(&self.target, 1, 2, ask.clone()).await?;
        let before = cpu_seconds(&self.servers)?;
        let Seen { mut times, body, .. } = send(&self.target, 1, count, ask).await?;
        let cpu = (cpu_seconds(&self.servers)? - before) / count as f64;
        self.table.row(format!("{name}: MB"), body as f64 / 1e6);
        self.table.row(format!("{name}: ms"), percentile(&mut times, 0.5));
        self.table.row(format!("{name}: server CPU s each"), cpu);
        Ok(())
    }

    async fn pages(&mut self, pods: usize) -> Result<(), Failed> {
        let mut connection = self.target.connect().await?;
        let (rounds, start) = (5, std::time::Instant::now());
        let before = cpu_seconds(&self.servers)?;
        for _ in 0..rounds {
            let (mut token, mut seen) = (String::new(), 0);
            loop {
                let path = format!("/api/v1/namespaces/kube-system/pods?limit=500&continue={token}");
                let body = connection.send(Ask::get(path)).await?;
                let list: serde_json::Value = serde_json::from_slice(&body)?;
                seen += list["items"].as_array().map_or(0, Vec::len);
                match list["metadata"]["continue"].as_str().filter(|t| !t.is_empty()) {
                    Some(next) => next.clone_into(&mut token),
                    None => break,
                }
            }
            if seen < pods {
                return Err(format!("pages gave {seen} of {pods} pods").into());
            }
        }
        let cpu = (cpu_seconds(&self.servers)? - before) / f64::from(rounds);
        let took = start.elapsed().as_secs_f64() * 1e3 / f64::from(rounds);
        self.table.row("list-5000-pages: ms (with this client's reading)".to_owned(), took);
        self.table.row("list-5000-pages: server CPU s each".to_owned(), cpu);
        Ok(())
    }

    /// What 50,000 pods take.
    async fn many(&mut self) -> Result<(), Failed> {
        if !self.options.wants("many") {
            return Ok(());
        }
        let pods = self.options.count(50_000);
        let mut connection = self.target.connect().await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "many"}});
        connection.send(Ask::post("/api/v1/namespaces", &namespace)).await?;
        self.fill("many", 0, pods, requests::PADDING_BYTES).await?;
        if !self.servers.is_empty() {
            self.table
                .row("many: MB resident with 50,000 pods".to_owned(), resident_megabytes(&self.servers)?);
        }
        let path = "/api/v1/namespaces/many/pods";
        let ask = move |_| Ask::get(path);
        let before = cpu_seconds(&self.servers)?;
        let Seen { mut times, body, .. } = send(&self.target, 1, 5, ask).await?;
        let cpu = (cpu_seconds(&self.servers)? - before) / 5.0;
        self.table.row("list-50000: MB".to_owned(), body as f64 / 1e6);
        self.table.row("list-50000: ms".to_owned(), percentile(&mut times, 0.5));
        self.table.row("list-50000: server CPU s each".to_owned(), cpu);
        if !self.servers.is_empty() {
            self.table.row("many: MB resident after lists".to_owned(), resident_megabytes(&self.servers)?);
        }
        Ok(())
    }
}
