//! Services, endpoints and the addresses behind them, as objects.

use super::site::{STRATEGIC, in_process};
use serde_json::{Value, json};

#[tokio::test]
async fn the_status_of_a_service_lives_its_life() {
    let site = in_process().await;
    let services = format!("{}/services", site.namespace("svc").await);
    let mut watch = site.watch(&format!("{services}?labelSelector=test-service-static%3Dtrue")).await;
    let made = site.make(&services, json!({"metadata": {"name": "s", "labels": {"test-service-static": "true"}}, "spec": {
        "type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip", "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}]}})).await;
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    let status = format!("{services}/s/status");
    assert_eq!(site.get(&status).await.ok(), made);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    let mut patched = site.merge(&status, patch).await.ok();
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1");
    patched["status"]["conditions"] = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test", "lastTransitionTime": null}]);
    let updated = site.put(&status, &patched).await.ok();
    assert_eq!(updated["status"]["conditions"][0]["reason"], "E2E");
    let label = json!({"metadata": {"labels": {"test-service": "patched"}}});
    let labelled = site.patch(STRATEGIC, &format!("{services}/s"), &label).await.ok();
    assert_eq!(
        (&labelled["metadata"]["labels"]["test-service"], &labelled["status"]),
        (&json!("patched"), &updated["status"])
    );
    let gone = site.delete(&format!("{services}/s")).await.ok();
    assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("Service"), &json!("s")));
    watch.expect(&["ADDED s", "MODIFIED s", "MODIFIED s", "MODIFIED s", "DELETED s"]).await;
}

#[tokio::test]
async fn a_collection_of_services_is_deleted() {
    let site = in_process().await;
    let services = format!("{}/services", site.namespace("svc").await);
    for (name, label) in [("a", "some"), ("b", "some"), ("c", "other")] {
        site.make(&services, json!({"metadata": {"name": name, "labels": {"e2e-test-service": label}}, "spec": {"ports": [{"port": 80}]}})).await;
    }
    site.delete(&format!("{services}?labelSelector=e2e-test-service%3Dsome")).await.ok();
    let left = site.get(&services).await.ok();
    assert_eq!(
        (left["items"].as_array().unwrap().len(), &left["items"][0]["metadata"]["name"]),
        (1, &json!("c"))
    );
}

#[tokio::test]
async fn a_service_changes_its_type() {
    let site = in_process().await;
    let services = format!("{}/services", site.namespace("svc").await);
    let at = format!("{services}/s");
    let has_address = |s: &Value| s["spec"]["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty());
    let node_port = |s: &Value| s["spec"]["ports"][0]["nodePort"].as_i64();
    let change = async |spec: Value| {
        let mut current = site.get(&at).await.ok();
        for (field, value) in spec.as_object().unwrap() {
            match value {
                Value::Null => drop(current["spec"].as_object_mut().unwrap().remove(field)),
                value => current["spec"][field] = value.clone(),
            }
        }
        site.put(&at, &current).await.ok()
    };
    let ports = json!([{"port": 80, "name": "http", "protocol": "TCP"}]);
    let made = site.make(&services, json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "foo.example.com"}})).await;
    assert!(!has_address(&made));
    let inside = change(json!({"type": "ClusterIP", "externalName": null, "ports": ports})).await;
    assert!(has_address(&inside) && node_port(&inside).is_none(), "{inside}");
    let outside = change(json!({"type": "ExternalName", "externalName": "foo.example.com"})).await;
    assert!(!has_address(&outside), "{outside}");
    let on_nodes = change(json!({"type": "NodePort", "externalName": null, "ports": ports})).await;
    assert!(has_address(&on_nodes) && node_port(&on_nodes).is_some(), "{on_nodes}");
    let port = node_port(&on_nodes).unwrap();
    let outside = change(json!({"type": "ExternalName", "externalName": "foo.example.com"})).await;
    assert!(!has_address(&outside) && node_port(&outside).is_none(), "{outside}");
    let again = json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    super::definitions::eventually("the port is free again", async || {
        site.post(&services, &again).await.code == 201
    })
    .await;
    let affinity =
        site.merge(&format!("{services}/t"), json!({"spec": {"sessionAffinity": "ClientIP"}})).await.ok();
    assert_eq!(affinity["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
    let none = site
        .merge(
            &format!("{services}/t"),
            json!({"spec": {"sessionAffinity": "None", "sessionAffinityConfig": null}}),
        )
        .await
        .ok();
    assert_eq!(
        (&none["spec"]["sessionAffinity"], none["spec"].get("sessionAffinityConfig")),
        (&json!("None"), None)
    );
}

#[tokio::test]
async fn the_api_server_has_a_service_with_endpoints() {
    let site = in_process().await;
    let all = site.get("/api/v1/services").await.ok();
    let found = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .any(|s| s["metadata"]["name"] == "kubernetes" && s["metadata"]["namespace"] == "default");
    assert!(found);
    let service = site.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
    assert_eq!(
        (&service["spec"]["ports"][0]["port"], &service["spec"]["ports"][0]["name"]),
        (&json!(443), &json!("https"))
    );
    let endpoints = site.get("/api/v1/namespaces/default/endpoints/kubernetes").await.ok();
    assert_eq!(endpoints["metadata"]["labels"]["endpointslice.kubernetes.io/skip-mirror"], "true");
    let subset = &endpoints["subsets"][0];
    let slices = site.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes").await.ok();
    let slice = &slices["items"][0];
    assert_eq!(
        (&slice["endpoints"][0]["addresses"][0], &slice["ports"][0]["port"]),
        (&subset["addresses"][0]["ip"], &subset["ports"][0]["port"])
    );
    assert_eq!(slice["addressType"], "IPv4");
}

#[tokio::test]
async fn endpoints_live_their_life() {
    let site = in_process().await;
    let home = site.namespace("ep").await;
    let endpoints = format!("{home}/endpoints");
    let mut watch = site.watch(&format!("{endpoints}?labelSelector=test-endpoint-static%3Dtrue")).await;
    let made = site
        .make(
            &endpoints,
            json!({"metadata": {"name": "e", "labels": {"test-endpoint-static": "true"}}, "subsets": [{
        "addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]}),
        )
        .await;
    let all = site.get("/api/v1/endpoints?labelSelector=test-endpoint-static%3Dtrue").await.ok();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    let mut updated = made;
    updated["metadata"]["labels"]["test-service"] = json!("updated");
    site.put(&format!("{endpoints}/e"), &updated).await.ok();
    let patch = json!({"metadata": {"labels": {"test-service": "patched"}}, "subsets": [{"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080}]}]});
    let patched = site.patch(STRATEGIC, &format!("{endpoints}/e"), &patch).await.ok();
    let subset = &patched["subsets"][0];
    assert_eq!(
        (&subset["addresses"][0]["ip"], &subset["ports"][0]["port"], &subset["ports"][0]["name"]),
        (&json!("10.0.0.25"), &json!(8080), &json!("http-test"))
    );
    site.delete(&format!("{endpoints}?labelSelector=test-endpoint-static%3Dtrue")).await.ok();
    watch.expect(&["ADDED e", "MODIFIED e", "MODIFIED e", "DELETED e"]).await;
    site.get(&format!("{endpoints}/e")).await.refused(404, "NotFound");
}
