//! Deployments and ReplicaSets against the fake server: they converge from any state and then stay still.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kubewright_controllers::{deployment, replica_set};
use kubewright_core::{ApiError, ContentType, Resource};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::{FakeApi, converges};
use kubewright_reconcile::{Action, Context, Controller, owner};
use serde_json::{Value, json};
use std::sync::Arc;

/// Makes every pod ready, as nodes would.
fn kubelet() -> Controller {
    Controller::for_kind::<Pod>("kubelet").concurrency(64).with(|pod: Arc<Pod>, cx: Context| async move {
        if pod.status.as_ref().is_none_or(|s| s.phase.is_none()) {
            let status = json!({"phase": "Running", "podIP": "10.0.0.1", "conditions":
                [{"type": "Ready", "status": "True", "lastTransitionTime": cx.time()}]});
            let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
            api.patch_subresource(pod.name(), "status", ContentType::MergePatch, json!({"status": status}))
                .await?;
        }
        Ok::<_, ApiError>(Action::Done)
    })
}

fn all() -> Vec<Controller> {
    vec![deployment::controller(), replica_set::controller(), kubelet()]
}

fn web(image: &str, replicas: i32, strategy: Value) -> Deployment {
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}}))
    .unwrap()
}

struct Cluster {
    server: FakeApi,
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    pods: Api<Pod>,
}

impl Cluster {
    fn new() -> Self {
        let server = FakeApi::new();
        let client = server.client();
        Cluster {
            deployments: Api::namespaced(client.clone(), "n"),
            sets: Api::namespaced(client.clone(), "n"),
            pods: Api::namespaced(client, "n"),
            server,
        }
    }

    async fn settle(&self) {
        converges(&self.server, all(), || true).await.unwrap();
    }

    /// Images of the pods, sorted, after everything is still.
    async fn check(&self, want: &[(&str, usize)]) -> Deployment {
        self.settle().await;
        let pods = self.pods.list(Default::default()).await.unwrap().items;
        let image = |p: &Arc<Pod>| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        for (name, count) in want {
            assert_eq!(pods.iter().filter(|p| image(p) == *name).count(), *count, "pods of {name}");
        }
        assert_eq!(pods.len(), want.iter().map(|(_, n)| n).sum::<usize>());
        (*self.deployments.get("web").await.unwrap()).clone()
    }

    async fn patch(&self, patch: Value) {
        self.deployments.patch("web", ContentType::MergePatch, patch).await.unwrap();
    }

    async fn image(&self, image: &str) {
        let containers = json!([{"name": "c", "image": image}]);
        self.patch(json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
    }
}

fn reason(deployment: &Deployment, kind: &str) -> String {
    let all = deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
    all.iter().find(|c| c.type_ == kind).and_then(|c| c.reason.clone()).unwrap_or_default()
}

fn revision(meta: &kubewright_core::ObjectMeta) -> &str {
    &meta.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"]
}

#[tokio::test]
async fn a_deployment_rolls_out_rolls_back_and_scales() {
    let cluster = Cluster::new();
    cluster.deployments.create(&web("v1", 4, json!({}))).await.unwrap();
    let first = cluster.check(&[("v1", 4)]).await;
    assert_eq!(
        (revision(&first.metadata), reason(&first, "Progressing").as_str()),
        ("1", "NewReplicaSetAvailable")
    );
    assert_eq!(reason(&first, "Available"), "MinimumReplicasAvailable");
    let status = first.status.as_ref().unwrap();
    assert_eq!(
        (status.updated_replicas, status.available_replicas, status.unavailable_replicas),
        (Some(4), Some(4), None)
    );
    assert_eq!(status.observed_generation, first.metadata.generation);

    cluster.image("v2").await;
    let second = cluster.check(&[("v2", 4)]).await;
    assert_eq!(revision(&second.metadata), "2");

    // What `kubectl rollout undo` does: the template of the old revision again.
    cluster.image("v1").await;
    let third = cluster.check(&[("v1", 4)]).await;
    assert_eq!(revision(&third.metadata), "3");
    let sets = cluster.sets.list(Default::default()).await.unwrap().items;
    let rolled_back = sets.iter().find(|s| revision(&s.metadata) == "3").unwrap();
    let history =
        &rolled_back.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision-history"];
    assert_eq!((sets.len(), history.as_str()), (2, "1"));

    cluster.image("v3").await;
    cluster.check(&[("v3", 4)]).await;
    assert_eq!(
        cluster.sets.list(Default::default()).await.unwrap().items.len(),
        2,
        "the history limit is one"
    );

    cluster.patch(json!({"spec": {"replicas": 9}})).await;
    cluster.check(&[("v3", 9)]).await;
    cluster.patch(json!({"spec": {"replicas": 0}})).await;
    cluster.check(&[]).await;
}

#[tokio::test]
async fn pausing_stops_a_rollout_and_recreate_never_mixes() {
    let cluster = Cluster::new();
    cluster.deployments.create(&web("v1", 3, json!({"type": "Recreate"}))).await.unwrap();
    cluster.check(&[("v1", 3)]).await;
    cluster.patch(json!({"spec": {"paused": true}})).await;
    cluster.image("v2").await;
    let paused = cluster.check(&[("v1", 3)]).await;
    assert_eq!(reason(&paused, "Progressing"), "DeploymentPaused");
    cluster.patch(json!({"spec": {"replicas": 5}})).await;
    cluster.check(&[("v1", 5)]).await;
    cluster.patch(json!({"spec": {"paused": false}})).await;
    let resumed = cluster.check(&[("v2", 5)]).await;
    assert_eq!(reason(&resumed, "Progressing"), "NewReplicaSetAvailable");
}

#[tokio::test]
async fn a_replica_set_adopts_releases_and_replaces() {
    let cluster = Cluster::new();
    let orphan: Pod =
        serde_json::from_value(json!({"metadata": {"name": "orphan", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "v0"}]}}))
        .unwrap();
    cluster.pods.create(&orphan).await.unwrap();
    let set: ReplicaSet = serde_json::from_value(json!({"metadata": {"name": "set"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))
    .unwrap();
    let set = cluster.sets.create(&set).await.unwrap();
    cluster.settle().await;
    let adopted = cluster.pods.get("orphan").await.unwrap();
    assert!(owner::is_controlled_by(&adopted.metadata, &*set));
    assert_eq!(cluster.pods.list(Default::default()).await.unwrap().items.len(), 3);
    cluster
        .pods
        .patch("orphan", ContentType::MergePatch, json!({"metadata": {"labels": {"app": "other"}}}))
        .await
        .unwrap();
    cluster.settle().await;
    let released = cluster.pods.get("orphan").await.unwrap();
    assert!(!owner::is_controlled_by(&released.metadata, &*set));
    let all = cluster.pods.list(Default::default()).await.unwrap().items;
    assert_eq!(all.len(), 4);
    let victim = all.iter().find(|p| p.name() != "orphan").unwrap();
    cluster.pods.delete(victim.name(), &DeleteOptions::default()).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.pods.list(Default::default()).await.unwrap().items.len(), 4);
    let status = cluster.sets.get("set").await.unwrap().status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (3, Some(3), Some(3)));
}

#[tokio::test]
async fn refused_pods_are_told_and_tried_again() {
    let cluster = Cluster::new();
    cluster.deployments.create(&web("v1", 2, json!({}))).await.unwrap();
    let server = cluster.server.clone();
    let pods = Pod::resource();
    server.refuse_creates(&pods, Some(ApiError::forbidden("", "pods", "", "exceeded quota")));
    converges(&server, all(), || true).await.unwrap();
    let refused = (*cluster.deployments.get("web").await.unwrap()).clone();
    assert_eq!(reason(&refused, "ReplicaFailure"), "FailedCreate");
    server.refuse_creates(&pods, None);
    let healed = cluster.check(&[("v1", 2)]).await;
    assert!(healed.status.unwrap().conditions.unwrap().iter().all(|c| c.type_ != "ReplicaFailure"));
}

#[tokio::test]
async fn thousands_of_pods_are_made_at_once() {
    let cluster = Cluster::new();
    cluster.deployments.create(&web("v1", 3000, json!({}))).await.unwrap();
    cluster.check(&[("v1", 3000)]).await;
    let sets = cluster.sets.list(Default::default()).await.unwrap().items;
    assert_eq!(sets[0].status.as_ref().unwrap().available_replicas, Some(3000));
}
