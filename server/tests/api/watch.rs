//! Watches: where they start, what they tell, and how they end.

use crate::common::*;
use kubewright_core::{ContentType, Options, WatchEventType};
use serde_json::{Value, json};

fn from(version: &str) -> Options {
    Options { resource_version: Some(version.to_owned()), ..Options::default() }
}

#[tokio::test]
async fn a_watch_tells_the_state_and_what_follows() {
    let plane = plane().await;
    plane.create(widget("a")).await.unwrap();
    let mut watch = plane.watch(Options::default()).await.unwrap();
    assert_eq!(watch.next().await, "ADDED a");
    plane.create(widget("b")).await.unwrap();
    assert_eq!(watch.next().await, "ADDED b");
    plane.patch("a", ContentType::MergePatch, json!({"spec": {"color": "blue"}})).await.unwrap();
    assert_eq!(watch.next().await, "MODIFIED a");
    plane.delete("a", Value::Null).await.unwrap();
    let last = watch.event().await;
    assert_eq!(shown(&last), "DELETED a");
    let value = last.object.value().unwrap();
    assert_eq!(value["spec"]["color"], "blue");
    assert_eq!(version(&value), last.object.resource_version());
    assert!(last.object.resource_version() > version(&plane.get("b").await.unwrap()));
}

#[tokio::test]
async fn a_watch_from_a_version_tells_what_came_after() {
    let plane = plane().await;
    plane.create(widget("a")).await.unwrap();
    let list = plane.list(Options::default()).await.unwrap();
    plane.create(widget("b")).await.unwrap();
    let mut watch = plane.watch(from(&list.resource_version.to_string())).await.unwrap();
    assert_eq!(watch.next().await, "ADDED b");
    assert_eq!(plane.watch(from("x")).await.err().unwrap().code(), 400);
}

#[tokio::test]
async fn selections_are_entered_and_left() {
    let plane = plane().await;
    let check = async |options: Options, into: Value, out: Value| {
        let _ = plane.delete("s", Value::Null).await;
        let mut watch = plane.watch(options).await.unwrap();
        plane.create(json!({"metadata": {"name": "s"}, "spec": {}})).await.unwrap();
        plane.patch("s", ContentType::MergePatch, into).await.unwrap();
        assert_eq!(watch.next().await, "ADDED s");
        plane.patch("s", ContentType::MergePatch, json!({"spec": {"other": 1}})).await.unwrap();
        assert_eq!(watch.next().await, "MODIFIED s");
        plane.patch("s", ContentType::MergePatch, out).await.unwrap();
        let left = watch.event().await;
        assert_eq!(shown(&left), "DELETED s");
        assert_eq!(left.object.value().unwrap()["spec"]["other"], 1, "the last state that was selected");
    };
    let labels = Options { label_selector: Some("a=b".into()), ..Options::default() };
    check(labels, json!({"metadata": {"labels": {"a": "b"}}}), json!({"metadata": {"labels": {"a": "c"}}}))
        .await;
    let node = Options { field_selector: Some("spec.nodeName=x".into()), ..Options::default() };
    check(node, json!({"spec": {"nodeName": "x"}}), json!({"spec": {"nodeName": "y"}})).await;
    let color =
        Options { field_selector: Some("spec.color=red,metadata.name=s".into()), ..Options::default() };
    check(color, json!({"spec": {"color": "red"}}), json!({"spec": {"color": null}})).await;
    for (labels, fields) in [("a in (", ""), ("", "spec.size=1"), ("", "spec.color")] {
        let options = Options {
            label_selector: Some(labels.into()),
            field_selector: Some(fields.into()),
            ..Options::default()
        };
        assert_eq!(plane.watch(options).await.err().unwrap().code(), 400, "{labels}{fields}");
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let plane = plane().await;
    plane.create(widget("a")).await.unwrap();
    let options = Options {
        send_initial_events: Some(true),
        allow_watch_bookmarks: true,
        resource_version_match: Some("NotOlderThan".into()),
        ..Options::default()
    };
    let mut watch = plane.watch(options.clone()).await.unwrap();
    assert_eq!(watch.next().await, "ADDED a");
    let end = watch.event().await;
    assert_eq!(end.event, WatchEventType::Bookmark);
    let value = end.object.value().unwrap();
    assert_eq!(value["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((value["kind"].as_str(), version(&value)), (Some("Widget"), end.object.resource_version()));
    for wrong in [
        Options { resource_version_match: None, ..options.clone() },
        Options { resource_version_match: Some("Exact".into()), ..options.clone() },
        Options { send_initial_events: None, ..options.clone() },
    ] {
        assert_eq!(plane.watch(wrong).await.err().unwrap().code(), 422);
    }
}

#[tokio::test]
async fn old_versions_are_gone_and_future_ones_time_out() {
    let server = builder().watch_window(4).build().await.unwrap();
    let plane = Plane(server);
    let first = plane.create(widget("w")).await.unwrap();
    for i in 0..8 {
        plane.patch("w", ContentType::MergePatch, json!({"spec": {"i": i}})).await.unwrap();
    }
    plane.get("w").await.unwrap();
    let e = plane.watch(from(&version(&first).to_string())).await.err().unwrap();
    assert_eq!((e.code(), e.reason_text()), (410, "Expired"));
    assert!(e.message().starts_with("too old resource version: "), "{e}");
    let mut future = request(kubewright_core::Verb::Get, Some("w"));
    future.options.resource_version = Some("100000".into());
    let e = plane.send(future).await.unwrap_err();
    assert_eq!((e.code(), e.reason_text()), (504, "Timeout"));
    let causes = e.status().details.as_ref().unwrap().causes.as_ref().unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("ResourceVersionTooLarge"));
}

#[tokio::test]
async fn a_timeout_and_a_shutdown_end_a_watch() {
    let plane = plane().await;
    let options = Options { timeout_seconds: Some(1), allow_watch_bookmarks: true, ..Options::default() };
    let mut short = plane.watch(options).await.unwrap();
    let mut long = plane.watch(Options::default()).await.unwrap();
    assert!(short.any().await.is_none());
    plane.0.shutdown().await;
    assert!(long.any().await.is_none());
    assert_eq!(plane.get("a").await.unwrap_err().code(), 503);
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off() {
    let plane = plane().await;
    plane.create(widget("w")).await.unwrap();
    let mut slow = plane.watch(Options::default()).await.unwrap();
    for i in 0..9000 {
        plane.patch("w", ContentType::MergePatch, json!({"spec": {"i": i}})).await.unwrap();
    }
    let mut seen = 0;
    while let Some(event) = slow.any().await {
        event.unwrap();
        seen += 1;
    }
    assert!(seen <= 8200, "{seen} events were kept for a watcher that does not read");
}
