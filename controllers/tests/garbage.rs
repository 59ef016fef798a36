//! The garbage collector and the namespace controller against the fake server.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kubewright_controllers::{garbage_collector, namespace};
use kubewright_core::{ContentType, GroupVersionResource, Resource};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::{FakeApi, converges};
use serde_json::{Value, json};

struct Cluster {
    server: FakeApi,
    maps: Api<ConfigMap>,
    widgets: Api<Value>,
}

fn widget() -> GroupVersionResource {
    GroupVersionResource::new("example.com", "v1", "widgets")
}

impl Cluster {
    fn new() -> Self {
        let server = FakeApi::new();
        server.serve(ConfigMap::resource(), "ConfigMap", true);
        server.serve(Namespace::resource(), "Namespace", false);
        server.serve(widget(), "Widget", true);
        let client = server.client();
        let widgets = Api::dynamic(client.clone(), widget(), "Widget", Some("n"));
        Cluster { maps: Api::namespaced(client, "n"), widgets, server }
    }

    /// Creates a widget; gives the owner reference to it.
    async fn widget(&self, name: &str) -> Value {
        let created = self.widgets.create(&json!({"metadata": {"name": name}})).await.unwrap();
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": name, "uid": created["metadata"]["uid"],
            "blockOwnerDeletion": true})
    }

    /// Creates a ConfigMap with owners; gives the owner reference to it.
    async fn map(&self, name: &str, owners: &[&Value]) -> Value {
        let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
        let created = self.maps.create(&serde_json::from_value(map).unwrap()).await.unwrap();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": created.uid(), "blockOwnerDeletion": true})
    }

    async fn delete(&self, name: &str, policy: &'static str) {
        let options = DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() };
        self.widgets.delete(name, &options).await.unwrap();
    }

    /// The names of what is left once everything is still, widgets first.
    async fn check(&self, want: &[&str]) {
        converges(&self.server, [garbage_collector::controller(), namespace::controller()], || true)
            .await
            .unwrap();
        let widgets = self.widgets.list(Default::default()).await.unwrap().items;
        let maps = self.maps.list(Default::default()).await.unwrap().items;
        let mut names: Vec<String> =
            widgets.iter().map(|w| w["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        names.extend(maps.iter().map(|m| m.name().to_owned()));
        assert_eq!(names, want);
    }
}

#[tokio::test]
async fn background_takes_what_only_the_owner_held() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.widget("a").await, cluster.widget("b").await);
    let child = cluster.map("child", &[&a]).await;
    cluster.map("grandchild", &[&child]).await;
    cluster.map("shared", &[&a, &b]).await;
    cluster.map("free", &[]).await;
    cluster.check(&["a", "b", "child", "free", "grandchild", "shared"]).await;
    cluster.delete("a", "Background").await;
    cluster.check(&["b", "free", "shared"]).await;
    let shared = cluster.maps.get("shared").await.unwrap();
    assert_eq!(shared.metadata.owner_references.as_ref().unwrap().len(), 1, "the absent owner is taken out");
    cluster.delete("b", "Background").await;
    cluster.check(&["free"]).await;
}

#[tokio::test]
async fn foreground_waits_for_blocking_dependents() {
    let cluster = Cluster::new();
    let owner = cluster.widget("owner").await;
    let child = cluster.map("child", &[&owner]).await;
    cluster.map("grandchild", &[&child]).await;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    cluster.maps.patch("grandchild", ContentType::MergePatch, hold).await.unwrap();
    cluster.delete("owner", "Foreground").await;
    cluster.check(&["owner", "child", "grandchild"]).await;
    let release = json!({"metadata": {"finalizers": []}});
    cluster.maps.patch("grandchild", ContentType::MergePatch, release).await.unwrap();
    cluster.check(&[]).await;
}

#[tokio::test]
async fn a_circle_of_owners_goes_as_a_whole() {
    for policy in ["Foreground", "Background"] {
        let cluster = Cluster::new();
        let mut all = Vec::new();
        for name in ["pod1", "pod2", "pod3"] {
            all.push(cluster.map(name, &[]).await);
        }
        for (owned, owner) in [(0, 2), (1, 0), (2, 1)] {
            let name = all[owned]["name"].as_str().unwrap();
            let owners = json!({"metadata": {"ownerReferences": [all[owner]]}});
            cluster.maps.patch(name, ContentType::MergePatch, owners).await.unwrap();
        }
        cluster.check(&["pod1", "pod2", "pod3"]).await;
        let options = DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() };
        cluster.maps.delete("pod1", &options).await.unwrap();
        cluster.check(&[]).await;
    }
}

#[tokio::test]
async fn who_has_another_owner_stays_when_one_waits_for_its_dependents() {
    let cluster = Cluster::new();
    let (going, staying) = (cluster.widget("going").await, cluster.widget("staying").await);
    for n in 0..5 {
        cluster.map(&format!("both-{n}"), &[&going, &staying]).await;
        cluster.map(&format!("one-{n}"), &[&going]).await;
    }
    cluster.delete("going", "Foreground").await;
    cluster.check(&["staying", "both-0", "both-1", "both-2", "both-3", "both-4"]).await;
    for map in cluster.maps.list(Default::default()).await.unwrap().items {
        assert!(map.metadata.deletion_timestamp.is_none());
        assert_eq!(map.metadata.owner_references.as_ref().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn orphans_stay_without_their_reference() {
    let cluster = Cluster::new();
    let owner = cluster.widget("owner").await;
    cluster.map("child", &[&owner]).await;
    cluster.delete("owner", "Orphan").await;
    cluster.check(&["child"]).await;
    let child = cluster.maps.get("child").await.unwrap();
    assert!(child.metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
}

#[tokio::test]
async fn owners_that_never_were_and_kinds_that_nobody_serves() {
    let cluster = Cluster::new();
    let owner = cluster.widget("owner").await;
    let mut other = owner.clone();
    other["uid"] = json!("of-an-earlier-life");
    cluster.map("stale", &[&other]).await;
    let mut unknown = owner.clone();
    unknown["kind"] = json!("Gadget");
    unknown["uid"] = json!("gadget");
    cluster.map("unknown", &[&unknown]).await;
    cluster.map("kept", &[&owner]).await;
    cluster.check(&["owner", "kept", "unknown"]).await;
}

#[tokio::test]
async fn pods_go_before_the_rest_of_their_namespace() {
    let cluster = Cluster::new();
    cluster.server.serve(Pod::resource(), "Pod", true);
    let (namespaces, pods) = (
        Api::<Namespace>::all(cluster.server.client()),
        Api::<Pod>::namespaced(cluster.server.client(), "n"),
    );
    let mut n = Namespace::default();
    n.metadata.name = Some("n".to_owned());
    namespaces.create(&n).await.unwrap();
    let pod = json!({"metadata": {"name": "p", "finalizers": ["e2e.example.com/finalizer"]}});
    pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    cluster.map("m", &[]).await;
    namespaces.delete("n", &DeleteOptions::default()).await.unwrap();
    cluster.check(&["m"]).await;
    assert!(pods.get("p").await.unwrap().metadata.deletion_timestamp.is_some());
    let status = namespaces.get("n").await.unwrap().status.clone().unwrap();
    let remaining = status.conditions.iter().flatten().find(|c| c.type_ == "NamespaceContentRemaining");
    let message = remaining.and_then(|c| c.message.as_deref());
    assert_eq!(message, Some("Some resources are remaining: pods. has 1 resource instances"));
    let release = json!({"metadata": {"finalizers": []}});
    pods.patch("p", ContentType::MergePatch, release).await.unwrap();
    cluster.check(&[]).await;
    assert!(namespaces.get_opt("n").await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_goes_after_its_content() {
    let cluster = Cluster::new();
    let namespaces = Api::<Namespace>::all(cluster.server.client());
    let mut n = Namespace::default();
    n.metadata.name = Some("n".to_owned());
    namespaces.create(&n).await.unwrap();
    cluster.widget("w").await;
    cluster.map("held", &[]).await;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    cluster.maps.patch("held", ContentType::MergePatch, hold).await.unwrap();
    namespaces.delete("n", &DeleteOptions::default()).await.unwrap();
    cluster.check(&["held"]).await;
    let status = namespaces.get("n").await.unwrap().status.clone().unwrap();
    let message = |kind: &str| {
        let all = status.conditions.iter().flatten();
        all.filter(|c| c.type_ == kind && c.status == "True")
            .find_map(|c| c.message.clone())
            .unwrap_or_default()
    };
    assert_eq!(
        message("NamespaceContentRemaining"),
        "Some resources are remaining: configmaps. has 1 resource instances"
    );
    assert!(message("NamespaceFinalizersRemaining").ends_with("example.com/hold in 1 resource instances"));
    let release = json!({"metadata": {"finalizers": []}});
    cluster.maps.patch("held", ContentType::MergePatch, release).await.unwrap();
    cluster.check(&[]).await;
    assert!(namespaces.get_opt("n").await.unwrap().is_none());
}
