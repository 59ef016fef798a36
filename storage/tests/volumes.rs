//! The volumes of a pod on a real disk: mounted, brought up to date, and gone with the pod.

use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kubewright_storage::{
    Error, NodeFacts, PodVolumes, Reason, TokenOrder, VolumeManager, VolumeSource, Volumes,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Objects by `<kind>/<name>`.
#[derive(Default)]
struct Source(Mutex<BTreeMap<String, Value>>);

impl Source {
    fn put(&self, kind: &str, name: &str, mut object: Value) {
        object["metadata"]["name"] = json!(name);
        self.0.lock().unwrap().insert(format!("{kind}/{name}"), object);
    }

    fn get<K: serde::de::DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<Arc<K>>, Error> {
        let found = self.0.lock().unwrap().get(&format!("{kind}/{name}")).cloned();
        Ok(found.map(|v| Arc::new(serde_json::from_value(v).unwrap())))
    }
}

impl VolumeSource for Source {
    fn config_map(&self, _: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<ConfigMap>>, Error>> {
        Box::pin(ready(self.get("cm", name)))
    }
    fn secret(&self, _: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<Secret>>, Error>> {
        Box::pin(ready(self.get("secret", name)))
    }
    fn claim(&self, _: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<PersistentVolumeClaim>>, Error>> {
        Box::pin(ready(self.get("pvc", name)))
    }
    fn persistent_volume(&self, name: &str) -> BoxFuture<'_, Result<Option<Arc<PersistentVolume>>, Error>> {
        Box::pin(ready(self.get("pv", name)))
    }
    fn token(&self, order: TokenOrder) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(ready(Ok(format!(
            "{} for {:?} of {}",
            order.service_account, order.audience, order.pod_uid
        ))))
    }
}

struct Bed {
    dir: tempfile::TempDir,
    manager: VolumeManager,
    source: Source,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = VolumeManager::builder(dir.path()).build();
        Bed { dir, manager, source: Source::default() }
    }

    async fn mount(&self, volumes: Value) -> Result<PodVolumes, Error> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"containers": [], "volumes": volumes, "serviceAccountName": "sa"},
        }))
        .unwrap();
        self.manager.mount_pod(&pod, &self.source, &NodeFacts::default()).await
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn files_follow_their_objects() {
    let bed = Bed::new();
    bed.source.put("cm", "c", json!({"data": {"k": "1", "l": "2"}}));
    bed.source.put("secret", "s", json!({"data": {"p": "c2VjcmV0"}}));
    let volumes = json!([
        {"name": "cm", "configMap": {"name": "c", "items": [{"key": "k", "path": "d/k", "mode": 0o400}]}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": "x"}},
            {"configMap": {"name": "c"}},
            {"secret": {"name": "none", "optional": true}},
        ]}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}},
    ]);
    let mounted = bed.mount(volumes.clone()).await.unwrap().0;
    let at = |name: &str| mounted[name].path.clone();
    assert_eq!(at("cm"), bed.dir.path().join("pods/u1/volumes/kubernetes.io~configmap/cm"));
    assert_eq!(read(&at("cm").join("d/k")), "1");
    assert_eq!(std::fs::metadata(at("cm").join("d/k")).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(read(&at("secret").join("p")), "secret");
    assert_eq!(read(&at("down").join("labels")), "a=\"b\"");
    assert_eq!(read(&at("all").join("token")), "sa for \"x\" of u1");
    assert_eq!(read(&at("all").join("l")), "2");
    assert_eq!(mounted["tmp"].size_limit, Some(1 << 20));
    std::fs::write(at("tmp").join("kept"), "x").unwrap();

    bed.source.put("cm", "c", json!({"data": {"k": "new"}}));
    bed.mount(volumes).await.unwrap();
    assert_eq!(read(&at("cm").join("d/k")), "new");
    assert!(!at("all").join("l").exists());
    assert_eq!(read(&at("tmp").join("kept")), "x");

    assert_eq!(bed.manager.pods_on_disk(), ["u1"]);
    bed.manager.unmount_pod("u1").await.unwrap();
    bed.manager.unmount_pod("u1").await.unwrap();
    assert!(bed.manager.pods_on_disk().is_empty());
    assert!(bed.manager.unmount_pod("../x").await.is_err());
}

#[tokio::test]
async fn claims_lead_to_their_volumes() {
    let bed = Bed::new();
    let data = bed.dir.path().join("data");
    let claim = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}]);
    let check = async |reason: Reason, words: &str| {
        let e = bed.mount(claim.clone()).await.unwrap_err();
        assert_eq!(e.reason(), reason, "{e}");
        assert!(e.to_string().contains(words), "{e}");
    };
    check(
        Reason::NotFound,
        "MountVolume.SetUp failed for volume \"v\" : persistentvolumeclaim \"c\" not found",
    )
    .await;
    bed.source.put("pvc", "c", json!({"metadata": {"uid": "7"}, "spec": {}, "status": {"phase": "Pending"}}));
    check(Reason::NotReady, "not bound").await;
    bed.source.put(
        "pvc",
        "c",
        json!({"metadata": {"uid": "7"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
    );
    check(Reason::NotFound, "persistentvolume \"pv\" not found").await;
    bed.source.put("pv", "pv", json!({"spec": {"hostPath": {"path": data}, "claimRef": {"uid": "8"}}}));
    check(Reason::NotReady, "not bound to PVC n/c").await;
    bed.source.put(
        "pv",
        "pv",
        json!({"spec": {"nfs": {"path": "/", "server": "x"}, "claimRef": {"uid": "7"}}}),
    );
    check(Reason::Unsupported, "no volume plugin matched").await;
    let csi = json!({"driver": "d.io", "volumeHandle": "h"});
    bed.source.put("pv", "pv", json!({"spec": {"csi": csi, "claimRef": {"uid": "7"}}}));
    check(Reason::Unsupported, "driver name d.io not found").await;
    bed.source.put("pv", "pv", json!({"spec": {"hostPath": {"path": data}, "claimRef": {"uid": "7"}}}));
    let mounted = bed.mount(claim.clone()).await.unwrap().0;
    assert_eq!((&mounted["v"].path, mounted["v"].read_only), (&data, true));
}

#[tokio::test]
async fn what_is_not_supported_is_named() {
    let bed = Bed::new();
    let check = async |volume: Value, reason: Reason, words: &str| {
        let mut volume = volume;
        volume["name"] = json!("v");
        let e = bed.mount(json!([volume])).await.unwrap_err();
        assert_eq!(e.reason(), reason, "{e}");
        assert!(e.to_string().contains(words), "{e}");
    };
    check(json!({"nfs": {"path": "/", "server": "x"}}), Reason::Unsupported, "no volume plugin matched")
        .await;
    check(json!({"configMap": {"name": "x"}}), Reason::NotFound, "configmap \"x\" not found").await;
    check(json!({"emptyDir": {"medium": "Gold"}}), Reason::Unsupported, "Gold").await;
    let bundle = json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "ca", "name": "b"}}]}});
    check(bundle, Reason::Unsupported, "clusterTrustBundle").await;
    bed.source.put("cm", "c", json!({"data": {"k": "1"}}));
    let items = json!({"configMap": {"name": "c", "items": [{"key": "x", "path": "x"}]}});
    check(items, Reason::NotFound, "references non-existent config key: x").await;
}
