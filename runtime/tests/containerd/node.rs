//! One node: containerd with its folder, a CNI network, and images made on the spot.

use kubewright_runtime::images::ImageBuilder;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian puts the CNI plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";
pub(crate) const BUSYBOX: &str = "docker.io/library/busybox:latest";
const PAUSE: &str = "registry.k8s.io/pause:3.9";

/// The applets that the tests use.
const APPLETS: [&str; 16] = [
    "sh", "cat", "sleep", "id", "hostname", "touch", "grep", "ls", "ps", "nc", "echo", "true", "test", "env",
    "pwd", "wc",
];

pub(crate) struct Node {
    folder: PathBuf,
    process: Option<Child>,
}

/// Runs a program to its good end.
fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
}

impl Node {
    /// Starts containerd in this network namespace, with the images imported.
    pub(crate) fn start(folder: &Path) -> Node {
        must("ip", &["link", "set", "lo", "up"]);
        let mut node = Node { folder: folder.to_owned(), process: None };
        std::fs::create_dir_all(node.path("cni")).unwrap();
        std::fs::write(node.path("config.toml"), node.config()).unwrap();
        std::fs::write(node.path("cni/10-pods.conflist"), node.network()).unwrap();
        node.spawn();
        let busybox = "/bin/busybox";
        let mut tools = ImageBuilder::new().program(busybox, busybox).unwrap().cmd(["sh"]);
        tools = tools.env("PATH", "/bin").directory("/tmp", 0o1777).directory("/etc", 0o755);
        for applet in APPLETS {
            tools = tools.link(&format!("/bin/{applet}"), "busybox");
        }
        let users = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        tools = tools.content("/etc/passwd", users, 0o644);
        tools = tools.content("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644);
        let pause = ImageBuilder::new().program(busybox, busybox).unwrap();
        let pause = pause.entrypoint([busybox, "sleep", "1000000"]);
        node.import("busybox", BUSYBOX, &tools);
        node.import("pause", PAUSE, &pause);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.text("containerd.sock"))
    }

    fn config(&self) -> String {
        let (root, state, opt) = (self.text("root"), self.text("state"), self.text("opt"));
        let (socket, cni) = (self.text("containerd.sock"), self.text("cni"));
        format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
        )
    }

    fn network(&self) -> String {
        let addresses = self.text("addresses");
        format!(
            r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,
"ipam":{{"type":"host-local","dataDir":"{addresses}","ranges":[[{{"subnet":"10.245.7.0/24"}}]]}}}}]}}"#
        )
    }

    fn spawn(&mut self) {
        let log = std::fs::File::create(self.path("containerd.log")).unwrap();
        let process = Command::new("containerd")
            .args(["-c", &self.text("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let until = Instant::now() + Duration::from_secs(30);
        while !self.ctr(&["version"]) {
            let log = std::fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
            assert!(Instant::now() < until, "containerd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ctr(&self, arguments: &[&str]) -> bool {
        let output =
            Command::new("ctr").args(["-a", &self.text("containerd.sock")]).args(arguments).output().unwrap();
        output.status.success()
    }

    fn import(&self, folder: &str, name: &str, image: &ImageBuilder) {
        let layout = self.path(folder);
        image.write_layout(&layout).unwrap();
        let index = layout.join("index.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
        json["manifests"][0]["annotations"]["io.containerd.image.name"] = name.into();
        std::fs::write(&index, json.to_string()).unwrap();
        let archive = self.text(&format!("{folder}.tar"));
        must("tar", &["-C", &layout.display().to_string(), "-cf", &archive, "."]);
        assert!(self.ctr(&["-n", "k8s.io", "images", "import", &archive]), "{name} can't be imported");
    }

    /// Kills containerd at once; its containers go on.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        self.spawn();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            println!("containerd's log ends:\n{}", log.get(from..).unwrap_or(&log));
        }
    }
}
