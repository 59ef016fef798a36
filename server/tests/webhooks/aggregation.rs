//! An API server behind the plane: a real TLS server that knows the plane by its client certificate.

use crate::front::{fetch, front};
use crate::harness::{Authority, Plane, plane, plane_with, resource};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubewright_core::{ApiRequest, ContentType, ResponseBody, SystemClock, Verb};
use kubewright_server::tls::FrontProxy;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const GROUP: &str = "wardle.example.com";

/// The server behind: it tells what it was asked, unless it is `down`.
struct Wardle {
    address: SocketAddr,
    authority: Authority,
    down: Arc<AtomicBool>,
}

impl Wardle {
    async fn start(clients: &FrontProxy) -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.certificate(&["wardle.n.svc"], 2100);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.authority_pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let down = Arc::new(AtomicBool::new(false));
        let flag = down.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, flag) = (acceptor.clone(), flag.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        answer(request, flag.load(Ordering::Relaxed))
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Wardle { address, authority, down }
    }

    fn api_service(&self) -> Value {
        json!({"metadata": {"name": format!("v1.{GROUP}")}, "spec": {
            "group": GROUP, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
            "caBundle": self.authority.bundle(), "service": {"namespace": "n", "name": "wardle", "port": 7443}}})
    }
}

async fn answer(request: Request<Incoming>, down: bool) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let root = format!("/apis/{GROUP}/v1");
    let flunder = |name: &str| json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": "5"}});
    let mut headers = serde_json::Map::new();
    for (name, value) in &head.headers {
        let text = value.to_str().unwrap();
        let all = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        all.as_array_mut().unwrap().push(json!(text));
    }
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or(""));
    let document = match path.strip_prefix(&root) {
        _ if down => json!(null),
        Some("") => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1"), "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list", "watch"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]})
        }
        Some("/namespaces/n/flunders") if query.contains("watch=true") => {
            let lines = format!("{}\n", json!({"type": "ADDED", "object": flunder("w")}));
            return Ok(Response::new(Full::new(Bytes::from(lines))));
        }
        Some("/namespaces/n/flunders") if head.method == "GET" => {
            json!({"kind": "FlunderList", "apiVersion": format!("{GROUP}/v1"),
            "metadata": {"resourceVersion": "5"}, "items": [flunder("a")]})
        }
        _ if path == "/openapi/v3" => {
            json!({"paths": {format!("apis/{GROUP}/v1"): {"serverRelativeURL": format!("/openapi/v3/apis/{GROUP}/v1?hash=X")}}})
        }
        _ if path.starts_with("/openapi/v3/") => json!({"openapi": "3.0.0", "info": {"title": "wardle"}}),
        _ if path == "/openapi/v2" => {
            json!({"swagger": "2.0", "paths": {format!("{root}/flunders"): {}, "/wardle-only/": {}}, "definitions": {"wardle.Flunder": {}}})
        }
        _ => {
            json!({"told": {"method": head.method.as_str(), "path": head.uri.to_string(), "headers": headers,
            "body": String::from_utf8_lossy(&body)}, "metadata": {}})
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    let code = if down {
        500
    } else if path.ends_with("/refused") {
        418
    } else {
        200
    };
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

async fn condition(plane: &Plane, name: &str) -> (String, String, String) {
    let request = ApiRequest::resource(
        Verb::Get,
        resource("apiregistration.k8s.io", "v1", "apiservices"),
        None,
        Some(name),
    );
    let object = plane.value(request).await.unwrap();
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == "Available").cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or("").to_owned();
    (text("status"), text("reason"), text("message"))
}

async fn until(plane: &Plane, reason: &str) -> String {
    let name = format!("v1.{GROUP}");
    for _ in 0..400 {
        let (_, found, message) = condition(plane, &name).await;
        if found == reason {
            return message;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{reason} does not come; it is {:?}", condition(plane, &name).await);
}

async fn aggregated() -> (Plane, Wardle) {
    let identity = FrontProxy::issue(None, &SystemClock).unwrap();
    let wardle = Wardle::start(&identity).await;
    let plane = plane_with(|builder| builder.front_proxy(identity)).await;
    plane.service("wardle", 7443, wardle.address).await;
    plane.create("apiregistration.k8s.io", "v1", "apiservices", wardle.api_service()).await;
    until(&plane, "Passed").await;
    (plane, wardle)
}

#[tokio::test]
async fn requests_are_passed_on_with_their_user() {
    let (plane, _wardle) = aggregated().await;
    let to = front(&plane).await;
    let at = format!("/apis/{GROUP}/v1/namespaces/n/flunders/a/odd/deep?limit=many");
    let headers =
        [("content-type", "application/vnd.odd"), ("x-remote-user", "root"), ("x-remote-extra-a", "b")];
    let got = fetch(to, "POST", &at, &headers, "some text").await;
    let told = &got.json()["told"];
    assert_eq!((got.code, &told["method"], &told["path"]), (200, &json!("POST"), &json!(at)));
    assert_eq!(
        (&told["body"], &told["headers"]["content-type"]),
        (&json!("some text"), &json!(["application/vnd.odd"]))
    );
    assert_eq!(told["headers"]["x-remote-user"], json!(["jane"]));
    assert_eq!(told["headers"]["x-remote-group"], json!(["dev", "system:authenticated"]));
    assert_eq!(told["headers"].get("x-remote-extra-a"), None, "only the plane says on whose behalf it asks");
    let got = fetch(to, "GET", &format!("/apis/{GROUP}/v1/refused"), &[], "").await;
    assert_eq!(got.code, 418, "the other server's status comes through");
    let got = fetch(to, "GET", &format!("/apis/{GROUP}/v1"), &[], "").await;
    assert_eq!(got.json()["kind"], "APIResourceList");
}

#[tokio::test]
async fn clients_in_process_reach_it_too() {
    let (plane, _wardle) = aggregated().await;
    let flunders = || resource(GROUP, "v1", "flunders");
    let list = plane.send(ApiRequest::resource(Verb::List, flunders(), Some("n"), None)).await.unwrap();
    let ResponseBody::List(list) = list.body else { panic!("no list") };
    assert_eq!((list.kind.as_str(), list.resource_version, list.items.len()), ("FlunderList", 5, 1));
    assert_eq!(list.items[0].value().unwrap()["kind"], "Flunder");
    let watch = plane.send(ApiRequest::resource(Verb::Watch, flunders(), Some("n"), None)).await.unwrap();
    let ResponseBody::Watch(mut events) = watch.body else { panic!("no watch") };
    assert_eq!(events.next().await.unwrap().unwrap().object.header().name, "w");
    let create = ApiRequest::resource(Verb::Create, flunders(), Some("n"), None);
    let told = plane.value(create.body(ContentType::Json, json!({"a": "b"}))).await.unwrap();
    assert_eq!(told["told"]["body"], "{\"a\":\"b\"}");
    let refused = ApiRequest::resource(Verb::Get, resource(GROUP, "v1", "refused"), None, None);
    assert_eq!(plane.send(refused).await.unwrap_err().code(), 500);
}

#[tokio::test]
async fn discovery_shows_what_others_serve() {
    let (plane, wardle) = aggregated().await;
    let groups = plane.path("/apis", "").await.unwrap();
    let group = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == GROUP).unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], format!("{GROUP}/v1"));
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let find = async || {
        let all = plane.path("/apis", v2).await.unwrap();
        all["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == GROUP).unwrap()["versions"]
            [0]
        .clone()
    };
    let version = find().await;
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["resource"]),
        (&json!("Current"), &json!("flunders"))
    );
    assert_eq!(version["resources"][0]["subresources"][0]["subresource"], "status");
    let index = plane.path("/openapi/v3", "").await.unwrap();
    assert!(index["paths"].get(format!("apis/{GROUP}/v1")).is_some());
    let document = plane.path(&format!("/openapi/v3/apis/{GROUP}/v1?hash=X"), "").await.unwrap();
    assert_eq!(document["info"]["title"], "wardle");
    let all = plane.path("/openapi/v2", "").await.unwrap();
    assert!(all["paths"].get(format!("/apis/{GROUP}/v1/flunders")).is_some());
    assert!(
        all["definitions"].get("wardle.Flunder").is_some() && all["paths"].get("/wardle-only/").is_none()
    );

    wardle.down.store(true, Ordering::Relaxed);
    let touch = json!({"metadata": {"labels": {"a": "b"}}});
    let request =
        ApiRequest::resource(Verb::Patch, resource("", "v1", "services"), Some("n"), Some("wardle"));
    plane.send(request.body(ContentType::MergePatch, touch)).await.unwrap();
    let url = format!("https://wardle.n.svc:7443/apis/{GROUP}/v1");
    let want = format!("failing or missing response from {url}: bad status from {url}: 500");
    let told = async {
        // A machine that is very busy may tell of a timeout first.
        while until(&plane, "FailedDiscoveryCheck").await != want {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("the status is told");
    let e = plane
        .send(ApiRequest::resource(Verb::List, resource(GROUP, "v1", "flunders"), Some("n"), None))
        .await;
    let e = e.unwrap_err();
    assert_eq!((e.code(), e.message()), (503, "service unavailable"));
    assert_eq!(find().await["freshness"], "Stale");
    wardle.down.store(false, Ordering::Relaxed);
    until(&plane, "Passed").await;
}

#[tokio::test]
async fn what_is_missing_is_told_in_the_condition() {
    let plane = plane().await;
    let authority = Authority::new();
    let service = json!({"metadata": {"name": format!("v1.{GROUP}")}, "spec": {
        "group": GROUP, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
        "caBundle": authority.bundle(), "service": {"namespace": "n", "name": "wardle", "port": 7443}}});
    plane.create("apiregistration.k8s.io", "v1", "apiservices", service).await;
    assert_eq!(until(&plane, "ServiceNotFound").await, "service/wardle in \"n\" is not present");
    let service = json!({"metadata": {"name": "wardle", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 7443}]}});
    plane.create("", "v1", "services", service).await;
    until(&plane, "EndpointsNotFound").await;
    let slice = json!({"metadata": {"name": "wardle", "namespace": "n", "labels": {"kubernetes.io/service-name": "wardle"}},
        "addressType": "IPv4", "ports": [{"port": 1}], "endpoints": []});
    plane.create("discovery.k8s.io", "v1", "endpointslices", slice).await;
    until(&plane, "MissingEndpoints").await;
}

#[tokio::test]
async fn this_servers_own_versions_have_objects() {
    let plane = plane().await;
    for name in ["v1.", "v1.apps", "v2.autoscaling"] {
        let want = ("True", "Local", "Local APIServices are always available");
        let (status, reason, message) = condition(&plane, name).await;
        assert_eq!((status.as_str(), reason.as_str(), message.as_str()), want, "{name}");
    }
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"metadata": {"name": "hosts.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "hosts", "singular": "host", "kind": "Host"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    plane.create("apiextensions.k8s.io", "v1", "customresourcedefinitions", definition).await;
    let services = || resource("apiregistration.k8s.io", "v1", "apiservices");
    let read = || ApiRequest::resource(Verb::Get, services(), None, Some("v1.example.com"));
    let wait = async |there: bool| {
        for _ in 0..400 {
            if plane.send(read()).await.is_ok() == there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the APIService of the definition is not as it should be");
    };
    wait(true).await;
    assert_eq!(plane.value(read()).await.unwrap()["spec"]["groupPriorityMinimum"], 1000);
    // One that is taken away comes back while its kind is there, and goes with it.
    plane.send(ApiRequest::resource(Verb::Delete, services(), None, Some("v1.example.com"))).await.unwrap();
    wait(true).await;
    let definitions = resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    plane
        .send(ApiRequest::resource(Verb::Delete, definitions, None, Some("hosts.example.com")))
        .await
        .unwrap();
    wait(false).await;
}

#[tokio::test]
async fn others_are_told_how_to_know_the_plane() {
    let identity = FrontProxy::issue(None, &SystemClock).unwrap();
    let plane = plane_with(|builder| builder.ca_certificate("PEM").front_proxy(identity.clone())).await;
    let name = "extension-apiserver-authentication";
    let read =
        ApiRequest::resource(Verb::Get, resource("", "v1", "configmaps"), Some("kube-system"), Some(name));
    let data = plane.value(read).await.unwrap()["data"].clone();
    assert_eq!(data["requestheader-client-ca-file"], identity.authority_pem);
    assert_eq!(
        (&data["client-ca-file"], &data["requestheader-allowed-names"]),
        (&json!("PEM"), &json!("[\"front-proxy-client\"]"))
    );
}

#[tokio::test]
async fn nobody_takes_the_planes_own_groups_away() {
    let plane = plane().await;
    let take =
        json!({"spec": {"service": {"namespace": "n", "name": "wardle"}, "insecureSkipTLSVerify": true}});
    let services = resource("apiregistration.k8s.io", "v1", "apiservices");
    let patch = ApiRequest::resource(Verb::Patch, services, None, Some("v1.apps"));
    plane.send(patch.body(ContentType::MergePatch, take)).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    let list = ApiRequest::resource(Verb::List, resource("apps", "v1", "deployments"), Some("n"), None);
    assert!(plane.send(list).await.is_ok());
}
