//! A scheduler plugin of one's own: first in the pure scheduler, without any cluster, then in a running plane.
//!
//! It keeps pods off nodes whose label `example.com/rack` is being serviced, and prefers nodes with few pods.

use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright::client::Api;
use kubewright::sched::framework::{CycleContext, Plugin, Points, Verdict};
use kubewright::sched::{Decision, NodeIndex, Profile, QueueOptions, Refusal, Scheduler};
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, bundles, parts};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Racks {
    serviced: &'static str,
}

impl Plugin for Racks {
    fn name(&self) -> &'static str {
        "Racks"
    }

    fn points(&self) -> Points {
        Points::FILTER | Points::SCORE
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let labels = cx.nodes.node(node).and_then(|n| n.metadata.labels.as_ref());
        match labels.and_then(|l| l.get("example.com/rack")) {
            Some(rack) if rack == self.serviced => {
                Err(Refusal::new("node(s) stood in a rack that is being serviced"))
            }
            _ => Ok(()),
        }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        100 - cx.nodes.pod_count(node).min(100) as i64
    }
}

fn node(name: &str, rack: &str) -> Node {
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "500"});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"example.com/rack": rack}},
        "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True",
            "reason": "Example", "message": "", "lastHeartbeatTime": "2030-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
    .expect("a node")
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"schedulerName": "default-scheduler",
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}}))
    .expect("a pod")
}

/// The scheduler is a value: events in, decisions out, no clock and no task.
fn pure() -> Result<(), Box<dyn std::error::Error>> {
    let profile = Profile::defaults("default-scheduler").plugin(Racks { serviced: "b" }).weight("Racks", 2);
    let profile = profile.build().map_err(|errors| format!("{errors:?}"))?;
    let mut scheduler = Scheduler::new(vec![profile], QueueOptions::default(), 7)?;
    let now = jiff::Timestamp::UNIX_EPOCH;
    for n in 0..1000 {
        scheduler.apply_node(Arc::new(node(&format!("node-{n}"), ["a", "b"][n % 2])), now);
    }
    for n in 0..10_000 {
        scheduler.apply_pod(Arc::new(pod(&format!("pod-{n}"))), now);
    }
    let (start, mut bound) = (Instant::now(), 0);
    while let Some(decision) = scheduler.schedule_one(now) {
        let Decision::Bind { pod, node, .. } = decision else { return Err(format!("{decision:?}").into()) };
        assert_eq!(scheduler.nodes().find(&node).map(|n| n.0 % 2), Some(0), "{node} is in the serviced rack");
        scheduler.bound(&pod.key);
        bound += 1;
    }
    println!(
        "{bound} pods on half of 1,000 nodes: {:.0} pods/s",
        f64::from(bound) / start.elapsed().as_secs_f64()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    pure()?;
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(bundles::kinds())
        .with(bundles::controllers())
        .with(parts::scheduler_with(|| Racks { serviced: "b" }))
        .build()?
        .start()
        .await?;
    let nodes = Api::<Node>::all(plane.client().clone());
    for (name, rack) in [("one", "a"), ("two", "b"), ("three", "a")] {
        nodes.create(&node(name, rack)).await?;
    }
    let pods = Api::<Pod>::namespaced(plane.client().clone(), "default");
    for name in ["first", "second"] {
        pods.create(&pod(name)).await?;
        println!("{name} goes to {}", bound_to(&pods, name).await?);
    }
    plane.shutdown().await?;
    Ok(())
}

/// Waits for the scheduler's choice.
async fn bound_to(pods: &Api<Pod>, name: &str) -> Result<String, Box<dyn std::error::Error>> {
    for _ in 0..1000 {
        if let Some(node) = pods.get(name).await?.spec.as_ref().and_then(|s| s.node_name.clone()) {
            return Ok(node);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{name} was never bound").into())
}
