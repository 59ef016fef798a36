//! Every state that a claim and a volume may be in, against the fake server.

use super::controllers;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::StorageClass;
use kubewright_core::{ContentType, Resource};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::{FakeApi, converges};
use serde_json::{Value, json};

struct Cluster {
    server: FakeApi,
}

impl Cluster {
    fn new() -> Self {
        // The names of events are made from the time; each run of the controllers needs its own.
        Cluster { server: FakeApi::with_clock(std::sync::Arc::new(kubewright_core::SystemClock)) }
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.server.client())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.server.client(), "n")
    }

    async fn volume(&self, name: &str, size: &str, over: Value) {
        let mut volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}}});
        merge(&mut volume, over);
        self.volumes().create(&serde_json::from_value(volume).unwrap()).await.unwrap();
    }

    async fn claim(&self, name: &str, size: &str, over: Value) {
        let mut claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "", "resources": {"requests": {"storage": size}}}});
        merge(&mut claim, over);
        self.claims().create(&serde_json::from_value(claim).unwrap()).await.unwrap();
    }

    async fn class(&self, name: &str, over: Value) {
        let mut class = json!({"metadata": {"name": name}, "provisioner": "example.com/disks"});
        merge(&mut class, over);
        let api = Api::<StorageClass>::all(self.server.client());
        api.create(&serde_json::from_value(class).unwrap()).await.unwrap();
    }

    async fn settle(&self) {
        converges(&self.server, controllers(), || true).await.unwrap();
    }

    /// Phase, and whose the volume is.
    async fn check_volume(&self, name: &str, phase: &str, claim: &str) {
        let volume = serde_json::to_value(&*self.volumes().get(name).await.unwrap()).unwrap();
        let of = volume["spec"]["claimRef"]["name"].as_str().unwrap_or("");
        assert_eq!((volume["status"]["phase"].as_str().unwrap_or(""), of), (phase, claim), "{volume:#}");
    }

    /// Phase, and which volume the claim has.
    async fn check_claim(&self, name: &str, phase: &str, volume: &str) -> Value {
        let claim = serde_json::to_value(&*self.claims().get(name).await.unwrap()).unwrap();
        let has = claim["spec"]["volumeName"].as_str().unwrap_or("");
        let is = claim["status"]["phase"].as_str().unwrap_or("Pending");
        assert_eq!((is, has), (phase, volume), "{claim:#}");
        claim
    }

    async fn told(&self, reason: &str) -> Vec<String> {
        let events = Api::<Event>::all(self.server.client()).list(Default::default()).await.unwrap();
        let of = events.items.iter().filter(|e| e.reason.as_deref() == Some(reason));
        of.filter_map(|e| e.note.clone()).collect()
    }
}

fn merge(target: &mut Value, over: Value) {
    match (target, over) {
        (Value::Object(target), Value::Object(over)) => {
            for (key, value) in over {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, over) => *target = over,
    }
}

#[tokio::test]
async fn a_claim_takes_the_smallest_volume_that_serves_it() {
    let c = Cluster::new();
    c.volume("big", "9Gi", json!({})).await;
    c.volume("tight", "2Gi", json!({})).await;
    c.volume("small", "1Gi", json!({})).await;
    c.volume("shared", "2Gi", json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}})).await;
    c.volume("device", "2Gi", json!({"spec": {"volumeMode": "Block"}})).await;
    c.volume("classy", "2Gi", json!({"spec": {"storageClassName": "fast"}})).await;
    c.volume("red", "10Gi", json!({"metadata": {"labels": {"color": "red"}}})).await;
    c.claim("a", "2Gi", json!({})).await;
    c.settle().await;
    let a = c.check_claim("a", "Bound", "tight").await;
    assert_eq!(a["status"]["capacity"]["storage"], "2Gi");
    assert_eq!(a["status"]["accessModes"], json!(["ReadWriteOnce"]));
    for annotation in ["pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"] {
        assert_eq!(a["metadata"]["annotations"][annotation], "yes");
    }
    c.claim("b", "2Gi", json!({})).await;
    c.claim("many", "1Gi", json!({"spec": {"accessModes": ["ReadWriteMany"]}})).await;
    c.claim("block", "1Gi", json!({"spec": {"volumeMode": "Block"}})).await;
    c.claim("fast", "1Gi", json!({"spec": {"storageClassName": "fast"}})).await;
    c.claim("red", "1Gi", json!({"spec": {"selector": {"matchLabels": {"color": "red"}}}})).await;
    c.claim("huge", "1Ti", json!({})).await;
    c.settle().await;
    c.check_claim("b", "Bound", "big").await;
    c.check_claim("many", "Bound", "shared").await;
    c.check_claim("block", "Bound", "device").await;
    c.check_claim("fast", "Bound", "classy").await;
    c.check_claim("red", "Bound", "red").await;
    c.check_claim("huge", "Pending", "").await;
    assert!(c.told("FailedBinding").await[0].starts_with("no persistent volumes available for this claim"));
    c.check_volume("small", "Available", "").await;
    c.volume("late", "2Ti", json!({})).await;
    c.settle().await;
    c.check_claim("huge", "Bound", "late").await;
}

#[tokio::test]
async fn many_claims_never_share_a_volume() {
    let c = Cluster::new();
    for n in 0..20 {
        c.volume(&format!("v{n}"), "1Gi", json!({})).await;
        c.claim(&format!("c{n}"), "1Gi", json!({})).await;
    }
    c.settle().await;
    let claims = c.claims().list(Default::default()).await.unwrap().items;
    let mut names: Vec<_> = claims.iter().filter_map(|c| c.spec.as_ref()?.volume_name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20);
}

#[tokio::test]
async fn what_the_user_bound_before_is_kept() {
    let c = Cluster::new();
    c.volume("mine", "1Gi", json!({"spec": {"claimRef": {"namespace": "n", "name": "later"}}})).await;
    c.volume("plain", "1Gi", json!({})).await;
    c.claim("asks", "1Gi", json!({"spec": {"volumeName": "plain"}})).await;
    c.claim("asks-too-much", "3Gi", json!({"spec": {"volumeName": "small"}})).await;
    c.volume("small", "1Gi", json!({})).await;
    c.claim("asks-nothing-there", "1Gi", json!({"spec": {"volumeName": "nowhere"}})).await;
    c.settle().await;
    c.check_volume("mine", "Available", "later").await;
    let asks = c.check_claim("asks", "Bound", "plain").await;
    assert_eq!(asks["metadata"]["annotations"].get("pv.kubernetes.io/bound-by-controller"), None);
    c.check_claim("asks-too-much", "Pending", "small").await;
    c.check_claim("asks-nothing-there", "Pending", "nowhere").await;
    assert_eq!(
        c.told("VolumeMismatch").await,
        ["Cannot bind to requested volume \"small\": requested PV is too small"]
    );
    c.claim("later", "1Gi", json!({})).await;
    c.claim("thief", "1Gi", json!({"spec": {"volumeName": "plain"}})).await;
    c.settle().await;
    c.check_claim("later", "Bound", "mine").await;
    c.check_claim("thief", "Pending", "plain").await;
    assert!(c.told("FailedBinding").await.iter().any(|n| n.contains("already bound to a different claim")));
}

#[tokio::test]
async fn a_volume_ends_as_its_policy_says() {
    let c = Cluster::new();
    let policy = |p: &str| json!({"spec": {"persistentVolumeReclaimPolicy": p}});
    let made = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "example.com/disks"}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    for (name, over) in [
        ("retain", policy("Retain")),
        ("delete", policy("Delete")),
        ("made", made),
        ("recycle", policy("Recycle")),
    ] {
        c.volume(name, "1Gi", over).await;
        c.claim(name, "1Gi", json!({"spec": {"volumeName": name}})).await;
    }
    c.settle().await;
    for name in ["retain", "delete", "made", "recycle"] {
        c.check_claim(name, "Bound", name).await;
        c.check_volume(name, "Bound", name).await;
        c.claims().delete(name, &DeleteOptions::default()).await.unwrap();
    }
    c.settle().await;
    c.check_volume("retain", "Released", "retain").await;
    c.check_volume("made", "Released", "made").await;
    c.check_volume("delete", "Failed", "delete").await;
    c.check_volume("recycle", "Failed", "recycle").await;
    assert_eq!(c.told("VolumeFailedRecycle").await, ["No recycler plugin found for the volume!"]);
    assert_eq!(c.told("VolumeFailedDelete").await.len(), 1);
    // A released volume is nobody's, even for a new claim of the same name.
    c.claim("retain", "1Gi", json!({})).await;
    c.settle().await;
    c.check_claim("retain", "Pending", "").await;
    c.volumes().patch("retain", ContentType::MergePatch, json!({"spec": {"claimRef": null}})).await.unwrap();
    c.settle().await;
    c.check_claim("retain", "Bound", "retain").await;
}

#[tokio::test]
async fn a_claim_whose_volume_went_is_lost() {
    let c = Cluster::new();
    c.volume("v", "1Gi", json!({})).await;
    c.claim("a", "1Gi", json!({})).await;
    c.settle().await;
    c.volumes().delete("v", &DeleteOptions::default()).await.unwrap();
    c.settle().await;
    let a = c.check_claim("a", "Lost", "v").await;
    assert_eq!(a["status"].get("capacity"), None);
    assert_eq!(
        c.told("ClaimLost").await,
        ["Bound claim has lost its PersistentVolume. Data on the volume is lost!"]
    );
    // The volume comes back, set aside for the same claim.
    c.volume("v", "1Gi", json!({"spec": {"claimRef": {"namespace": "n", "name": "a"}}})).await;
    c.settle().await;
    c.check_claim("a", "Bound", "v").await;
}

#[tokio::test]
async fn two_claims_that_say_they_have_one_volume() {
    let c = Cluster::new();
    c.volume("v", "1Gi", json!({})).await;
    c.claim("a", "1Gi", json!({})).await;
    c.settle().await;
    let done = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": "v"}});
    c.claim("b", "1Gi", done).await;
    c.settle().await;
    c.check_claim("a", "Bound", "v").await;
    c.check_claim("b", "Lost", "v").await;
    assert_eq!(c.told("ClaimMisbound").await.len(), 1);
}

#[tokio::test]
async fn a_volume_whose_claim_has_another_is_freed() {
    let c = Cluster::new();
    c.volume("v", "1Gi", json!({})).await;
    c.claim("a", "1Gi", json!({})).await;
    c.settle().await;
    let uid = c.claims().get("a").await.unwrap().uid().to_owned();
    let reference = |uid: &str| json!({"claimRef": {"namespace": "n", "name": "a", "uid": uid}});
    let ours = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}}, "spec": reference(&uid)});
    c.volume("second", "1Gi", ours).await;
    c.volume("users", "1Gi", json!({"spec": reference(&uid)})).await;
    c.settle().await;
    c.check_volume("v", "Bound", "a").await;
    c.check_volume("second", "Available", "").await;
    c.check_volume("users", "Available", "a").await;
    let users = c.volumes().get("users").await.unwrap();
    assert_eq!(users.spec.as_ref().unwrap().claim_ref.as_ref().unwrap().uid, None);
}

#[tokio::test]
async fn classes_decide_who_makes_a_volume_and_when() {
    let c = Cluster::new();
    c.class("now", json!({})).await;
    c.class("later", json!({"volumeBindingMode": "WaitForFirstConsumer"})).await;
    c.class("by-hand", json!({"provisioner": "kubernetes.io/no-provisioner"})).await;
    let of = |class: &str| json!({"spec": {"storageClassName": class}});
    for class in ["now", "later", "by-hand", "unknown"] {
        c.claim(class, "1Gi", of(class)).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes":
        [{"name": "v", "persistentVolumeClaim": {"claimName": "awaited"}}]}});
    let pods = Api::<Pod>::namespaced(c.server.client(), "n");
    pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    c.claim("awaited", "1Gi", of("later")).await;
    c.volume("free", "1Gi", of("later")).await;
    let informed = kubewright_reconcile::Controller::for_kind::<Pod>("pods").with(
        |_: std::sync::Arc<Pod>, _: kubewright_reconcile::Context| async move {
            Ok::<_, kubewright_core::ApiError>(kubewright_reconcile::Action::Done)
        },
    );
    converges(&c.server, controllers().into_iter().chain([informed]), || true).await.unwrap();
    let now = c.check_claim("now", "Pending", "").await;
    assert_eq!(
        now["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"],
        "example.com/disks"
    );
    assert!(c.told("ExternalProvisioning").await[0].contains("external provisioner 'example.com/disks'"));
    let later = c.check_claim("later", "Pending", "").await;
    assert_eq!(later["metadata"].get("annotations"), None, "the scheduler chooses first");
    c.check_volume("free", "Available", "").await;
    let mut failed = c.told("ProvisioningFailed").await;
    failed.sort();
    assert_eq!(
        failed,
        [
            "no volume plugin matched name: kubernetes.io/no-provisioner",
            "storageclass.storage.k8s.io \"unknown\" not found"
        ]
    );
    assert_eq!(
        c.told("WaitForFirstConsumer").await,
        ["waiting for first consumer to be created before binding"]
    );
    // The scheduler chose a node, and for the other claim a volume.
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}}});
    c.claims().patch("later", ContentType::MergePatch, selected).await.unwrap();
    let uid = c.claims().get("awaited").await.unwrap().uid().to_owned();
    let reserve = json!({"spec": {"claimRef": {"namespace": "n", "name": "awaited", "uid": uid}}});
    c.volumes().patch("free", ContentType::MergePatch, reserve).await.unwrap();
    c.settle().await;
    let later = c.check_claim("later", "Pending", "").await;
    assert_eq!(
        later["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-provisioner"],
        "example.com/disks"
    );
    c.check_claim("awaited", "Bound", "free").await;
}

#[tokio::test]
async fn a_claim_without_a_class_gets_the_default_one() {
    let c = Cluster::new();
    c.claim("a", "1Gi", json!({"spec": {"storageClassName": null}})).await;
    c.claim("none", "1Gi", json!({})).await;
    c.settle().await;
    c.class(
        "std",
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}),
    )
    .await;
    c.settle().await;
    let a = c.check_claim("a", "Pending", "").await;
    assert_eq!(a["spec"]["storageClassName"], "std");
    let none = c.check_claim("none", "Pending", "").await;
    assert_eq!(none["spec"]["storageClassName"], "", "it asked for no class");
}
