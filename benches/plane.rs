//! How fast a plane starts, and what it costs to do nothing: `cargo bench --bench plane`.
//!
//! Medians of several starts: in process on memory, and the composition of the example cluster (redb, TLS, keys) without its nodes.

mod common;

use common::{cpu_seconds, median, milliseconds, resident_megabytes, row};
use k8s_openapi::api::core::v1::Namespace;
use kubewright::client::Api;
use kubewright::store::{MemoryStore, RedbStore};
use kubewright::{Builder, ControlPlane, Https, bundles, parts};
use std::path::Path;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STARTS: usize = 11;
const SERVERS: usize = 1000;
/// What upstream's own way to test controllers (etcd and kube-apiserver as processes) takes.
const ENVTEST_START_MS: f64 = 7000.0;
const IDLE_SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);

fn in_memory() -> Builder {
    ControlPlane::builder().with(parts::store(MemoryStore::new())).with(bundles::kubernetes())
}

fn on_disk(folder: &Path) -> Builder {
    let store = RedbStore::open(folder.join("store.redb")).expect("a store");
    ControlPlane::builder()
        .with(parts::store(store))
        .with(bundles::kubernetes())
        .with(parts::keys(folder.join("keys")))
        .with(Https::on("127.0.0.1:0".parse().expect("an address")))
}

/// The time from before the composition until the API answers; the plane is shut down afterwards.
async fn start(compose: impl FnOnce() -> Builder) -> f64 {
    let start = Instant::now();
    let plane = compose().build().expect("a whole composition").start().await.expect("it starts");
    let took = milliseconds(start.elapsed());
    plane.shutdown().await.expect("it ends");
    took
}

#[tokio::main]
async fn main() {
    let mut memory = Vec::new();
    for _ in 0..STARTS {
        memory.push(start(in_memory).await);
    }
    row("first start in process, memory", memory[0], "ms", None);
    row("start in process, memory", median(memory), "ms", None);
    let (mut fresh, mut again) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("keys")).expect("a folder for keys");
        fresh.push(start(|| on_disk(folder.path())).await);
        again.push(start(|| on_disk(folder.path())).await);
    }
    row("start with redb and TLS, new folder", median(fresh), "ms", None);
    row("start with redb and TLS, again", median(again), "ms", None);
    many().await;
    idle().await;
}

/// API servers beside each other in one process, as a test suite has them: each with the built-in kinds and a store of its own.
async fn many() {
    let before = resident_megabytes();
    let (mut planes, mut times) = (Vec::new(), Vec::new());
    for _ in 0..SERVERS {
        let start = Instant::now();
        let server = ControlPlane::builder().with(parts::store(MemoryStore::new())).with(bundles::kinds());
        planes.push(server.build().expect("a whole composition").start().await.expect("it starts"));
        times.push(milliseconds(start.elapsed()));
    }
    row("start of an API server in process, memory", median(times), "ms", Some(ENVTEST_START_MS));
    let each = (resident_megabytes() - before) / SERVERS as f64;
    row("each of 1,000 API servers in one process", each, "MB", None);
    for plane in planes {
        let namespaces: Api<Namespace> = Api::all(plane.client().clone());
        namespaces.get("default").await.expect("each of them answers");
        plane.shutdown().await.expect("it ends");
    }
}

async fn idle() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("keys")).expect("a folder for keys");
    let plane = on_disk(folder.path()).build().expect("a composition").start().await.expect("it starts");
    tokio::time::sleep(IDLE_SETTLE).await;
    let before = cpu_seconds();
    tokio::time::sleep(IDLE).await;
    let share = (cpu_seconds() - before) / IDLE.as_secs_f64() * 100.0;
    row("idle, share of a core", share, "%", None);
    row("idle, resident (after all of the above)", resident_megabytes(), "MB", Some(279.0 + 142.0));
    plane.shutdown().await.expect("it ends");
}
