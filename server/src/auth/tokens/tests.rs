//! Tokens from request to refusal.

use super::*;
use crate::auth::objects::tests::Objects;
use kubewright_core::ManualClock;
use std::time::Duration;

struct Plane {
    objects: Arc<Objects>,
    clock: Arc<ManualClock>,
    tokens: ServiceAccountTokens,
}

fn object(kind: &str, namespace: &str, name: &str, uid: &str) -> Value {
    let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "uid": uid}});
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = json!(namespace);
    }
    value
}

fn plane() -> Plane {
    let objects = Arc::new(Objects::default());
    objects.put("", "serviceaccounts", &object("ServiceAccount", "a", "robot", "u1"));
    objects.put("", "pods", &object("Pod", "a", "web-0", "p1"));
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let key = SigningKey::generate().unwrap();
    let tokens = ServiceAccountTokens::new(key, objects.clone(), clock.clone());
    Plane { objects, clock, tokens }
}

fn token(plane: &Plane, spec: Value, bound: Option<&TokenBinding>) -> String {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = plane.tokens.issue_token("a", "robot", "u1", bound, request).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn pod() -> TokenBinding {
    let node = Some(("n1".to_owned(), "nu1".to_owned()));
    TokenBinding { kind: "Pod".to_owned(), name: "web-0".to_owned(), uid: "p1".to_owned(), node }
}

#[tokio::test]
async fn a_token_is_its_account() {
    let plane = plane();
    let bound = pod();
    let token = token(&plane, json!({}), Some(&bound));
    let request =
        http::Request::builder().header("authorization", format!("Bearer {token}")).body(()).unwrap();
    let user = plane.tokens.authenticate(&request.into_parts().0).await.unwrap().unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:a:robot"));
    assert_eq!(user.uid.as_deref(), Some("u1"));
    assert_eq!(
        user.groups.unwrap(),
        ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
    );
    let extra = user.extra.unwrap();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
    assert_eq!(extra["authentication.kubernetes.io/node-uid"], ["nu1"]);
    let request = http::Request::builder().header("authorization", "Bearer other").body(()).unwrap();
    assert!(plane.tokens.authenticate(&request.into_parts().0).await.unwrap().is_none());
}

#[test]
fn a_token_dies_in_time_and_with_its_objects() {
    let plane = plane();
    let bound = pod();
    let token = token(&plane, json!({"expirationSeconds": 600}), Some(&bound));
    let check = |want: Option<&str>| match (plane.tokens.validate(&token, &[]), want) {
        (Ok(_), None) => {}
        (Err(e), Some(text)) => assert!(e.code() == 401 && e.message().contains(text), "{e}"),
        (got, want) => panic!("{got:?} is not {want:?}"),
    };
    check(None);
    plane.objects.put("", "pods", &object("Pod", "a", "web-0", "p2"));
    check(Some("pods \"web-0\" of the token is gone"));
    let mut deleted = object("Pod", "a", "web-0", "p1");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
    plane.objects.put("", "pods", &deleted);
    check(None);
    plane.clock.advance(Duration::from_secs(120));
    check(Some("is deleted"));
    plane.objects.put("", "pods", &object("Pod", "a", "web-0", "p1"));
    check(None);
    plane.objects.remove("", "serviceaccounts", "a", "robot");
    check(Some("serviceaccounts \"robot\" of the token is gone"));
    plane.clock.advance(Duration::from_secs(600));
    check(Some("expired"));
}

#[test]
fn tokens_of_former_keys_hold_and_those_of_pods_live_a_year() {
    let plane = plane();
    let former = SigningKey::generate().unwrap();
    let before = ServiceAccountTokens::new(former, plane.objects.clone(), plane.clock.clone());
    let request = json!({"spec": {"expirationSeconds": 3607}});
    let old = before.issue_token("a", "robot", "u1", Some(&pod()), request.clone()).unwrap();
    let old = old["status"]["token"].as_str().unwrap();
    assert!(!plane.tokens.issued(old) && plane.tokens.validate(old, &[]).is_err());
    let public = before.key_set().unwrap();
    plane.tokens.add_former_key(before.key.verifying().unwrap());
    assert!(plane.tokens.issued(old) && plane.tokens.validate(old, &[]).is_ok());
    let set = plane.tokens.key_set().unwrap();
    assert_eq!((set["keys"].as_array().unwrap().len(), &set["keys"][1]), (2, &public["keys"][0]));
    // An hour was told, but a client that never asks again is let in for a year.
    plane.clock.advance(Duration::from_secs(7200));
    assert!(plane.tokens.validate(old, &[]).is_ok());
    plane.clock.advance(Duration::from_secs(366 * 24 * 3600));
    assert!(plane.tokens.validate(old, &[]).unwrap_err().message().contains("expired"));
    let unbound = plane.tokens.issue_token("a", "robot", "u1", None, request).unwrap();
    plane.clock.advance(Duration::from_secs(7200));
    assert!(plane.tokens.validate(unbound["status"]["token"].as_str().unwrap(), &[]).is_err());
    assert!(VerifyingKey::from_pem("nonsense").is_err());
}

#[test]
fn audiences_and_signatures_are_checked() {
    let plane = plane();
    let vault = token(&plane, json!({"audiences": ["vault"]}), None);
    assert_eq!(plane.tokens.validate(&vault, &[]).unwrap_err().code(), 401);
    let (_, common) = plane.tokens.validate(&vault, &["vault".to_owned(), "other".to_owned()]).unwrap();
    assert_eq!(common, ["vault"]);
    let mut forged = vault.into_bytes();
    let at = forged.iter().position(|b| *b == b'.').unwrap() + 5;
    forged[at] ^= 1;
    assert_eq!(plane.tokens.validate(&String::from_utf8(forged).unwrap(), &[]).unwrap_err().code(), 401);
    let short =
        plane.tokens.issue_token("a", "robot", "u1", None, json!({"spec": {"expirationSeconds": 60}}));
    assert!(short.unwrap_err().message().contains("may not specify a duration less than 10 minutes"));
}

#[test]
fn a_key_on_demand_is_made_once() {
    let key = SigningKey::on_demand();
    assert_eq!(format!("{key:?}"), "SigningKey(not made yet)");
    assert!(!key.signed("a.b.c"));
    let token = key.sign(&json!({"sub": "a"})).unwrap();
    assert!(key.signed(&token) && key.verify::<serde_json::Value>(&token).is_ok());
    assert!(!SigningKey::on_demand().signed(&token), "another key is another key");
}

#[test]
fn the_key_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sa.key");
    let (a, b) = (SigningKey::load_or_generate(&path).unwrap(), SigningKey::load_or_generate(&path).unwrap());
    assert_eq!(a.key_set().unwrap(), b.key_set().unwrap());
    std::fs::write(&path, "damaged").unwrap();
    assert!(SigningKey::load_or_generate(&path).is_err());
}
