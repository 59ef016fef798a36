//! Quotas: what they refuse, in which words, and that nothing slips through when many write at once.

use crate::common::*;
use crate::kube::*;
use serde_json::{Value, json};

/// A quota whose use is known, as its controller leaves it.
async fn limit(plane: &Plane, name: &str, spec: Value, used: Value) {
    let hard = spec["hard"].clone();
    plane.make("resourcequotas", json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
    let status = json!({"status": {"hard": hard, "used": used}});
    plane.merge("resourcequotas/status", name, status).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
}

async fn used(plane: &Plane, name: &str) -> Value {
    plane.read("resourcequotas", name).await.unwrap()["status"]["used"].clone()
}

#[tokio::test]
async fn a_pod_is_charged_or_refused() {
    let plane = kube().await;
    let spec = json!({"hard": {"cpu": "1", "memory": "500Mi", "pods": "3"}});
    limit(&plane, "q", spec, json!({"cpu": "0", "memory": "0", "pods": "0"})).await;
    let check = async |name: &str, resources: Value, want: &str, left: Value| {
        assert_eq!(told(plane.make("pods", sized(name, resources)).await), want);
        assert_eq!(used(&plane, "q").await, left, "{name}");
    };
    let size = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}});
    let first = json!({"cpu": "500m", "memory": "252Mi", "pods": "1"});
    check("a", size("500m", "252Mi"), "ok", first.clone()).await;
    let why =
        "403 pods \"b\" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1";
    check("b", size("600m", "100Mi"), why, first.clone()).await;
    let why = "403 pods \"b\" is forbidden: failed quota: q: must specify memory for: c";
    check("b", json!({"requests": {"cpu": "1m"}}), why, first.clone()).await;
    assert_eq!(told(plane.try_out("pods", sized("b", size("500m", "1Mi"))).await), "ok");
    assert_eq!(used(&plane, "q").await, first);
    check("b", size("500m", "1Mi"), "ok", json!({"cpu": "1", "memory": "253Mi", "pods": "2"})).await;
}

#[tokio::test]
async fn a_quota_without_a_count_lets_nothing_pass() {
    let plane = kube().await;
    limit(
        &plane,
        "q",
        json!({"hard": {"configmaps": "9", "count/secrets": "1"}}),
        json!({"count/secrets": "0"}),
    )
    .await;
    let map = json!({"metadata": {"name": "m"}});
    let why = "403 configmaps \"m\" is forbidden: status unknown for quota: q, resources: configmaps";
    assert_eq!(told(plane.make("configmaps", map).await), why);
    assert_eq!(told(plane.make("secrets", json!({"metadata": {"name": "a"}})).await), "ok");
    let why = "403 secrets \"b\" is forbidden: exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1";
    assert_eq!(told(plane.make("secrets", json!({"metadata": {"name": "b"}})).await), why);
}

#[tokio::test]
async fn updates_charge_what_they_add() {
    let plane = kube().await;
    let zero = json!({"services": "0", "services.nodeports": "0"});
    limit(&plane, "q", json!({"hard": {"services": "2", "services.nodeports": "1"}}), zero).await;
    let service = |kind: &str, ports: Value| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "selector": {"a": "b"}, "ports": ports}});
    let one = json!([{"name": "a", "port": 80}]);
    plane.make("services", service("ClusterIP", one.clone())).await.unwrap();
    plane.merge("services", "s", json!({"spec": {"type": "NodePort"}})).await.unwrap();
    assert_eq!(used(&plane, "q").await, json!({"services": "1", "services.nodeports": "1"}));
    plane.merge("services", "s", json!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    assert_eq!(used(&plane, "q").await, json!({"services": "1", "services.nodeports": "1"}));
    let two = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let why = "403 services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1";
    assert_eq!(told(plane.merge("services", "s", json!({"spec": {"ports": two}})).await), why);
}

#[tokio::test]
async fn scopes_tell_who_is_meant() {
    let plane = kube().await;
    for (name, scope) in [("best", "BestEffort"), ("sized", "NotBestEffort")] {
        limit(&plane, name, json!({"hard": {"pods": "5"}, "scopes": [scope]}), json!({"pods": "0"})).await;
    }
    plane.make("pods", sized("a", json!({"requests": {"cpu": "1"}}))).await.unwrap();
    assert_eq!(
        (used(&plane, "best").await, used(&plane, "sized").await),
        (json!({"pods": "0"}), json!({"pods": "1"}))
    );
    plane.make("pods", sized("b", json!({}))).await.unwrap();
    assert_eq!(
        (used(&plane, "best").await, used(&plane, "sized").await),
        (json!({"pods": "1"}), json!({"pods": "1"}))
    );
}

#[tokio::test]
async fn many_at_once_get_exactly_what_there_is() {
    let plane = kube().await;
    limit(&plane, "q", json!({"hard": {"configmaps": "20"}}), json!({"configmaps": "0"})).await;
    limit(
        &plane,
        "p",
        json!({"hard": {"configmaps": "25", "secrets": "1"}}),
        json!({"configmaps": "3", "secrets": "0"}),
    )
    .await;
    let writes = (0..40).map(|i| {
        let plane = plane.clone();
        tokio::spawn(
            async move { plane.make("configmaps", json!({"metadata": {"name": format!("m{i}")}})).await },
        )
    });
    let results = futures::future::join_all(writes.collect::<Vec<_>>()).await;
    let made = results.into_iter().filter(|r| r.as_ref().unwrap().is_ok()).count();
    assert_eq!(made, 20);
    assert_eq!(used(&plane, "q").await, json!({"configmaps": "20"}));
    assert_eq!(used(&plane, "p").await["configmaps"], "23");
}
