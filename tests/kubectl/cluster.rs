//! The example cluster as a child process, and an image for its pods.

use kubewright::runtime::images::ImageBuilder;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running cluster, ended when dropped.
pub(crate) struct Cluster {
    child: Child,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Whether pods can have a shell.
    pub(crate) fn has_shell() -> bool {
        ["/bin/busybox", "/usr/bin/busybox"].iter().any(|p| Path::new(p).exists())
    }

    /// Starts the example with one-second patience for nothing: it waits until the API answers.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let empty = folder.path().join("nothing.yaml");
        std::fs::write(&empty, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: started\n")
            .expect("written");
        let child = Command::new(program())
            .args(["--data", &folder.path().join("data").display().to_string()])
            .args(["--listen", "127.0.0.1:0", "--nodes", "2"])
            .args(["--kubeconfig", &folder.path().join("kubeconfig").display().to_string()])
            .args(["--manifest", &empty.display().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the example cluster is built");
        let cluster = Cluster { child, folder };
        let start = Instant::now();
        while !cluster.kubeconfig().exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "no kubeconfig: {}", cluster.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
        build_image(&cluster.folder.path().join("busybox"));
        cluster
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        // The path lives as long as the folder; leaking it once keeps the call sites short.
        Box::leak(self.folder.path().join("kubeconfig").into_boxed_path())
    }

    /// The name of an image with a shell, as pods name it.
    pub(crate) fn image(&self) -> String {
        format!("file://{}", self.folder.path().join("busybox").display())
    }

    /// A folder for files of a check.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's binary, built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    test.parent().and_then(Path::parent).expect("target/<profile>").join("examples/cluster")
}

/// An image with busybox and its applets.
fn build_image(path: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|p| Path::new(p).exists());
    let busybox = busybox.expect("busybox is installed (Debian's busybox-static)");
    let mut image = ImageBuilder::new().file("/bin/busybox", *busybox, 0o755).directory("/tmp", 0o1777);
    let applets = Command::new(busybox).arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        image = image.link(&format!("/bin/{applet}"), "/bin/busybox");
    }
    let image = image.env("PATH", "/bin").cmd(["sh"]);
    image.write_layout(path).expect("an image");
}
