//! What the keeper of nodes does, over a fake API and a manual clock.

use super::*;
use kubewright_core::ManualClock;
use kubewright_reconcile::client::Api;
use kubewright_reconcile::testing::{FakeApi, converges};
use serde_json::Value;

struct World {
    server: FakeApi,
    clock: Arc<ManualClock>,
    nodes: Api<Node>,
}

async fn world(nodes: &[&str]) -> World {
    let start = Timestamp::from_second(1_767_225_600).expect("a time");
    let clock = Arc::new(ManualClock::new(start));
    let server = FakeApi::with_clock(clock.clone());
    let api = Api::<Node>::all(server.client());
    for name in nodes {
        let node = json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        api.create(&serde_json::from_value(node).expect("a node")).await.expect("created");
    }
    World { nodes: api, server, clock }
}

fn short() -> Controller {
    controller(NodeLifecycleOptions { period: Duration::from_millis(20), ..NodeLifecycleOptions::default() })
}

async fn json_of(nodes: &Api<Node>, name: &str) -> Value {
    serde_json::to_value(&*nodes.get(name).await.expect("a node")).expect("json")
}

async fn renew(server: &FakeApi, name: &str, time: &str) {
    let leases = Api::<Lease>::namespaced(server.client(), LEASES);
    let lease = json!({"metadata": {"name": name}, "spec": {"renewTime": time}});
    leases.create(&serde_json::from_value(lease.clone()).expect("a lease")).await.expect("created");
}

#[tokio::test]
async fn a_silent_node_becomes_unknown_and_is_emptied() {
    let world = world(&["dead", "alive"]).await;
    let pods = Api::<Pod>::namespaced(world.server.client(), "default");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "dead", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    pods.create(&serde_json::from_value(pod).expect("a pod")).await.expect("created");
    let (clock, server) = (world.clock.clone(), world.server.clone());
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        clock.advance(Duration::from_secs(30));
        renew(&server, "alive", "2026-01-01T00:00:30.000000Z").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        clock.advance(Duration::from_secs(15));
    });
    // Two nodes, one pod and one lease are created; then conditions, the pod's mark and the taints are written.
    converges(&world.server, [short()], || world.server.writes() >= 7).await.expect("converges");
    late.await.expect("it ran");
    let dead = json_of(&world.nodes, "dead").await;
    let conditions = dead["status"]["conditions"].as_array().expect("conditions").clone();
    assert_eq!(conditions.len(), 4);
    assert!(conditions.iter().all(|c| c["status"] == "Unknown"), "{conditions:?}");
    let taints: Vec<String> = dead["spec"]["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|t| format!("{}:{}", t["key"].as_str().unwrap_or(""), t["effect"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        taints,
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
    );
    let alive = json_of(&world.nodes, "alive").await;
    assert_eq!(alive["spec"]["taints"], Value::Null);
    assert!(!pods::is_ready(&pods.get("p").await.expect("a pod")));
}

#[tokio::test]
async fn a_node_that_became_ready_loses_its_taints() {
    let world = world(&["n"]).await;
    let taints = json!({"spec": {"taints": [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}]}});
    world.nodes.patch("n", ContentType::MergePatch, taints).await.expect("patched");
    converges(&world.server, [short()], || world.server.writes() >= 3).await.expect("converges");
    let node = json_of(&world.nodes, "n").await;
    assert_eq!(node["spec"]["taints"], json!([{"key": "mine", "effect": "NoSchedule"}]));
}

#[tokio::test]
async fn pods_stay_where_every_node_looks_dead() {
    let world = world(&["n"]).await;
    let clock = world.clock.clone();
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        clock.advance(Duration::from_secs(41));
    });
    converges(&world.server, [short()], || world.server.writes() >= 3).await.expect("converges");
    late.await.expect("it ran");
    let node = json_of(&world.nodes, "n").await;
    let effects: Vec<&Value> =
        node["spec"]["taints"].as_array().into_iter().flatten().map(|t| &t["effect"]).collect();
    assert_eq!(effects, [&json!("NoSchedule")]);
}
