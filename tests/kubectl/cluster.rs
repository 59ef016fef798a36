//! The example cluster for kubectl, and an image for its pods.

use crate::common::{Folder, Launch, Running, left_of};
use kubewright::runtime::images::ImageBuilder;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE: &str = "localhost/busybox:1";

/// A running cluster, ended when dropped.
pub(crate) struct Cluster {
    running: Running,
    kubeconfig: PathBuf,
    // After the process, whose containers it ends.
    folder: Folder,
}

impl Cluster {
    /// Whether pods can have a shell.
    pub(crate) fn has_shell() -> bool {
        ["/bin/busybox", "/usr/bin/busybox"].iter().any(|p| Path::new(p).exists())
    }

    /// Starts the example with one object instead of its demo, and waits until the API answers.
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let one = folder.write("one.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: started\n");
        build_image(&folder.path().join("busybox"));
        let image = format!("{IMAGE}={}", folder.path().join("busybox").display());
        let launch =
            Launch::new(folder.path()).args(&["--nodes", "2", "--manifest", &one, "--image", &image]);
        let running = launch.spawn().answering();
        Cluster { kubeconfig: running.kubeconfig(), running, folder }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The name of an image with a shell that the nodes have.
    pub(crate) fn image(&self) -> &'static str {
        IMAGE
    }

    /// The same image by its address on the disk.
    pub(crate) fn image_file(&self) -> String {
        format!("file://{}", self.folder.path().join("busybox").display())
    }

    /// A folder for files of a check.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends the cluster, and tells what it left behind on the machine.
    pub(crate) fn end(self) -> Vec<String> {
        let Cluster { running, folder, .. } = self;
        let code = running.end(Signal::SIGINT);
        let mut left = left_of(folder.path());
        if code != Some(0) {
            left.push(format!("it ended with {code:?}"));
        }
        left
    }

    pub(crate) fn log_tail(&self) -> String {
        self.running.log_tail()
    }
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
