//! Discovery, version and health as documents.

use super::common::{gadgets, plane};
use kubewright_core::{ApiRequest, ResponseBody, Target, Verb};
use serde_json::{Value, json};

async fn text(plane: &super::common::Plane, path: &str) -> (u16, String) {
    match plane.path(path).await {
        Ok(answer) => match answer.body {
            ResponseBody::Raw { bytes, .. } => (answer.code, String::from_utf8(bytes.to_vec()).unwrap()),
            ResponseBody::Value(value) => (answer.code, value.to_string()),
            other => panic!("no text: {other:?}"),
        },
        Err(error) => (error.code(), error.message().to_owned()),
    }
}

async fn document(plane: &super::common::Plane, path: &str) -> Value {
    let (code, text) = text(plane, path).await;
    assert_eq!(code, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let plane = plane().await;
    let groups = document(&plane, "/apis").await;
    assert_eq!(groups["groups"][0]["name"], "example.dev");
    assert_eq!(
        groups["groups"][0]["preferredVersion"],
        json!({"groupVersion": "example.dev/v1", "version": "v1"})
    );
    assert_eq!(document(&plane, "/apis/example.dev").await["kind"], "APIGroup");
    let list = document(&plane, "/apis/example.dev/v1").await;
    assert_eq!(list["groupVersion"], "example.dev/v1");
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gadgets", "gadgets/status", "widgets", "widgets/status"]);
    assert_eq!(list["resources"][0]["namespaced"], false);
    assert_eq!(list["resources"][1]["verbs"], json!(["get", "patch", "update"]));
    for missing in
        ["/apis/other.dev", "/apis/example.dev/v2", "/api/v1", "/nothing", "/apis/example.dev/v1/x/y/z"]
    {
        assert_eq!(text(&plane, missing).await.0, 404, "{missing}");
    }
    let paths = document(&plane, "/").await;
    assert!(paths["paths"].as_array().unwrap().contains(&json!("/apis/example.dev/v1")));
}

#[tokio::test]
async fn aggregated_discovery_comes_when_asked_for() {
    let plane = plane().await;
    let mut request = ApiRequest::new(Verb::Get, Target::Path("/apis".to_owned()));
    request.accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json".into();
    let answer = plane.send(request).await.unwrap();
    let ResponseBody::Raw { content_type, bytes } = answer.body else { panic!("no bytes") };
    assert_eq!(content_type, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let gadgets = &document["items"][0]["versions"][0]["resources"][0];
    assert_eq!(gadgets["responseKind"], json!({"group": "example.dev", "version": "v1", "kind": "Gadget"}));
    assert_eq!(
        (&gadgets["scope"], &gadgets["subresources"][0]["subresource"]),
        (&json!("Cluster"), &json!("status"))
    );
}

#[tokio::test]
async fn health_tells_each_check() {
    let plane = plane().await;
    let check = async |path: &str, code: u16, want: &str| {
        assert_eq!(text(&plane, path).await, (code, want.to_owned()), "{path}");
    };
    check("/healthz", 200, "ok").await;
    check("/livez/ping", 200, "ok").await;
    check("/livez?verbose", 200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n").await;
    check("/livez?verbose&exclude=etcd", 200, "[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n").await;
    assert_eq!(text(&plane, "/readyz/nothing").await.0, 404);
    assert!(text(&plane, "/livez?verbose&exclude=x").await.1.contains("no matches for \"x\""));
    assert_eq!(document(&plane, "/version").await["major"], "1");
    assert!(text(&plane, "/metrics").await.1.contains("apiserver_resource_objects{group=\"example.dev\""));
    let written = ApiRequest::new(Verb::Create, Target::Path("/version".to_owned()));
    assert_eq!(plane.send(written).await.unwrap_err().code(), 405);
    plane.0.shutdown().await;
    let (code, readyz) = text(&plane, "/readyz").await;
    assert_eq!(code, 500);
    assert!(
        readyz.contains("[-]shutdown failed: reason withheld") && readyz.ends_with("readyz check failed\n")
    );
    check("/livez", 200, "ok").await;
    assert_eq!(text(&plane, "/apis").await.0, 503);
    assert_eq!(
        plane.send(ApiRequest::resource(Verb::List, gadgets(), None, None)).await.unwrap_err().code(),
        503
    );
}
