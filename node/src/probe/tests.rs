//! When probes count, by tables.

use super::*;
use crate::testing::pod;
use kubewright_core::SystemClock;
use kubewright_runtime::fake::{FakeConfig, FakeRuntime};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn outcome(probe: Value, ip: &str) -> Outcome {
    let runtime = FakeRuntime::new(FakeConfig::default(), Arc::new(SystemClock), 1);
    let probe: Probe = serde_json::from_value(probe).unwrap();
    let p = pod(json!({"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 1}]}]}));
    run_probe(&runtime, &probe, &p.spec.unwrap().containers[0], "none", ip).await
}

/// Answers each connection with these bytes after it has read something; keeps silent when there are none.
async fn server(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            if answer.is_empty() {
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn http_answers_decide() {
    let check = async |answer: &'static str, wanted: &str| {
        let port = server(answer).await;
        let got = outcome(json!({"httpGet": {"port": port, "path": "/x"}}), "127.0.0.1").await;
        match (&got, wanted) {
            (Outcome::Good, "") => {}
            (Outcome::Bad(why), wanted) if !wanted.is_empty() => assert!(why.contains(wanted), "{why}"),
            _ => panic!("{answer}: {got:?}"),
        }
    };
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "").await;
    check("HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", "").await;
    check("HTTP/1.1 200 OK\r\n\r\nuntil the end", "").await;
    check("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "HTTP probe failed with statuscode: 503").await;
    check("", "context deadline exceeded").await;
    check("nonsense\r\n\r\n", "Get \"http://127.0.0.1:").await;
}

#[tokio::test]
async fn what_does_not_listen_is_bad() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = format!("dial tcp 127.0.0.1:{closed}: connect: connection refused");
    let tcp = outcome(json!({"tcpSocket": {"port": closed}}), "127.0.0.1").await;
    assert_eq!(tcp, Outcome::Bad(refused.clone()));
    let http = outcome(json!({"httpGet": {"port": closed}}), "127.0.0.1").await;
    assert_eq!(http, Outcome::Bad(format!("Get \"http://127.0.0.1:{closed}/\": {refused}")));
    assert!(matches!(outcome(json!({"grpc": {"port": closed}}), "127.0.0.1").await, Outcome::Bad(_)));
    let open = server("x").await;
    assert_eq!(outcome(json!({"tcpSocket": {"port": open}}), "127.0.0.1").await, Outcome::Good);
    assert!(matches!(outcome(json!({"tcpSocket": {"port": "none"}}), "127.0.0.1").await, Outcome::Error(_)));
    assert!(matches!(outcome(json!({}), "127.0.0.1").await, Outcome::Error(_)));
    assert!(matches!(outcome(json!({"exec": {"command": ["true"]}}), "").await, Outcome::Error(_)));
}

/// A health server by hand: HTTP/2 without TLS, one answer.
async fn health(status: u8) -> u16 {
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::Frame;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(
                move |request: ::http::Request<hyper::body::Incoming>| async move {
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&asked[..], [0, 0, 0, 0, 3, 0x0a, 1, b's']);
                    let data = bytes::Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                    let mut trailers = ::http::HeaderMap::new();
                    trailers.insert("grpc-status", ::http::HeaderValue::from_static("0"));
                    let frames =
                        [Ok::<_, std::convert::Infallible>(Frame::data(data)), Ok(Frame::trailers(trailers))];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    Ok::<_, std::convert::Infallible>(::http::Response::new(body))
                },
            );
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(io, service)
                .await;
        }
    });
    port
}

#[tokio::test]
async fn grpc_health_decides() {
    let ask = async |status| {
        let port = health(status).await;
        outcome(json!({"grpc": {"port": port, "service": "s"}}), "127.0.0.1").await
    };
    assert_eq!(ask(1).await, Outcome::Good);
    let bad = "service unhealthy (responded with \"NOT_SERVING\")".to_owned();
    assert_eq!(ask(2).await, Outcome::Bad(bad));
}
