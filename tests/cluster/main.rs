//! The example cluster as a program, under good and bad conditions: what it prints, how it ends, and what is there afterwards.

#[path = "../common/mod.rs"]
mod common;

mod bad;
mod cri;
mod disk;
mod etcd;
mod life;
mod once;
mod user;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kubewright::client::{Api, Client, Config, HttpsTransport};
use kubewright::core::ApiError;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a cluster may take to come to a state.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client over HTTPS, as the kubeconfig says.
fn client(kubeconfig: &Path) -> Client {
    let config = Config::from_kubeconfig(&[kubeconfig.to_owned()], None).expect("a good kubeconfig");
    Client::new(HttpsTransport::new(config).expect("a transport"), Default::default())
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

async fn create_map(client: &Client, name: &str, text: &str) -> Result<Arc<ConfigMap>, ApiError> {
    let map = json!({"metadata": {"name": name}, "data": {"text": text}});
    config_maps(client).create(&serde_json::from_value(map).expect("a ConfigMap")).await
}

/// Repeats a question until it is answered.
async fn until<T>(what: &str, ask: impl AsyncFn() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(why) => assert!(start.elapsed() < PATIENCE, "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Ends the demo's pods, which would outlive their cluster.
async fn delete_demo(client: &Client) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    deployments.delete("web", &Default::default()).await.expect("deleted");
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    until("the end of the pods", async || match pods.list(Default::default()).await {
        Ok(list) if list.items.is_empty() => Ok(()),
        Ok(list) => Err(format!("{} are left", list.items.len())),
        Err(e) => Err(e.to_string()),
    })
    .await;
}

/// The pods of the default namespace, once so many are there and ready.
async fn ready_pods(client: &Client, count: usize) -> Vec<Arc<Pod>> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    until("ready pods", async || {
        let items = pods.list(Default::default()).await.map_err(|e| e.to_string())?.items;
        let ready = items.iter().filter(|p| is_ready(p)).count();
        if items.len() == count && ready == count {
            Ok(items)
        } else {
            Err(format!("{ready} of {}", items.len()))
        }
    })
    .await
}
