//! An agent over the embedded runtime: real processes with volumes, probes, hooks, logs and exec, ended in order and taken over by a
//! new agent.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kubewright_core::node_api::{ContainerRef, ExecOptions, LogOptions, NodeApi};
use kubewright_core::streams::ExecOutput;
use kubewright_core::{ContentType, SystemClock};
use kubewright_node::{NodeAgent, NodeHub};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{CancellationToken, Informers};
use kubewright_runtime::embedded::{self, EmbeddedConfig, EmbeddedRuntime, Isolation};
use kubewright_runtime::images::ImageBuilder;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const IMAGE: &str = "localhost/tools:1";
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    embedded::init();
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a tokio runtime");
    let mut failed = false;
    for (level, network) in [(Isolation::Root, "127.72.1.0"), (Isolation::Process, "127.72.2.0")] {
        let result = runtime.block_on(all(level, network));
        println!("--- {level:?}: {result:?}");
        failed |= result.is_err();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn all(level: Isolation, network: &str) -> Outcome {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut bed = Bed::new(dir.path(), level, network).await?;
    println!("isolation: {:?}", bed.runtime.isolation());
    bed.volumes_and_logs().await?;
    bed.probes_restart().await?;
    bed.ends_in_order().await?;
    bed.taken_over().await?;
    bed.stop().await;
    bed.runtime.shutdown().await;
    Ok(())
}

struct Bed {
    api: FakeApi,
    pods: Api<Pod>,
    runtime: EmbeddedRuntime,
    root: std::path::PathBuf,
    agent: Option<(NodeAgent, CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Bed {
    async fn new(dir: &Path, level: Isolation, network: &str) -> Result<Self, String> {
        let clock = Arc::new(SystemClock);
        let config = EmbeddedConfig {
            pod_network: network.parse().map_err(|_| "no address".to_owned())?,
            isolation: level,
            cgroup_parent: format!("kubewright-node-{}", std::process::id()),
            ..EmbeddedConfig::new(dir.join("runtime"))
        };
        let said = |e: kubewright_runtime::Error| e.to_string();
        let runtime = EmbeddedRuntime::open(config, clock.clone()).await.map_err(said)?;
        let mut image = ImageBuilder::new().directory("/tmp", 0o1777);
        for tool in ["sh", "cat", "sleep", "rm"] {
            let path = ["/bin", "/usr/bin"].iter().map(|d| Path::new(d).join(tool)).find(|p| p.is_file());
            let path = path.ok_or_else(|| format!("this machine has no {tool}"))?;
            image = image.program(&format!("/bin/{tool}"), path).map_err(said)?;
        }
        runtime.images().build(image.cmd(["sh"]), IMAGE).await.map_err(said)?;
        let api = FakeApi::with_clock(clock);
        let pods = Api::namespaced(api.client(), "n");
        let mut bed = Bed { api, pods, runtime, root: dir.join("node"), agent: None };
        bed.start();
        Ok(bed)
    }

    fn start(&mut self) {
        let hub = NodeHub::new(&Informers::new(self.api.client()), Arc::new(SystemClock));
        let agent = NodeAgent::builder("node-1", hub)
            .runtime(Arc::new(self.runtime.clone()))
            .images(Arc::new(self.runtime.clone()))
            .root_dir(&self.root)
            .build()
            .expect("an agent");
        let cancel = CancellationToken::new();
        let (run, token) = (agent.clone(), cancel.clone());
        let task = tokio::spawn(async move { run.run(token).await });
        self.agent = Some((agent, cancel, task));
    }

    async fn stop(&mut self) {
        if let Some((_, cancel, task)) = self.agent.take() {
            cancel.cancel();
            let _ = task.await;
        }
    }

    async fn create(&self, name: &str, mut spec: Value) -> Result<ContainerRef, String> {
        spec["nodeName"] = json!("node-1");
        let pod =
            json!({"metadata": {"name": name, "namespace": "n", "finalizers": ["test/hold"]}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).map_err(|e| e.to_string())?;
        let pod = self.pods.create(&pod).await.map_err(|e| e.to_string())?;
        Ok(ContainerRef {
            namespace: "n".to_owned(),
            pod: name.to_owned(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            container: "c".to_owned(),
        })
    }

    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let mut last = Value::Null;
        for _ in 0..1000 {
            let pod = self.pods.get_opt(name).await.map_err(|e| e.to_string())?;
            last = pod.map_or(Value::Null, |p| serde_json::to_value(&*p).unwrap_or_default());
            if wanted(&last) {
                return Ok(last);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("{name} was never {what}: {:#}", last["status"]))
    }

    fn agent(&self) -> &NodeAgent {
        &self.agent.as_ref().expect("an agent").0
    }

    async fn log(&self, target: &ContainerRef, options: LogOptions) -> Result<String, String> {
        let stream = self.agent().logs(target.clone(), options).await.map_err(|e| e.to_string())?;
        let chunks: Vec<_> = stream.collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|c| c.unwrap_or_default()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn exec(&self, target: &ContainerRef, script: &str) -> Result<String, String> {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let options = ExecOptions { command, stdout: true, stderr: true, ..ExecOptions::default() };
        let mut session = self.agent().exec(target.clone(), options).await.map_err(|e| e.to_string())?;
        let mut text = String::new();
        while let Some(output) = session.output.next().await {
            match output {
                ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                    text.push_str(&String::from_utf8_lossy(&bytes))
                }
                ExecOutput::Exit(Ok(0)) => return Ok(text),
                ExecOutput::Exit(other) => return Err(format!("exec ended with {other:?}: {text}")),
            }
        }
        Err(format!("exec ended without an exit code: {text}"))
    }

    async fn remove(&self, name: &str) -> Outcome {
        self.pods.delete(name, &DeleteOptions::default()).await.map_err(|e| e.to_string())?;
        let ended = |p: &Value| {
            let all = p["status"]["containerStatuses"].as_array();
            all.is_none_or(|a| a.iter().all(|c| c["state"]["terminated"].is_object()))
        };
        self.until(name, "ended", ended).await?;
        let free = json!({"metadata": {"finalizers": null}});
        self.pods.patch(name, ContentType::MergePatch, free).await.map_err(|e| e.to_string())?;
        self.until(name, "gone", Value::is_null).await.map(drop)
    }

    /// Volumes, environment, init containers, logs, exec and the termination message.
    async fn volumes_and_logs(&self) -> Outcome {
        let config: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "cm"}, "data": {"k": "from the map"}}))
                .map_err(|e| e.to_string())?;
        Api::namespaced(self.api.client(), "n").create(&config).await.map_err(|e| e.to_string())?;
        // Without a root of its own, a container finds its volumes below its image.
        let at = "cd \"${KUBEWRIGHT_ROOTFS:-/}\"; ";
        let mounts = json!([{"name": "work", "mountPath": "/work"}, {"name": "cm", "mountPath": "/etc/cm"}]);
        let sh = |script: &str| json!(["sh", "-c", format!("{at}{script}")]);
        let target = self.create("job", json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "work", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}],
            "initContainers": [{"name": "i", "image": IMAGE, "volumeMounts": mounts, "command": sh("echo made > work/file")}],
            "containers": [{"name": "c", "image": IMAGE, "volumeMounts": mounts,
                "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "SEEN", "value": "$(NAME)!"}],
                "command": sh("cat work/file etc/cm/k; echo; echo $SEEN; echo the end > dev/termination-log; exit 7")}],
        })).await?;
        let pod = self.until("job", "failed", |p| p["status"]["phase"] == "Failed").await?;
        let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        same("exit code", &end["exitCode"], &json!(7))?;
        same("message", &end["message"], &json!("the end\n"))?;
        same(
            "log",
            &self.log(&target, LogOptions::default()).await?,
            &"made\nfrom the map\njob!\n".to_owned(),
        )?;
        let tail = LogOptions { tail_lines: Some(1), ..LogOptions::default() };
        same("tail", &self.log(&target, tail).await?, &"job!\n".to_owned())?;
        self.remove("job").await
    }

    /// A readiness probe that waits for a file, and a liveness probe that fails once the file is gone.
    async fn probes_restart(&self) -> Outcome {
        let at = "cd \"${KUBEWRIGHT_ROOTFS:-/}\"; ";
        let check = json!({"exec": {"command": ["sh", "-c", format!("{at}cat tmp/well")]}, "periodSeconds": 1, "failureThreshold": 1});
        let mut liveness = check.clone();
        liveness["initialDelaySeconds"] = json!(3);
        let target = self.create("probed", json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": IMAGE, "readinessProbe": check, "livenessProbe": liveness,
                "command": ["sh", "-c", "echo up; sleep 1000"]}],
        })).await?;
        self.until("probed", "running", |p| p["status"]["containerStatuses"][0]["started"] == true).await?;
        self.exec(&target, &format!("{at}echo x > tmp/well")).await?;
        let ready = |p: &Value| p["status"]["containerStatuses"][0]["ready"] == true;
        self.until("probed", "ready", ready).await?;
        self.exec(&target, &format!("{at}rm tmp/well")).await?;
        let restarted = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1);
        self.until("probed", "restarted", restarted).await?;
        let previous = LogOptions { previous: true, ..LogOptions::default() };
        same("previous log", &self.log(&target, previous).await?, &"up\n".to_owned())?;
        self.remove("probed").await
    }

    /// `preStop` comes before the signal, and the signal is seen by the program.
    async fn ends_in_order(&self) -> Outcome {
        let work = self.root.join("shared");
        std::fs::create_dir_all(&work).map_err(|e| e.to_string())?;
        let line = |word: &str| format!("cd \"${{KUBEWRIGHT_ROOTFS:-/}}\"; echo {word} >> shared/order");
        let script = format!(
            "trap '{}; exit 0' TERM; {}; while true; do sleep 0.1; done",
            line("term"),
            line("start")
        );
        self.create("ordered", json!({
            "volumes": [{"name": "v", "hostPath": {"path": work, "type": "Directory"}}],
            "containers": [{"name": "c", "image": IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/shared"}],
                "command": ["sh", "-c", script],
                "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", line("stop")]}}}}],
        })).await?;
        for _ in 0..200 {
            if work.join("order").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.remove("ordered").await?;
        let order = std::fs::read_to_string(work.join("order")).map_err(|e| e.to_string())?;
        same("order", &order, &"start\nstop\nterm\n".to_owned())
    }

    /// A new agent finds the containers of the old one and leaves them alone.
    async fn taken_over(&mut self) -> Outcome {
        let target = self
            .create(
                "kept",
                json!({"terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", "echo once; sleep 1000"]}]}),
            )
            .await?;
        let ready = |p: &Value| p["status"]["containerStatuses"][0]["ready"] == true;
        let before = self.until("kept", "ready", ready).await?;
        self.stop().await;
        self.start();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = self.until("kept", "ready", ready).await?;
        same("status", &before["status"]["containerStatuses"], &after["status"]["containerStatuses"])?;
        same("log", &self.log(&target, LogOptions::default()).await?, &"once\n".to_owned())?;
        self.remove("kept").await
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Outcome {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}
