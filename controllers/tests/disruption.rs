//! Disruption budgets against the fake server: what they allow follows the pods.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kubewright_controllers::{deployment, disruption, replica_set};
use kubewright_core::{ApiError, ContentType, Resource};
use kubewright_reconcile::client::Api;
use kubewright_reconcile::testing::{FakeApi, converges};
use kubewright_reconcile::{Action, Context, Controller};
use serde_json::{Value, json};
use std::sync::Arc;

/// Makes pods ready, but for those labelled `sick`.
fn kubelet() -> Controller {
    Controller::for_kind::<Pod>("kubelet").with(|pod: Arc<Pod>, cx: Context| async move {
        if pod.status.as_ref().is_none_or(|s| s.phase.is_none()) {
            let sick = pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key("sick"));
            let ready = if sick { "False" } else { "True" };
            let status =
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": cx.time()}]});
            let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
            api.patch_subresource(pod.name(), "status", ContentType::MergePatch, json!({"status": status})).await?;
        }
        Ok::<_, ApiError>(Action::Done)
    })
}

struct Cluster {
    server: FakeApi,
    budgets: Api<PodDisruptionBudget>,
    pods: Api<Pod>,
}

impl Cluster {
    /// Four pods of a Deployment `web`.
    async fn new() -> Self {
        let server = FakeApi::new();
        let deployments = Api::namespaced(server.client(), "n");
        let web: k8s_openapi::api::apps::v1::Deployment = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
        .unwrap();
        deployments.create(&web).await.unwrap();
        let (budgets, pods) = (Api::namespaced(server.client(), "n"), Api::namespaced(server.client(), "n"));
        Cluster { server, budgets, pods }
    }

    async fn settle(&self) {
        let all =
            vec![deployment::controller(), replica_set::controller(), disruption::controller(), kubelet()];
        converges(&self.server, all, || true).await.unwrap();
    }

    /// Pods expected, wanted healthy, healthy and allowed to go, and the reason of the condition.
    async fn check(
        &self,
        spec: Value,
        wanted: (i32, i32, i32, i32),
        reason: &str,
    ) -> Arc<PodDisruptionBudget> {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": spec});
        if self.budgets.get_opt("b").await.unwrap().is_some() {
            self.budgets.delete("b", &Default::default()).await.unwrap();
        }
        self.budgets.create(&serde_json::from_value(budget).unwrap()).await.unwrap();
        self.settle().await;
        let budget = self.budgets.get("b").await.unwrap();
        let status = budget.status.clone().unwrap();
        let got = (
            status.expected_pods,
            status.desired_healthy,
            status.current_healthy,
            status.disruptions_allowed,
        );
        assert_eq!(got, (Some(wanted.0), Some(wanted.1), Some(wanted.2), Some(wanted.3)), "{spec}");
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions[0].reason, reason, "{spec}");
        budget
    }
}

#[tokio::test]
async fn what_is_allowed_follows_the_pods() {
    let cluster = Cluster::new().await;
    let web = json!({"matchLabels": {"app": "web"}});
    cluster.check(json!({"selector": web, "minAvailable": 3}), (4, 3, 4, 1), "SufficientPods").await;
    cluster.check(json!({"selector": web, "minAvailable": "100%"}), (4, 4, 4, 0), "InsufficientPods").await;
    cluster.check(json!({"selector": web, "maxUnavailable": "30%"}), (4, 2, 4, 2), "SufficientPods").await;
    cluster.check(json!({"selector": web, "maxUnavailable": 9}), (4, 0, 4, 4), "SufficientPods").await;
    let none = json!({"matchLabels": {"app": "none"}});
    cluster.check(json!({"selector": none, "minAvailable": 0}), (0, 0, 0, 0), "InsufficientPods").await;
    let sick = json!({"metadata": {"name": "alone", "labels": {"app": "alone", "sick": "yes"}}, "spec": {"containers": []}});
    cluster.pods.create(&serde_json::from_value(sick).unwrap()).await.unwrap();
    let alone = json!({"matchLabels": {"app": "alone"}});
    cluster.check(json!({"selector": alone, "minAvailable": 1}), (1, 1, 0, 0), "InsufficientPods").await;
    cluster.check(json!({"selector": alone, "maxUnavailable": 1}), (0, 0, 0, 0), "InsufficientPods").await;
}

#[tokio::test]
async fn an_evicted_pod_counts_as_gone_until_its_time_is_over() {
    let cluster = Cluster::new().await;
    let web = json!({"matchLabels": {"app": "web"}});
    cluster.check(json!({"selector": web, "minAvailable": 2}), (4, 2, 4, 2), "SufficientPods").await;
    let name = cluster.pods.list(Default::default()).await.unwrap().items[0].name().to_owned();
    let evict = async |at: &str| {
        let status = json!({"status": {"disruptionsAllowed": 1, "disruptedPods": {&name: at}}});
        cluster.budgets.patch_subresource("b", "status", ContentType::MergePatch, status).await.unwrap();
        cluster.settle().await;
        cluster.budgets.get("b").await.unwrap().status.clone().unwrap()
    };
    let status = evict("2000-01-01T00:00:00Z").await;
    assert_eq!(
        (status.current_healthy, status.disruptions_allowed),
        (Some(4), Some(2)),
        "an eviction long ago is forgotten"
    );
    assert!(status.disrupted_pods.is_none());
    let status = evict("2200-01-01T00:00:00Z").await;
    assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(3), Some(1)));
    assert!(status.disrupted_pods.unwrap().contains_key(&name));
}
