//! The controller against a fake server: what it counts.

use super::*;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{CancellationToken, Manager};

async fn used(server: &FakeApi, wanted: Value) {
    let api = Api::<ResourceQuota>::namespaced(server.client(), "a");
    let mut last = Value::Null;
    for _ in 0..200 {
        last = serde_json::to_value(&*api.get("q").await.expect("the quota")).expect("JSON");
        if last["status"]["used"] == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{wanted} wanted: {last}");
}

fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

#[tokio::test]
async fn use_follows_what_there_is() {
    let server = FakeApi::new();
    server.serve(Pod::resource(), "Pod", true);
    server.serve(Secret::resource(), "Secret", true);
    let (quotas, pods, secrets) = (
        Api::<ResourceQuota>::namespaced(server.client(), "a"),
        Api::<Pod>::namespaced(server.client(), "a"),
        Api::<Secret>::namespaced(server.client(), "a"),
    );
    let pod = |name: &str| {
        typed::<Pod>(json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}}))
    };
    pods.create(&pod("one")).await.expect("created");
    let hard = json!({"pods": "5", "requests.cpu": "1", "secrets": "3", "count/secrets": "3"});
    quotas.create(&typed(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}))).await.expect("created");
    let cancel = CancellationToken::new();
    let manager = Manager::new(Context::new(server.client())).with_all(vec![controller()]);
    let running = tokio::spawn(manager.run(cancel.clone()));
    used(&server, json!({"pods": "1", "requests.cpu": "250m", "secrets": "0", "count/secrets": "0"})).await;
    pods.create(&pod("two")).await.expect("created");
    secrets.create(&typed(json!({"metadata": {"name": "s"}}))).await.expect("created");
    used(&server, json!({"pods": "2", "requests.cpu": "500m", "secrets": "1", "count/secrets": "1"})).await;
    pods.delete("one", &DeleteOptions { grace_period_seconds: Some(0), ..Default::default() })
        .await
        .expect("deleted");
    let ended = json!({"status": {"phase": "Succeeded"}});
    pods.patch_subresource("two", "status", ContentType::MergePatch, ended).await.expect("patched");
    used(&server, json!({"pods": "0", "requests.cpu": "0", "secrets": "1", "count/secrets": "1"})).await;
    cancel.cancel();
    running.await.expect("no panic").expect("no error");
}
