//! Pods with claims on the real server, in process: bound volumes, volumes chosen together with the node, volumes that a provisioner of
//! the test makes, ephemeral ones, and devices.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use k8s_openapi::api::storage::v1::StorageClass;
use kubewright::client::{Api, Client, DeleteOptions};
use kubewright::core::{ApiError, Resource};
use kubewright::reconcile::{Action, Context, Controller};
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, RunningPlane, bundles, parts};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Cluster {
    plane: RunningPlane,
    client: Client,
}

/// Makes volumes of the class `made` on the node that the scheduler selected, as an external provisioner does.
fn provisioner() -> Controller {
    Controller::for_kind::<PersistentVolumeClaim>("provisioner").with(
        |claim: Arc<PersistentVolumeClaim>, cx: Context| async move {
            let annotation = |name: &str| claim.metadata.annotations.as_ref().and_then(|a| a.get(name)).cloned();
            let ours = annotation("volume.kubernetes.io/storage-provisioner").as_deref() == Some("example.com/disks");
            let Some(node) = annotation("volume.kubernetes.io/selected-node").filter(|_| ours) else {
                return Ok(Action::Done);
            };
            let spec = claim.spec.clone().unwrap_or_default();
            let volume = json!({
                "metadata": {"name": format!("pvc-{}", claim.uid()),
                    "annotations": {"pv.kubernetes.io/provisioned-by": "example.com/disks"}},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": spec.access_modes, "storageClassName": "made",
                    "persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": "example.com/disks", "volumeHandle": claim.uid()},
                    "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                        "name": claim.name(), "uid": claim.uid()},
                    "nodeAffinity": on(&node)},
            });
            let volume: PersistentVolume = serde_json::from_value(volume).map_err(ApiError::internal)?;
            match cx.api::<PersistentVolume>("").create(&volume).await {
                Err(e) if e.is_already_exists() => Ok(Action::Done),
                other => other.map(|_| Action::Done),
            }
        },
    )
}

fn on(node: &str) -> Value {
    let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}})
}

impl Cluster {
    async fn start() -> Self {
        let builder = ControlPlane::builder().with(parts::shared_store(Arc::new(MemoryStore::new())));
        let builder = builder.with(bundles::kubernetes()).with(provisioner());
        let plane = builder.build().expect("a whole composition").start().await.expect("it starts");
        let client = plane.client().clone();
        let nodes = Api::<Node>::all(client.clone());
        for name in ["a", "b"] {
            let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
            let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True",
                    "reason": "Test", "message": "", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            nodes.create(&serde_json::from_value(node).unwrap()).await.unwrap();
        }
        let cluster = Cluster { plane, client };
        for (name, provisioner, mode) in [
            ("made", "example.com/disks", "WaitForFirstConsumer"),
            ("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        ] {
            let class =
                json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
            Api::<StorageClass>::all(cluster.client.clone())
                .create(&serde_json::from_value(class).unwrap())
                .await
                .unwrap();
        }
        cluster
    }

    fn api<K: Resource>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn volume(&self, name: &str, class: &str, node: Option<&str>) {
        let mut volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "storageClassName": class, "hostPath": {"path": "/x"}}});
        if let Some(node) = node {
            volume["spec"]["nodeAffinity"] = on(node);
        }
        let api = Api::<PersistentVolume>::all(self.client.clone());
        api.create(&serde_json::from_value(volume).unwrap()).await.unwrap();
    }

    async fn claim(&self, name: &str, class: &str) {
        let claim = json!({"metadata": {"name": name}, "spec": claim_spec(class)});
        self.create::<PersistentVolumeClaim>(claim).await;
    }

    async fn pod(&self, name: &str, volume: Value) {
        let mut volume = volume;
        volume["name"] = json!("v");
        self.create::<Pod>(json!({"metadata": {"name": name}, "spec": {"volumes": [volume],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}))
            .await;
    }

    async fn create<K: Resource>(&self, object: Value) {
        let object: K = serde_json::from_value(object).unwrap();
        for _ in 0..200 {
            match self.api::<K>().create(&object).await {
                // The namespace and its account may be a moment away.
                Err(e) if e.is_not_found() || e.to_string().contains("serviceaccount") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return drop(other.unwrap()),
            }
        }
        panic!("the namespace never came");
    }

    /// The node of a pod, once it has one.
    async fn node_of(&self, name: &str) -> String {
        let start = Instant::now();
        loop {
            let pod = self.api::<Pod>().get(name).await.unwrap();
            if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone()) {
                return node;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{name} stays without a node: {:?}",
                pod.status
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The volume of a claim, once it is bound.
    async fn volume_of(&self, claim: &str) -> Arc<PersistentVolume> {
        let start = Instant::now();
        loop {
            let found = self.api::<PersistentVolumeClaim>().get(claim).await.unwrap();
            // The scheduler goes on when both sides are bound, a moment before the claim's phase says so.
            if found.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") {
                let name = found.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
                return Api::<PersistentVolume>::all(self.client.clone()).get(&name).await.unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{claim} is not bound: {:?}", found.status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn claim_spec(class: &str) -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}})
}

fn uses(claim: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": claim}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_where_their_volumes_are_or_can_be_made() {
    let c = Cluster::start().await;
    c.volume("plain", "", Some("b")).await;
    c.claim("at-once", "").await;
    c.pod("at-once", uses("at-once")).await;
    assert_eq!(c.node_of("at-once").await, "b");
    assert_eq!(c.volume_of("at-once").await.name(), "plain");

    c.claim("chosen", "local").await;
    c.pod("chosen", uses("chosen")).await;
    c.volume("disk-of-a", "local", Some("a")).await;
    assert_eq!(c.node_of("chosen").await, "a");
    assert_eq!(c.volume_of("chosen").await.name(), "disk-of-a");

    c.claim("made", "made").await;
    c.pod("made", uses("made")).await;
    let node = c.node_of("made").await;
    let volume = c.volume_of("made").await;
    let claim = c.api::<PersistentVolumeClaim>().get("made").await.unwrap();
    assert_eq!(volume.name(), format!("pvc-{}", claim.uid()));
    assert_eq!(claim.metadata.annotations.as_ref().unwrap()["volume.kubernetes.io/selected-node"], node);

    c.pod("brief", json!({"ephemeral": {"volumeClaimTemplate": {"spec": claim_spec("made")}}})).await;
    c.node_of("brief").await;
    let brief = c.api::<PersistentVolumeClaim>().get("brief-v").await.unwrap();
    assert_eq!(brief.metadata.owner_references.as_ref().unwrap()[0].name, "brief");
    c.api::<Pod>().delete("brief", &DeleteOptions::now()).await.unwrap();
    let start = Instant::now();
    while c.api::<PersistentVolumeClaim>().get_opt("brief-v").await.unwrap().is_some() {
        assert!(start.elapsed() < Duration::from_secs(60), "the claim of a pod that went stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    c.plane.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_where_their_devices_are_and_give_them_back() {
    let c = Cluster::start().await;
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression":
        "device.driver == 'gpu.example.com' && device.attributes['gpu.example.com'].model == 'new'"}}]}});
    let classes = Api::<DeviceClass>::all(c.client.clone());
    classes.create(&serde_json::from_value(class).unwrap()).await.unwrap();
    for (node, model) in [("a", "old"), ("b", "new")] {
        let device = json!({"name": "gpu-0", "attributes": {"model": {"string": model}}});
        let slice = json!({"metadata": {"name": format!("of-{node}")}, "spec": {"driver": "gpu.example.com", "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}, "devices": [device]}});
        let slices = Api::<ResourceSlice>::all(c.client.clone());
        slices.create(&serde_json::from_value(slice).unwrap()).await.unwrap();
    }
    let devices = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
    c.create::<ResourceClaimTemplate>(json!({"metadata": {"name": "one-gpu"}, "spec": {"spec": devices}}))
        .await;
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
            "containers": [{"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}}]}})
    };
    c.create::<Pod>(pod("first")).await;
    assert_eq!(c.node_of("first").await, "b");
    let claim_of = async |name: &str| {
        let pod = c.api::<Pod>().get(name).await.unwrap();
        let made =
            pod.status.as_ref()?.resource_claim_statuses.as_ref()?.first()?.resource_claim_name.clone()?;
        c.api::<ResourceClaim>().get_opt(&made).await.unwrap()
    };
    let claim = claim_of("first").await.expect("it was made");
    let status = claim.status.clone().unwrap_or_default();
    let results = status.allocation.and_then(|a| a.devices).and_then(|d| d.results).unwrap_or_default();
    assert_eq!((results[0].pool.as_str(), results[0].device.as_str()), ("b", "gpu-0"));
    assert_eq!(status.reserved_for.unwrap_or_default()[0].name, "first");
    // There is one such device: the second pod has it when the first is gone.
    c.create::<Pod>(pod("second")).await;
    let start = Instant::now();
    let refused = |p: &Pod| {
        let conditions = p.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions
            .iter()
            .any(|c| c.message.as_deref().is_some_and(|m| m.contains("2 cannot allocate all claims")))
    };
    while !refused(&c.api::<Pod>().get("second").await.unwrap()) {
        assert!(start.elapsed() < Duration::from_secs(60), "the second pod is not refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    c.api::<Pod>().delete("first", &DeleteOptions::now()).await.unwrap();
    assert_eq!(c.node_of("second").await, "b");
    c.plane.shutdown().await.unwrap();
}
