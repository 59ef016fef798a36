//! Webhook servers that fail in every way: each is told clearly, and the failure policy decides.

use crate::harness::{Authority, Hooks, Plane, config_map, hook, plane};
use kubewright_core::ApiError;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Creates a ConfigMap past a failing webhook.
async fn failed(plane: &Plane, name: &str, config: Value) -> ApiError {
    let more = json!({"timeoutSeconds": 1});
    plane.configure(false, name, json!([hook("bad.example.com", config, more)])).await;
    let error = plane.send(config_map(name, json!({}))).await.unwrap_err();
    let delete = kubewright_core::ApiRequest::resource(
        kubewright_core::Verb::Delete,
        crate::harness::resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        None,
        Some(name),
    );
    plane.send(delete).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    error
}

fn check(error: &ApiError, want: &str) {
    let prefix = "Internal error occurred: failed calling webhook \"bad.example.com\": ";
    assert_eq!((error.code(), error.reason_text()), (500, "InternalError"), "{error}");
    let rest = error.message().strip_prefix(prefix).unwrap_or_else(|| panic!("{error}"));
    assert!(rest.contains(want), "{rest:?} has no {want:?}");
}

#[tokio::test]
async fn bad_answers_are_told_apart() {
    let hooks = Hooks::raw(|(path, review)| {
        let uid = review["request"]["uid"].clone();
        let answer = |uid: Value| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": uid, "allowed": true}})
        };
        let (code, body) = match path.split('?').next().unwrap() {
            "/garbage" => (200, b"<html>hello</html>".to_vec()),
            "/uid" => (200, answer(json!("another")).to_string().into_bytes()),
            "/empty" => (200, Vec::new()),
            "/huge" => (200, vec![b' '; 9 * 1024 * 1024]),
            "/missing" => (404, Vec::new()),
            "/broken" => (500, b"out of order".to_vec()),
            "/moved" => (302, Vec::new()),
            "/status" => (429, json!({"kind": "Status", "message": "slow down"}).to_string().into_bytes()),
            _ => (200, answer(uid).to_string().into_bytes()),
        };
        Box::pin(std::future::ready((code, body)))
    })
    .await;
    let plane = plane().await;
    for (path, want) in [
        ("garbage", "received invalid webhook response: unable to decode the answer"),
        ("uid", "received invalid webhook response: expected response.uid="),
        ("empty", "received invalid webhook response"),
        ("huge", "the response is larger than 8388608 bytes"),
        ("missing", "failed to call webhook: the server could not find the requested resource"),
        ("broken", "an error on the server (\"out of order\") has prevented the request from succeeding"),
        ("moved", "the server responded with the status code 302"),
        ("status", "failed to call webhook: slow down"),
    ] {
        check(&failed(&plane, path, hooks.url(&format!("/{path}"))).await, want);
    }
    assert!(hooks.asked.lock().iter().all(|(path, _)| path != "/elsewhere"), "a redirect was followed");
    // The connections were used again rather than made anew each time; what is good afterwards is taken.
    plane.configure(false, "good", json!([hook("bad.example.com", hooks.url("/good"), json!({}))])).await;
    plane.config_map("good", json!({})).await.unwrap();
}

/// A server that takes connections and does something else than TLS with them.
async fn odd_server(greeting: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match greeting {
                None => held.push(stream),
                Some(bytes) => {
                    let _ = stream.write_all(bytes).await;
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn bad_connections_are_told_apart() {
    let plane = plane().await;
    let authority = Authority::new();
    let at =
        |address: SocketAddr| json!({"url": format!("https://{address}/"), "caBundle": authority.bundle()});
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let want = format!(
        "failed to call webhook: Post \"https://{refused}/?timeout=1s\": dial tcp {refused}: connect: connection refused"
    );
    check(&failed(&plane, "refused", at(refused)).await, &want);
    check(&failed(&plane, "hangs", at(odd_server(None).await)).await, "context deadline exceeded");
    check(&failed(&plane, "closes", at(odd_server(Some(b"")).await)).await, "Post \"https://");
    let plain = odd_server(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    check(&failed(&plane, "plain", at(plain)).await, "tls: ");

    let hooks = Hooks::start(|_, _| json!({"allowed": true})).await;
    let stranger = json!({"url": format!("https://{}/", hooks.address), "caBundle": authority.bundle()});
    let want = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    check(&failed(&plane, "stranger", stranger).await, want);
    check(
        &failed(&plane, "nowhere", json!({"url": "https://does-not-exist.invalid/"})).await,
        "no such host",
    );
    let service =
        json!({"service": {"namespace": "n", "name": "gone", "path": "/p"}, "caBundle": authority.bundle()});
    let want =
        "failed to call webhook: Post \"https://gone.n.svc:443/p?timeout=1s\": services \"gone\" not found";
    check(&failed(&plane, "gone", service).await, want);
}

#[tokio::test]
async fn old_and_wrongly_named_certificates_are_refused() {
    let plane = plane().await;
    for (name, names, year, want) in [
        ("old", ["127.0.0.1"], 2001, "x509: certificate has expired or is not yet valid"),
        ("other", ["other.example.com"], 2100, "wanted to match 127.0.0.1"),
    ] {
        let authority = Authority::new();
        let acceptor = authority.tls(&names, year);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        let config = json!({"url": format!("https://{address}/"), "caBundle": authority.bundle()});
        check(&failed(&plane, name, config).await, want);
        server.abort();
    }
}

#[tokio::test]
async fn a_failure_may_be_passed_over() {
    let plane = plane().await;
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = json!({"url": format!("https://{refused}/")});
    let ignored = json!({"failurePolicy": "Ignore"});
    plane.configure(false, "a", json!([hook("v.example.com", config.clone(), ignored.clone())])).await;
    plane.configure(true, "a", json!([hook("m.example.com", config, ignored)])).await;
    let request = config_map("m", json!({}));
    let notes = request.notes.clone();
    plane.send(request).await.unwrap();
    let annotations = notes.annotations();
    let key = "failed-open.validating.webhook.admission.k8s.io/round_0_index_0";
    assert_eq!(annotations[key], "v.example.com");
    let key = "failed-open.mutation.webhook.admission.k8s.io/round_0_index_0";
    assert_eq!(annotations[key], "m.example.com");
}

#[tokio::test]
async fn a_denial_is_no_failure() {
    let hooks = Hooks::start(|_, _| json!({"allowed": false})).await;
    let plane = plane().await;
    let ignored = json!({"failurePolicy": "Ignore"});
    plane.configure(false, "a", json!([hook("v.example.com", hooks.url("/"), ignored)])).await;
    assert_eq!(plane.config_map("m", json!({})).await.unwrap_err().code(), 403);
}

#[tokio::test]
async fn a_connection_that_closes_as_it_is_used_is_made_anew() {
    let authority = Authority::new();
    let acceptor = authority.tls(&["127.0.0.1"], 2100);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Each connection answers one request, says that it stays open, and closes when the next one comes.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let text = request(&mut stream).await;
                let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
                let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "response": {"uid": body["request"]["uid"], "allowed": true}})
                .to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
                request(&mut stream).await;
            });
        }
    });
    let plane = plane().await;
    let config = json!({"url": format!("https://{address}/"), "caBundle": authority.bundle()});
    plane.configure(false, "a", json!([hook("v.example.com", config, json!({}))])).await;
    for name in ["a", "b", "c"] {
        plane.config_map(name, json!({})).await.unwrap();
    }
}

/// Reads a request with its body.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut chunk).await.unwrap_or(0);
        read.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if n == 0 || body.zip(length).is_some_and(|(has, wanted)| has >= wanted) {
            return text;
        }
    }
}
