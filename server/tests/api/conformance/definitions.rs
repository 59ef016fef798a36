//! CustomResourceDefinitions: their own life, defaults, watches of their objects, selectable fields, and what is published of them.

use super::site::{JSON_PATCH, Site, in_process};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Waits until a path is served, as kinds follow their definitions a moment later.
pub(crate) async fn served(site: &Site, path: &str) {
    eventually(path, async || site.get(path).await.code == 200).await;
}

/// Asks until it is so.
pub(crate) async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn open_schema() -> Value {
    json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
}

fn version(name: &str, storage: bool, schema: &Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": schema})
}

/// A definition of `foos` in a group, of the cluster.
pub(crate) fn definition(group: &str, versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("foos.{group}")},
        "spec": {"group": group, "scope": "Cluster", "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": versions}})
}

async fn defined(site: &Site, group: &str, versions: Value) {
    let first = versions[0]["name"].as_str().unwrap().to_owned();
    site.make(DEFINITIONS, definition(group, versions)).await;
    served(site, &format!("/apis/{group}/{first}/foos")).await;
}

#[tokio::test]
async fn labelled_definitions_are_listed_and_go_together() {
    let site = in_process().await;
    for n in 0..10 {
        let mut one = definition(&format!("g{n}.example.com"), json!([version("v1", true, &open_schema())]));
        one["metadata"]["labels"] = json!({"e2e-list-test-uuid": "x"});
        site.make(DEFINITIONS, one).await;
    }
    defined(&site, "stays.example.com", json!([version("v1", true, &open_schema())])).await;
    let some = format!("{DEFINITIONS}?labelSelector=e2e-list-test-uuid%3Dx");
    let list = site.get(&some).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 10);
    assert!(list["items"].as_array().unwrap().iter().all(|d| d["spec"]["conversion"]["strategy"] == "None"));
    site.delete(&some).await.ok();
    eventually("they go", async || site.get(&some).await.ok()["items"].as_array().unwrap().is_empty()).await;
    site.get(&format!("{DEFINITIONS}/foos.stays.example.com")).await.ok();
}

#[tokio::test]
async fn the_status_of_a_definition_takes_conditions() {
    let site = in_process().await;
    defined(&site, "status.example.com", json!([version("v1", true, &open_schema())])).await;
    let status = format!("{DEFINITIONS}/foos.status.example.com/status");
    let has = |d: &Value, message: &str| {
        d["status"]["conditions"].as_array().unwrap().iter().any(|c| c["message"] == message)
    };
    // Others write conditions too; whoever loses tries again.
    for attempt in 0.. {
        let mut current = site.get(&status).await.ok();
        let conditions = &current["status"]["conditions"];
        let ready = |kind: &str| {
            conditions.as_array().unwrap().iter().any(|c| c["type"] == kind && c["status"] == "True")
        };
        assert!(ready("Established") && ready("NamesAccepted"), "{conditions}");
        current["status"]["conditions"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "", "status": "", "lastTransitionTime": null, "message": "updated"}));
        let updated = site.put(&status, &current).await;
        if updated.code == 409 && attempt < 50 {
            continue;
        }
        assert!(has(&updated.ok(), "updated"), "{}", updated.text);
        break;
    }
    let patch = json!([{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]);
    let patched = site.patch(JSON_PATCH, &status, &patch).await.ok();
    assert!(has(&patched, "patched"), "{patched}");
}

#[tokio::test]
async fn objects_are_defaulted_when_written_and_when_read() {
    let site = in_process().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}});
    defined(&site, "defaults.example.com", json!([version("v1", true, &schema)])).await;
    let (foos, name) =
        ("/apis/defaults.example.com/v1/foos", format!("{DEFINITIONS}/foos.defaults.example.com"));
    let foo = |name: &str| json!({"apiVersion": "defaults.example.com/v1", "kind": "Foo", "metadata": {"name": name}});
    site.make(foos, foo("one")).await;
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let add = json!([{"op": "add", "path": format!("{properties}/a/default"), "value": "A"}]);
    site.patch(JSON_PATCH, &name, &add).await.ok();
    let one = format!("{foos}/one");
    eventually("a is defaulted when it is read", async || site.get(&one).await.ok()["a"] == "A").await;
    let two = site.make(foos, foo("two")).await;
    assert_eq!(two["a"], "A");
    let swap = json!([{"op": "remove", "path": format!("{properties}/a/default")}, {"op": "add", "path": format!("{properties}/b/default"), "value": "B"}]);
    site.patch(JSON_PATCH, &name, &swap).await.ok();
    let two = format!("{foos}/two");
    eventually("b is defaulted when it is read", async || site.get(&two).await.ok()["b"] == "B").await;
    assert_eq!(site.get(&two).await.ok()["a"], "A", "what was written stays");
}

#[tokio::test]
async fn objects_of_a_definition_are_watched() {
    let site = in_process().await;
    defined(&site, "watch.example.com", json!([version("v1", true, &open_schema())])).await;
    let foos = "/apis/watch.example.com/v1/foos";
    let mut a = site.watch(&format!("{foos}?fieldSelector=metadata.name%3Dname1")).await;
    let mut b = site.watch(&format!("{foos}?fieldSelector=metadata.name%3Dname2")).await;
    for name in ["name1", "name2"] {
        site.make(foos, json!({"metadata": {"name": name}, "content": {"key": "value"}, "num": {"num1": 9_223_372_036_854_775_807_i64, "num2": 1_000_000}})).await;
        let patched = site.merge(&format!("{foos}/{name}"), json!({"content": {"key": "other"}})).await.ok();
        assert_eq!(patched["num"], json!({"num1": 9_223_372_036_854_775_807_i64, "num2": 1_000_000}));
    }
    for name in ["name1", "name2"] {
        site.delete(&format!("{foos}/{name}")).await.ok();
    }
    a.expect(&["ADDED name1", "MODIFIED name1", "DELETED name1"]).await;
    b.expect(&["ADDED name2", "MODIFIED name2", "DELETED name2"]).await;
}

fn fields(names: &[&str]) -> Value {
    json!(names.iter().map(|n| json!({"jsonPath": format!(".{n}")})).collect::<Vec<_>>())
}

#[tokio::test]
async fn selectable_fields_select_lists_watches_and_deletions() {
    let site = in_process().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "string"}}}});
    let mut one = version("v1", true, &schema);
    one["selectableFields"] = fields(&["host", "port"]);
    defined(&site, "select.example.com", json!([one])).await;
    let foos = "/apis/select.example.com/v1/foos";
    let on_host = format!("{foos}?fieldSelector=host%3Dhost1");
    let on_both = format!("{foos}?fieldSelector=host%3Dhost1%2Cport%3D80");
    let (mut host, mut both) = (site.watch(&on_host).await, site.watch(&on_both).await);
    for (name, content) in [
        ("a", json!({"host": "host1", "port": "80"})),
        ("b", json!({"host": "host1", "port": "8080"})),
        ("c", json!({"host": "host2"})),
    ] {
        let mut object = content;
        object["metadata"] = json!({"name": name});
        site.make(foos, object).await;
    }
    let names = async |path: &str| {
        let list = site.get(path).await.ok();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&on_host).await, ["a", "b"]);
    assert_eq!(names(&on_both).await, ["a"]);
    site.get(&format!("{foos}?fieldSelector=other%3Dx")).await.refused(400, "BadRequest");
    let options = json!({"gracePeriodSeconds": 0});
    site.call("DELETE", &on_both, &[("content-type", "application/json")], options.to_string()).await.ok();
    let mut b = site.get(&format!("{foos}/b")).await.ok();
    b["host"] = json!("host2");
    site.put(&format!("{foos}/b"), &b).await.ok();
    assert!(names(&on_host).await.is_empty() && names(&on_both).await.is_empty());
    host.expect(&["ADDED a", "ADDED b", "DELETED a", "DELETED b"]).await;
    both.expect(&["ADDED a", "DELETED a"]).await;
}

/// The definitions of the OpenAPI document, version 2.
async fn published(site: &Site) -> Value {
    site.call("GET", "/openapi/v2", &[("accept", "application/json")], "").await.ok()["definitions"].take()
}

#[tokio::test]
async fn schemas_are_published_and_follow_their_definitions() {
    let site = in_process().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "required": ["bars"], "properties": {
            "bars": {"type": "array", "description": "List of Bars and their specs.", "items": {"type": "object", "required": ["name"],
                "properties": {"name": {"type": "string", "description": "Name of Bar."}, "age": {"type": "string"}, "feeling": {"type": "string", "enum": ["Great", "Down"]}}}}}},
        "status": {"type": "object", "description": "Status of Foo"}}}});
    defined(&site, "one.example.com", json!([version("v1", true, &schema)])).await;
    defined(&site, "two.example.com", json!([version("v2", true, &schema), version("v3", false, &schema)]))
        .await;
    let name = |group: &str, version: &str| format!("com.example.{group}.{version}.Foo");
    let has = async |group: &str, version: &str| published(&site).await.get(name(group, version)).is_some();
    eventually("all are published", async || {
        has("one", "v1").await && has("two", "v2").await && has("two", "v3").await
    })
    .await;
    let foo = published(&site).await[name("one", "v1")].take();
    assert_eq!(foo["description"], "Foo CRD for Testing");
    assert_eq!(
        foo["x-kubernetes-group-version-kind"],
        json!([{"group": "one.example.com", "version": "v1", "kind": "Foo"}])
    );
    assert_eq!(
        foo["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let bars = &foo["properties"]["spec"]["properties"]["bars"];
    assert_eq!(
        (&bars["description"], &bars["items"]["required"]),
        (&json!("List of Bars and their specs."), &json!(["name"]))
    );
    // One version is renamed, the other no longer served.
    let two = format!("{DEFINITIONS}/foos.two.example.com");
    let rename = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"}, {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    site.patch(JSON_PATCH, &two, &rename).await.ok();
    eventually("the new name is published", async || has("two", "v4").await && !has("two", "v3").await).await;
    assert!(has("two", "v2").await);
    let hide = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v4"}, {"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    site.patch(JSON_PATCH, &two, &hide).await.ok();
    eventually("what is not served is not published", async || !has("two", "v4").await).await;
    assert!(has("two", "v2").await && has("one", "v1").await);
    let v3 = site.get("/openapi/v3").await.ok();
    assert!(
        v3["paths"].get("apis/two.example.com/v2").is_some()
            && v3["paths"].get("apis/two.example.com/v4").is_none()
    );
}
