//! The kinds of Kubernetes whose objects only come out right with the server's help: views, made fields, subresources.

use crate::common::*;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, ResponseBody, UserInfo, Verb};
use kubewright_server::ApiServer;
use serde_json::{Value, json};
use std::sync::Arc;

async fn cluster() -> Plane {
    let mut registry = ApiServer::builder(store()).service_cidr("10.0.0.0/24");
    for kind in builtin(&BuiltinOptions::default()) {
        registry = registry.kind(kind);
    }
    Plane(registry.build().await.unwrap())
}

fn at(verb: Verb, (group, version, plural): (&str, &str, &str), name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, GroupVersionResource::new(group, version, plural), Some("default"), name)
}

fn global(verb: Verb, group: &str, plural: &str, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, GroupVersionResource::new(group, "v1", plural), None, name)
}

const JOBS: (&str, &str, &str) = ("batch", "v1", "jobs");

#[tokio::test]
async fn every_kind_is_listed_where_it_lives() {
    let plane = cluster().await;
    for kind in builtin(&BuiltinOptions::default()) {
        let resource =
            GroupVersionResource::new(kind.group.clone(), kind.version.clone(), kind.plural.clone());
        let namespace = kind.namespaced().then_some("default");
        let answer = plane.send(ApiRequest::resource(Verb::List, resource, namespace, None)).await;
        let answer =
            answer.unwrap_or_else(|e| panic!("{} {}: {}", kind.api_version(), kind.kind, e.message()));
        let ResponseBody::List(list) = answer.body else { panic!("no list of {}", kind.plural) };
        assert_eq!(list.kind, kind.list_kind);
    }
}

#[tokio::test]
async fn a_job_gets_its_selector_from_its_uid() {
    let plane = cluster().await;
    let job = |name: Value| {
        let mut metadata = json!({});
        metadata[if name.is_null() { "generateName" } else { "name" }] = name.as_str().unwrap_or("j-").into();
        json!({"metadata": metadata, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    };
    for name in [json!("one"), Value::Null] {
        let made =
            plane.value(at(Verb::Create, JOBS, None).body(ContentType::Json, job(name))).await.unwrap();
        let (uid, name) = (&made["metadata"]["uid"], &made["metadata"]["name"]);
        let labels = &made["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&labels["batch.kubernetes.io/controller-uid"], uid);
        assert_eq!(&labels["job-name"], name);
        assert_eq!(
            made["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
        );
    }
    let mut other = plane.value(at(Verb::Get, JOBS, Some("one"))).await.unwrap();
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "other".into();
    let refused = plane.value(at(Verb::Update, JOBS, Some("one")).body(ContentType::Json, other)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), 422);
    assert!(refused.message().contains("spec.template: Invalid value"), "{}", refused.message());
}

#[tokio::test]
async fn autoscalers_are_one_in_both_versions() {
    let plane = cluster().await;
    let hpa = |version, verb, name| at(verb, ("autoscaling", version, "horizontalpodautoscalers"), name);
    let first = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    plane.value(hpa("v1", Verb::Create, None).body(ContentType::Json, first)).await.unwrap();
    let mut second = plane.value(hpa("v2", Verb::Get, Some("h"))).await.unwrap();
    assert_eq!(second["apiVersion"], "autoscaling/v2");
    assert_eq!(second["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let queue = json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "5"}}});
    second["spec"]["metrics"].as_array_mut().unwrap().push(queue);
    plane.value(hpa("v2", Verb::Update, Some("h")).body(ContentType::Json, second)).await.unwrap();
    let mut first = plane.value(hpa("v1", Verb::Get, Some("h"))).await.unwrap();
    assert_eq!(first["spec"]["targetCPUUtilizationPercentage"], 50);
    first["spec"]["maxReplicas"] = 9.into();
    plane.value(hpa("v1", Verb::Update, Some("h")).body(ContentType::Json, first)).await.unwrap();
    let second = plane.value(hpa("v2", Verb::Get, Some("h"))).await.unwrap();
    assert_eq!(second["spec"]["maxReplicas"], 9);
    assert_eq!(second["spec"]["metrics"][1]["external"]["metric"]["name"], "q");
    assert!(second["metadata"].get("annotations").is_none(), "{}", second["metadata"]);
}

#[tokio::test]
async fn a_stateful_set_scales() {
    let plane = cluster().await;
    let sets = |verb, name| at(verb, ("apps", "v1", "statefulsets"), name);
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    plane.value(sets(Verb::Create, None).body(ContentType::Json, set)).await.unwrap();
    let scale = || sets(Verb::Get, Some("s")).subresource("scale");
    let mut wanted = plane.value(scale()).await.unwrap();
    assert_eq!(wanted["status"]["selector"], "a=b");
    wanted["spec"]["replicas"] = 4.into();
    let update = sets(Verb::Update, Some("s")).subresource("scale").body(ContentType::Json, wanted);
    plane.value(update).await.unwrap();
    let set = plane.value(sets(Verb::Get, Some("s"))).await.unwrap();
    assert_eq!((&set["spec"]["replicas"], &set["metadata"]["generation"]), (&json!(4), &json!(2)));
}

#[tokio::test]
async fn a_certificate_request_is_approved_by_its_own_way() {
    let plane = cluster().await;
    let requests = |verb, name| global(verb, "certificates.k8s.io", "certificatesigningrequests", name);
    // "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let wish = json!({"metadata": {"name": "r"}, "spec": {"request": pem, "usages": ["client auth"],
        "signerName": "example.com/signer", "username": "somebody else", "groups": ["system:masters"]}});
    let mut request = requests(Verb::Create, None).body(ContentType::Json, wish);
    request.user = Arc::new(UserInfo {
        username: Some("me".to_owned()),
        groups: Some(vec!["us".to_owned()]),
        ..UserInfo::default()
    });
    let mut made = plane.value(request).await.unwrap();
    assert_eq!((&made["spec"]["username"], &made["spec"]["groups"]), (&json!("me"), &json!(["us"])));
    made["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Fine"}]});
    let status =
        requests(Verb::Update, Some("r")).subresource("status").body(ContentType::Json, made.clone());
    assert_eq!(plane.value(status).await.unwrap_err().code(), 422);
    made["spec"]["username"] = "other".into();
    let approval = requests(Verb::Update, Some("r")).subresource("approval").body(ContentType::Json, made);
    let approved = plane.value(approval).await.unwrap();
    assert_eq!(approved["spec"]["username"], "me");
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert!(approved["status"]["conditions"][0]["lastTransitionTime"].is_string());
}
