//! kube-rs on a plane in process: objects, applies and their conflicts, discovery, a derived kind, watches.

mod objects;
mod watching;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, CustomResource, Error};
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, bundles, parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// How long something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of its own, whose schema and rules kube derives.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "kube-rs.example.com",
    version = "v1",
    kind = "Gear",
    namespaced,
    status = "GearStatus",
    shortname = "gr",
    printcolumn = r#"{"name":"Teeth","type":"integer","jsonPath":".spec.teeth"}"#,
    scale(spec_replicas_path = ".spec.teeth", status_replicas_path = ".status.teeth"),
    validation = "!has(oldSelf.spec) || self.spec.axle == oldSelf.spec.axle"
)]
struct GearSpec {
    teeth: i32,
    axle: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
struct GearStatus {
    teeth: i32,
}

/// Makes a namespace; gives its name.
async fn namespace(client: &Client, name: &'static str) -> &'static str {
    let space = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::all(client.clone()).create(&PostParams::default(), &space).await.expect("a namespace");
    name
}

fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        ..ConfigMap::default()
    }
}

/// What comes in time; whoever waits in vain is told where.
#[track_caller]
fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move { tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {place}")) }
}

/// The code and the reason of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_drives_a_plane_in_process() {
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(bundles::kinds())
        .with(bundles::controllers())
        .build()
        .expect("a plane")
        .start()
        .await
        .expect("a start");
    let client = Client::new(plane.http_service("kube-rs", &["system:masters"]), "default");
    objects::check(&client, namespace(&client, "objects").await).await;
    watching::check(&client, namespace(&client, "watching").await).await;
    plane.shutdown().await.expect("an end");
}
