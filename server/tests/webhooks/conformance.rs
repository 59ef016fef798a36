//! What upstream's conformance tests ask of admission webhooks beyond what the other files here hold.

use crate::harness::{Hooks, Plane, config_map, hook, patch, plane, resource};
use kubewright_core::node_api::ExecOptions;
use kubewright_core::{ApiError, ApiRequest, ContentType, Verb};
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io";
const KINDS: [(bool, &str); 2] =
    [(true, "mutatingwebhookconfigurations"), (false, "validatingwebhookconfigurations")];

/// What is asked of the settings of a plane: of all, or of one by its name.
fn settings(verb: Verb, plural: &str, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, resource(GROUP, "v1", plural), None, name)
}

async fn settle(plane: &Plane) {
    plane.0.reader().consistent().await.unwrap();
}

/// Adds a mark to what it is asked about where it may change things, and refuses it where not.
async fn strict() -> Hooks {
    Hooks::start(|path, _| {
        if path.starts_with("/mutate") {
            patch(json!([{"op": "add", "path": "/data/mutation", "value": "yes"}]))
        } else {
            json!({"allowed": false, "status": {"message": "the config map is unwanted"}})
        }
    })
    .await
}

fn url(hooks: &Hooks, mutating: bool) -> Value {
    hooks.url(if mutating { "/mutate" } else { "/validate" })
}

/// Whether a new ConfigMap is changed or refused.
async fn touched(plane: &Plane, name: &str) -> bool {
    match plane.value(config_map(name, json!({}))).await {
        Ok(made) => made["data"]["mutation"] == "yes",
        Err(e) => {
            assert!(e.message().contains("denied the request: the config map is unwanted"), "{e}");
            true
        }
    }
}

#[tokio::test]
async fn configurations_are_listed_by_label_and_go_together() {
    let hooks = strict().await;
    for (mutating, plural) in KINDS {
        let plane = plane().await;
        for n in 0..10 {
            let hook = hook("h.example.com", url(&hooks, mutating), json!({}));
            let object = json!({"metadata": {"name": format!("c-{n}"), "labels": {"e2e-list-test-uuid": "x"}}, "webhooks": [hook]});
            plane.create(GROUP, "v1", plural, object).await;
        }
        let mut list = settings(Verb::List, plural, None);
        list.options.label_selector = Some("e2e-list-test-uuid=x".into());
        assert_eq!(plane.value(list.clone()).await.unwrap()["items"].as_array().unwrap().len(), 10);
        assert!(touched(&plane, "before").await, "{plural}");
        let mut all = settings(Verb::DeleteCollection, plural, None);
        all.options.label_selector = Some("e2e-list-test-uuid=x".into());
        plane.send(all).await.unwrap();
        assert_eq!(plane.value(list).await.unwrap()["items"], json!([]));
        settle(&plane).await;
        assert!(!touched(&plane, "after").await, "{plural}");
    }
}

#[tokio::test]
async fn rules_that_change_count_from_then_on() {
    let hooks = strict().await;
    for (mutating, plural) in KINDS {
        let plane = plane().await;
        plane
            .configure(mutating, "c", json!([hook("h.example.com", url(&hooks, mutating), json!({}))]))
            .await;
        assert!(touched(&plane, "a").await);
        let mut current = plane.value(settings(Verb::Get, plural, Some("c"))).await.unwrap();
        current["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        plane.send(settings(Verb::Update, plural, Some("c")).body(ContentType::Json, current)).await.unwrap();
        settle(&plane).await;
        assert!(!touched(&plane, "b").await);
        let again = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
        plane
            .send(settings(Verb::Patch, plural, Some("c")).body(ContentType::JsonPatch, again))
            .await
            .unwrap();
        settle(&plane).await;
        assert!(touched(&plane, "c").await);
    }
}

#[tokio::test]
async fn match_conditions_are_kept_and_must_compile() {
    for (mutating, plural) in KINDS {
        let plane = plane().await;
        let condition = |expression: &str| json!([{"name": "expression-1", "expression": expression}]);
        let made = |expression: &str| {
            let more = json!({"matchConditions": condition(expression)});
            json!({"metadata": {"name": "c"}, "webhooks": [hook("h.example.com", json!({"url": "https://none.example.com/"}), more)]})
        };
        let create = settings(Verb::Create, plural, None)
            .body(ContentType::Json, made("object.metadata.namespace == 'production'"));
        let mut stored = plane.value(create).await.unwrap();
        assert_eq!(
            stored["webhooks"][0]["matchConditions"],
            condition("object.metadata.namespace == 'production'"),
            "{mutating}"
        );
        stored["webhooks"][0]["matchConditions"] = condition("object.metadata.namespace == 'staging'");
        plane
            .send(settings(Verb::Update, plural, Some("c")).body(ContentType::Json, stored.clone()))
            .await
            .unwrap();
        let read = plane.value(settings(Verb::Get, plural, Some("c"))).await.unwrap();
        assert_eq!(read["webhooks"], stored["webhooks"]);
        let mut wrong = made("... [] bad expression");
        wrong["metadata"]["name"] = json!("wrong");
        let e = plane
            .send(settings(Verb::Create, plural, None).body(ContentType::Json, wrong))
            .await
            .unwrap_err();
        assert!(e.code() == 422 && e.message().contains("compilation failed"), "{e}");
    }
}

#[tokio::test]
async fn a_condition_lets_one_name_pass() {
    let hooks = strict().await;
    let plane = plane().await;
    let more =
        json!({"matchConditions": [{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]});
    plane.configure(true, "c", json!([hook("h.example.com", url(&hooks, true), more)])).await;
    assert!(!touched(&plane, "skip-me").await);
    assert!(touched(&plane, "mutate-me").await);
}

#[tokio::test]
async fn configurations_are_beyond_the_reach_of_webhooks() {
    let hooks = Hooks::start(|path, _| match path.starts_with("/mutate") {
        true => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"marked": "yes"}}])),
        false => json!({"allowed": false}),
    })
    .await;
    let plane = plane().await;
    let rules = |operation: &str| json!({"rules": [{"operations": [operation], "apiGroups": [GROUP], "apiVersions": ["*"], "resources": ["*"]}]});
    plane
        .configure(true, "marks", json!([hook("m.example.com", hooks.url("/mutate"), rules("CREATE"))]))
        .await;
    plane
        .configure(false, "keeps", json!([hook("k.example.com", hooks.url("/validate"), rules("DELETE"))]))
        .await;
    for (mutating, plural) in KINDS {
        plane.configure(mutating, "dummy", json!([])).await;
        let read = plane.value(settings(Verb::Get, plural, Some("dummy"))).await.unwrap();
        assert!(read["metadata"].get("labels").is_none(), "{read}");
        plane.send(settings(Verb::Delete, plural, Some("dummy"))).await.unwrap();
    }
    assert_eq!(hooks.count(), 0);
}

#[tokio::test]
async fn a_silent_webhook_costs_its_time_and_its_policy_decides() {
    let hooks = Hooks::raw(|_| Box::pin(std::future::pending())).await;
    let plane = plane().await;
    let silent = |policy: &str| {
        json!([hook(
            "slow.example.com",
            hooks.url("/"),
            json!({"timeoutSeconds": 1, "failurePolicy": policy})
        )])
    };
    plane.configure(false, "c", silent("Fail")).await;
    let e = plane.config_map("a", json!({})).await.unwrap_err();
    assert_eq!(e.code(), 500, "{e}");
    assert!(e.message().contains("context deadline exceeded"), "{e}");
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    plane
        .send(settings(Verb::Patch, KINDS[1].1, Some("c")).body(ContentType::JsonPatch, ignore))
        .await
        .unwrap();
    settle(&plane).await;
    plane.config_map("b", json!({})).await.unwrap();
}

#[tokio::test]
async fn who_cannot_be_called_refuses_for_its_namespaces_alone() {
    let plane = plane().await;
    // A service that is not there, reached without an authority.
    let config = json!({"service": {"namespace": "n", "name": "none", "path": "/configmaps"}});
    let more = json!({"failurePolicy": "Fail", "namespaceSelector": {"matchLabels": {"closed": "yes"}}});
    plane.configure(false, "c", json!([hook("closed.example.com", config, more)])).await;
    plane.config_map("here", json!({})).await.unwrap();
    let shut = json!({"metadata": {"name": "shut", "labels": {"closed": "yes"}}});
    plane.create("", "v1", "namespaces", shut).await;
    let mut request =
        ApiRequest::resource(Verb::Create, resource("", "v1", "configmaps"), Some("shut"), None);
    request = request.body(ContentType::Json, json!({"metadata": {"name": "there"}}));
    let e = plane.send(request).await.unwrap_err();
    assert_eq!((e.code(), e.reason_text()), (500, "InternalError"), "{e}");
    assert!(e.message().contains("failed calling webhook \"closed.example.com\""), "{e}");
}

fn definition(versions: Value) -> Value {
    json!({"metadata": {"name": "testcrds.hooks.example.com"}, "spec": {"group": "hooks.example.com", "scope": "Namespaced",
        "names": {"plural": "testcrds", "kind": "TestCrd"}, "versions": versions}})
}

fn version(name: &str, storage: bool, data: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"data": data}}}})
}

fn custom(verb: Verb, version: &str, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, resource("hooks.example.com", version, "testcrds"), Some("n"), name)
}

async fn defined(plane: &Plane, versions: Value) {
    plane.create("apiextensions.k8s.io", "v1", "customresourcedefinitions", definition(versions)).await;
    served(plane, "v1").await;
}

/// Kinds follow their definitions a moment later.
async fn served(plane: &Plane, version: &str) {
    for _ in 0..3000 {
        if plane.send(custom(Verb::List, version, None)).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{version} is not served");
}

fn on_custom() -> Value {
    json!({"rules": [{"operations": ["*"], "apiGroups": ["hooks.example.com"], "apiVersions": ["*"], "resources": ["testcrds"]}]})
}

#[tokio::test]
async fn custom_objects_are_refused_changed_and_pruned() {
    let hooks = Hooks::start(|path, request| {
        if path.starts_with("/mutate") {
            if request["operation"] != "CREATE" {
                return json!({"allowed": true});
            }
            let add = |key: &str| json!({"op": "add", "path": format!("/data/{key}"), "value": "yes"});
            return patch(json!([add("mutation-stage-1"), add("mutation-stage-2")]));
        }
        let bad = [&request["object"], &request["oldObject"]]
            .iter()
            .any(|o| o["data"]["webhook-e2e-test"] == "webhook-disallow");
        json!({"allowed": !bad, "status": {"message": "the custom resource contains unwanted data"}})
    })
    .await;
    let plane = plane().await;
    // The schema knows the first mark only.
    let data = json!({"type": "object", "properties": {"mutation-stage-1": {"type": "string"}, "webhook-e2e-test": {"type": "string"}}});
    defined(&plane, json!([version("v1", true, data)])).await;
    let object =
        |name: &str, value: &str| json!({"metadata": {"name": name}, "data": {"webhook-e2e-test": value}});
    let create = |name: &str, value: &str| {
        custom(Verb::Create, "v1", None).body(ContentType::Json, object(name, value))
    };
    plane.send(create("old", "webhook-disallow")).await.unwrap();
    plane
        .configure(false, "denies", json!([hook("d.example.com", hooks.url("/validate"), on_custom())]))
        .await;
    let denied = |e: Result<_, ApiError>| {
        let e = e.unwrap_err();
        assert!(e.message().contains("the custom resource contains unwanted data"), "{e}");
    };
    denied(plane.value(create("bad", "webhook-disallow")).await);
    plane.send(create("good", "webhook-allow")).await.unwrap();
    let worse = json!({"data": {"webhook-e2e-test": "webhook-disallow"}});
    denied(plane.value(custom(Verb::Patch, "v1", Some("good")).body(ContentType::MergePatch, worse)).await);
    denied(plane.value(custom(Verb::Delete, "v1", Some("old"))).await);
    plane.configure(true, "marks", json!([hook("m.example.com", hooks.url("/mutate"), on_custom())])).await;
    let made = plane.value(create("marked", "x")).await.unwrap();
    assert_eq!(made["data"], json!({"webhook-e2e-test": "x", "mutation-stage-1": "yes"}));
}

#[tokio::test]
async fn custom_objects_are_changed_whatever_version_is_stored() {
    let hooks = Hooks::start(|_, request| match request["object"]["data"]["mutation-start"] == "yes" {
        true => patch(json!([{"op": "add", "path": "/data/mutation-stage-1", "value": "yes"}])),
        false => json!({"allowed": true}),
    })
    .await;
    let plane = plane().await;
    let data = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    defined(&plane, json!([version("v1", true, data()), version("v2", false, data())])).await;
    plane.configure(true, "marks", json!([hook("m.example.com", hooks.url("/"), on_custom())])).await;
    let object = json!({"metadata": {"name": "o"}, "data": {"mutation-start": "yes"}});
    let made = plane.value(custom(Verb::Create, "v1", None).body(ContentType::Json, object)).await.unwrap();
    assert_eq!(made["data"]["mutation-stage-1"], "yes");
    let swap = json!([{"op": "replace", "path": "/spec/versions/1/storage", "value": true}, {"op": "replace", "path": "/spec/versions/0/storage", "value": false}]);
    let definitions = resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let stored = ApiRequest::resource(Verb::Patch, definitions, None, Some("testcrds.hooks.example.com"));
    plane.send(stored.body(ContentType::JsonPatch, swap)).await.unwrap();
    served(&plane, "v2").await;
    let label = json!({"data": {"mutation-stage-2": "yes"}});
    let patched =
        plane.value(custom(Verb::Patch, "v1", Some("o")).body(ContentType::MergePatch, label)).await.unwrap();
    assert_eq!(
        patched["data"],
        json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"})
    );
    let read = plane.value(custom(Verb::Get, "v2", Some("o"))).await.unwrap();
    assert_eq!((&read["apiVersion"], &read["data"]), (&json!("hooks.example.com/v2"), &patched["data"]));
}

#[tokio::test]
async fn definitions_may_be_refused() {
    let hooks = Hooks::start(|_, request| {
        let bad = request["object"]["metadata"]["labels"]["webhook-e2e-test"] == "webhook-disallow";
        json!({"allowed": !bad, "status": {"message": "the crd contains unwanted label"}})
    })
    .await;
    let plane = plane().await;
    let rules = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["*"], "resources": ["customresourcedefinitions"]}]});
    plane.configure(false, "c", json!([hook("crd.example.com", hooks.url("/"), rules)])).await;
    let mut unwanted = definition(json!([version("v1", true, json!({"type": "object"}))]));
    unwanted["metadata"]["labels"] = json!({"webhook-e2e-test": "webhook-disallow"});
    let definitions = resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let create =
        ApiRequest::resource(Verb::Create, definitions, None, None).body(ContentType::Json, unwanted);
    let e = plane.send(create).await.unwrap_err();
    assert!(e.message().contains("the crd contains unwanted label"), "{e}");
}

#[tokio::test]
async fn attaching_to_a_pod_may_be_refused() {
    let hooks = Hooks::start(|_, request| {
        let attach = request["subResource"] == "attach" && request["operation"] == "CONNECT";
        json!({"allowed": !(attach && request["name"] == "to-be-attached-pod"), "status": {"message": "attaching to pod 'to-be-attached-pod' is not allowed"}})
    })
    .await;
    let plane = plane().await;
    plane
        .create("", "v1", "serviceaccounts", json!({"metadata": {"name": "default", "namespace": "n"}}))
        .await;
    let pod = json!({"metadata": {"name": "to-be-attached-pod", "namespace": "n"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    plane.create("", "v1", "pods", pod).await;
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach"]}]});
    plane.configure(false, "c", json!([hook("attach.example.com", hooks.url("/"), rules)])).await;
    let pods = resource("", "v1", "pods");
    let mut attach =
        ApiRequest::resource(Verb::Create, pods, Some("n"), Some("to-be-attached-pod")).subresource("attach");
    attach.options.exec = Some(Box::new(ExecOptions { stdout: true, ..ExecOptions::default() }));
    let e = plane.send(attach).await.unwrap_err();
    assert!(e.message().contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{e}");
    assert_eq!(hooks.last()["kind"]["kind"], "PodAttachOptions");
}
