//! Quotas with the server that charges them and the controller that counts anew.

use super::{Cluster, eventually};
use kubewright::core::{ApiError, ApiRequest, ContentType, GroupVersionResource, ResponseBody, Verb};
use serde_json::{Value, json};

/// A namespace of its own on a cluster whose pods run nowhere.
struct Home(Cluster);

impl Home {
    async fn new() -> Self {
        let home =
            Home(Cluster::start(std::sync::Arc::new(kubewright::store::MemoryStore::new()), 0, false).await);
        let namespaces = GroupVersionResource::new("", "v1", "namespaces");
        let create = ApiRequest::resource(Verb::Create, namespaces, None, None);
        home.send(create.body(ContentType::Json, json!({"metadata": {"name": "q"}}))).await.unwrap();
        eventually("the account of pods", || async { home.get("serviceaccounts", "default").await.ok() })
            .await;
        home
    }

    /// `pods`, `replicasets.apps`, in the namespace.
    fn at(verb: Verb, what: &str, name: Option<&str>) -> ApiRequest {
        let (plural, group) = what.split_once('.').unwrap_or((what, ""));
        ApiRequest::resource(verb, GroupVersionResource::new(group, "v1", plural), Some("q"), name)
    }

    async fn send(&self, request: ApiRequest) -> Result<Value, ApiError> {
        Ok(match self.0.client.send(request).await?.body {
            ResponseBody::Object(object) => object.value()?,
            ResponseBody::Value(value) => value,
            _ => Value::Null,
        })
    }

    async fn get(&self, what: &str, name: &str) -> Result<Value, ApiError> {
        self.send(Self::at(Verb::Get, what, Some(name))).await
    }

    async fn create(&self, what: &str, object: Value) -> Result<Value, ApiError> {
        self.send(Self::at(Verb::Create, what, None).body(ContentType::Json, object)).await
    }

    async fn delete(&self, what: &str, name: &str) {
        let now = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        self.send(Self::at(Verb::Delete, what, Some(name)).body(ContentType::Json, now)).await.unwrap();
    }

    /// Waits until the quota has counted just this.
    async fn used(&self, quota: &str, wanted: Value) {
        eventually(&format!("{quota} with {wanted}"), || async {
            let found = self.get("resourcequotas", quota).await.unwrap();
            let used = found["status"]["used"].as_object().cloned().unwrap_or_default();
            wanted.as_object().unwrap().iter().all(|(k, v)| used.get(k) == Some(v)).then_some(())
        })
        .await;
    }

    async fn refused(&self, what: &str, object: Value, words: &str) {
        let e = self.create(what, object).await.unwrap_err();
        assert!(e.code() == 403 && e.message().contains(words), "{e}");
    }
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_follow_the_life_of_what_they_count() {
    let home = Home::new().await;
    let hard = json!({"pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1", "replicationcontrollers": "10",
        "resourcequotas": "1", "secrets": "10", "configmaps": "10", "persistentvolumeclaims": "10", "requests.storage": "10Gi", "cpu": "1",
        "memory": "500Mi", "ephemeral-storage": "50Gi", "count/replicasets.apps": "5", "requests.example.com/dongle": "3"});
    home.create("resourcequotas", json!({"metadata": {"name": "test-quota"}, "spec": {"hard": hard}}))
        .await
        .unwrap();
    let none = json!({"pods": "0", "services": "0", "services.nodeports": "0", "services.loadbalancers": "0", "replicationcontrollers": "0",
        "resourcequotas": "1", "secrets": "0", "configmaps": "0", "persistentvolumeclaims": "0", "requests.storage": "0", "cpu": "0",
        "memory": "0", "ephemeral-storage": "0", "count/replicasets.apps": "0", "requests.example.com/dongle": "0"});
    home.used("test-quota", none.clone()).await;
    assert_eq!(home.get("resourcequotas", "test-quota").await.unwrap()["status"]["hard"], hard);

    let named = |name: &str| json!({"metadata": {"name": name}});
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let idle = |selector: Value| json!({"metadata": {"name": "idle"}, "spec": {"replicas": 0, "selector": selector, "template": template}});
    let claim = json!({"metadata": {"name": "claim"}, "spec": {"storageClassName": "none", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    for (what, object, counted) in [
        ("configmaps", named("a"), json!({"configmaps": "1"})),
        ("secrets", named("a"), json!({"secrets": "1"})),
        ("replicationcontrollers", idle(json!({"app": "a"})), json!({"replicationcontrollers": "1"})),
        (
            "replicasets.apps",
            idle(json!({"matchLabels": {"app": "a"}})),
            json!({"count/replicasets.apps": "1"}),
        ),
        ("persistentvolumeclaims", claim, json!({"persistentvolumeclaims": "1", "requests.storage": "1Gi"})),
    ] {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        home.create(what, object).await.unwrap();
        home.used("test-quota", counted).await;
        home.delete(what, &name).await;
        home.used("test-quota", none.clone()).await;
    }

    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    home.create("services", service("plain", "ClusterIP")).await.unwrap();
    home.create("services", service("node", "NodePort")).await.unwrap();
    home.refused("services", service("balanced", "LoadBalancer"), "exceeded quota: test-quota").await;
    home.used(
        "test-quota",
        json!({"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"}),
    )
    .await;
    for name in ["plain", "node"] {
        home.delete("services", name).await;
    }
    home.used("test-quota", none.clone()).await;

    let some = json!({"requests": {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"}, "limits": {"example.com/dongle": "2"}});
    home.create("pods", pod("fits", some)).await.unwrap();
    let used = json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "requests.example.com/dongle": "2"});
    home.used("test-quota", used.clone()).await;
    let more = json!({"requests": {"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi"}});
    home.refused("pods", pod("too-much", more), "exceeded quota: test-quota").await;
    let devices = json!({"requests": {"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "1Gi", "example.com/dongle": "2"}, "limits": {"example.com/dongle": "2"}});
    home.refused("pods", pod("too-many", devices), "exceeded quota: test-quota").await;
    let smaller =
        json!([{"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "100m"}]);
    let grown = Home::at(Verb::Patch, "pods", Some("fits")).body(ContentType::JsonPatch, smaller);
    assert_eq!(home.send(grown).await.unwrap_err().code(), 422, "what a pod asks for stays");
    home.used("test-quota", used).await;
    home.delete("pods", "fits").await;
    home.used("test-quota", none).await;
    home.0.plane.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_tell_pods_apart() {
    let home = Home::new().await;
    for scope in ["BestEffort", "NotBestEffort"] {
        let name = scope.to_lowercase();
        home.create(
            "resourcequotas",
            json!({"metadata": {"name": name}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}}),
        )
        .await
        .unwrap();
        home.used(&name, json!({"pods": "0"})).await;
    }
    let check = async |name: &str, object: Value, counts: &[(&str, &str)]| {
        home.create("pods", object).await.unwrap();
        for (quota, pods) in counts {
            home.used(quota, json!({"pods": pods})).await;
        }
        home.delete("pods", name).await;
        for (quota, _) in counts {
            home.used(quota, json!({"pods": "0"})).await;
        }
    };
    let some =
        json!({"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}});
    check("bare", pod("bare", json!({})), &[("besteffort", "1"), ("notbesteffort", "0")]).await;
    check("some", pod("some", some.clone()), &[("besteffort", "0"), ("notbesteffort", "1")]).await;
    // Quotas of resources refuse pods that say nothing of them, so the two pairs are asked about one after the other.
    for scope in ["besteffort", "notbesteffort"] {
        home.delete("resourcequotas", scope).await;
    }
    for scope in ["Terminating", "NotTerminating"] {
        let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"});
        let name = scope.to_lowercase();
        home.create(
            "resourcequotas",
            json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": [scope]}}),
        )
        .await
        .unwrap();
        home.used(&name, json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0"})).await;
    }
    check("stays", pod("stays", some.clone()), &[("notterminating", "1"), ("terminating", "0")]).await;
    let mut ends = pod("ends", some);
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    check("ends", ends, &[("terminating", "1"), ("notterminating", "0")]).await;
    home.0.plane.shutdown().await.unwrap();
}
