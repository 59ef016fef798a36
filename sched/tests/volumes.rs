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

#[test]
fn disks_of_old_types_count_for_the_drivers_that_look_after_them() {
    let inline =
        |n: &str, field: &str, disk: Value| pod(n, "100m", json!({"volumes": [{"name": "v", field: disk}]}));
    let cases = [
        ("ebs.csi.aws.com", "awsElasticBlockStore", "volumeID", json!({}), "aws://zone/vol", "vol"),
        ("pd.csi.storage.gke.io", "gcePersistentDisk", "pdName", json!({}), "disk", "disk"),
        ("disk.csi.azure.com", "azureDisk", "diskURI", json!({"diskName": "d"}), "uri", "uri"),
        ("cinder.csi.openstack.org", "cinder", "volumeID", json!({}), "id", "id"),
    ];
    for (driver, field, key, over, id, same) in cases {
        let disk = |id: &str| with(over.clone(), key, json!(id));
        let mut c = Cluster::new(&[node("a", json!({}))]);
        c.object(
            ClusterObject::CsiNode,
            json!({"metadata": {"name": "a"}, "spec": {"drivers": [
            {"name": driver, "nodeID": "a", "allocatable": {"count": 1}}]}}),
        );
        for (name, id) in [("v", id), ("w", "else")] {
            let old = with(volume(name, "1Gi", None), &format!("spec.{field}"), disk(id));
            let mut old = old;
            old["spec"].as_object_mut().unwrap().remove("csi");
            c.object(ClusterObject::PersistentVolume, old);
            c.object(ClusterObject::PersistentVolumeClaim, bound(name, name));
        }
        assert_eq!(c.place(&mounting("p", "v")), "a", "{field}");
        let said_of = |text: String| said(&text).to_owned();
        let full = "0/1 nodes are available: 1 node(s) exceed max volume count.";
        assert_eq!(said_of(c.place(&mounting("q", "w"))), full, "{field}");
        assert_eq!(said_of(c.place(&inline("r", field, disk("third")))), full, "{field} of the pod's own");
        c.remove("p");
        c.object(
            ClusterObject::PersistentVolume,
            with(volume("x", "1Gi", None), "spec.csi", json!({"driver": driver, "volumeHandle": same})),
        );
        c.object(ClusterObject::PersistentVolumeClaim, bound("x", "x"));
        c.pass(600);
        while c.next() != "idle" {}
        c.remove("q");
        c.remove("r");
        assert_eq!(c.place(&mounting("s", "v")), "a", "{field}");
        assert_eq!(c.place(&mounting("t", "x")), "a", "{field}: the same disk by its new name");
    }
}

#[test]
fn nodes_may_be_scored_by_what_is_left_of_their_storage() {
    let config = |shape: Value| {
        json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "profiles": [{"schedulerName": "default-scheduler", "pluginConfig": [{"name": "VolumeBinding", "args": {"shape": shape}}],
            "plugins": {"score": {"enabled": [{"name": "VolumeBinding", "weight": 50}]}}}]})
    };
    let empty_first = json!([{"utilization": 0, "score": 10}, {"utilization": 100, "score": 0}]);
    let full_first = json!([{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]);
    for (shape, on_volumes, on_storage) in [(empty_first, "b", "b"), (full_first, "a", "a")] {
        let read = kubewright_sched::Configuration::from_value(config(shape)).unwrap();
        let scheduler = read.scheduler(&kubewright_sched::Registry::builtin(), 1).unwrap();
        let mut c = Cluster { scheduler, now: 0 };
        for name in ["a", "b"] {
            c.node(&node(name, json!({})));
        }
        c.object(ClusterObject::StorageClass, class("d", "WaitForFirstConsumer"));
        let mut waiting = claim("c", "c", json!({}));
        waiting["spec"]["resources"] = json!({"requests": {"storage": "1Gi"}});
        c.object(ClusterObject::PersistentVolumeClaim, waiting.clone());
        for (name, size, on) in [("small", "2Gi", "a"), ("large", "9Gi", "b")] {
            c.object(
                ClusterObject::PersistentVolume,
                with(volume(name, size, Some(on)), "spec.storageClassName", json!("c")),
            );
        }
        assert_eq!(c.place(&mounting("p", "c")), format!("prepares {on_volumes}"));
        // Without volumes, by what the drivers have left.
        c.object(
            ClusterObject::CsiDriver,
            json!({"metadata": {"name": "d"}, "spec": {"storageCapacity": true}}),
        );
        waiting["metadata"]["name"] = json!("made");
        waiting["spec"]["storageClassName"] = json!("e");
        c.object(ClusterObject::PersistentVolumeClaim, waiting);
        c.object(
            ClusterObject::StorageClass,
            with(class("d", "WaitForFirstConsumer"), "metadata.name", json!("e")),
        );
        for (node, left) in [("a", "2Gi"), ("b", "9Gi")] {
            c.object(
                ClusterObject::CsiStorageCapacity,
                json!({"metadata": {"namespace": "n", "name": node}, "storageClassName": "e", "capacity": left,
                "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": node}}}),
            );
        }
        assert_eq!(c.place(&mounting("q", "made")), format!("prepares {on_storage}"));
    }
}
