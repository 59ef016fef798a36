//! Rules of custom kinds that are expressions, on every way in which an object is written.

use crate::common::{Plane, store};
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{ApiError, ApiRequest, ContentType, GroupVersionResource, Reason, Verb};
use kubewright_server::ApiServer;
use serde_json::{Value, json};

pub(crate) async fn cluster() -> Plane {
    let mut builder = ApiServer::builder(store());
    for kind in builtin(&BuiltinOptions::default()) {
        builder = builder.kind(kind);
    }
    Plane(builder.build().await.unwrap())
}

fn definitions() -> GroupVersionResource {
    GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

fn crons() -> GroupVersionResource {
    GroupVersionResource::new("stable.example.com", "v1", "crontabs")
}

pub(crate) fn definition(spec: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec,
                    "status": {"type": "object", "properties": {"done": {"type": "integer"}},
                        "x-kubernetes-validations": [{"rule": "self.done >= 0", "message": "done counts up"}]}}}}}]}})
}

pub(crate) async fn define(plane: &Plane, definition: Value) -> Result<Value, ApiError> {
    let created = plane
        .value(
            ApiRequest::resource(Verb::Create, definitions(), None, None).body(ContentType::Json, definition),
        )
        .await?;
    // The kinds follow the cache, a moment after the answer.
    for _ in 0..200 {
        if plane.send(ApiRequest::resource(Verb::List, crons(), Some("default"), None)).await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(created)
}

fn cron(spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "c"}, "spec": spec})
}

async fn write(plane: &Plane, verb: Verb, name: Option<&str>, body: Value) -> Result<Value, ApiError> {
    let request = ApiRequest::resource(verb, crons(), Some("default"), name).body(ContentType::Json, body);
    plane.value(request).await
}

fn ruled() -> Value {
    json!({"type": "object", "x-kubernetes-validations": [
            {"rule": "self.minReplicas <= self.replicas", "message": "replicas is below its minimum", "fieldPath": ".replicas"},
            {"rule": "oldSelf.kind == self.kind", "messageExpression": "'kind was ' + oldSelf.kind"}],
        "properties": {"minReplicas": {"type": "integer"}, "replicas": {"type": "integer"}, "kind": {"type": "string", "maxLength": 20},
            "size": {"type": "string"}}})
}

#[tokio::test]
async fn rules_hold_on_every_way_in() {
    let plane = cluster().await;
    define(&plane, definition(ruled())).await.unwrap();
    let below = "CronTab.stable.example.com \"c\" is invalid: spec.replicas: Invalid value: \"object\": replicas is below its minimum";
    let error =
        write(&plane, Verb::Create, None, cron(json!({"minReplicas": 2, "replicas": 1, "kind": "a"})))
            .await
            .unwrap_err();
    assert_eq!((error.reason(), error.message()), (Reason::Invalid, below));
    let mut made =
        write(&plane, Verb::Create, None, cron(json!({"minReplicas": 1, "replicas": 1, "kind": "a"})))
            .await
            .unwrap();
    made["spec"]["kind"] = json!("b");
    let error = write(&plane, Verb::Update, Some("c"), made.clone()).await.unwrap_err();
    assert!(error.message().ends_with("spec: Invalid value: \"object\": kind was a"), "{error}");
    for (how, patch) in [
        (ContentType::MergePatch, json!({"spec": {"replicas": 0}})),
        (ContentType::JsonPatch, json!([{"op": "replace", "path": "/spec/replicas", "value": 0}])),
    ] {
        let request = ApiRequest::resource(Verb::Patch, crons(), Some("default"), Some("c")).body(how, patch);
        assert_eq!(plane.value(request).await.unwrap_err().message(), below);
    }
    let mut apply = ApiRequest::resource(Verb::Patch, crons(), Some("default"), Some("c"))
        .body(ContentType::ApplyPatch, cron(json!({"minReplicas": 9})));
    apply.options.field_manager = Some("me".to_owned());
    apply.options.force = Some(true);
    assert_eq!(plane.value(apply).await.unwrap_err().message(), below);
    made["spec"]["kind"] = json!("a");
    made["status"] = json!({"done": -1});
    let mut status =
        ApiRequest::resource(Verb::Update, crons(), Some("default"), Some("c")).body(ContentType::Json, made);
    if let kubewright_core::Target::Resource { subresource, .. } = &mut status.target {
        *subresource = Some("status".to_owned());
    }
    let error = plane.value(status).await.unwrap_err();
    assert!(error.message().ends_with("status: Invalid value: \"object\": done counts up"), "{error}");
}

#[tokio::test]
async fn definitions_with_wrong_rules_are_refused() {
    let plane = cluster().await;
    let check = async |rule: Value, wanted: &str| {
        let mut spec = ruled();
        spec["x-kubernetes-validations"] = json!([rule]);
        let error = define(&plane, definition(spec)).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Invalid);
        assert!(error.message().contains(wanted), "{error}");
    };
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    check(json!({"rule": "self.nope > 1"}), &format!("{at}.rule: Invalid value")).await;
    check(json!({"rule": "self.nope > 1"}), "compilation failed: ERROR: <input>:1:5: undefined field 'nope'")
        .await;
    check(
        json!({"rule": "self.size.contains(self.size)"}),
        "estimated rule cost exceeds budget by factor of more than 100x",
    )
    .await;
    check(
        json!({"rule": "true", "fieldPath": ".nope"}),
        &format!("{at}.fieldPath: Invalid value: \".nope\""),
    )
    .await;
    check(json!({"rule": "true", "reason": "Nope"}), &format!("{at}.reason: Unsupported value: \"Nope\""))
        .await;
}

#[tokio::test]
async fn schemas_within_schemas_are_read_strictly() {
    let plane = cluster().await;
    let mut object = definition(ruled());
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let properties = object.pointer_mut(properties).unwrap();
    properties["list"] = json!({"type": "array", "items": {"type": "string", "odd": 1}});
    properties["map"] =
        json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 3, "odd": true}});
    let made = define(&plane, object.clone()).await.unwrap();
    let properties =
        made.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    assert_eq!(properties["list"]["items"], json!({"type": "string"}));
    assert_eq!(properties["map"]["additionalProperties"], json!({"type": "string", "maxLength": 3}));
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/list/items";
    *object.pointer_mut(properties).unwrap() = json!({"type": 5});
    let error = define(&plane, object).await.unwrap_err();
    assert_eq!(error.reason(), Reason::BadRequest);
    assert!(
        error.message().contains("cannot unmarshal number into Go struct field JSONSchemaProps"),
        "{error}"
    );
}

#[tokio::test]
async fn what_was_wrong_before_stays_writable() {
    let plane = cluster().await;
    let mut loose = ruled();
    loose["x-kubernetes-validations"] = json!([{"rule": "true"}]);
    let defined = define(&plane, definition(loose)).await.unwrap();
    write(&plane, Verb::Create, None, cron(json!({"size": "huge", "replicas": 1}))).await.unwrap();
    let mut strict = defined;
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    *strict.pointer_mut(&format!("{properties}/size")).unwrap() =
        json!({"type": "string", "maxLength": 2, "x-kubernetes-validations": [{"rule": "self == 'xl'"}]});
    let request =
        ApiRequest::resource(Verb::Update, definitions(), None, Some("crontabs.stable.example.com"));
    plane.value(request.body(ContentType::Json, strict)).await.unwrap();
    let patch = |patch: Value| {
        ApiRequest::resource(Verb::Patch, crons(), Some("default"), Some("c"))
            .body(ContentType::MergePatch, patch)
    };
    for _ in 0..200 {
        // The stricter schema is served a moment later.
        if plane.send(patch(json!({"spec": {"size": "odd"}}))).await.is_err() {
            break;
        }
        plane.send(patch(json!({"spec": {"size": "huge"}}))).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let request = patch(json!({"spec": {"replicas": 3}}));
    let notes = request.notes.clone();
    let changed = plane.value(request).await.unwrap();
    assert_eq!(changed["spec"]["replicas"], 3);
    assert!(
        notes.warnings().iter().any(|w| w.contains("failed rule: self == 'xl'")),
        "{:?}",
        notes.warnings()
    );
    let error = plane.send(patch(json!({"spec": {"size": "large"}}))).await.unwrap_err();
    assert!(error.message().contains("spec.size: Too long"), "{error}");
}
