//! The stock `kube` crate, unmodified, on a control plane in the same process: its Client, its Api and its Controller.
//!
//! No socket lies between them: `kube::Client::new` takes any tower service over HTTP requests, and the plane is one.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::CustomResourceExt;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, Resource, ResourceExt};
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, bundles, parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Greeting", namespaced, status = "GreetingStatus")]
struct GreetingSpec {
    name: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct GreetingStatus {
    greeted: bool,
}

/// One pass of the controller: a ConfigMap of the greeting's, then the status.
async fn reconcile(greeting: Arc<Greeting>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = greeting.namespace().unwrap_or_default();
    let maps = Api::<ConfigMap>::namespaced((*client).clone(), &namespace);
    if maps.get_opt(&greeting.name_any()).await?.is_none() {
        let map = ConfigMap {
            metadata: kube::api::ObjectMeta {
                name: Some(greeting.name_any()),
                owner_references: greeting.controller_owner_ref(&()).map(|r| vec![r]),
                ..Default::default()
            },
            data: Some([("text".to_owned(), format!("Hello, {}", greeting.spec.name))].into()),
            ..Default::default()
        };
        maps.create(&PostParams::default(), &map).await?;
    }
    let greetings = Api::<Greeting>::namespaced((*client).clone(), &namespace);
    let status = Patch::Merge(json!({"status": {"greeted": true}}));
    greetings.patch_status(&greeting.name_any(), &PatchParams::default(), &status).await?;
    Ok(Action::await_change())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(bundles::kinds())
        .with(bundles::controllers())
        .build()?
        .start()
        .await?;
    let client = Client::new(plane.http_service("kube-rs", &["system:masters"]), "default");
    println!("kube-rs sees Kubernetes {}", client.apiserver_version().await?.git_version);

    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &Greeting::crd()).await?;
    let established = await_condition(definitions, Greeting::crd_name(), conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(10), established).await??;

    let greetings = Api::<Greeting>::default_namespaced(client.clone());
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let controller = Controller::new(greetings.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client))
        .for_each(|pass| async move {
            match pass {
                Ok((object, _)) => println!("reconciled {}", object.name),
                Err(e) => println!("a pass failed: {e}"),
            }
        });
    let controller = tokio::spawn(controller);

    for name in ["ada", "grace"] {
        let greeting = Greeting::new(name, GreetingSpec { name: name.to_owned() });
        greetings.create(&PostParams::default(), &greeting).await?;
        let greeted = |g: Option<&Greeting>| g.and_then(|g| g.status.as_ref()).is_some_and(|s| s.greeted);
        let done = await_condition(greetings.clone(), name, greeted);
        tokio::time::timeout(Duration::from_secs(10), done).await??;
        println!("{:?}", maps.get(name).await?.data.unwrap_or_default());
    }
    println!("{} greetings in all", greetings.list(&ListParams::default()).await?.items.len());
    greetings.delete("ada", &Default::default()).await?;
    let gone = await_condition(maps, "ada", conditions::is_deleted(""));
    let _ = tokio::time::timeout(Duration::from_secs(1), gone).await;
    controller.abort();
    plane.shutdown().await?;
    Ok(())
}
