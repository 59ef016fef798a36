//! Field management and server-side apply through the whole pipeline, on built-in and custom kinds.

use crate::common::{Plane, raw, store};
use kubewright_core::{ApiError, ApiRequest, ContentType, GroupVersionResource, Registry, Verb};
use kubewright_server::ApiServer;
use serde_json::{Value, json};

async fn plane() -> Plane {
    let mut registry = Registry::new();
    for kind in kubewright_core::api::builtin(&Default::default()) {
        registry.insert(kind).unwrap();
    }
    let builder = ApiServer::builder(store()).registry(registry);
    Plane(builder.without_builtin_admission().build().await.unwrap())
}

fn deployments(verb: Verb, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, GroupVersionResource::new("apps", "v1", "deployments"), Some("default"), name)
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn spec(replicas: Option<i64>, image: &str) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}}});
    if let Some(replicas) = replicas {
        spec["replicas"] = json!(replicas);
    }
    spec
}

impl Plane {
    async fn apply(&self, manager: &str, object: Value, force: bool) -> Result<Value, ApiError> {
        let mut request = deployments(Verb::Patch, Some("web")).body(ContentType::ApplyPatch, object);
        request.options.field_manager = Some(manager.to_owned());
        request.options.force = Some(force);
        self.value(request).await
    }
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |m: &Value| {
        format!(
            "{} {} {}",
            m["manager"].as_str().unwrap(),
            m["operation"].as_str().unwrap(),
            m["subresource"].as_str().unwrap_or("-")
        )
    };
    entries.iter().map(text).collect()
}

#[tokio::test]
async fn an_apply_creates_and_then_changes() {
    let plane = plane().await;
    let mut create =
        deployments(Verb::Patch, Some("web")).body(ContentType::ApplyPatch, deployment(spec(Some(2), "a")));
    create.options.field_manager = Some("gitops".to_owned());
    let response = plane.send(create).await.unwrap();
    assert_eq!(response.code, 201);
    let made = plane.value(deployments(Verb::Get, Some("web"))).await.unwrap();
    assert_eq!(managers(&made), ["gitops Apply -"]);
    let again = plane.apply("gitops", deployment(spec(Some(2), "a")), false).await.unwrap();
    assert_eq!(again, made, "the same apply writes nothing");
    let other = plane.apply("gitops", deployment(spec(Some(2), "b")), false).await.unwrap();
    assert_eq!(other["metadata"]["generation"], 2);
    assert_eq!(other["spec"]["template"]["spec"]["containers"][0]["image"], "b");
    // Without replicas the field falls back to its default, since nobody else owns it.
    let fewer = plane.apply("gitops", deployment(spec(None, "b")), false).await.unwrap();
    assert_eq!(fewer["spec"]["replicas"], 1);
}

#[tokio::test]
async fn scale_and_status_are_managers_of_their_own() {
    let plane = plane().await;
    plane.apply("gitops", deployment(spec(Some(2), "a")), false).await.unwrap();
    let patch = |subresource: &str, body: Value| {
        let mut request = deployments(Verb::Patch, Some("web")).subresource(subresource);
        request.user_agent = "autoscaler/v1 (linux)".into();
        request.body(ContentType::MergePatch, body)
    };
    plane.value(patch("scale", json!({"spec": {"replicas": 5}}))).await.unwrap();
    let status = plane.value(patch("status", json!({"status": {"replicas": 5}}))).await.unwrap();
    assert_eq!(managers(&status), ["gitops Apply -", "autoscaler Update scale", "autoscaler Update status"]);
    let conflict = plane.apply("gitops", deployment(spec(Some(2), "a")), false).await.unwrap_err();
    let want = "conflict with \"autoscaler\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(conflict.code() == 409 && conflict.message().ends_with(want), "{conflict}");
    let kept = plane.apply("gitops", deployment(spec(None, "a")), false).await.unwrap();
    assert_eq!(kept["spec"]["replicas"], 5);
    let forced = plane.apply("gitops", deployment(spec(Some(2), "a")), true).await.unwrap();
    assert_eq!((&forced["spec"]["replicas"], &forced["status"]["replicas"]), (&json!(2), &json!(5)));
    assert_eq!(managers(&forced), ["gitops Apply -", "autoscaler Update status"]);
}

#[tokio::test]
async fn an_update_without_managed_fields_keeps_them() {
    let plane = plane().await;
    let mut made = plane.apply("gitops", deployment(spec(Some(2), "a")), false).await.unwrap();
    made["metadata"].as_object_mut().unwrap().remove("managedFields");
    made["metadata"]["labels"] = json!({"a": "b"});
    let mut update = deployments(Verb::Update, Some("web")).body(ContentType::Json, made);
    update.user_agent = "editor".into();
    let updated = plane.value(update).await.unwrap();
    assert_eq!(managers(&updated), ["gitops Apply -", "editor Update -"]);
}

#[tokio::test]
async fn an_apply_names_only_what_it_creates() {
    let plane = plane().await;
    let mut nameless = deployment(spec(Some(3), "a"));
    nameless["metadata"] = json!({});
    let e = plane.apply("one", nameless.clone(), false).await.unwrap_err();
    assert!(e.code() == 400 && e.message() == "name must be provided", "{e}");
    plane.apply("one", deployment(spec(Some(2), "a")), false).await.unwrap();
    let changed = plane.apply("one", nameless, false).await.unwrap();
    assert_eq!((&changed["metadata"]["name"], &changed["spec"]["replicas"]), (&json!("web"), &json!(3)));
    let mut other = deployment(spec(Some(4), "a"));
    other["metadata"]["name"] = json!("other");
    let e = plane.apply("one", other, false).await.unwrap_err();
    assert!(e.code() == 400 && e.message().contains("does not match the name on the URL"), "{e}");
}

#[tokio::test]
async fn a_wrong_apply_is_refused_whole() {
    let plane = plane().await;
    let mut request =
        deployments(Verb::Patch, Some("web")).body(ContentType::ApplyPatch, deployment(spec(None, "a")));
    assert_eq!(plane.send(request.clone()).await.unwrap_err().code(), 400, "no manager");
    request.options.field_manager = Some("m".to_owned());
    let check = async |object: Value, code: u16, says: &str| {
        let e = plane.apply("m", object.clone(), false).await.unwrap_err();
        assert!(e.code() == code && e.message().contains(says), "{object}: {e}");
    };
    let mut unknown = deployment(spec(None, "a"));
    unknown["spec"]["replica"] = json!(1);
    check(unknown, 500, ".spec.replica: field not declared in schema").await;
    check(json!({"metadata": {"name": "web"}}), 400, "is missing").await;
    let mut other = deployment(spec(None, "a"));
    other["metadata"]["name"] = json!("other");
    check(other, 400, "does not match the name on the URL").await;
    let mut owned = deployment(spec(None, "a"));
    owned["metadata"]["managedFields"] = json!([]);
    check(owned, 400, "metadata.managedFields must be nil").await;
    let mut born = deployment(spec(None, "a"));
    born["metadata"]["uid"] = json!("x");
    check(born, 409, "uid mismatch").await;
    check(deployment(json!({})), 422, "spec.selector").await;
    let torn = raw(request, ContentType::ApplyPatch, b"a: [");
    assert_eq!(plane.send(torn).await.unwrap_err().code(), 400);
    assert_eq!(plane.value(deployments(Verb::Get, Some("web"))).await.unwrap_err().code(), 404);
}
