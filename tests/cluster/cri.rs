//! The demo on a real containerd with runc and the CNI bridge plugin, which the test starts for itself.
//!
//! As in the tests of the CRI client, everything happens in a network and mount namespace of its own.

#[path = "../../runtime/tests/containerd/node.rs"]
#[allow(dead_code, reason = "the tests of the client also kill it")]
mod node;

use crate::common::{Folder, Launch};
use crate::{client, delete_demo};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "KUBEWRIGHT_CLUSTER_CONTAINERD";

/// Why there can be no real containerd here.
fn missing() -> Option<String> {
    for program in ["containerd", "ctr", "runc", "unshare", "ip", "busybox"] {
        if Command::new(program).arg("--help").output().is_err() {
            return Some(format!("`{program}` can't be run"));
        }
    }
    if !Path::new(node::PLUGINS).join("bridge").exists() {
        return Some(format!("{} has no CNI plugins", node::PLUGINS));
    }
    let namespaces = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    let made = namespaces.is_ok_and(|output| output.status.success());
    (!made).then(|| "namespaces can't be made (not root?)".into())
}

#[test]
fn the_demo_runs_on_containerd() {
    if let Some(why) = missing() {
        return println!("skipped: the demo on a real containerd because {why}");
    }
    let folder = Folder::new();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["cri::inside", "--exact", "--nocapture"])
        .env(INSIDE, folder.path())
        .status();
    assert!(status.expect("it runs").success(), "the test inside the namespaces failed, see above");
}

/// What runs inside. Does nothing where the test was not started as it.
#[test]
fn inside() {
    let Some(folder) = std::env::var_os(INSIDE) else { return };
    let folder = Path::new(&folder);
    let node = node::Node::start(folder);
    let socket = node.endpoint();
    let launch = || Launch::new(folder).args(&["--runtime", &format!("cri={socket}")]);
    for round in ["new", "again", "and again"] {
        let run = launch().args(&["--once"]).finish();
        assert_eq!(run.code, Some(0), "{round}: {run:?}");
        assert_eq!(run.stdout.matches("1/1").count(), 3, "{round}: all are ready: {run:?}");
        assert_eq!(run.stdout.matches("says: Hello from web-").count(), 3, "{round}: {run:?}");
    }
    let cluster = launch().spawn().answering();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(delete_demo(&client(&cluster.kubeconfig())));
    assert_eq!(cluster.end(Signal::SIGTERM), Some(0));
}
