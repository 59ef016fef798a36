//! A host's own kind by `#[derive(Resource)]`: what the macro says is what the server gets.

use kubewright_core::resource::{Cell, WriteContext};
use kubewright_core::{Described, ObjectMeta, Resource, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema, Resource)]
#[resource(group = "example.com", version = "v1", short_names("wd"), categories("all"), namespaced, status)]
#[resource(scale(spec_replicas = ".spec.replicas", status_replicas = ".status.replicas"))]
#[resource(column(name = "Size", path = ".spec.size", type = "string", priority = 1))]
#[resource(selectable("spec.size"))]
struct Widget {
    metadata: ObjectMeta,
    spec: WidgetSpec,
    status: Option<WidgetStatus>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct WidgetSpec {
    /// How big it is.
    size: Size,
    #[schemars(range(min = 0, max = 10))]
    replicas: u32,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    source: Option<Source>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
enum Size {
    /// Hardly seen.
    #[default]
    Small,
    /// Not missed.
    Large,
}

#[derive(Serialize, Deserialize, Clone, Debug, JsonSchema)]
enum Source {
    Git { url: String },
    Path { path: String },
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct WidgetStatus {
    replicas: i32,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema, Resource)]
#[resource(group = "example.com", version = "v1beta1", kind = "Policy", crate = "kubewright_core")]
struct ClusterPolicy {
    metadata: ObjectMeta,
}

#[test]
fn the_descriptor_says_what_the_attributes_say() {
    let d = Widget::descriptor();
    assert_eq!(
        (d.plural.as_str(), d.singular.as_str(), d.list_kind.as_str()),
        ("widgets", "widget", "WidgetList")
    );
    assert_eq!((d.api_version().as_str(), d.scope, d.status), ("example.com/v1", Scope::Namespaced, true));
    assert_eq!(d.scale.as_ref().map(|s| s.spec_replicas.as_str()), Some(".spec.replicas"));
    let names: Vec<&str> = d.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["Name", "Size", "Age"]);
    assert!(matches!(d.columns[1].cell, Cell::Path(_)));
    let policy = ClusterPolicy::descriptor();
    assert_eq!((policy.plural.as_str(), policy.scope), ("policies", Scope::Cluster));
    assert_eq!(<Widget as Resource>::resource().resource, "widgets");
}

#[test]
fn its_schema_prunes_checks_and_validates() {
    let schema = Widget::descriptor().schema;
    let mut object = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "extra": 1,
        "spec": {"size": "Large", "replicas": 3, "tags": null, "source": {"Git": {"url": "u", "x": 1}}},
    });
    assert!(schema.check_types(&object).is_ok(), "{:?}", schema.check_types(&object));
    assert_eq!(schema.prune(&mut object), ["extra", "spec.source.Git.x"]);
    assert_eq!(schema.validate(&object), []);
    serde_json::from_value::<Widget>(object.clone()).unwrap();
    object["spec"] = json!({"size": "Medium", "replicas": 11, "source": {}});
    let errors: Vec<String> = schema.validate(&object).iter().map(ToString::to_string).collect();
    assert!(errors.contains(
        &"spec.size: Unsupported value: \"Medium\": supported values: \"Large\", \"Small\"".to_owned()
    ));
    assert!(
        errors.iter().any(|e| e.contains("spec.replicas in body should be less than or equal to 10")),
        "{errors:?}"
    );
    assert!(errors.iter().any(|e| e.contains("(oneOf). Found none valid")), "{errors:?}");
    object["spec"]["replicas"] = json!("many");
    assert!(schema.check_types(&object).unwrap_err().message().starts_with("json: cannot unmarshal string"));
}

#[test]
fn the_definition_can_be_installed_anywhere() {
    let crd = Widget::crd();
    assert_eq!(crd["metadata"]["name"], "widgets.example.com");
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["selectableFields"], json!([{"jsonPath": ".spec.size"}]));
    let schema = &version["schema"]["openAPIV3Schema"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["enum"], json!(["Small", "Large"]));
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["description"], "How big it is.");
    assert_eq!(schema["properties"]["status"]["nullable"], true);
    kubewright_core::Schema::from_openapi(schema).unwrap();
    serde_json::from_value::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >(crd)
    .unwrap();
}

#[test]
fn a_status_with_a_way_of_its_own_is_no_clients_to_create() {
    let cx = WriteContext::new(None, Default::default());
    let mut widget = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"replicas": 3}});
    Widget::descriptor().strategy.prepare_for_create(&mut widget, cx);
    assert_eq!(widget, json!({"metadata": {"name": "a"}, "spec": {}}));
}
