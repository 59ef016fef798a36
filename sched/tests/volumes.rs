//! Volumes: bound ones, those that wait for their pod, limits, zones and disks that can't be shared.

mod common;

use common::{Cluster, at, node, pod, with};
use kubewright_core::Target;
use kubewright_sched::{ClusterObject, Decision, PodKey};
use serde_json::{Value, json};

fn claim(name: &str, class: &str, spec: Value) -> Value {
    let mut claim = json!({
        "metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        claim["spec"][key] = value.clone();
    }
    claim
}

fn bound(name: &str, volume: &str) -> Value {
    let claim = claim(name, "c", json!({"volumeName": volume}));
    with(claim, "metadata.annotations", json!({"pv.kubernetes.io/bind-completed": "yes"}))
}

fn volume(name: &str, size: &str, on: Option<&str>) -> Value {
    let mut volume = json!({
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c",
                 "csi": {"driver": "d", "volumeHandle": name}},
        "status": {"phase": "Available"},
    });
    if let Some(on) = on {
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}]}});
    }
    volume
}

fn class(provisioner: &str, mode: &str) -> Value {
    json!({"metadata": {"name": "c"}, "provisioner": provisioner, "volumeBindingMode": mode})
}

fn mounting(name: &str, claim: &str) -> Value {
    pod(name, "100m", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}))
}

fn cluster() -> Cluster {
    Cluster::new(&[
        node("a", json!({"topology.kubernetes.io/zone": "z1"})),
        node("b", json!({"topology.kubernetes.io/zone": "z2"})),
    ])
}

/// The message of a try without what preemption says.
fn said(text: &str) -> &str {
    text.split(" preemption:").next().unwrap_or(text)
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let mut c = cluster();
    assert_eq!(
        said(&c.place(&mounting("p", "v"))),
        "0/2 nodes are available: persistentvolumeclaim \"v\" not found."
    );
    c.object(ClusterObject::PersistentVolumeClaim, bound("v", "pv"));
    c.pass(1);
    assert_eq!(
        said(&c.next()),
        "0/2 nodes are available: persistentvolume \"pv\" not found.",
        "zones are looked up for all nodes at once"
    );
    c.object(ClusterObject::PersistentVolume, volume("pv", "1Gi", Some("b")));
    c.pass(2);
    assert_eq!(c.next(), "b");
    // Zones of the volume's labels count as well.
    let zoned = with(
        volume("zoned", "1Gi", None),
        "metadata.labels",
        json!({"topology.kubernetes.io/zone": "z1__z3"}),
    );
    c.object(ClusterObject::PersistentVolume, zoned);
    c.object(ClusterObject::PersistentVolumeClaim, bound("w", "zoned"));
    assert_eq!(c.place(&mounting("q", "w")), "a");
}

#[test]
fn a_claim_that_waits_gets_the_smallest_volume_of_its_node() {
    let mut c = cluster();
    c.object(ClusterObject::StorageClass, class("kubernetes.io/no-provisioner", "WaitForFirstConsumer"));
    c.object(ClusterObject::PersistentVolumeClaim, claim("v", "c", json!({})));
    let nothing = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(said(&c.place(&mounting("p", "v"))), nothing);
    for (name, size) in [("big", "9Gi"), ("small", "2Gi"), ("tiny", "1Mi")] {
        c.object(ClusterObject::PersistentVolume, volume(name, size, Some("b")));
    }
    c.pass(1);
    let Some(Decision::Prepare { node, requests, pod }) = c.scheduler.schedule_one(at(c.now)) else {
        panic!("the volume is bound first")
    };
    assert_eq!((node.as_str(), requests.len()), ("b", 1));
    let Target::Resource { name, .. } = &requests[0].target else { panic!("a resource") };
    assert_eq!(name.as_deref(), Some("small"));
    // Another pod can't have the same volume meanwhile.
    c.object(ClusterObject::PersistentVolumeClaim, claim("w", "c", json!({})));
    assert_eq!(c.place(&mounting("q", "w")), "prepares b");
    assert!(c.scheduler.prepared(&pod.key, at(c.now)).is_none(), "the claim is not bound yet");
    c.object(
        ClusterObject::PersistentVolumeClaim,
        with(bound("v", "small"), "metadata.resourceVersion", json!("2")),
    );
    let ready = c.scheduler.take_prepared(at(c.now));
    assert!(matches!(ready.as_slice(), [Decision::Bind { node, .. }] if node == "b"));
}

#[test]
fn a_volume_is_made_on_the_chosen_node_and_waited_for() {
    let mut c = cluster();
    let mut class = class("example.com/disks", "WaitForFirstConsumer");
    class["allowedTopologies"] =
        json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["z2"]}]}]);
    c.object(ClusterObject::StorageClass, class);
    c.object(ClusterObject::PersistentVolumeClaim, claim("v", "c", json!({})));
    assert_eq!(c.place(&mounting("p", "v")), "prepares b");
    let key = PodKey::new("n", "p");
    c.scheduler.prepared(&key, at(0));
    // It never comes: after ten minutes the pod gives its place back.
    c.pass(601);
    assert!(c.scheduler.nodes().placed(&key).is_none());
    // A driver that tells its capacity is believed.
    c.object(
        ClusterObject::CsiDriver,
        json!({"metadata": {"name": "example.com/disks"}, "spec": {"storageCapacity": true}}),
    );
    c.pass(10);
    assert_eq!(
        said(&c.next()),
        "0/2 nodes are available: 1 node(s) did not have enough free storage, 1 node(s) didn't find available persistent volumes to bind."
    );
}

#[test]
fn limits_and_sharing_are_kept() {
    let mut c = Cluster::new(&[node("a", json!({}))]);
    c.object(
        ClusterObject::CsiNode,
        json!({"metadata": {"name": "a"}, "spec": {"drivers": [
        {"name": "d", "nodeID": "a", "allocatable": {"count": 1}}]}}),
    );
    for name in ["v", "w"] {
        c.object(ClusterObject::PersistentVolume, volume(name, "1Gi", None));
        c.object(ClusterObject::PersistentVolumeClaim, bound(name, name));
    }
    assert_eq!(c.place(&mounting("p", "v")), "a");
    assert_eq!(c.place(&mounting("q", "v")), "a", "the same volume is attached once");
    assert_eq!(
        said(&c.place(&mounting("r", "w"))),
        "0/1 nodes are available: 1 node(s) exceed max volume count."
    );
    let once = with(bound("x", "x"), "spec.accessModes", json!(["ReadWriteOncePod"]));
    let mut c = cluster();
    c.object(ClusterObject::PersistentVolume, volume("x", "1Gi", None));
    c.object(ClusterObject::PersistentVolumeClaim, once);
    assert_ne!(c.place(&mounting("p", "x")), "idle");
    assert_eq!(
        said(&c.place(&mounting("q", "x"))),
        "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
    );
    let disk = |name: &str| {
        pod(name, "100m", json!({"volumes": [{"name": "v", "awsElasticBlockStore": {"volumeID": "vol"}}]}))
    };
    let mut c = Cluster::new(&[node("a", json!({}))]);
    assert_eq!(c.place(&disk("p")), "a");
    assert_eq!(said(&c.place(&disk("q"))), "0/1 nodes are available: 1 node(s) had no available disk.");
}
