//! The CRI client on a real containerd with runc and CNI plugins, which the test starts for itself.
//!
//! Everything happens in a network and mount namespace of its own: the test runs itself once more inside, containerd beside it, and nothing
//! of it is seen outside or stays.
#![cfg(feature = "cri")]

mod node;

use futures::{SinkExt as _, StreamExt as _};
use kubewright_core::streams::ExecOutput;
use kubewright_runtime::conformance::{Capabilities, Subject, run};
use kubewright_runtime::port::{
    ContainerConfig, ContainerFilter, ContainerMetadata, PodSandboxConfig, PodSandboxMetadata, Resources,
    StreamOptions,
};
use kubewright_runtime::{ContainerRuntime as _, CriClient, ImageService as _, Reason};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const INSIDE: &str = "KUBEWRIGHT_CONTAINERD_FOLDER";

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
    if !namespaces.is_ok_and(|output| output.status.success()) {
        return Some("namespaces can't be made (not root?)".into());
    }
    None
}

#[test]
fn containerd_conforms() {
    if let Some(why) = missing() {
        return println!("skipped: a real containerd because {why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["inside", "--exact", "--nocapture"])
        .env(INSIDE, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "the test inside the namespaces failed, see above");
}

/// What runs inside. Does nothing where the test was not started as it.
#[test]
fn inside() {
    let Some(folder) = std::env::var_os(INSIDE) else { return };
    let node = node::Node::start(Path::new(&folder));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = CriClient::connect(&node.endpoint()).await.unwrap();
        println!("{:?}", client.version().await.unwrap());
        conforms(&client, Path::new(&folder)).await;
        survives_a_restart(&client, node).await;
    });
}

async fn conforms(client: &CriClient, folder: &Path) {
    let subject = Subject {
        runtime: Arc::new(client.clone()),
        images: Arc::new(client.clone()),
        capabilities: Capabilities { processes: true, isolated: true, users: true, stats: true },
        image: node::BUSYBOX.into(),
        echo_server: ["sh", "-c", "exec nc -ll -p $0 -e cat"].map(Into::into).to_vec(),
        directory: folder.join("pods"),
    };
    let report = run(Arc::new(move || {
        let subject = subject.clone();
        Box::pin(async move { subject })
    }))
    .await;
    println!("{report}");
    assert!(report.is_success(), "{report}");
}

fn pod() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: "restart".into(),
            uid: "restart".into(),
            namespace: "default".into(),
            attempt: 0,
        },
        hostname: "restart".into(),
        log_directory: "/tmp".into(),
        ..PodSandboxConfig::default()
    }
}

/// containerd dies and comes back: the client finds it again, and the container went on.
async fn survives_a_restart(client: &CriClient, mut node: node::Node) {
    let config = ContainerConfig {
        metadata: ContainerMetadata { name: "main".into(), attempt: 0 },
        image: node::BUSYBOX.into(),
        command: vec!["sleep".into(), "1000".into()],
        ..ContainerConfig::default()
    };
    let sandbox = client.run_pod_sandbox(&pod(), "").await.unwrap();
    let id = client.create_container(&sandbox, &config, &pod()).await.unwrap();
    client.start_container(&id).await.unwrap();
    let limits = Resources { memory_limit_bytes: 64 << 20, cpu_shares: 512, ..Resources::default() };
    client.update_container_resources(&id, &limits).await.unwrap();
    refused_port(client, &sandbox).await;
    let before = client.container_status(&id).await.unwrap();
    node.kill();
    let error = client.version().await.unwrap_err();
    assert_eq!(error.reason(), Reason::TryAgain, "{error}");
    assert!(error.is_retryable());
    node.restart();
    let after = client.container_status(&id).await.unwrap();
    assert_eq!(before, after);
    let options =
        StreamOptions { command: vec!["hostname".into()], stdout: true, ..StreamOptions::default() };
    let mut session = client.exec(&id, options).await.unwrap();
    assert_eq!(session.output.next().await, Some(ExecOutput::Stdout("restart\n".into())));
    assert_eq!(session.output.next().await, Some(ExecOutput::Exit(Ok(0))));
    client.remove_pod_sandbox(&sandbox).await.unwrap();
    client.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(client.list_containers(ContainerFilter::default()).await.unwrap().is_empty());
    let error = client.pull_image("127.0.0.1:1/nothing:1", None).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::ImagePull | Reason::NotFound | Reason::TryAgain), "{error}");
}

/// Nothing listens on the port.
async fn refused_port(client: &CriClient, sandbox: &str) {
    let mut session = client.port_forward(sandbox, 9).await.unwrap();
    // The connection may be gone before this is sent.
    let _ = session.sender.send(Ok("ping".into())).await;
    let heard = tokio::time::timeout(Duration::from_secs(20), session.receiver.next()).await.unwrap();
    assert!(!matches!(heard, Some(Ok(_))), "{heard:?}");
}
