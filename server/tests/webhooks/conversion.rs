//! Custom kinds whose versions a webhook converts: `v1` has `hostPort`, `v2` has `host` and `port`.

use crate::harness::{Hooks, Plane, plane, resource};
use futures::StreamExt;
use kubewright_core::{ApiRequest, ContentType, Options, ResponseBody, Verb, WatchStream};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Converts; with `broken` set it spoils each name.
async fn converter(broken: Arc<AtomicBool>) -> Hooks {
    Hooks::start(move |path, request| {
        if path.starts_with("/refuses") {
            return json!({"result": {"status": "Failure", "message": "cannot convert that"}});
        }
        let wanted = request["desiredAPIVersion"].as_str().unwrap();
        let convert = |object: &Value| {
            let mut new = object.clone();
            new["apiVersion"] = json!(wanted);
            if wanted.ends_with("/v2") {
                let (host, port) = object["hostPort"].as_str().unwrap().split_once(':').unwrap();
                new.as_object_mut().unwrap().remove("hostPort");
                (new["host"], new["port"]) = (json!(host), json!(port));
            } else {
                let text = |field: &str| object[field].as_str().unwrap();
                new["hostPort"] = json!(format!("{}:{}", text("host"), text("port")));
                for field in ["host", "port"] {
                    new.as_object_mut().unwrap().remove(field);
                }
            }
            if broken.load(Ordering::Relaxed) {
                new["metadata"]["name"] = json!("another");
            }
            new
        };
        let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
        json!({"result": {"status": "Success"}, "convertedObjects": objects})
    })
    .await
}

fn definition(config: Value) -> Value {
    let schema = |fields: &[&str]| {
        let properties: Value = fields.iter().map(|f| ((*f).to_owned(), json!({"type": "string"}))).collect();
        json!({"openAPIV3Schema": {"type": "object", "properties": properties}})
    };
    json!({
        "metadata": {"name": "hosts.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "singular": "host", "kind": "Host"},
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": ["v1"]}},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema(&["hostPort"])},
                {"name": "v2", "served": true, "storage": false, "schema": schema(&["host", "port"])},
            ],
        },
    })
}

fn at(verb: Verb, version: &str, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, resource("example.com", version, "hosts"), Some("n"), name)
}

async fn defined(config: Value) -> Plane {
    let plane = plane().await;
    plane.create("apiextensions.k8s.io", "v1", "customresourcedefinitions", definition(config)).await;
    plane
}

async fn make(plane: &Plane, version: &str, object: Value) -> Value {
    plane.value(at(Verb::Create, version, None).body(ContentType::Json, object)).await.unwrap()
}

#[tokio::test]
async fn objects_are_seen_in_every_version() {
    let hooks = converter(Arc::default()).await;
    let plane = defined(hooks.url("/convert")).await;
    make(&plane, "v1", json!({"metadata": {"name": "a"}, "hostPort": "h:1"})).await;
    let made = make(&plane, "v2", json!({"metadata": {"name": "b"}, "host": "i", "port": "2"})).await;
    assert_eq!((&made["apiVersion"], &made["host"]), (&json!("example.com/v2"), &json!("i")));
    assert_eq!(plane.value(at(Verb::Get, "v1", Some("b"))).await.unwrap()["hostPort"], "i:2");

    let before = hooks.count();
    let list = plane.value(at(Verb::List, "v2", None)).await.unwrap();
    let shown: Vec<(&Value, &Value)> =
        list["items"].as_array().unwrap().iter().map(|o| (&o["host"], &o["port"])).collect();
    assert_eq!(shown, [(&json!("h"), &json!("1")), (&json!("i"), &json!("2"))]);
    assert_eq!(hooks.count(), before + 1, "one review for the whole list");
    plane.value(at(Verb::List, "v2", None)).await.unwrap();
    assert_eq!(hooks.count(), before + 1, "what was converted is kept");

    let patch = at(Verb::Patch, "v2", Some("a")).body(ContentType::MergePatch, json!({"port": "9"}));
    assert_eq!(plane.value(patch).await.unwrap()["port"], "9");
    assert_eq!(plane.value(at(Verb::Get, "v1", Some("a"))).await.unwrap()["hostPort"], "h:9");
    let mut apply = at(Verb::Patch, "v2", Some("c"));
    apply.options.field_manager = Some("me".to_owned());
    let object = json!({"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": "c"}, "host": "j", "port": "3"});
    assert_eq!(plane.send(apply.body(ContentType::ApplyPatch, object)).await.unwrap().code, 201);
    assert_eq!(plane.value(at(Verb::Get, "v1", Some("c"))).await.unwrap()["hostPort"], "j:3");
    plane.send(at(Verb::Delete, "v2", Some("a"))).await.unwrap();
    plane.send(at(Verb::DeleteCollection, "v2", None)).await.unwrap();
    assert_eq!(plane.value(at(Verb::List, "v1", None)).await.unwrap()["items"], json!([]));
}

async fn watch(plane: &Plane, options: Options) -> WatchStream {
    let mut request = at(Verb::Watch, "v2", None);
    request.options = options;
    match plane.send(request).await.unwrap().body {
        ResponseBody::Watch(stream) => stream,
        other => panic!("no watch: {other:?}"),
    }
}

async fn next(stream: &mut WatchStream) -> (String, Value) {
    let event = tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().unwrap().unwrap();
    (event.event.as_str().to_owned(), event.object.value().unwrap())
}

#[tokio::test]
async fn events_are_converted() {
    let hooks = converter(Arc::default()).await;
    let plane = defined(hooks.url("/convert")).await;
    make(&plane, "v1", json!({"metadata": {"name": "a"}, "hostPort": "h:1"})).await;
    let mut events = watch(&plane, Options::default()).await;
    let (event, object) = next(&mut events).await;
    assert_eq!((event.as_str(), &object["host"]), ("ADDED", &json!("h")));
    let patch = at(Verb::Patch, "v1", Some("a")).body(ContentType::MergePatch, json!({"hostPort": "k:5"}));
    plane.send(patch).await.unwrap();
    let (event, object) = next(&mut events).await;
    assert_eq!((event.as_str(), &object["host"], &object["port"]), ("MODIFIED", &json!("k"), &json!("5")));
    plane.send(at(Verb::Delete, "v1", Some("a"))).await.unwrap();
    let (event, object) = next(&mut events).await;
    assert_eq!((event.as_str(), &object["apiVersion"]), ("DELETED", &json!("example.com/v2")));
}

#[tokio::test]
async fn fields_are_selected_in_the_version_asked_for() {
    let hooks = converter(Arc::default()).await;
    let plane = plane().await;
    let mut definition = definition(hooks.url("/convert"));
    for (version, fields) in [(0, &["hostPort"][..]), (1, &["host", "port"])] {
        let paths: Vec<Value> = fields.iter().map(|f| json!({"jsonPath": format!(".{f}")})).collect();
        definition["spec"]["versions"][version]["selectableFields"] = json!(paths);
    }
    plane.create("apiextensions.k8s.io", "v1", "customresourcedefinitions", definition).await;
    let on = |selector: &str| Options { field_selector: Some(selector.into()), ..Options::default() };
    let names = async |version: &str, selector: &str| {
        let mut request = at(Verb::List, version, None);
        request.options = on(selector);
        let list = plane.value(request).await.unwrap();
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut host = watch(&plane, on("host=host1")).await;
    let mut both = watch(&plane, on("host=host1,port=80")).await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "80")] {
        make(&plane, "v2", json!({"metadata": {"name": name}, "host": host, "port": port})).await;
    }
    assert_eq!(names("v2", "host=host1").await, ["a", "b"]);
    assert_eq!(names("v2", "host=host1,port=80").await, ["a"]);
    assert_eq!(names("v1", "hostPort=host1:80").await, ["a"]);
    assert_eq!(names("v1", "hostPort=host1:8080").await, ["b"]);
    let mut gone = at(Verb::DeleteCollection, "v2", None);
    gone.options = on("host=host1,port=80");
    plane.send(gone).await.unwrap();
    let moved = at(Verb::Patch, "v2", Some("b")).body(ContentType::MergePatch, json!({"host": "host2"}));
    plane.send(moved).await.unwrap();
    assert!(names("v2", "host=host1").await.is_empty());
    let check = async |stream: &mut WatchStream, wanted: &[&str]| {
        for want in wanted {
            let (what, object) = next(stream).await;
            assert_eq!(format!("{what} {}", object["metadata"]["name"].as_str().unwrap()), *want);
        }
    };
    check(&mut host, &["ADDED a", "ADDED b", "DELETED a", "DELETED b"]).await;
    check(&mut both, &["ADDED a", "DELETED a"]).await;
}

#[tokio::test]
async fn the_storage_version_can_move() {
    let hooks = converter(Arc::default()).await;
    let plane = defined(hooks.url("/convert")).await;
    make(&plane, "v1", json!({"metadata": {"name": "a"}, "hostPort": "h:1"})).await;
    let definitions = resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let name = "hosts.example.com";
    let swap = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let patch =
        ApiRequest::resource(Verb::Patch, definitions, None, Some(name)).body(ContentType::JsonPatch, swap);
    let definition = plane.value(patch).await.unwrap();
    assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
    make(&plane, "v1", json!({"metadata": {"name": "b"}, "hostPort": "i:2"})).await;
    for version in ["v1", "v2"] {
        let list = plane.value(at(Verb::List, version, None)).await.unwrap();
        let versions: Vec<&Value> =
            list["items"].as_array().unwrap().iter().map(|o| &o["apiVersion"]).collect();
        assert_eq!(versions, vec![&json!(format!("example.com/{version}")); 2]);
    }
    // A write that changes nothing moves the object.
    let revision = |o: &Value| o["metadata"]["resourceVersion"].clone();
    let before = plane.value(at(Verb::Get, "v2", Some("a"))).await.unwrap();
    let nothing = || at(Verb::Patch, "v2", Some("a")).body(ContentType::MergePatch, json!({}));
    let moved = plane.value(nothing()).await.unwrap();
    assert_ne!(revision(&before), revision(&moved));
    plane.0.reader().consistent().await.unwrap();
    assert_eq!(revision(&plane.value(nothing()).await.unwrap()), revision(&moved));
}

#[tokio::test]
async fn bad_conversions_are_told() {
    let broken = Arc::new(AtomicBool::new(false));
    let hooks = converter(broken.clone()).await;
    let plane = defined(hooks.url("/convert")).await;
    make(&plane, "v1", json!({"metadata": {"name": "a"}, "hostPort": "h:1"})).await;
    broken.store(true, Ordering::Relaxed);
    let kind = "conversion webhook for example.com/v1, Kind=Host";
    let e = plane.send(at(Verb::Get, "v2", Some("a"))).await.unwrap_err();
    let want = format!("{kind} returned invalid converted object: must have the same name: a != another");
    assert_eq!((e.code(), e.message()), (500, want.as_str()));
    assert!(plane.send(at(Verb::List, "v2", None)).await.is_err());
    assert!(plane.send(at(Verb::Get, "v1", Some("a"))).await.is_ok());

    let refuses = defined(hooks.url("/refuses")).await;
    make(&refuses, "v1", json!({"metadata": {"name": "a"}, "hostPort": "h:1"})).await;
    let e = refuses.send(at(Verb::Get, "v2", Some("a"))).await.unwrap_err();
    assert_eq!(e.message(), format!("{kind} failed: cannot convert that"));
    let address = hooks.address;
    drop(hooks);
    tokio::task::yield_now().await;
    let mut gone = at(Verb::Create, "v2", None)
        .body(ContentType::Json, json!({"metadata": {"name": "z"}, "host": "h", "port": "1"}));
    gone.options.dry_run = false;
    let e = plane.send(gone).await.unwrap_err();
    let want = format!(
        "conversion webhook for example.com/v2, Kind=Host failed: Post \"https://{address}/convert?timeout=30s\": "
    );
    assert!(e.message().starts_with(&want), "{e}");
    // The definition can go all the same: its objects go as they are stored.
    let definitions = resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    plane
        .send(ApiRequest::resource(Verb::Delete, definitions.clone(), None, Some("hosts.example.com")))
        .await
        .unwrap();
    let gone = async {
        let read = || ApiRequest::resource(Verb::Get, definitions.clone(), None, Some("hosts.example.com"));
        while plane.send(read()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the definition goes");
}

#[tokio::test]
async fn definitions_say_how_to_reach_the_webhook() {
    let plane = plane().await;
    let check = async |conversion: Value, want: &str| {
        let mut definition = definition(json!({}));
        definition["spec"]["conversion"] = conversion;
        let definitions = resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let create =
            ApiRequest::resource(Verb::Create, definitions, None, None).body(ContentType::Json, definition);
        let e = plane.send(create).await.unwrap_err();
        assert_eq!(e.code(), 422);
        assert!(e.message().contains(want), "{e} has no {want:?}");
    };
    let webhook = |config: Value, versions: Value| json!({"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": versions}});
    let url = json!({"url": "https://a.example.com/"});
    check(
        json!({"strategy": "Webhook"}),
        "spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook",
    )
    .await;
    check(webhook(json!({}), json!(["v1"])), "exactly one of url or service is required").await;
    check(webhook(url.clone(), json!(["v7"])), "must include at least one of v1, v1beta1").await;
    check(webhook(url, json!([])), "spec.conversion.webhook.conversionReviewVersions: Required value").await;
}
