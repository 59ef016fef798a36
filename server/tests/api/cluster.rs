//! A server with the kinds of Kubernetes: admission, Services, definitions, subresources, documents.

use crate::common::*;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{
    ApiError, ApiRequest, ContentType, GroupVersionResource, Representation, ResponseBody, Target, Verb,
};
use kubewright_server::ApiServer;
use kubewright_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

async fn on(store: Arc<dyn Store>) -> Plane {
    let mut builder = ApiServer::builder(store)
        .service_cidr("10.0.0.0/24")
        .node_ports(30000..=30003)
        .advertise("10.1.2.3".parse().unwrap(), 6443)
        .ca_certificate("a certificate");
    for kind in builtin(&BuiltinOptions::default()) {
        builder = builder.kind(kind);
    }
    Plane(builder.build().await.unwrap())
}

async fn cluster() -> Plane {
    on(store()).await
}

fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

fn at(verb: Verb, resource: &str, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, core(resource), Some("default"), name)
}

fn global(verb: Verb, resource: GroupVersionResource, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, resource, None, name)
}

async fn make(plane: &Plane, resource: &str, object: Value) -> Result<Value, ApiError> {
    plane.value(at(Verb::Create, resource, None).body(ContentType::Json, object)).await
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn with_account() -> Plane {
    let plane = cluster().await;
    make(&plane, "serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
    plane
}

#[tokio::test]
async fn a_cluster_begins_with_what_every_cluster_has() {
    let plane = cluster().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = plane.value(global(Verb::Get, core("namespaces"), Some(name))).await.unwrap();
        assert_eq!(namespace["status"]["phase"], "Active");
        let refused = plane.send(global(Verb::Delete, core("namespaces"), Some(name))).await;
        assert_eq!(refused.is_err(), name != "kube-node-lease", "{name}");
    }
    let service = plane.value(at(Verb::Get, "services", Some("kubernetes"))).await.unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
    let endpoints = plane.value(at(Verb::Get, "endpoints", Some("kubernetes"))).await.unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.1.2.3");
    let ca = plane.value(at(Verb::Get, "configmaps", Some("kube-root-ca.crt"))).await.unwrap();
    assert_eq!(ca["data"]["ca.crt"], "a certificate");
    plane.value(at(Verb::Delete, "configmaps", Some("kube-root-ca.crt"))).await.unwrap();
    plane.value(at(Verb::Get, "configmaps", Some("kube-root-ca.crt"))).await.expect("it is put back");
}

#[tokio::test]
async fn admission_fills_in_and_refuses() {
    let plane = cluster().await;
    let request = ApiRequest::resource(Verb::Create, core("configmaps"), Some("missing"), None);
    let e =
        plane.send(request.body(ContentType::Json, json!({"metadata": {"name": "a"}}))).await.unwrap_err();
    assert_eq!((e.code(), e.message()), (404, "namespaces \"missing\" not found"));
    let e = make(&plane, "pods", pod("p")).await.unwrap_err();
    assert_eq!(e.code(), 403);
    assert_eq!(
        e.message(),
        "pods \"p\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    make(&plane, "serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
    let made = make(&plane, "pods", pod("p")).await.unwrap();
    let spec = &made["spec"];
    assert_eq!((spec["serviceAccountName"].as_str(), spec["priority"].as_i64()), (Some("default"), Some(0)));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["name"], spec["volumes"][0]["name"]);
    let mut classy = pod("q");
    classy["spec"]["priorityClassName"] = json!("none");
    let e = make(&plane, "pods", classy).await.unwrap_err();
    assert!(e.code() == 403 && e.message().contains("no PriorityClass with name none was found"), "{e}");
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let plane = with_account().await;
    let namespaces = core("namespaces");
    let body = json!({"metadata": {"name": "x"}});
    plane.value(global(Verb::Create, namespaces.clone(), None).body(ContentType::Json, body)).await.unwrap();
    let going = plane.value(global(Verb::Delete, namespaces.clone(), Some("x"))).await.unwrap();
    assert_eq!(going["status"]["phase"], "Terminating");
    let request = ApiRequest::resource(Verb::Create, core("configmaps"), Some("x"), None);
    let e =
        plane.send(request.body(ContentType::Json, json!({"metadata": {"name": "a"}}))).await.unwrap_err();
    let cause = e.status().details.as_ref().unwrap().causes.as_ref().unwrap()[0].reason.clone();
    assert_eq!((e.code(), cause.as_deref()), (403, Some("NamespaceTerminating")));
    let mut last = going.clone();
    last["spec"]["finalizers"] = json!([]);
    let finalize = global(Verb::Update, namespaces.clone(), Some("x")).subresource("finalize");
    plane.value(finalize.body(ContentType::Json, last)).await.unwrap();
    assert_eq!(plane.send(global(Verb::Get, namespaces, Some("x"))).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn services_get_numbers_and_give_them_back() {
    let plane = cluster().await;
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let port = json!([{"port": 80}]);
    let one = make(&plane, "services", service("one", json!({"ports": port}))).await.unwrap();
    let address = one["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.0.0."), "{address}");
    assert_eq!(one["spec"]["clusterIPs"], json!([address]));
    assert_eq!(
        (&one["spec"]["ipFamilies"], one["spec"]["ipFamilyPolicy"].as_str()),
        (&json!(["IPv4"]), Some("SingleStack"))
    );
    let taken = service("two", json!({"clusterIP": address, "ports": port}));
    let e = make(&plane, "services", taken.clone()).await.unwrap_err();
    assert!(e.code() == 422 && e.message().contains("provided IP is already allocated"), "{e}");
    let far = service("far", json!({"clusterIP": "10.9.9.9", "ports": port}));
    let e = make(&plane, "services", far).await.unwrap_err();
    assert!(e.code() == 422 && e.message().contains("The range of valid IPs is 10.0.0.0/24"), "{e}");
    plane.value(at(Verb::Delete, "services", Some("one"))).await.unwrap();
    plane.value(at(Verb::Get, "services", Some("kubernetes"))).await.unwrap();
    make(&plane, "services", taken).await.unwrap();
    for i in 0..4 {
        let object = service(&format!("np{i}"), json!({"type": "NodePort", "ports": port}));
        let made = make(&plane, "services", object).await.unwrap();
        assert!((30000..=30003).contains(&made["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    }
    let more = service("np4", json!({"type": "NodePort", "ports": port}));
    assert_eq!(make(&plane, "services", more).await.unwrap_err().code(), 500);
    let exact = service("np5", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    let e = make(&plane, "services", exact).await.unwrap_err();
    assert!(
        e.message().contains("spec.ports[0].nodePort: Invalid value: 30001: provided port is already"),
        "{e}"
    );
}

#[tokio::test]
async fn pods_are_bound_evicted_and_end_gracefully() {
    let plane = with_account().await;
    make(&plane, "pods", pod("p")).await.unwrap();
    let bind = || {
        let body = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
        at(Verb::Create, "pods", Some("p")).subresource("binding").body(ContentType::Json, body)
    };
    assert_eq!(plane.value(bind()).await.unwrap()["status"], "Success");
    let bound = plane.value(at(Verb::Get, "pods", Some("p"))).await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(plane.send(bind()).await.unwrap_err().code(), 409);

    let going = plane.value(at(Verb::Delete, "pods", Some("p"))).await.unwrap();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = json!({"gracePeriodSeconds": 0});
    plane.value(at(Verb::Delete, "pods", Some("p")).body(ContentType::Json, now)).await.unwrap();
    assert_eq!(plane.send(at(Verb::Get, "pods", Some("p"))).await.unwrap_err().code(), 404);

    make(&plane, "pods", pod("q")).await.unwrap();
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let request = at(Verb::Patch, "pods", Some("q")).subresource("status");
    plane.value(request.body(ContentType::MergePatch, running)).await.unwrap();
    let budgets = GroupVersionResource::new("policy", "v1", "poddisruptionbudgets");
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let request = ApiRequest::resource(Verb::Create, budgets.clone(), Some("default"), None);
    plane.value(request.body(ContentType::Json, budget)).await.unwrap();
    let evict =
        || at(Verb::Create, "pods", Some("q")).subresource("eviction").body(ContentType::Json, json!({}));
    assert_eq!(plane.send(evict()).await.unwrap_err().code(), 429);
    let allowed = json!({"status": {"disruptionsAllowed": 1, "observedGeneration": 1}});
    let request =
        ApiRequest::resource(Verb::Patch, budgets, Some("default"), Some("b")).subresource("status");
    plane.value(request.body(ContentType::MergePatch, allowed)).await.unwrap();
    plane.value(evict()).await.unwrap();
    assert_eq!(plane.send(at(Verb::Get, "pods", Some("q"))).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_deployment_scales() {
    let plane = cluster().await;
    let deployments = GroupVersionResource::new("apps", "v1", "deployments");
    let at = |verb| ApiRequest::resource(verb, deployments.clone(), Some("default"), Some("d"));
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let create = ApiRequest::resource(Verb::Create, deployments.clone(), Some("default"), None);
    plane.value(create.body(ContentType::Json, object)).await.unwrap();
    let mut scale = plane.value(at(Verb::Get).subresource("scale")).await.unwrap();
    assert_eq!((scale["kind"].as_str(), scale["spec"]["replicas"].as_i64()), (Some("Scale"), Some(1)));
    scale["spec"]["replicas"] = json!(3);
    let put = at(Verb::Update).subresource("scale").body(ContentType::Json, scale);
    assert_eq!(plane.value(put.clone()).await.unwrap()["spec"]["replicas"], 3);
    assert_eq!(plane.send(put).await.unwrap_err().code(), 409, "a stale version");
    let patch = json!({"spec": {"replicas": 5}});
    let patched = at(Verb::Patch).subresource("scale").body(ContentType::MergePatch, patch);
    assert_eq!(plane.value(patched).await.unwrap()["spec"]["replicas"], 5);
    assert_eq!(plane.value(at(Verb::Get)).await.unwrap()["metadata"]["generation"], 3);
    let wrong =
        at(Verb::Patch).subresource("scale").body(ContentType::MergePatch, json!({"spec": {"replicas": -1}}));
    assert_eq!(plane.send(wrong).await.unwrap_err().code(), 422);
}

fn definition() -> Value {
    json!({"metadata": {"name": "toys.play.dev"}, "spec": {
        "group": "play.dev", "scope": "Namespaced",
        "names": {"plural": "toys", "singular": "toy", "kind": "Toy", "shortNames": ["ty"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3, "maximum": 9}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

#[tokio::test]
async fn a_definition_is_served_at_once_and_goes_with_its_objects() {
    let store = store();
    let plane = on(store.clone()).await;
    let definitions = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let create = global(Verb::Create, definitions.clone(), None).body(ContentType::Json, definition());
    let made = plane.value(create).await.unwrap();
    let conditions = made["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"), "{made}");
    let toys = GroupVersionResource::new("play.dev", "v1", "toys");
    let make = |object: Value| {
        ApiRequest::resource(Verb::Create, toys.clone(), Some("default"), None)
            .body(ContentType::Json, object)
    };
    let toy =
        plane.value(make(json!({"metadata": {"name": "a"}, "spec": {"junk": 1}, "status": {"x": 1}}))).await;
    let toy = toy.unwrap();
    assert_eq!((&toy["spec"], toy.get("status")), (&json!({"size": 3}), None));
    let e = plane.send(make(json!({"metadata": {"name": "b"}, "spec": {"size": 10}}))).await.unwrap_err();
    assert_eq!(e.code(), 422, "{e}");
    assert!(plane.path("/apis/play.dev/v1").await.is_ok());

    plane.0.shutdown().await;
    let plane = on(store).await;
    let get = ApiRequest::resource(Verb::Get, toys.clone(), Some("default"), Some("a"));
    assert_eq!(plane.value(get.clone()).await.unwrap(), toy, "served after a restart");
    let hold = |finalizers: Value| {
        let patch = ApiRequest::resource(Verb::Patch, toys.clone(), Some("default"), Some("a"));
        patch.body(ContentType::MergePatch, json!({"metadata": {"finalizers": finalizers}}))
    };
    plane.value(hold(json!(["play.dev/hold"]))).await.unwrap();
    plane.value(global(Verb::Delete, definitions.clone(), Some("toys.play.dev"))).await.unwrap();
    let late = json!({"apiVersion": "play.dev/v1", "kind": "Toy", "metadata": {"name": "late"}});
    let mut apply = ApiRequest::resource(Verb::Patch, toys.clone(), Some("default"), Some("late"))
        .body(ContentType::ApplyPatch, late.clone());
    apply.options.field_manager = Some("m".to_owned());
    for late in [make(late), apply] {
        let e = plane.send(late).await.unwrap_err();
        assert_eq!(
            (e.code(), e.message()),
            (405, "create not allowed while custom resource definition is terminating")
        );
    }
    plane.value(hold(Value::Null)).await.unwrap();
    for _ in 0..100 {
        let e = plane.send(global(Verb::Get, definitions.clone(), Some("toys.play.dev"))).await;
        if e.is_err_and(|e| e.is_not_found()) {
            assert_eq!(
                plane.send(get).await.unwrap_err().message(),
                "the server could not find the requested resource"
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the definition did not go");
}

#[tokio::test]
async fn documents_tell_what_is_served() {
    let plane = cluster().await;
    let get = async |path: &str, accept: &str| {
        let mut request = ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
        request.accept = accept.into();
        plane.value(request).await
    };
    assert_eq!(get("/api", "").await.unwrap()["versions"], json!(["v1"]));
    let v1 = get("/api/v1", "").await.unwrap();
    let names: Vec<&str> =
        v1["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    for name in ["pods", "pods/log", "pods/status", "namespaces/finalize", "serviceaccounts/token"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = get("/apis", aggregated).await.unwrap();
    assert_eq!(
        (groups["kind"].as_str(), groups["apiVersion"].as_str()),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io/v2"))
    );
    assert_eq!(get("/apis", "application/json").await.unwrap()["kind"], "APIGroupList");
    assert_eq!(get("/apis/apps", "").await.unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
    let index = get("/openapi/v3", "").await.unwrap();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = get(url, "").await.unwrap();
    let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(path["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    check_references(&document, &|name| schemas.contains_key(name));
    let v2 = get("/openapi/v2", "application/json").await.unwrap();
    let definitions = v2["definitions"].as_object().unwrap();
    assert!(definitions.contains_key("io.k8s.api.core.v1.Pod"));
    check_references(&v2, &|name| definitions.contains_key(name));
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let mut request = ApiRequest::new(Verb::Get, Target::Path("/openapi/v2".to_owned()));
    request.accept = protobuf.into();
    let ResponseBody::Raw { content_type, bytes } = plane.send(request).await.unwrap().body else {
        panic!("{protobuf}")
    };
    assert!(content_type.contains("protobuf") && bytes.len() > 1000, "{content_type}");
    assert_eq!(get("/version", "").await.unwrap()["minor"], "36");
    assert_eq!(get("/nowhere", "").await.unwrap_err().code(), 404);
    for path in ["/healthz", "/livez?verbose", "/readyz/ping", "/metrics"] {
        let ResponseBody::Raw { bytes, .. } = plane.path(path).await.unwrap().body else { panic!("{path}") };
        assert!(!bytes.is_empty());
    }
    assert_eq!(plane.path("/readyz/other").await.unwrap_err().code(), 404);
}

/// Every reference of a document must lead somewhere.
fn check_references(value: &Value, known: &dyn Fn(&str) -> bool) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| check_references(v, known)),
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                let name = target.rsplit('/').next().unwrap();
                assert!(known(name), "{target} leads nowhere");
            }
            map.values().for_each(|v| check_references(v, known));
        }
        _ => {}
    }
}

#[tokio::test]
async fn tables_have_the_columns_of_the_kind() {
    let plane = with_account().await;
    make(&plane, "pods", pod("p")).await.unwrap();
    let mut request = at(Verb::List, "pods", None);
    request.representation = Representation::Table;
    let table = plane.value(request.clone()).await.unwrap();
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "p");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    request.include_object = Some("Object".into());
    assert_eq!(plane.value(request.clone()).await.unwrap()["rows"][0]["object"]["kind"], "Pod");
    request.include_object = Some("Some".into());
    assert_eq!(plane.send(request).await.unwrap_err().code(), 400);
}

#[tokio::test]
async fn calls_to_nodes_are_refused_in_upstreams_words() {
    let plane = with_account().await;
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    make(&plane, "pods", two).await.unwrap();
    make(&plane, "pods", pod("one")).await.unwrap();
    let check = async |name: &str, subresource: &str, container: Option<&str>, code: u16, part: &str| {
        let mut request = at(Verb::Get, "pods", Some(name)).subresource(subresource);
        request.options.container = container.map(str::to_owned);
        request.options.exec = Some(Box::new(kubewright_core::node_api::ExecOptions {
            command: vec!["x".into()],
            stdout: true,
            ..Default::default()
        }));
        let e = plane.send(request).await.unwrap_err();
        assert_eq!(e.code(), code, "{e}");
        assert!(e.message().contains(part), "{e}");
    };
    check("two", "log", None, 400, "a container name must be specified for pod two, choose one of: [a b]")
        .await;
    check("one", "log", Some("x"), 400, "container x is not valid for pod one").await;
    check("one", "exec", None, 400, "pod one does not have a host assigned").await;
    check("none", "exec", None, 404, "pods \"none\" not found").await;
    check("one", "proxy", None, 501, "did not come over HTTP").await;
}

#[tokio::test]
async fn events_are_one_thing_in_two_shapes() {
    let plane = cluster().await;
    let old = core("events");
    let new = GroupVersionResource::new("events.k8s.io", "v1", "events");
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "R", "action": "A", "note": "n", "reportingController": "c", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let create = ApiRequest::resource(Verb::Create, new.clone(), Some("default"), None);
    let made = plane.value(create.body(ContentType::Json, event)).await.unwrap();
    assert_eq!((made["apiVersion"].as_str(), made["note"].as_str()), (Some("events.k8s.io/v1"), Some("n")));
    let get = |resource: &GroupVersionResource| {
        ApiRequest::resource(Verb::Get, resource.clone(), Some("default"), Some("e"))
    };
    assert_eq!(plane.value(get(&new)).await.unwrap(), made);
    let core_event = plane.value(get(&old)).await.unwrap();
    assert_eq!((core_event["apiVersion"].as_str(), core_event["message"].as_str()), (Some("v1"), Some("n")));
    assert_eq!(core_event["involvedObject"]["name"], "p");
    let mut list = ApiRequest::resource(Verb::List, old, Some("default"), None);
    list.options.field_selector = Some("involvedObject.name=p,reason=R".into());
    let ResponseBody::List(found) = plane.send(list).await.unwrap().body else { panic!() };
    assert_eq!(found.items.len(), 1);
    let mut watch = ApiRequest::resource(Verb::Watch, new, Some("default"), None);
    watch.options.resource_version = Some("0".into());
    let ResponseBody::Watch(stream) = plane.send(watch).await.unwrap().body else { panic!() };
    let first = Watched(stream).event().await;
    assert_eq!(first.object.value().unwrap()["apiVersion"], "events.k8s.io/v1");
}
