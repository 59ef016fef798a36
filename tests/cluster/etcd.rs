//! A real etcd that dies and comes back under a cluster.

use crate::common::{Folder, Launch};
use crate::{client, config_maps, create_map, ready_pods, until};
use k8s_openapi::api::apps::v1::Deployment;
use kubewright::client::Api;
use kubewright::core::ContentType;
use nix::sys::signal::Signal;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// One member, killed when dropped.
struct Etcd {
    process: Child,
    ports: (u16, u16),
}

impl Etcd {
    fn start(folder: &Path, ports: (u16, u16)) -> Self {
        let (own, peer) = (format!("http://127.0.0.1:{}", ports.0), format!("http://127.0.0.1:{}", ports.1));
        let process = Command::new("etcd")
            .args(["--data-dir", &folder.join("etcd").display().to_string()])
            .args(["--listen-client-urls", &own, "--advertise-client-urls", &own])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", ports.0)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "etcd does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Etcd { process, ports }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_outlives_its_etcd() {
    if Command::new("etcd").arg("--version").output().is_err() {
        println!("skipped: a cluster on etcd because etcd is not installed");
        return;
    }
    let folder = Folder::new();
    let etcd = Etcd::start(folder.path(), (free_port(), free_port()));
    let ports = etcd.ports;
    let store = format!("etcd=http://127.0.0.1:{}", ports.0);
    let launch = || Launch::new(folder.path()).args(&["--runtime", "fake", "--store", &store]);
    let cluster = launch().spawn().printed("stays up");
    let client = client(&cluster.kubeconfig());
    ready_pods(&client, 3).await;
    create_map(&client, "before", "there").await.expect("created");

    drop(etcd);
    let start = Instant::now();
    let refused = create_map(&client, "meanwhile", "lost").await.expect_err("nothing keeps it");
    println!("refused after {:?}: {refused}", start.elapsed());
    assert!([500, 503, 504].contains(&refused.code()), "{refused:?}");
    assert!(refused.to_string().contains("etcd") || refused.to_string().contains("store"), "{refused}");

    let etcd = Etcd::start(folder.path(), ports);
    until("a write", async || create_map(&client, "after", "there").await.map_err(|e| e.to_string())).await;
    for name in ["before", "after"] {
        until("a read", async || config_maps(&client).get(name).await.map_err(|e| e.to_string())).await;
    }
    // Controllers, scheduler and nodes have found it again too.
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let more = json!({"spec": {"replicas": 5}});
    deployments.patch("web", ContentType::MergePatch, more).await.expect("scaled");
    ready_pods(&client, 5).await;
    assert_eq!(cluster.end(Signal::SIGTERM), Some(0));
    drop(etcd);
}
