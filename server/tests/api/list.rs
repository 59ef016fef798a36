//! Lists: selectors, pages, and versions.

use crate::common::*;
use kubewright_core::{ContentType, Options, Verb};
use serde_json::json;

async fn filled(count: usize) -> Plane {
    let plane = plane().await;
    for i in 0..count {
        let object = json!({"metadata": {"name": format!("w{i:02}"), "labels": {"even": (i % 2 == 0).to_string()}},
            "spec": {"color": if i < 3 { "red" } else { "blue" }, "nodeName": format!("n{}", i % 3)}});
        plane.create(object).await.unwrap();
    }
    plane
}

#[tokio::test]
async fn selectors_select() {
    let plane = filled(6).await;
    let check = async |labels: &str, fields: &str, expected: &[&str]| {
        let options = Options {
            label_selector: Some(labels.into()),
            field_selector: Some(fields.into()),
            ..Options::default()
        };
        assert_eq!(names(&plane.list(options).await.unwrap()), expected, "{labels} {fields}");
    };
    check("even=true", "", &["w00", "w02", "w04"]).await;
    check("even notin (true)", "spec.color=blue", &["w03", "w05"]).await;
    check("", "spec.nodeName=n1", &["w01", "w04"]).await;
    check("", "spec.nodeName=n1,spec.color!=red", &["w04"]).await;
    check("", "metadata.name=w02", &["w02"]).await;
    check("", "metadata.name!=w02,metadata.namespace=n,spec.color=red", &["w00", "w01"]).await;
    check("", "metadata.name=w02,metadata.name=w03", &[]).await;
    check("nothing", "", &[]).await;
    check("", "spec.nodeName=", &[]).await;
}

#[tokio::test]
async fn pages_are_stable_while_objects_change() {
    let plane = filled(7).await;
    let mut options = Options { limit: Some(3), ..Options::default() };
    let first = plane.list(options.clone()).await.unwrap();
    assert_eq!((names(&first), first.remaining), (vec!["w00", "w01", "w02"], Some(4)));
    plane.delete("w04", json!({})).await.unwrap();
    plane.patch("w05", ContentType::MergePatch, json!({"spec": {"color": "green"}})).await.unwrap();
    plane.create(widget("w99")).await.unwrap();
    options.continue_token = first.continue_token.clone();
    let second = plane.list(options.clone()).await.unwrap();
    assert_eq!(
        (names(&second), second.resource_version),
        (vec!["w03", "w04", "w05"], first.resource_version)
    );
    assert_eq!(second.items[2].value().unwrap()["spec"]["color"], "blue");
    options.continue_token = second.continue_token;
    let third = plane.list(options.clone()).await.unwrap();
    assert_eq!((names(&third), third.continue_token.as_deref()), (vec!["w06"], None));
    options.continue_token = Some("nonsense".into());
    assert_eq!(plane.list(options).await.unwrap_err().code(), 400);
}

#[tokio::test]
async fn an_exact_version_is_read_out_of_the_history() {
    let plane = filled(2).await;
    let before = plane.list(Options::default()).await.unwrap();
    plane.create(widget("z")).await.unwrap();
    plane.list(Options::default()).await.unwrap();
    let at = |how: &str| Options {
        resource_version: Some(before.resource_version.to_string()),
        resource_version_match: Some(how.into()),
        ..Options::default()
    };
    let exact = plane.list(at("Exact")).await.unwrap();
    assert_eq!((names(&exact), exact.resource_version), (vec!["w00", "w01"], before.resource_version));
    assert_eq!(plane.list(at("NotOlderThan")).await.unwrap().items.len(), 3);
    assert_eq!(plane.list(at("Other")).await.unwrap_err().code(), 422);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selection() {
    let plane = filled(4).await;
    let mut all = request(Verb::DeleteCollection, None);
    all.options.label_selector = Some("even=true".into());
    plane.send(all).await.unwrap();
    assert_eq!(names(&plane.list(Options::default()).await.unwrap()), ["w01", "w03"]);
}
