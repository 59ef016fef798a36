//! A whole control plane inside a program: no socket, no file, no other process.
//!
//! A test, a product or a tool can start as many as it likes. Here a Deployment becomes pods on nodes that only pretend to run them.

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kubewright::client::{Api, Client, DeleteOptions, Event};
use kubewright::core::{ContentType, Options};
use kubewright::runtime::fake::{FakeConfig, FakeRuntime};
use kubewright::storage::SimulatedVolumes;
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, Part, bundles, nodes, parts};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A node whose containers start at once and do nothing.
fn pretended_node(name: &str) -> impl Part {
    nodes::node(name, |setup| {
        let runtime = Arc::new(FakeRuntime::new(FakeConfig::default(), setup.clock.clone(), 7));
        let agent = setup.agent().simulated().volumes(Arc::new(SimulatedVolumes));
        Ok(agent.runtime(runtime.clone()).images(runtime).build()?)
    })
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let start = Instant::now();
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(bundles::kubernetes())
        .with((pretended_node("one"), pretended_node("two")))
        .build()? // every mistake of the composition at once
        .start()
        .await?;
    println!("the API answers after {:?}", start.elapsed());

    objects(plane.client()).await?;
    rollout(plane.client()).await?;
    plane.shutdown().await?;
    Ok(())
}

/// Objects are typed values; the server keeps upstream's rules.
async fn objects(client: &Client) -> Result<(), Failure> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let map = json!({"metadata": {"generateName": "settings-"}, "data": {"colour": "blue"}});
    let map = maps.create(&serde_json::from_value(map)?).await?;
    let name = map.metadata.name.as_deref().unwrap_or_default();
    let map = maps.patch(name, ContentType::MergePatch, json!({"data": {"colour": "green"}})).await?;
    println!("{name} is {:?} at version {:?}", map.data, map.metadata.resource_version);

    let wrong = json!({"metadata": {"name": "Not a name"}});
    let refused = maps.create(&serde_json::from_value(wrong)?).await.expect_err("no such name may exist");
    println!("refused: {refused}");
    maps.delete(name, &DeleteOptions::default()).await?;
    Ok(())
}

/// Controllers, scheduler and node agents work as in any cluster.
async fn rollout(client: &Client) -> Result<(), Failure> {
    let labels = json!({"app": "web"});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 4, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}}});
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    deployments.create(&serde_json::from_value(web)?).await?;
    let mut events = deployments.watch(Options::default()).await?;
    while let Some(event) = events.next().await {
        let Event::Applied(web) = event? else { continue };
        let ready = web.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        println!("{ready} of 4 pods are ready");
        if ready == 4 {
            break;
        }
    }
    for pod in Api::<Pod>::namespaced(client.clone(), "default").list(Options::default()).await?.items {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("nowhere");
        println!("{} runs on {node}", pod.metadata.name.as_deref().unwrap_or_default());
    }
    Ok(())
}
