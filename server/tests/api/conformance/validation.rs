//! What the server says of fields that are unknown or stand there twice.

use super::definitions::{DEFINITIONS, definition, served};
use super::site::{APPLY, Got, Site, in_process};
use serde_json::{Value, json};

const STRICT: &str = "fieldManager=field_validation_mgr&fieldValidation=Strict";

#[tokio::test]
async fn typed_objects_are_held_to_their_fields() {
    let site = in_process().await;
    let home = site.namespace("strict").await;
    let path = format!("/apis/apps/v1{}/deployments?{STRICT}", home.strip_prefix("/api/v1").unwrap());
    let text = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "my-dep", META "labels": {"app": "nginx"}},
        "spec": {SPEC "selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}}}"#;
    let send = async |meta: &str, spec: &str| {
        let body = text.replace("META", meta).replace("SPEC", spec);
        site.call("POST", &path, &[("content-type", "application/json")], body).await
    };
    let got = send("", r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#).await;
    got.says(
        400,
        "strict decoding error: unknown field \"spec.unknownField\", duplicate field \"spec.replicas\"",
    );
    let got = send(r#""unknownMeta": "foo","#, "").await;
    got.says(400, "strict decoding error: unknown field \"metadata.unknownMeta\"");
    let loose = path.replace("Strict", "Warn");
    let body = text
        .replace("META", r#""unknownMeta": "foo","#)
        .replace("SPEC", r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#);
    let got = site.call("POST", &loose, &[("content-type", "application/json")], body).await;
    assert_eq!(got.code, 201, "{}", got.text);
    let want = [
        "299 - \"unknown field \\\"metadata.unknownMeta\\\"\"",
        "299 - \"unknown field \\\"spec.unknownField\\\"\"",
        "299 - \"duplicate field \\\"spec.replicas\\\"\"",
    ];
    let mut warnings = got.warnings();
    warnings.sort_unstable();
    let mut want = want.to_vec();
    want.sort_unstable();
    assert_eq!(warnings, want);
}

/// The schema of `foos`, whose spec keeps unknown fields or not, and may hold a whole object.
fn schema(keeps: bool) -> Value {
    let port = json!({"type": "object", "required": ["containerPort", "protocol"], "properties": {
        "containerPort": {"type": "integer", "format": "int32"}, "hostIP": {"type": "string"}, "name": {"type": "string"}, "protocol": {"type": "string"}}});
    let mut spec = json!({"type": "object", "properties": {
        "foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-list-type": "map", "items": port}}});
    if keeps {
        spec["x-kubernetes-preserve-unknown-fields"] = json!(true);
        spec["properties"]["template"] = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"}}});
    }
    json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}})
}

async fn defined(site: &Site, group: &str, schema: Value) {
    let versions = json!([{"name": "v1beta1", "served": true, "storage": false, "schema": schema}, {"name": "v1", "served": true, "storage": true, "schema": schema}]);
    site.make(DEFINITIONS, definition(group, versions)).await;
    served(site, &format!("/apis/{group}/v1beta1/foos")).await;
}

/// Applies a text with the fields that differ put in at the root, into the metadata, and first in the spec.
async fn apply(site: &Site, group: &str, root: &str, meta: &str, spec: &str) -> Got {
    let body = format!(
        "\napiVersion: {group}/v1beta1\nkind: Foo\nmetadata:\n  name: mytest\n{meta}  finalizers:\n  - test-finalizer\n{root}spec:\n{spec}  cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP"
    );
    site.call(
        "PATCH",
        &format!("/apis/{group}/v1beta1/foos/mytest?{STRICT}"),
        &[("content-type", APPLY)],
        body,
    )
    .await
}

#[tokio::test]
async fn applied_objects_are_held_to_their_schema() {
    let site = in_process().await;
    defined(&site, "shut.example.com", schema(false)).await;
    let got = apply(&site, "shut.example.com", "unknownField: unknown\n", "", "  foo: foo1\n").await;
    got.says(500, ".unknownField: field not declared in schema");
    assert_eq!(apply(&site, "shut.example.com", "", "", "  foo: foo1\n").await.code, 201);
    let open = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    defined(&site, "open.example.com", open).await;
    let got = apply(&site, "open.example.com", "", "", "  unknown: uk1\n").await;
    assert_eq!((got.code, &got.json()["spec"]["unknown"]), (201, &json!("uk1")), "{}", got.text);
}

#[tokio::test]
async fn unknown_metadata_and_duplicates_are_found_where_the_rest_is_kept() {
    let site = in_process().await;
    defined(&site, "keep.example.com", schema(true)).await;
    let template = "  template:\n    apiVersion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n        name: subobject\n        namespace: n\n  foo: foo1\n";
    let got = apply(&site, "keep.example.com", "", "  unknownMeta: unknown\n", template).await;
    assert!(got.code >= 400, "{}", got.text);
    let told = [
        ".spec.template.metadata.unknownSubMeta: field not declared in schema",
        ".metadata.unknownMeta: field not declared in schema",
    ];
    assert!(told.iter().any(|t| got.text.contains(t)), "{}", got.text);
    let got = apply(&site, "keep.example.com", "", "", "  unknown: uk1\n  foo: foo1\n  foo: foo2\n").await;
    assert!(
        got.code == 400 && got.text.contains("line 11: key \\\"foo\\\" already set in map"),
        "{} {}",
        got.code,
        got.text
    );
}
