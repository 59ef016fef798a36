//! Webhooks that say whose a token is and who may do what.

use crate::harness::{Hooks, plane_with};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use kubewright_core::{ManualClock, SystemClock};
use kubewright_server::auth::{
    Access, Attributes, Authorizer, Decision, SigningKey, TokenAuthenticator, WebhookAuthorizer,
    WebhookEndpoint, WebhookFailure, WebhookTokens, authenticated,
};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// A server that answers each review with a status.
async fn reviewer(status: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Hooks {
    Hooks::raw(move |(_, review)| {
        let (code, status) = status(&review["spec"]);
        let mut answer = review;
        answer["status"] = status;
        Box::pin(std::future::ready((code, answer.to_string().into_bytes())))
    })
    .await
}

fn endpoint(hooks: &Hooks) -> WebhookEndpoint {
    let url = format!("https://{}/review", hooks.address);
    let pause = Duration::from_millis(1);
    WebhookEndpoint::new(&url, Some(&hooks.authority.pem)).unwrap().bearer("ours").first_pause(pause)
}

#[tokio::test]
async fn a_plane_lets_others_decide() {
    let tokens = reviewer(|spec| {
        let known = spec["token"] == "joes";
        (200, json!({"authenticated": known, "user": {"username": "joe", "groups": ["dev"], "extra": {"k": ["v"]}}}))
    })
    .await;
    let access = reviewer(|spec| {
        let wanted = &spec["resourceAttributes"];
        let joe = spec["user"] == "joe" && spec["groups"] == json!(["dev", "system:authenticated"]);
        (
            200,
            match wanted["verb"].as_str() {
                Some("list") if joe && wanted["namespace"] == "n" => json!({"allowed": true}),
                Some("delete") => json!({"allowed": false, "denied": true, "reason": "nobody deletes"}),
                _ => json!({"allowed": false, "reason": "ask another day"}),
            },
        )
    })
    .await;
    let auth = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock))
        .webhook_tokens(endpoint(&tokens))
        .webhook_authorizer(endpoint(&access));
    let plane = plane_with(|builder| auth.install(builder)).await;
    auth.start(&plane.0).await.unwrap();
    let web = auth.http(auth.authorized(plane.0.clone()));
    let send = async |method: &str, path: &str, token: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"));
        let response = web.clone().oneshot(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice::<Value>(&bytes).unwrap()["message"].as_str().unwrap_or("").to_owned())
    };
    let maps = "/api/v1/namespaces/n/configmaps";
    assert_eq!(send("GET", maps, "joes").await.0, 200);
    assert_eq!(send("GET", maps, "joes").await.0, 200);
    assert_eq!((tokens.count(), access.count()), (1, 1), "answers are remembered");
    assert_eq!(send("GET", maps, "nobodys").await.0, 401);
    let (code, message) = send("DELETE", &format!("{maps}/a"), "joes").await;
    assert_eq!(code, 403);
    assert!(message.ends_with("in the namespace \"n\": nobody deletes"), "{message}");
    let (code, message) = send("GET", "/api/v1/nodes", "joes").await;
    assert_eq!(code, 403);
    assert!(message.contains("ask another day"), "{message}");
    let review = &access.asked.lock()[0].1;
    assert_eq!(
        (&review["kind"], &review["spec"]["extra"]),
        (&json!("SubjectAccessReview"), &json!({"k": ["v"]}))
    );
    assert_eq!(review["spec"]["resourceAttributes"]["resource"], "configmaps");
}

#[tokio::test]
async fn answers_about_tokens_are_taken_at_their_word() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let hooks = reviewer(|spec| match spec["token"].as_str().unwrap() {
        "good" => (200, json!({"authenticated": true, "user": {"username": "joe"}, "audiences": ["api"]})),
        "other" => {
            (200, json!({"authenticated": true, "user": {"username": "joe"}, "audiences": ["elsewhere"]}))
        }
        "old" => (200, json!({"authenticated": false, "error": "it is expired"})),
        "busy" => (503, Value::Null),
        "forbidden" => (403, Value::Null),
        _ => (200, json!({"authenticated": false})),
    })
    .await;
    let tokens = WebhookTokens::new(endpoint(&hooks), clock.clone()).audiences(&["api"]);
    let check = async |token: &str, want: Result<Option<&str>, &str>, calls: usize| {
        let before = hooks.count();
        let got = tokens.check(token).await.map(|u| u.and_then(|u| u.username));
        match (&got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got.as_deref(), want, "{token}"),
            (Err(e), Err(want)) => assert!(e.code() == 401 && e.message().contains(want), "{token}: {e}"),
            other => panic!("{token}: {other:?}"),
        }
        assert_eq!(hooks.count() - before, calls, "{token}");
    };
    check("good", Ok(Some("joe")), 1).await;
    check("good", Ok(Some("joe")), 0).await;
    check("other", Err("meant for others"), 1).await;
    check("old", Err("it is expired"), 1).await;
    check("old", Err("it is expired"), 0).await;
    check("unknown", Ok(None), 1).await;
    check("unknown", Ok(None), 0).await;
    check("busy", Err("unable to handle the request"), 5).await;
    check("busy", Err("unable to handle the request"), 5).await;
    check("forbidden", Err("forbidden"), 1).await;
    clock.advance(Duration::from_secs(121));
    check("good", Ok(Some("joe")), 1).await;
    assert_eq!(hooks.asked.lock()[0].1["spec"]["audiences"], json!(["api"]));
}

#[tokio::test]
async fn a_silent_webhook_has_no_opinion_or_says_no() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let hooks = reviewer(|spec| match spec["nonResourceAttributes"]["path"].as_str().unwrap() {
        "/both" => (200, json!({"allowed": true, "denied": true})),
        "/yes" => (200, json!({"allowed": true})),
        _ => (500, Value::Null),
    })
    .await;
    let user = authenticated("joe", &[]);
    let ask = async |authorizer: &WebhookAuthorizer, path: &str| {
        let attributes =
            Attributes { user: Cow::Borrowed(&user), verb: "get", path: Some(path), ..Attributes::default() };
        authorizer.authorize(&attributes).await
    };
    let lenient = WebhookAuthorizer::new(endpoint(&hooks), clock.clone());
    assert_eq!(ask(&lenient, "/fails").await, Decision::NoOpinion(String::new()));
    assert_eq!(hooks.count(), 5);
    assert_eq!(ask(&lenient, "/yes").await, Decision::Allow);
    clock.advance(Duration::from_secs(299));
    assert_eq!(ask(&lenient, "/yes").await, Decision::Allow);
    assert_eq!(hooks.count(), 6);
    clock.advance(Duration::from_secs(2));
    assert_eq!(ask(&lenient, "/yes").await, Decision::Allow);
    assert_eq!(hooks.count(), 7);
    let strict = WebhookAuthorizer::new(endpoint(&hooks), clock).on_failure(WebhookFailure::Deny);
    assert!(matches!(ask(&strict, "/fails").await, Decision::Deny(why) if why.contains("has prevented")));
    assert!(
        matches!(ask(&strict, "/both").await, Decision::Deny(why) if why.contains("both allow and deny"))
    );
}
