//! Admission webhooks that work.

use crate::harness::{Hooks, Plane, config_map, hook, patch, plane, resource};
use kubewright_core::{ApiRequest, ContentType, Verb};
use serde_json::{Value, json};

fn read(plural: &str, name: &str) -> ApiRequest {
    ApiRequest::resource(Verb::Get, resource("", "v1", plural), Some("n"), Some(name))
}

async fn labels(plane: &Plane, name: &str) -> Value {
    plane.value(read("configmaps", name)).await.unwrap()["metadata"]["labels"].clone()
}

#[tokio::test]
async fn a_webhook_behind_a_service_denies_and_remarks() {
    let hooks = Hooks::start(|_, request| {
        let bad = request["object"]["metadata"]["labels"]["bad"] == "yes";
        let mut answer =
            json!({"allowed": !bad, "warnings": ["careful", "careful"], "auditAnnotations": {"seen": "1"}});
        if bad {
            answer["status"] = json!({"message": "the config map has an unwanted label", "code": 418});
        }
        answer
    })
    .await;
    let plane = plane().await;
    plane.service("hooks", 8443, hooks.address).await;
    let config = json!({"service": {"namespace": "n", "name": "hooks", "port": 8443, "path": "/check"},
        "caBundle": hooks.authority.bundle()});
    plane
        .configure(false, "c", json!([hook("deny.example.com", config, json!({"timeoutSeconds": 5}))]))
        .await;

    let request = config_map("good", json!({}));
    let notes = request.notes.clone();
    let answer = plane.send(request).await.unwrap();
    assert_eq!((answer.code, answer.warnings), (201, vec!["careful".to_owned()]));
    assert_eq!(notes.annotations()["deny.example.com/seen"], "1");
    let (path, review) = hooks.asked.lock()[0].clone();
    assert_eq!(path, "/check?timeout=5s");
    let sent = &review["request"];
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(sent["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(sent["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(
        (&sent["operation"], &sent["name"], &sent["namespace"]),
        (&json!("CREATE"), &json!("good"), &json!("n"))
    );
    assert_eq!((&sent["dryRun"], &sent["oldObject"]), (&json!(false), &Value::Null));
    assert_eq!(sent["options"], json!({"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"}));
    assert_eq!(sent["object"]["metadata"]["namespace"], "n");

    let request = config_map("bad", json!({"bad": "yes"}));
    let notes = request.notes.clone();
    let e = plane.send(request).await.unwrap_err();
    let message =
        "admission webhook \"deny.example.com\" denied the request: the config map has an unwanted label";
    assert_eq!((e.code(), e.message()), (418, message));
    assert_eq!(notes.warnings(), ["careful"]);
    assert!(plane.send(read("configmaps", "bad")).await.is_err_and(|e| e.is_not_found()));
}

#[tokio::test]
async fn every_operation_is_asked_about() {
    let hooks = Hooks::start(|_, request| {
        let protected = request["oldObject"]["metadata"]["labels"]["keep"] == "yes";
        json!({"allowed": !(request["operation"] == "DELETE" && protected)})
    })
    .await;
    let plane = plane().await;
    plane.configure(false, "c", json!([hook("keep.example.com", hooks.url("/"), json!({}))])).await;
    plane.config_map("a", json!({"keep": "yes"})).await.unwrap();
    plane.config_map("b", json!({})).await.unwrap();
    let patch = ApiRequest::resource(Verb::Patch, resource("", "v1", "configmaps"), Some("n"), Some("b"));
    let mut patch = patch.body(ContentType::MergePatch, json!({"data": {"x": "y"}}));
    patch.options.field_manager = Some("me".to_owned());
    plane.send(patch).await.unwrap();
    let sent = hooks.last();
    assert_eq!((&sent["operation"], &sent["object"]["data"]["x"]), (&json!("UPDATE"), &json!("y")));
    assert_eq!(sent["oldObject"]["data"], json!({"a": "b"}));
    let options = json!({"apiVersion": "meta.k8s.io/v1", "kind": "UpdateOptions", "fieldManager": "me"});
    assert_eq!(sent["options"], options);

    let delete = |name: Option<&str>| {
        let verb = if name.is_some() { Verb::Delete } else { Verb::DeleteCollection };
        ApiRequest::resource(verb, resource("", "v1", "configmaps"), Some("n"), name)
            .body(ContentType::Json, json!({"gracePeriodSeconds": 0}))
    };
    let e = plane.send(delete(Some("a"))).await.unwrap_err();
    assert_eq!(e.message(), "admission webhook \"keep.example.com\" denied the request without explanation");
    let sent = hooks.last();
    assert_eq!((&sent["object"], &sent["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("a")));
    let options = json!({"apiVersion": "meta.k8s.io/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    assert_eq!(sent["options"], options);
    assert_eq!(plane.send(delete(None)).await.unwrap_err().code(), 403);
    assert!(plane.send(read("configmaps", "a")).await.is_ok());
}

#[tokio::test]
async fn webhooks_change_objects_in_turn() {
    let hooks = Hooks::start(|path, request| {
        let has = |label: &str| request["object"]["metadata"]["labels"][label] == "yes";
        let add = |label: &str| {
            patch(json!([{"op": "add", "path": format!("/metadata/labels/{label}"), "value": "yes"}]))
        };
        match path.split('?').next().unwrap() {
            "/first" if !has("first") => add("first"),
            "/late" if has("second") => add("late"),
            "/second" if has("first") && !has("second") => add("second"),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let plane = plane().await;
    // Configurations are asked by their names, whatever the order in which they were made.
    plane.configure(true, "b", json!([hook("second.example.com", hooks.url("/second"), json!({}))])).await;
    let late = json!({"reinvocationPolicy": "IfNeeded"});
    plane
        .configure(
            true,
            "a",
            json!([
                hook("first.example.com", hooks.url("/first"), json!({})),
                hook("late.example.com", hooks.url("/late"), late)
            ]),
        )
        .await;
    let request = config_map("m", json!({"own": "yes"}));
    let notes = request.notes.clone();
    plane.send(request).await.unwrap();
    let want = json!({"own": "yes", "first": "yes", "second": "yes", "late": "yes"});
    assert_eq!(labels(&plane, "m").await, want);
    let paths: Vec<String> =
        hooks.asked.lock().iter().map(|(p, _)| p.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/first", "/late", "/second", "/late"]);
    let annotations = notes.annotations();
    let told: Value =
        serde_json::from_str(&annotations["mutation.webhook.admission.k8s.io/round_1_index_1"]).unwrap();
    assert_eq!(told, json!({"configuration": "a", "webhook": "late.example.com", "mutated": true}));
    assert!(annotations.contains_key("patch.webhook.admission.k8s.io/round_0_index_0"));
    // Nobody is asked again who does not want to be.
    assert!(!annotations.contains_key("mutation.webhook.admission.k8s.io/round_1_index_0"));
}

#[tokio::test]
async fn what_a_webhook_makes_is_decoded_and_defaulted() {
    let hooks = Hooks::start(|_, request| {
        if request["object"]["metadata"]["name"] == "wrong" {
            return patch(json!([{"op": "add", "path": "/spec/containers/0/image", "value": 7}]));
        }
        let container = json!({"name": "sidecar", "image": "i", "unknown": 1});
        patch(json!([{"op": "add", "path": "/spec/containers/-", "value": container}]))
    })
    .await;
    let plane = plane().await;
    let rules = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    plane.configure(true, "a", json!([hook("a.example.com", hooks.url("/"), rules)])).await;
    let account = json!({"metadata": {"name": "default", "namespace": "n"}});
    plane.create("", "v1", "serviceaccounts", account).await;
    let pod = |name: &str| {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        ApiRequest::resource(Verb::Create, resource("", "v1", "pods"), Some("n"), None)
            .body(ContentType::Json, pod)
    };
    let made = plane.value(pod("p")).await.unwrap();
    let sidecar = &made["spec"]["containers"][1];
    assert_eq!((&sidecar["imagePullPolicy"], sidecar.get("unknown")), (&json!("Always"), None));
    // The service account's volume was put into the container too, by the second run of the server's own plugins.
    assert!(sidecar["volumeMounts"].as_array().is_some_and(|m| m.len() == 1), "{sidecar}");
    let e = plane.send(pod("wrong")).await.unwrap_err();
    assert_eq!(e.code(), 500);
    assert!(e.message().contains("cannot be handled as a Pod"), "{e}");
}

#[tokio::test]
async fn rules_and_selectors_decide_who_is_asked() {
    let hooks = Hooks::start(|_, _| json!({"allowed": true})).await;
    let plane = plane().await;
    let rule = |resources: Value, scope: &str| json!({"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources, "scope": scope});
    let check = async |name: &str, more: Value, request: ApiRequest, asked: bool| {
        let full = format!("{name}.example.com");
        plane.configure(false, name, json!([hook(&full, hooks.url("/"), more)])).await;
        let before = hooks.count();
        plane.send(request).await.unwrap();
        assert_eq!(hooks.count() > before, asked, "{name}");
        let delete = ApiRequest::resource(
            Verb::Delete,
            resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
            None,
            Some(name),
        );
        plane.send(delete).await.unwrap();
        plane.0.reader().consistent().await.unwrap();
    };
    let map = |name: &str| config_map(name, json!({"kind": "x"}));
    let node = |name: &str| {
        ApiRequest::resource(Verb::Create, resource("", "v1", "nodes"), None, None)
            .body(ContentType::Json, json!({"metadata": {"name": name}}))
    };
    let namespace = |name: &str| {
        ApiRequest::resource(Verb::Create, resource("", "v1", "namespaces"), None, None)
            .body(ContentType::Json, json!({"metadata": {"name": name, "labels": {"team": "red"}}}))
    };
    let labels = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    check("all", json!({"rules": [rule(json!(["*"]), "*")]}), map("a"), true).await;
    check("below", json!({"rules": [rule(json!(["configmaps/*"]), "*")]}), map("b"), true).await;
    check("other", json!({"rules": [rule(json!(["secrets", "*/scale"]), "*")]}), map("c"), false).await;
    check("cluster", json!({"rules": [rule(json!(["*"]), "Cluster")]}), map("d"), false).await;
    check("cluster-node", json!({"rules": [rule(json!(["*"]), "Cluster")]}), node("d"), true).await;
    check("namespaced", json!({"rules": [rule(json!(["*"]), "Namespaced")]}), node("e"), false).await;
    check("objects", json!({"objectSelector": labels("kind", "x")}), map("f"), true).await;
    check("no-objects", json!({"objectSelector": labels("kind", "y")}), map("g"), false).await;
    check("team", json!({"namespaceSelector": labels("team", "blue")}), map("h"), true).await;
    check("no-team", json!({"namespaceSelector": labels("team", "red")}), map("i"), false).await;
    let of_cluster = json!({"namespaceSelector": labels("team", "red"), "rules": [rule(json!(["*"]), "*")]});
    check("no-namespace", of_cluster.clone(), node("j"), true).await;
    check("own-labels", of_cluster, namespace("k"), true).await;
    assert_eq!(hooks.last()["namespace"], "k");
    let when = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}]});
    check("holds", when("object.data.a == 'b' && request.operation == 'CREATE'"), map("l"), true).await;
    check("does-not-hold", when("request.userInfo.username == 'nobody'"), map("m"), false).await;
    let mut unsure = when("object.data.nope == 'b'");
    unsure["failurePolicy"] = json!("Ignore");
    check("unsure", unsure, map("o"), false).await;
    plane
        .configure(
            false,
            "fails",
            json!([hook("f.example.com", hooks.url("/"), when("object.data.nope == 'b'"))]),
        )
        .await;
    let error = plane.send(map("p")).await.unwrap_err();
    assert!(error.message().contains("resulted in error: no such key: nope"), "{error}");
    // What configures admission is never held up by it.
    let any = json!({"rules": [rule(json!(["*"]), "*")]});
    plane.configure(false, "any", json!([hook("any.example.com", hooks.url("/"), any)])).await;
    let before = hooks.count();
    plane.configure(true, "exempt", json!([])).await;
    assert_eq!(hooks.count(), before);
}

#[tokio::test]
async fn the_same_objects_are_known_in_every_version() {
    let hooks = Hooks::start(|_, request| match request["object"]["apiVersion"].as_str() {
        Some("autoscaling/v1") => patch(json!([{"op": "replace", "path": "/spec/maxReplicas", "value": 7}])),
        _ => json!({"allowed": false}),
    })
    .await;
    let plane = plane().await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]}]);
    let exact = json!({"rules": rules, "matchPolicy": "Exact"});
    plane.configure(true, "exact", json!([hook("exact.example.com", hooks.url("/"), exact)])).await;
    let scaler = |name: &str| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let object = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}});
        plane.create("autoscaling", "v2", "horizontalpodautoscalers", object)
    };
    assert_eq!(scaler("a").await["spec"]["maxReplicas"], 3);
    assert_eq!(hooks.count(), 0);
    plane
        .configure(
            true,
            "equivalent",
            json!([hook("equivalent.example.com", hooks.url("/"), json!({"rules": rules}))]),
        )
        .await;
    let made = scaler("b").await;
    assert_eq!((&made["apiVersion"], &made["spec"]["maxReplicas"]), (&json!("autoscaling/v2"), &json!(7)));
    let sent = hooks.last();
    assert_eq!(
        (&sent["resource"]["version"], &sent["requestResource"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
}

#[tokio::test]
async fn dry_runs_go_only_where_they_do_no_harm() {
    let hooks = Hooks::start(|_, _| json!({"allowed": true})).await;
    let plane = plane().await;
    plane
        .configure(
            false,
            "c",
            json!([hook("a.example.com", hooks.url("/"), json!({"sideEffects": "NoneOnDryRun"}))]),
        )
        .await;
    let dry = |name: &str| {
        let mut request = config_map(name, json!({}));
        request.options.dry_run = true;
        request
    };
    plane.send(dry("a")).await.unwrap();
    assert_eq!(
        (&hooks.last()["dryRun"], &hooks.last()["options"]["dryRun"]),
        (&json!(true), &json!(["All"]))
    );
}

#[tokio::test]
async fn subresources_are_reviewed_as_what_is_sent() {
    let hooks = Hooks::start(|_, request| match request["object"]["spec"]["replicas"].as_i64() {
        Some(5) => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 4}])),
        _ => json!({"allowed": true}),
    })
    .await;
    let plane = plane().await;
    let labels = json!({"app": "x"});
    let deployment = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    plane.create("apps", "v1", "deployments", deployment).await;
    let rules = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["deployments/scale"]}]});
    plane.configure(true, "c", json!([hook("scale.example.com", hooks.url("/"), rules)])).await;
    let scale =
        ApiRequest::resource(Verb::Patch, resource("apps", "v1", "deployments"), Some("n"), Some("d"))
            .subresource("scale")
            .body(ContentType::MergePatch, json!({"spec": {"replicas": 5}}));
    assert_eq!(plane.value(scale).await.unwrap()["spec"]["replicas"], 4);
    let sent = hooks.last();
    assert_eq!(sent["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!((&sent["subResource"], &sent["object"]["kind"]), (&json!("scale"), &json!("Scale")));
    assert_eq!(sent["oldObject"]["spec"]["replicas"], 1);
}
