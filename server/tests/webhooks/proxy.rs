//! The `proxy` subresources, over real sockets.

use crate::front::{backend, chat, fetch, front};
use crate::harness::{Plane, plane, resource};
use kubewright_core::{ApiRequest, ContentType, Verb};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A pod that seems to run at an address.
async fn pod(plane: &Plane, name: &str, address: SocketAddr) {
    plane
        .create("", "v1", "serviceaccounts", json!({"metadata": {"name": "default", "namespace": "n"}}))
        .await;
    let container = json!({"name": "c", "image": "i", "ports": [{"containerPort": address.port()}]});
    plane
        .create(
            "",
            "v1",
            "pods",
            json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [container]}}),
        )
        .await;
    status(plane, "pods", Some("n"), name, json!({"podIP": address.ip().to_string()})).await;
}

async fn status(plane: &Plane, plural: &str, namespace: Option<&str>, name: &str, status: Value) {
    let request = ApiRequest::resource(Verb::Patch, resource("", "v1", plural), namespace, Some(name));
    let request = request.subresource("status").body(ContentType::MergePatch, json!({"status": status}));
    plane.send(request).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
}

#[tokio::test]
async fn requests_go_through_to_pods() {
    let (plane, address) = (plane().await, backend().await);
    let to = front(&plane).await;
    pod(&plane, "p", address).await;
    let at = "/api/v1/namespaces/n/pods/p/proxy";
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let headers = [("x-own", "1"), ("content-type", "text/odd")];
        let got =
            fetch(to, method, &format!("{at}/a//b%20c?limit=many&watch=1"), &headers, "some text").await;
        let told = got.json();
        assert_eq!((got.code, got.header("x-backend"), got.header("x-secret")), (200, "yes", ""));
        assert_eq!(
            (&told["method"], &told["path"]),
            (&json!(method), &json!("/a//b%20c?limit=many&watch=1"))
        );
        assert_eq!((&told["body"], &told["headers"]["x-own"]), (&json!("some text"), &json!("1")));
        assert_eq!(told["headers"]["x-forwarded-uri"], at);
        assert_eq!(told["headers"]["x-forwarded-host"], "front.example.com");
    }
    let got = fetch(to, "GET", at, &[], "").await;
    assert_eq!((got.code, got.header("location")), (301, format!("{at}/").as_str()));
    let got = fetch(to, "GET", &format!("{at}/moved"), &[], "").await;
    assert_eq!((got.code, got.header("location")), (302, format!("{at}/there?x=y").as_str()));
    let other = format!("/api/v1/namespaces/n/pods/http:p:{}/proxy/x", address.port());
    assert_eq!(fetch(to, "GET", &other, &[], "").await.json()["path"], "/x");
    assert_eq!(chat(to, &format!("{at}/chat")).await, "hello");
    let got = fetch(to, "HEAD", &format!("{at}/x"), &[], "").await;
    assert_eq!((got.code, got.text.as_str()), (200, ""));
    let long = "x".repeat(5 * 1024 * 1024);
    let got = fetch(to, "POST", &format!("{at}/long"), &[], &long).await;
    assert_eq!(got.json()["body"].as_str().unwrap().len(), long.len(), "bodies of proxies are not bounded");
}

#[tokio::test]
async fn requests_go_through_to_services() {
    let (plane, address) = (plane().await, backend().await);
    let to = front(&plane).await;
    plane.service("web", 8080, address).await;
    let check = async |name: &str, code: u16, want: &str| {
        let got =
            fetch(to, "GET", &format!("/api/v1/namespaces/n/services/{name}/proxy/x?y=z"), &[], "").await;
        assert_eq!(got.code, code, "{name}: {}", got.text);
        let told = got.json();
        let said = if code == 200 { &told["path"] } else { &told["message"] };
        assert_eq!(said, want, "{name}");
    };
    check("web:8080", 200, "/x?y=z").await;
    check("web:https", 200, "/x?y=z").await;
    check("http:web:8080", 200, "/x?y=z").await;
    check("web", 200, "/x?y=z").await;
    check("web:81", 503, "no service port \"81\" found for service \"web\"").await;
    check("gone:81", 404, "services \"gone\" not found").await;
    check("a:b:c:d", 400, "invalid service request \"a:b:c:d\"").await;
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let plane = plane().await;
    let to = front(&plane).await;
    let refused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    pod(&plane, "p", refused).await;
    let got = fetch(to, "GET", "/api/v1/namespaces/n/pods/p/proxy/", &[], "").await;
    let want = format!("error trying to reach service: dial tcp {refused}: connect: connection refused");
    assert_eq!((got.code, &got.json()["message"]), (503, &json!(want)));
    assert_eq!(fetch(to, "GET", "/api/v1/namespaces/n/pods/q/proxy/", &[], "").await.code, 404);
    plane.create("", "v1", "nodes", json!({"metadata": {"name": "w"}})).await;
    let got = fetch(to, "GET", "/api/v1/nodes/w/proxy/metrics", &[], "").await;
    assert_eq!(
        (got.code, &got.json()["message"]),
        (503, &json!("the agent of node \"w\" serves no HTTP endpoint"))
    );
    let address = backend().await;
    status(
        &plane,
        "nodes",
        None,
        "w",
        json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}),
    )
    .await;
    let got = fetch(to, "GET", &format!("/api/v1/nodes/w:{}/proxy/metrics", address.port()), &[], "").await;
    assert_eq!(got.json()["path"], "/metrics");
}
