//! The OpenAPI documents: whole, and with what clients look for.

use super::common::{Plane, builder};
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{ApiRequest, ResponseBody, Target, Verb};
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn plane() -> Plane {
    let mut builder = builder();
    for kind in builtin(&BuiltinOptions::default()) {
        builder = builder.kind(kind);
    }
    Plane(builder.build().await.unwrap())
}

async fn bytes(plane: &Plane, path: &str, accept: &str) -> (&'static str, Vec<u8>) {
    let mut request = ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
    request.accept = accept.into();
    match plane.send(request).await.unwrap().body {
        ResponseBody::Raw { content_type, bytes } => (content_type, bytes.to_vec()),
        other => panic!("no bytes: {other:?}"),
    }
}

pub(super) async fn document(plane: &Plane, path: &str) -> Value {
    serde_json::from_slice(&bytes(plane, path, "application/json").await.1).unwrap()
}

/// Every place that a document refers to.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.insert(target.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn assert_closed(document: &Value, path: &str) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(!found.is_empty(), "{path} refers to nothing");
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{path}: {target} leads nowhere");
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let plane = plane().await;
    let v2 = document(&plane, "/openapi/v2").await;
    assert_eq!(v2["swagger"], "2.0");
    assert_closed(&v2, "/openapi/v2");
    let index = document(&plane, "/openapi/v3").await;
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/example.dev/v1"));
    for (key, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with(&format!("/openapi/v3/{key}?hash=")), "{url}");
        assert_closed(&document(&plane, url).await, url);
    }
}

#[tokio::test]
async fn operations_are_called_as_upstream_calls_them() {
    let plane = plane().await;
    let v2 = document(&plane, "/openapi/v2").await;
    let check = |path: &str, method: &str, want: &str| {
        let operation = &v2["paths"][path][method];
        assert_eq!(operation["operationId"], want, "{method} {path}");
        assert!(operation["x-kubernetes-group-version-kind"]["kind"].is_string(), "{method} {path}");
    };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    check("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces");
    check(pods, "delete", "deleteCoreV1CollectionNamespacedPod");
    check(&format!("{pods}/{{name}}"), "put", "replaceCoreV1NamespacedPod");
    check(&format!("{pods}/{{name}}/status"), "get", "readCoreV1NamespacedPodStatus");
    check(&format!("{pods}/{{name}}/exec"), "post", "connectCoreV1PostNamespacedPodExec");
    check(&format!("{pods}/{{name}}/binding"), "post", "createCoreV1NamespacedPodBinding");
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    check(roles, "post", "createRbacAuthorizationV1ClusterRole");
    check("/apis/example.dev/v1/gadgets/{name}", "patch", "patchExampleDevV1Gadget");
    let scale = &v2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(
        scale["x-kubernetes-group-version-kind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    assert!(v2["paths"]["/api/v1/namespaces"].get("delete").is_none());
}

#[tokio::test]
async fn kubectl_finds_the_support_of_field_validation() {
    let plane = plane().await;
    let v3 = document(&plane, "/openapi/v3/apis/apps/v1").await;
    let patch = &v3["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let schema = &v3["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    let kind = json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]);
    assert_eq!(schema["x-kubernetes-group-version-kind"], kind);
}

#[tokio::test]
async fn a_document_may_be_kept_by_its_hash() {
    let plane = plane().await;
    let index = document(&plane, "/openapi/v3").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let check = async |path: &str, want: bool| {
        let request = ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
        assert_eq!(plane.send(request).await.unwrap().immutable, want, "{path}");
    };
    check(&url, true).await;
    check(&format!("{url}&timeout=32s"), true).await;
    check("/openapi/v3/apis/apps/v1", false).await;
    check("/openapi/v3/apis/apps/v1?hash=ABC", false).await;
    check("/openapi/v3", false).await;
}

#[tokio::test]
async fn the_form_and_the_path_are_checked() {
    let plane = plane().await;
    let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let (content_type, message) = bytes(&plane, "/openapi/v2", old).await;
    assert_eq!(content_type, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(message.starts_with(b"\x0a\x032.0"));
    let check = async |path: &str, accept: &str, want: u16| {
        let mut request = ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
        request.accept = accept.into();
        assert_eq!(plane.send(request).await.unwrap_err().code(), want, "{path} {accept}");
    };
    check("/openapi/v2", "text/html", 406).await;
    check("/openapi/v3/api/v1", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf", 406).await;
    for missing in ["/openapi", "/openapi/v4", "/openapi/v3/api/v2", "/openapi/v3/apis/apps", "/openapi/v2/x"]
    {
        check(missing, "", 404).await;
    }
}
