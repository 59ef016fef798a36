//! Create, read, update and delete of one kind, with what may go wrong.

use crate::common::*;
use kubewright_core::{ApiRequest, ContentType, Options, Verb};
use serde_json::{Value, json};

#[tokio::test]
async fn an_object_lives_its_life() {
    let plane = plane().await;
    let created = plane.create(widget("a")).await.unwrap();
    assert_eq!(created["metadata"]["namespace"], "n");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(plane.get("a").await.unwrap(), created);
    let list = plane.list(Options::default()).await.unwrap();
    assert_eq!((names(&list), list.kind.as_str()), (vec!["a"], "WidgetList"));

    let mut wanted = created.clone();
    wanted["spec"]["color"] = json!("blue");
    let updated = plane.update(wanted.clone()).await.unwrap();
    assert_eq!(updated["metadata"]["generation"], 2);
    assert!(version(&updated) > version(&created));
    assert_eq!(plane.update(wanted).await.unwrap_err().code(), 409, "a stale version");

    let same = plane.update(updated.clone()).await.unwrap();
    assert_eq!(version(&same), version(&updated), "nothing changed, nothing is written");

    let gone = plane.delete("a", Value::Null).await.unwrap();
    assert_eq!(
        (gone["status"].as_str(), gone["details"]["kind"].as_str()),
        (Some("Success"), Some("widgets"))
    );
    assert_eq!(plane.get("a").await.unwrap_err().message(), "widgets.example.dev \"a\" not found");
    assert_eq!(plane.delete("a", Value::Null).await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn bad_creates_are_refused_in_upstreams_words() {
    let plane = plane().await;
    plane.create(widget("taken")).await.unwrap();
    let check = async |body: Value, code: u16, part: &str| {
        let e = plane.create(body.clone()).await.unwrap_err();
        assert_eq!(e.code(), code, "{body}: {e}");
        assert!(e.message().contains(part), "{body}: {e}");
    };
    check(widget("taken"), 409, "widgets.example.dev \"taken\" already exists").await;
    check(widget("A_b"), 422, "metadata.name: Invalid value: \"A_b\"").await;
    check(json!({"spec": {}}), 422, "metadata.name: Required value: name or generateName is required").await;
    check(json!([]), 400, "must be of type Widget").await;
    check(json!({"kind": "Gadget"}), 400, "does not match the expected kind").await;
    check(json!({"apiVersion": "v2"}), 400, "the API version in the data (v2) does not match").await;
    check(json!({"metadata": {"name": "a", "namespace": "m"}}), 400, "namespace of the provided object")
        .await;
    check(json!({"metadata": {"name": "a", "labels": {"a": "b c"}}}), 422, "metadata.labels").await;
    for (bytes, code) in
        [(&b"{"[..], 400), (b"", 400), (b"[", 400), (b"{} {}", 400), (&vec![b' '; 4 << 20], 413)]
    {
        let e = plane.send(raw(request(Verb::Create, None), ContentType::Json, bytes)).await.unwrap_err();
        assert_eq!(e.code(), code, "{e}");
    }
    let patch = raw(request(Verb::Create, None), ContentType::MergePatch, b"{}");
    assert_eq!(plane.send(patch).await.unwrap_err().code(), 415);
    let large = json!({"metadata": {"name": "large"}, "spec": {"text": "x".repeat(1_600_000)}});
    check(large, 413, "Request entity too large").await;
}

#[tokio::test]
async fn paths_that_are_none_are_told() {
    let plane = plane().await;
    let check = async |request: ApiRequest, code: u16| {
        let e = plane.send(request.clone()).await.unwrap_err();
        assert_eq!(e.code(), code, "{request:?}: {e}");
    };
    let unknown = kubewright_core::GroupVersionResource::new("example.dev", "v1", "gizmos");
    check(ApiRequest::resource(Verb::List, unknown, None, None), 404).await;
    check(ApiRequest::resource(Verb::Create, widgets(), None, None), 405).await;
    check(ApiRequest::resource(Verb::Get, gadgets(), Some("n"), Some("a")), 404).await;
    check(request(Verb::Create, Some("a")), 405).await;
    check(request(Verb::Update, None), 405).await;
    check(request(Verb::Get, Some("a")).subresource("nothing"), 404).await;
}

#[tokio::test]
async fn generated_names_and_dry_runs() {
    let plane = plane().await;
    let template = json!({"metadata": {"generateName": "w-"}, "spec": {}});
    let one = plane.create(template.clone()).await.unwrap();
    let two = plane.create(template).await.unwrap();
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    let mut dry = request(Verb::Create, None).body(ContentType::Json, widget("dry"));
    dry.options.dry_run = true;
    assert_eq!(plane.value(dry.clone()).await.unwrap()["metadata"]["name"], "dry");
    assert_eq!(plane.get("dry").await.unwrap_err().code(), 404);
    plane.create(widget("dry")).await.unwrap();
    assert_eq!(plane.send(dry).await.unwrap_err().code(), 409);
}

#[tokio::test]
async fn patches_of_every_type() {
    let plane = plane().await;
    let check = async |how: ContentType, patch: Value, expected: Result<&str, u16>| {
        let _ = plane.delete("p", Value::Null).await;
        plane.create(widget("p")).await.unwrap();
        let got = plane.patch("p", how, patch.clone()).await;
        let got = got.map(|o| o["spec"]["color"].to_string()).map_err(|e| e.code());
        assert_eq!(got.as_deref(), expected.as_deref(), "{how:?} {patch}");
    };
    check(ContentType::MergePatch, json!({"spec": {"color": "blue"}}), Ok("\"blue\"")).await;
    check(ContentType::MergePatch, json!({"spec": {"color": null}}), Ok("null")).await;
    check(ContentType::MergePatch, json!([]), Err(400)).await;
    check(ContentType::StrategicMergePatch, json!({"spec": {"color": "blue"}}), Ok("\"blue\"")).await;
    check(
        ContentType::JsonPatch,
        json!([{"op": "replace", "path": "/spec/color", "value": "x"}]),
        Ok("\"x\""),
    )
    .await;
    check(ContentType::JsonPatch, json!([{"op": "test", "path": "/spec/color", "value": "x"}]), Err(422))
        .await;
    check(ContentType::MergePatch, json!({"metadata": {"name": "q"}}), Err(400)).await;
    check(ContentType::MergePatch, json!({"metadata": {"resourceVersion": "1"}}), Err(409)).await;
    check(ContentType::ApplyPatch, json!({}), Err(400)).await;
    check(ContentType::Json, json!({}), Err(415)).await;
    let e = plane.patch("missing", ContentType::MergePatch, json!({})).await.unwrap_err();
    assert_eq!(e.code(), 404);
}

#[tokio::test]
async fn many_writers_of_one_object_lose_nothing() {
    let plane = plane().await;
    plane.create(widget("c")).await.unwrap();
    let writers = (0..16).map(|i| {
        let plane = plane.clone();
        async move {
            let patch = json!({"metadata": {"annotations": {format!("w{i}"): "x"}}});
            plane.patch("c", ContentType::MergePatch, patch).await.unwrap();
        }
    });
    futures::future::join_all(writers).await;
    let object = plane.get("c").await.unwrap();
    assert_eq!(object["metadata"]["annotations"].as_object().unwrap().len(), 16);
}
