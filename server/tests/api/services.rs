//! The addresses of Services: their objects, their families, and the ranges that they come out of.

use crate::common::*;
use crate::kube::*;
use kubewright_core::{ContentType, Verb};
use serde_json::{Value, json};
use std::time::Duration;

fn service(name: &str, more: Value) -> Value {
    let mut service =
        json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    for (key, value) in more.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    service
}

const IPS: &str = "/ipaddresses.networking.k8s.io";
const RANGES: &str = "/servicecidrs.networking.k8s.io";

async fn settled(plane: &Plane) {
    plane.0.reader().consistent().await.unwrap();
}

#[tokio::test]
async fn each_address_has_an_object() {
    let plane = kube().await;
    let range = plane.read(RANGES, "kubernetes").await.unwrap();
    assert_eq!(range["spec"]["cidrs"], json!(["10.0.0.0/24"]));
    assert_eq!(range["status"]["conditions"][0]["status"], "True");
    assert_eq!(plane.read(IPS, "10.0.0.1").await.unwrap()["spec"]["parentRef"]["name"], "kubernetes");
    let made = plane.make("services", service("s", json!({"clusterIP": "10.0.0.9"}))).await.unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let ip = plane.read(IPS, "10.0.0.9").await.unwrap();
    assert_eq!(ip["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "s"}));
    assert_eq!(ip["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    assert!(!ip["metadata"]["uid"].as_str().unwrap().is_empty());
    // One that somebody else holds is not given out.
    let foreign = json!({"metadata": {"name": "10.0.0.20"}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}}});
    plane.make(IPS, foreign).await.unwrap();
    settled(&plane).await;
    let refused = told(plane.make("services", service("t", json!({"clusterIP": "10.0.0.20"}))).await);
    assert!(
        refused.contains("failed to allocate IP 10.0.0.20: provided IP is already allocated"),
        "{refused}"
    );
    // What is taken away while it is held comes back.
    plane.send(ask(Verb::Delete, IPS, Some("10.0.0.9"))).await.unwrap();
    for _ in 0..100 {
        if plane.read(IPS, "10.0.0.9").await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(plane.read(IPS, "10.0.0.9").await.unwrap()["metadata"]["uid"], ip["metadata"]["uid"]);
    plane.send(ask(Verb::Delete, "services", Some("s"))).await.unwrap();
    assert_eq!(plane.read(IPS, "10.0.0.9").await.unwrap_err().code(), 404);
    settled(&plane).await;
    assert_eq!(told(plane.make("services", service("t", json!({"clusterIP": "10.0.0.9"}))).await), "ok");
    let freed = json!({"spec": {"type": "ExternalName", "externalName": "x.example.dev"}});
    plane.merge("services", "t", freed).await.unwrap();
    assert_eq!(plane.read(IPS, "10.0.0.9").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn more_ranges_give_more_addresses() {
    let plane = kube().await;
    let given = json!({"clusterIP": "10.9.0.5"});
    assert!(
        told(plane.make("services", service("s", given.clone())).await).contains("is not in the valid range")
    );
    plane
        .make(RANGES, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.9.0.0/28"]}}))
        .await
        .unwrap();
    settled(&plane).await;
    assert!(
        told(plane.make("services", service("s", given.clone())).await).contains("is not in the valid range")
    );
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    plane.merge(&format!("{RANGES}/status"), "more", ready).await.unwrap();
    settled(&plane).await;
    assert_eq!(told(plane.make("services", service("s", given)).await), "ok");
}

#[tokio::test]
async fn a_cluster_of_two_families_gives_two_addresses() {
    let plane = kube_with(kube_builder().service_cidr("10.0.0.0/24,fd00:7::/112")).await;
    let make = async |name: &str, more: Value| plane.make("services", service(name, more)).await.unwrap();
    let single = make("a", json!({})).await;
    assert_eq!(
        (&single["spec"]["ipFamilyPolicy"], &single["spec"]["ipFamilies"]),
        (&json!("SingleStack"), &json!(["IPv4"]))
    );
    let six = make("b", json!({"ipFamilies": ["IPv6"]})).await;
    assert!(six["spec"]["clusterIP"].as_str().unwrap().starts_with("fd00:7::"), "{six}");
    let both = make("c", json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]})).await;
    let ips = both["spec"]["clusterIPs"].as_array().unwrap().clone();
    assert_eq!((ips.len(), &both["spec"]["ipFamilies"]), (2, &json!(["IPv6", "IPv4"])));
    for ip in &ips {
        assert_eq!(plane.read(IPS, ip.as_str().unwrap()).await.unwrap()["spec"]["parentRef"]["name"], "c");
    }
    let grown =
        plane.merge("services", "a", json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}})).await.unwrap();
    assert_eq!(grown["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(grown["spec"]["clusterIP"], single["spec"]["clusterIP"]);
    let second = grown["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    let shrunk =
        plane.merge("services", "a", json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await.unwrap();
    assert_eq!(shrunk["spec"]["clusterIPs"], json!([single["spec"]["clusterIP"]]));
    assert_eq!(plane.read(IPS, &second).await.unwrap_err().code(), 404);
    let wrong = ask(Verb::Create, "services", None).body(
        ContentType::Json,
        service("d", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]})),
    );
    let why = "Service \"d\" is invalid: spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be RequireDualStack or PreferDualStack when multiple IP families are specified";
    assert_eq!(plane.value(wrong).await.unwrap_err().message(), why);
}
