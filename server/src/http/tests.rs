//! The codec against a closure service, without a socket.

use super::{Body, HttpService};
use crate::auth::{StaticTokens, authenticated};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, ObjectList, RequestBody, ResponseBody, Target, Verb,
    WatchEvent, WatchEventType,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::{Service, ServiceExt};

async fn answer(request: ApiRequest) -> Result<ApiResponse, ApiError> {
    let Target::Resource { resource, name, .. } = &request.target else {
        let Target::Path(path) = &request.target else { unreachable!("there are two targets") };
        return Ok(ApiResponse::new(200, ResponseBody::Value(json!({"path": path}))));
    };
    if resource.resource == "nothings" {
        return Err(ApiError::too_many_requests("slow down", 3));
    }
    if resource.resource == "sleeps" {
        std::future::pending::<()>().await;
    }
    let object = |n: &str| {
        let size = if resource.resource == "larges" { 200_000 } else { 3 };
        let value = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": n, "resourceVersion": "5"}, "data": "x".repeat(size)});
        Arc::new(ApiObject::from_value(&value).unwrap())
    };
    Ok(match request.verb {
        Verb::Watch => {
            let event = |event, n| Ok(WatchEvent { event, object: object(n) });
            let events = vec![
                event(WatchEventType::Added, "a"),
                event(WatchEventType::Deleted, "a"),
                Err(ApiError::expired("old")),
            ];
            ApiResponse::new(200, ResponseBody::Watch(futures::stream::iter(events).boxed()))
        }
        Verb::List => {
            let list = ObjectList {
                api_version: "v1".to_owned(),
                kind: "ThingList".to_owned(),
                resource_version: 9,
                continue_token: None,
                remaining: None,
                items: vec![object("a"), object("b")],
            };
            ApiResponse::new(200, ResponseBody::List(list))
        }
        Verb::Get => ApiResponse::new(200, ResponseBody::Object(object(name.as_deref().unwrap_or("?")))),
        _ => {
            let seen = match &request.body {
                RequestBody::Empty => "empty".to_owned(),
                RequestBody::Bytes { content_type, bytes } => format!("{content_type:?} {}", bytes.len()),
                RequestBody::Value { .. } => "value".to_owned(),
            };
            let user = request.user.username.clone();
            let mut response =
                ApiResponse::new(201, ResponseBody::Value(json!({"seen": seen, "user": user})));
            response.warnings = vec!["say \"no\"".to_owned(), "say \"no\"".to_owned()];
            response
        }
    })
}

fn service()
-> impl Service<Request<Full<Bytes>>, Response = Response<Body>, Error = std::convert::Infallible> + Clone {
    HttpService::new(tower::service_fn(answer))
        .identity(authenticated("me", &[]))
        .authenticator(Arc::new(StaticTokens::new().with("secret", authenticated("jane", &[]))))
        .timeout(std::time::Duration::from_millis(50))
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

async fn send(
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (http::response::Parts, Bytes) {
    let response = service().oneshot(request(method, uri, headers, body)).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn answers_have_their_representation() {
    let check =
        async |method: &str, uri: &str, headers: &[(&str, &str)], code: u16, media: &str, found: &str| {
            let (parts, body) = send(method, uri, headers, "").await;
            let text = String::from_utf8_lossy(&body);
            assert_eq!(parts.status.as_u16(), code, "{method} {uri}: {text}");
            assert_eq!(parts.headers["content-type"], media, "{method} {uri}");
            assert!(text.contains(found), "{method} {uri}: {text}");
            assert_eq!(parts.headers["audit-id"].len(), 36);
        };
    let json = "application/json";
    check("GET", "/api/v1/things/a", &[], 200, json, "{\"apiVersion\":\"v1\"").await;
    check("GET", "/api/v1/things/a?pretty=true", &[], 200, json, "{\n  \"apiVersion\": \"v1\"").await;
    check("GET", "/api/v1/things/a", &[("user-agent", "curl/8")], 200, json, "{\n  ").await;
    check(
        "GET",
        "/api/v1/things/a",
        &[("accept", "application/yaml")],
        200,
        "application/yaml",
        "kind: Thing",
    )
    .await;
    check("GET", "/api/v1/things", &[], 200, json, "\"items\":[{\"apiVersion\"").await;
    check(
        "GET",
        "/api/v1/things",
        &[("accept", "application/yaml")],
        200,
        "application/yaml",
        "kind: ThingList",
    )
    .await;
    check("GET", "/readyz?verbose", &[], 200, json, "{\"path\":\"/readyz?verbose\"}").await;
    check("GET", "/api/v1/things/a", &[("accept", "image/png")], 406, json, "only the following media types")
        .await;
    check("GET", "/api/v1/things?limit=x", &[], 400, json, "strconv.ParseInt").await;
    check("GET", "/api/v1/nothings", &[], 429, json, "\"retryAfterSeconds\":3").await;
    check("TRACE", "/api/v1/things", &[], 405, json, "MethodNotAllowed").await;
    check("GET", "/api/v1/things/a/b/c", &[], 404, json, "could not find").await;
    check("GET", "/api/v1/sleeps/a", &[], 504, json, "allotted timeout").await;
    check(
        "GET",
        "/api/v1/things",
        &[("authorization", "Bearer wrong")],
        401,
        json,
        "\"message\":\"Unauthorized\"",
    )
    .await;
    check("GET", "/api/v1/things", &[("impersonate-user", "x")], 403, json, "cannot impersonate resource")
        .await;
}

#[tokio::test]
async fn bodies_are_read_by_their_type() {
    let check = async |method: &str, uri: &str, media: &str, body: &str, code: u16, found: &str| {
        let (parts, answer) = send(method, uri, &[("content-type", media)], body).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(parts.status.as_u16(), code, "{method} {uri} {media}: {text}");
        assert!(text.contains(found), "{method} {uri} {media}: {text}");
    };
    check("POST", "/api/v1/things", "application/json", "{}", 201, "Json 2").await;
    check("POST", "/api/v1/things", "application/json; charset=utf-8", "{}", 201, "Json 2").await;
    check("POST", "/api/v1/things", "application/yaml", "a: b", 201, "Yaml 4").await;
    check(
        "POST",
        "/api/v1/things",
        "application/vnd.kubernetes.protobuf",
        "k8s",
        400,
        "no Kubernetes protobuf object",
    )
    .await;
    check("PATCH", "/api/v1/things/a", "application/merge-patch+json", "{}", 201, "MergePatch 2").await;
    check("PATCH", "/api/v1/things/a", "application/json", "{}", 415, "strategic-merge-patch").await;
    check(
        "PATCH",
        "/api/v1/things/a",
        "application/apply-patch+yaml",
        "{}",
        422,
        "is required for apply patch",
    )
    .await;
    check("DELETE", "/api/v1/things/a", "", "", 201, "empty").await;
    check(
        "POST",
        "/api/v1/things",
        "application/json",
        &"x".repeat(3 * 1024 * 1024 + 1),
        413,
        "limit is 3145728",
    )
    .await;
}

#[tokio::test]
async fn headers_tell_the_rest() {
    let (parts, body) = send("POST", "/api/v1/things", &[("authorization", "Bearer secret")], "{}").await;
    assert_eq!(parts.headers.get_all("warning").iter().collect::<Vec<_>>(), ["299 - \"say \\\"no\\\"\""]);
    assert!(String::from_utf8_lossy(&body).contains("\"user\":\"jane\""));
    let (parts, _) = send("GET", "/api/v1/nothings", &[], "").await;
    assert_eq!(parts.headers["retry-after"], "3");
    let (parts, _) = send("GET", "/api/v1/things/a", &[("audit-id", "mine")], "").await;
    assert_eq!(parts.headers["audit-id"], "mine");
    let (parts, body) = send("HEAD", "/api/v1/things/a", &[], "").await;
    assert_eq!((parts.status.as_u16(), body.len()), (200, 0));
    let (parts, body) = send("GET", "/api/v1/larges/a", &[("accept-encoding", "deflate, gzip")], "").await;
    assert_eq!(parts.headers["content-encoding"], "gzip");
    assert!(body.len() < 10_000);
    let (parts, _) = send("GET", "/api/v1/things/a", &[("accept-encoding", "gzip")], "").await;
    assert!(!parts.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn who_has_the_bytes_is_told_so() {
    let inner = tower::service_fn(async |_: ApiRequest| {
        let bytes = Bytes::from_static(b"{\"a\":1}");
        let mut answer = ApiResponse::new(200, ResponseBody::Raw { content_type: "application/json", bytes });
        answer.etag = Some("ABC".into());
        Ok::<_, ApiError>(answer)
    });
    let service = HttpService::new(inner).identity(authenticated("me", &[]));
    let check = async |headers: &[(&str, &str)], code: u16, body: &str| {
        let request = request("GET", "/openapi/v2", headers, "");
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), code, "{headers:?}");
        assert_eq!(response.headers()["etag"], "\"ABC\"");
        assert_eq!(response.headers()["cache-control"], "public");
        assert!(response.headers().get_all("vary").iter().any(|v| v == "Accept"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    };
    let whole = "{\"a\":1}";
    check(&[], 200, whole).await;
    check(&[("if-none-match", "\"DEF\"")], 200, whole).await;
    check(&[("if-none-match", "\"ABC\"")], 304, "").await;
    check(&[("if-none-match", "\"DEF\", W/\"ABC\"")], 304, "").await;
    check(&[("if-none-match", "*")], 304, "").await;
    check(&[("user-agent", "curl/8")], 200, "{\n  \"a\": 1\n}").await;
    check(&[("accept", "application/yaml")], 200, "a: 1\n").await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask() {
    let origins = super::AllowedOrigins::new(["//localhost(:|$)", r"^https://.*\.example\.dev$"]).unwrap();
    assert!(super::AllowedOrigins::new(["("]).is_err() && super::AllowedOrigins::new([""]).is_err());
    let service = HttpService::new(tower::service_fn(answer))
        .identity(authenticated("me", &[]))
        .allowed_origins(origins)
        .strict_transport("max-age=31536000,includeSubDomains")
        .unwrap();
    let check = async |method: &str, origin: &str, code: u16, allowed: bool| {
        let request = request(method, "/api/v1/things/a", &[("origin", origin)], "");
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), code, "{method} {origin}");
        let told = response.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap());
        assert_eq!(told, allowed.then_some(origin), "{method} {origin}");
        let strict = &response.headers()["strict-transport-security"];
        assert_eq!(strict, "max-age=31536000; includeSubDomains");
    };
    check("OPTIONS", "http://localhost:8080", 204, true).await;
    check("GET", "https://a.example.dev", 200, true).await;
    check("GET", "https://a.example.dev.evil.org", 200, false).await;
    check("OPTIONS", "http://evil.org", 405, false).await;
}

#[tokio::test]
async fn a_watch_is_lines_of_json() {
    let (parts, body) = send("GET", "/api/v1/things?watch=true", &[], "").await;
    assert_eq!(parts.status.as_u16(), 200);
    let text = String::from_utf8(body.to_vec()).unwrap();
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let types: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["ADDED", "DELETED", "ERROR"]);
    assert_eq!(events[0]["object"]["metadata"]["name"], "a");
    assert_eq!(events[2]["object"]["code"], 410);
    let (parts, _) = send("GET", "/api/v1/things?watch=true", &[("accept", "application/yaml")], "").await;
    assert_eq!(parts.status.as_u16(), 406);
}
