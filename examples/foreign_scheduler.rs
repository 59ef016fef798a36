//! This scheduler on a cluster that it knows by a kubeconfig only, whoever made it.
//!
//! `cargo run --example foreign_scheduler -- KUBECONFIG [NAME]` places the pods whose `spec.schedulerName` is NAME (`kubewright` unless
//! said) until Ctrl-C, beside the cluster's own scheduler or instead of it. Without arguments it makes a cluster to show it on, reaches it
//! over HTTPS, and ends.

use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright::client::{Api, Client, Config, HttpsTransport};
use kubewright::controllers::scheduling;
use kubewright::reconcile::{CancellationToken, Context};
use kubewright::sched::{Profile, QueueOptions, Scheduler};
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, Https, bundles, parts};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

/// Schedules the cluster of a kubeconfig until cancelled. Its informers, bindings and events are ordinary requests over HTTPS.
async fn schedule(file: PathBuf, name: String, cancel: CancellationToken) -> Result<(), Failure> {
    let config = Config::from_kubeconfig(&[file], None)?;
    let client = Client::new(HttpsTransport::new(config)?, Default::default());
    let made = move || {
        let profile = Profile::defaults(&name).build().expect("the default plugins are a whole profile");
        Scheduler::new(vec![profile], QueueOptions::default(), 1).expect("one profile has one name")
    };
    scheduling(made).run(Context::new(client), cancel).await;
    Ok(())
}

fn node(name: &str) -> Result<Node, Failure> {
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name}, "status": {"capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Example", "message": "",
            "lastHeartbeatTime": "2030-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    )?)
}

fn pod(name: &str, scheduler: &str) -> Result<Pod, Failure> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulerName": scheduler, "containers": [{"name": "c", "image": "i"}]}}))?)
}

/// Waits for the scheduler's choice.
async fn bound_to(pods: &Api<Pod>, name: &str) -> Result<String, Failure> {
    for _ in 0..1000 {
        if let Some(node) = pods.get(name).await?.spec.as_ref().and_then(|s| s.node_name.clone()) {
            return Ok(node);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{name} was never bound").into())
}

/// A cluster without a scheduler, its pods placed from outside.
async fn show() -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("kubewright-foreign-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("kubeconfig");
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(Https::on("127.0.0.1:0".parse()?))
        .with(bundles::kinds())
        .with(bundles::controllers())
        .build()?
        .start()
        .await?;
    plane.admin_kubeconfig()?.ok_or("it serves HTTPS")?.write(&file)?;
    let nodes = Api::<Node>::all(plane.client().clone());
    for name in ["one", "two"] {
        nodes.create(&node(name)?).await?;
    }
    let cancel = CancellationToken::new();
    let scheduling = schedule(file, "kubewright".to_owned(), cancel.clone());
    let showing = async {
        let pods = Api::<Pod>::namespaced(plane.client().clone(), "default");
        for name in ["first", "second"] {
            pods.create(&pod(name, "kubewright")?).await?;
            println!("{name} goes to {}", bound_to(&pods, name).await?);
        }
        cancel.cancel();
        Ok::<_, Failure>(())
    };
    let (scheduled, shown) = tokio::join!(scheduling, showing);
    plane.shutdown().await?;
    std::fs::remove_dir_all(&folder)?;
    scheduled.and(shown)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else { return show().await };
    let name = arguments.next().unwrap_or_else(|| "kubewright".to_owned());
    let cancel = CancellationToken::new();
    println!("places the pods of the scheduler {name:?}; Ctrl-C ends it");
    let scheduling = schedule(file.into(), name, cancel.clone());
    tokio::pin!(scheduling);
    tokio::select! {
        result = &mut scheduling => return result,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    cancel.cancel();
    scheduling.await
}
