//! The verbs of `Api`, applies and their conflicts, discovery, and a derived kind.

use super::*;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    Preconditions, VersionMatch,
};
use kube::core::{CustomResourceExt, GroupVersion};
use kube::discovery::{Discovery, Scope, oneshot, verbs};
use kube::{Resource, ResourceExt};
use serde_json::Value;

pub(super) async fn check(client: &Client, space: &str) {
    verbs_of_maps(client, space).await;
    applies(client, space).await;
    deployments(client, space).await;
    derived_kind(client, space).await;
    discovery(client, space).await;
}

async fn verbs_of_maps(client: &Client, space: &str) {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), space);
    let (post, list) = (PostParams::default(), ListParams::default());
    let made = maps.create(&post, &map("one", &[("a", "1")])).await.unwrap();
    assert!(made.uid().is_some() && made.metadata.managed_fields.is_some());
    assert_eq!(refusal(maps.create(&post, &map("one", &[])).await), (409, "AlreadyExists".into()));
    assert_eq!(refusal(maps.get("none").await), (404, "NotFound".into()));
    assert!(maps.get_opt("none").await.unwrap().is_none());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("dry", &[])).await.unwrap();
    assert!(maps.get_opt("dry").await.unwrap().is_none());
    let mut changed = made.clone();
    changed.data = map("", &[("a", "2")]).data;
    let replaced = maps.replace("one", &post, &changed).await.unwrap();
    assert_ne!(replaced.resource_version(), made.resource_version());
    assert_eq!(refusal(maps.replace("one", &post, &changed).await), (409, "Conflict".into()));

    let patch = PatchParams::default();
    let merged = maps.patch("one", &patch, &Patch::Merge(json!({"data": {"b": "3"}}))).await.unwrap();
    assert_eq!(merged.data, map("", &[("a", "2"), ("b", "3")]).data);
    let patched = maps.patch("one", &patch, &Patch::Merge(json!({"data": {"a": null}}))).await.unwrap();
    assert_eq!(patched.data, map("", &[("b", "3")]).data);
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"x": "y"}}}));
    let metadata = maps.patch_metadata("one", &patch, &strategic).await.unwrap();
    assert_eq!(metadata.labels().get("x").map(String::as_str), Some("y"));
    let strict = PatchParams::default().validation_strict();
    let unknown = maps.patch("one", &strict, &Patch::Merge(json!({"dta": {}}))).await;
    assert_eq!(refusal(unknown), (400, "BadRequest".into()));

    for i in 0..5 {
        let mut paged = map(&format!("page-{i}"), &[]);
        paged.labels_mut().insert("set".into(), "pages".into());
        maps.create(&post, &paged).await.unwrap();
    }
    let mut params = ListParams::default().labels("set=pages").limit(2);
    let mut names = Vec::new();
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.clone().filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["page-0", "page-1", "page-2", "page-3", "page-4"]);
    let known = maps.list_metadata(&ListParams::default().fields("metadata.name=page-3")).await.unwrap();
    assert_eq!(known.items.len(), 1);
    let version = known.metadata.resource_version.unwrap();
    maps.create(&post, &map("later", &[])).await.unwrap();
    let then = ListParams::default().at(&version).matching(VersionMatch::Exact);
    assert!(maps.list(&then).await.unwrap().iter().all(|m| m.name_any() != "later"));
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("set=pages"))
        .await
        .unwrap();
    assert!(maps.list(&list).await.unwrap().iter().all(|m| !m.name_any().starts_with("page-")));

    let wrong = Preconditions { uid: Some("other".into()), resource_version: None };
    let refused = maps.delete("one", &DeleteParams::default().preconditions(wrong)).await;
    assert_eq!(refusal(refused.map(|_| ())), (409, "Conflict".into()));
    assert!(maps.delete("one", &DeleteParams::default()).await.unwrap().is_right(), "a status");

    let mut entry = maps.entry("entry").await.unwrap().or_insert(|| map("entry", &[("a", "1")]));
    entry.commit(&post).await.unwrap();
    let mut entry = maps.entry("entry").await.unwrap().and_modify(|m| m.data = map("", &[("a", "2")]).data);
    entry.get_mut().expect("it is there").annotations_mut().insert("by".into(), "entry".into());
    let mut entry = entry.or_insert(ConfigMap::default);
    entry.commit(&post).await.unwrap();
    assert_eq!(maps.get("entry").await.unwrap().data, map("", &[("a", "2")]).data);
}

/// Two managers of one object: conflicts, force, and what the first no longer owns.
async fn applies(client: &Client, space: &str) {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), space);
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let both = map("applied", &[("a", "1"), ("b", "1")]);
    let made = maps.patch("applied", &one, &Patch::Apply(&both)).await.unwrap();
    assert_eq!(made.metadata.managed_fields.unwrap()[0].operation.as_deref(), Some("Apply"));
    let other = map("applied", &[("a", "2")]);
    let Err(Error::Api(status)) = maps.patch("applied", &two, &Patch::Apply(&other)).await else {
        panic!("there is no conflict");
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = &status.details.as_ref().expect("details").causes;
    assert_eq!((causes[0].reason.as_str(), causes[0].field.as_str()), ("FieldManagerConflict", ".data.a"));
    assert!(status.message.contains(r#"conflict with "one""#), "{}", status.message);
    let forced = maps.patch("applied", &two.clone().force(), &Patch::Apply(&other)).await.unwrap();
    assert_eq!(forced.data, map("", &[("a", "2"), ("b", "1")]).data);
    // The first gives up all of its fields but the other's.
    let less = map("applied", &[]);
    let left = maps.patch("applied", &one, &Patch::Apply(&less)).await.unwrap();
    assert_eq!(left.data, map("", &[("a", "2")]).data);
    let dry = PatchParams::apply("one").dry_run();
    maps.patch("applied", &dry, &Patch::Apply(&map("applied", &[("c", "9")]))).await.unwrap();
    assert_eq!(maps.get("applied").await.unwrap().data, map("", &[("a", "2")]).data);
}

async fn deployments(client: &Client, space: &str) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), space);
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    let made = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
    let made = deployments.create(&PostParams::default(), &made).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.status.and_then(|s| s.selector).as_deref(), Some("a=b"));
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let scaled = deployments.patch_scale("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(scaled.spec.and_then(|s| s.replicas), Some(0));
    let again = deployments.restart("web").await.unwrap();
    let annotations = again.spec.unwrap().template.metadata.unwrap().annotations.unwrap();
    assert!(annotations.contains_key("kube.kubernetes.io/restartedAt"), "{annotations:?}");
    let done = conditions::is_deployment_completed();
    within(await_condition(deployments.clone(), "web", done)).await.unwrap();
    let status = json!({"status": {"conditions": [{"type": "Odd", "status": "True"}]}});
    let noted =
        deployments.patch_status("web", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    assert!(noted.status.unwrap().conditions.unwrap().iter().any(|c| c.type_ == "Odd"));
    let uid = noted.metadata.uid.unwrap();
    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    within(await_condition(deployments, "web", conditions::is_deleted(&uid))).await.unwrap();
}

/// A kind that the program derives: its rules in CEL, its status and its scale.
async fn derived_kind(client: &Client, space: &str) {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let apply = PatchParams::apply("kube-rs").force();
    definitions.patch(Gear::crd_name(), &apply, &Patch::Apply(Gear::crd())).await.unwrap();
    let established = conditions::is_crd_established();
    within(await_condition(definitions.clone(), Gear::crd_name(), established)).await.unwrap();
    let gears = Api::<Gear>::namespaced(client.clone(), space);
    let gear = Gear::new("g", GearSpec { teeth: 8, axle: "x".into() });
    let made = gears.create(&PostParams::default(), &gear).await.unwrap();
    assert_eq!(made.spec, gear.spec);
    let patch = PatchParams::default();
    let moved = gears.patch("g", &patch, &Patch::Merge(json!({"spec": {"axle": "y"}}))).await;
    assert_eq!(refusal(moved), (422, "Invalid".into()));
    let wrong = gears.patch("g", &patch, &Patch::Merge(json!({"spec": {"teeth": "many"}}))).await;
    assert_eq!(refusal(wrong), (422, "Invalid".into()));
    let status = Patch::Merge(json!({"status": {"teeth": 7}, "spec": {"teeth": 1}}));
    let noted = gears.patch_status("g", &patch, &status).await.unwrap();
    assert_eq!((noted.spec.teeth, noted.status), (8, Some(GearStatus { teeth: 7 })));
    let mut scale = gears.get_scale("g").await.unwrap();
    assert_eq!(scale.status.as_ref().map(|s| s.replicas), Some(7));
    scale.spec.as_mut().unwrap().replicas = Some(12);
    gears.replace_scale("g", &PostParams::default(), &scale).await.unwrap();
    assert_eq!(gears.get("g").await.unwrap().spec.teeth, 12);
}

async fn discovery(client: &Client, space: &str) {
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
    let whole = Discovery::new(client.clone()).run().await.unwrap();
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let kinds = |d: &Discovery| {
        let resources = d.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
        let mut kinds: Vec<String> =
            resources.map(|(r, _)| format!("{}/{}", r.api_version, r.plural)).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&whole), kinds(&aggregated));
    assert!(kinds(&whole).len() > 50 && whole.has_group(&Gear::group(&())), "{:?}", kinds(&whole));
    let one = Discovery::new(client.clone()).filter(&["apps"]).run().await.unwrap();
    assert_eq!(one.groups().map(kube::discovery::ApiGroup::name).collect::<Vec<_>>(), ["apps"]);
    let group = oneshot::group(client, "apps").await.unwrap();
    let (resource, able) = group.recommended_kind("Deployment").unwrap();
    assert_eq!((resource.plural.as_str(), able.scope), ("deployments", Scope::Namespaced));
    let subresources: Vec<&str> = able.subresources.iter().map(|(r, _)| r.plural.as_str()).collect();
    assert!(subresources.contains(&"scale") && subresources.contains(&"status"), "{subresources:?}");
    let core = oneshot::pinned_group(client, &GroupVersion::gv("", "v1")).await.unwrap();
    assert!(core.recommended_kind("Pod").is_some());

    let gvk = GroupVersionKind::gvk(&Gear::group(&()), "v1", "Gear");
    let (resource, able) = oneshot::pinned_kind(client, &gvk).await.unwrap();
    assert!(able.supports_operation(verbs::WATCH) && able.supports_operation(verbs::DELETE_COLLECTION));
    let gears = Api::<DynamicObject>::namespaced_with(client.clone(), space, &resource);
    assert_eq!(gears.get("g").await.unwrap().data["spec"]["axle"], json!("x"));
    let metadata = gears.get_metadata("g").await.unwrap();
    assert_eq!(metadata.name_any(), "g");
    let nothing = ApiResource::from_gvk(&GroupVersionKind::gvk("none.example.com", "v1", "None"));
    let none = Api::<DynamicObject>::all_with(client.clone(), &nothing);
    assert_eq!(refusal(none.list(&ListParams::default()).await).0, 404);
    let raw: Value =
        client.request(http::Request::get("/openapi/v3").body(Vec::new()).unwrap()).await.unwrap();
    assert!(raw["paths"]["apis/kube-rs.example.com/v1"].is_object(), "{raw}");
}
