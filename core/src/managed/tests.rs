//! What writes and applies leave in `managedFields`, and what applies make of objects.

use super::*;
use crate::ApiError;
use serde_json::{Value, json};
use std::sync::Arc;

const NOW: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2026-01-02T04:00:00Z";

fn schema() -> Arc<Schema> {
    Schema::builtin("apps", "v1", "Deployment").unwrap()
}

struct World {
    schema: Arc<Schema>,
    live: Option<Value>,
}

impl World {
    fn new() -> Self {
        World { schema: schema(), live: None }
    }

    fn write<T>(&self, manager: &str, now: &str, run: impl FnOnce(&FieldWrite<'_>) -> T) -> T {
        let ignored = FieldSet::of(&["status"]);
        let (schema, api_version) = (&*self.schema, "apps/v1");
        run(&FieldWrite { schema, api_version, subresource: "", manager, now, ignored: &ignored })
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let mut new = self.live.clone().unwrap_or_else(
            || json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}),
        );
        change(&mut new);
        self.write(manager, NOW, |w| track(w, self.live.as_ref(), &mut new));
        new["metadata"]["uid"] = json!("u");
        self.live = Some(new);
    }

    fn apply(&mut self, manager: &str, spec: Value, force: bool) -> Result<(), ApiError> {
        self.apply_object(
            manager,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}),
            force,
        )
    }

    fn apply_object(&mut self, manager: &str, object: Value, force: bool) -> Result<(), ApiError> {
        let mut new = self.write(manager, LATER, |w| apply(w, self.live.as_ref(), &object, force))?;
        new["metadata"]["uid"] = json!("u");
        self.live = Some(new);
        Ok(())
    }

    fn spec(&self) -> &Value {
        &self.live.as_ref().unwrap()["spec"]
    }

    /// The fields of a manager; null where it has no entry.
    fn fields(&self, manager: &str) -> Value {
        let all =
            self.live.as_ref().unwrap()["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|m| m["manager"] == manager).map_or(Value::Null, |m| m["fieldsV1"].clone())
    }
}

fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image})
}

fn pods(containers: Value) -> Value {
    json!({"template": {"spec": {"containers": containers}}})
}

#[test]
fn a_create_is_told_as_upstream_tells_it() {
    let mut world = World::new();
    world.update("kubectl-create", |d| {
        d["metadata"]["labels"] = json!({"app": "web"});
        d["spec"] = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": ["a"]}],
                "securityContext": {}}}});
        d["status"] = json!({"replicas": 3});
    });
    let want = json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {}, "f:selector": {}, "f:strategy": {"f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:securityContext": {}, "f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {}, "f:args": {}, "f:ports": {
                    ".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}}}]);
    let mut got = world.live.unwrap()["metadata"]["managedFields"].clone();
    // The list of containers itself is new in this object: whether it is told as such depends on Go's zero values.
    got[0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"].as_object_mut().unwrap().remove(".");
    assert_eq!(got, want);
}

#[test]
fn updates_move_fields_to_their_writer() {
    let mut world = World::new();
    world.update("a", |d| d["spec"] = json!({"replicas": 1, "paused": true}));
    world.update("b", |d| d["spec"]["replicas"] = json!(2));
    assert_eq!(world.fields("a"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(world.fields("b"), json!({"f:spec": {"f:replicas": {}}}));
    world.update("b", |d| drop(d["spec"].as_object_mut().unwrap().remove("paused")));
    assert_eq!(world.fields("a"), Value::Null);
    let before = world.live.clone();
    world.update("c", |_| ());
    assert_eq!(world.live, before, "a write without changes leaves no trace");
}

#[test]
fn an_apply_merges_prunes_and_conflicts() {
    let mut world = World::new();
    let both = json!([container("a", "1"), container("b", "1")]);
    world.apply("one", pods(both), false).unwrap();
    world.apply("two", pods(json!([{"name": "a", "args": ["x"]}])), false).unwrap();
    assert_eq!(
        world.spec()["template"]["spec"]["containers"][0],
        json!({"name": "a", "image": "1", "args": ["x"]})
    );

    let conflict = world.apply("two", pods(json!([container("a", "2")])), false).unwrap_err();
    let path = ".spec.template.spec.containers[name=\"a\"].image";
    assert_eq!(conflict.message(), format!("Apply failed with 1 conflict: conflict with \"one\": {path}"));
    let cause = &conflict.status().details.as_ref().unwrap().causes.as_ref().unwrap()[0];
    assert_eq!(cause.reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!((conflict.code(), cause.field.as_deref()), (409, Some(path)));

    world.apply("two", pods(json!([container("a", "2")])), true).unwrap();
    assert_eq!(
        world.spec()["template"]["spec"]["containers"][0],
        json!({"name": "a", "image": "2"}),
        "args went"
    );
    assert!(world.fields("one").to_string().contains("f:image"), "of b");
    world.apply("one", pods(json!([container("b", "1")])), false).unwrap();
    let left = &world.spec()["template"]["spec"]["containers"];
    assert_eq!(left, &json!([container("a", "2"), container("b", "1")]), "a belongs to two");
    world.apply("two", json!({"replicas": 3}), false).unwrap();
    assert_eq!(world.spec()["template"]["spec"]["containers"], json!([container("b", "1")]));
}

#[test]
fn equal_values_are_shared_and_survive_one_owner() {
    let mut world = World::new();
    world.apply("one", json!({"replicas": 2, "paused": true}), false).unwrap();
    world.apply("two", json!({"replicas": 2}), false).unwrap();
    world.apply("one", json!({"paused": true}), false).unwrap();
    assert_eq!(world.spec()["replicas"], 2);
    world.apply("two", json!({}), false).unwrap();
    assert_eq!(world.spec(), &json!({"paused": true}));
}

#[test]
fn what_an_updater_set_stays_and_conflicts() {
    let mut world = World::new();
    world.update("edit", |d| d["spec"] = json!({"replicas": 4, "minReadySeconds": 1}));
    let conflict = world.apply("one", json!({"replicas": 2}), false).unwrap_err();
    assert!(
        conflict.message().contains("conflict with \"edit\" using apps/v1: .spec.replicas"),
        "{conflict}"
    );
    world.apply("one", json!({"replicas": 4}), false).unwrap();
    world.apply("one", json!({}), false).unwrap();
    assert_eq!(world.spec(), &json!({"replicas": 4, "minReadySeconds": 1}), "the updater owns it still");
}

#[test]
fn an_object_without_managers_gets_one_at_the_first_apply() {
    let mut world = World::new();
    world.live = Some(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "u"}, "spec": {"replicas": 1}}),
    );
    let conflict = world.apply("one", json!({"replicas": 2}), false).unwrap_err();
    assert!(conflict.message().contains("\"before-first-apply\" using apps/v1"), "{conflict}");
    world.apply("one", json!({"replicas": 2}), true).unwrap();
    assert_eq!(world.fields("before-first-apply"), Value::Null);
}

#[test]
fn kubectl_takes_over_from_its_client_side_self() {
    let mut world = World::new();
    let last = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1, "paused": true}});
    world.update("kubectl-client-side-apply", |d| {
        d["spec"] = json!({"replicas": 1, "paused": true});
        d["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
    });
    world.apply("kubectl", json!({"replicas": 3}), false).unwrap();
    assert_eq!(world.spec()["replicas"], 3);
    let noted =
        world.live.as_ref().unwrap()["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap().to_owned();
    assert!(noted.contains("\"replicas\":3") && !noted.contains("paused"), "{noted}");
    world.update("edit", |d| d["spec"]["replicas"] = json!(5));
    assert!(world.apply("kubectl", json!({"replicas": 6}), false).is_err(), "that is another's");
}

#[test]
fn sets_maps_and_atomic_lists() {
    let mut world = World::new();
    let object = |finalizers: Value, labels: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "finalizers": finalizers, "labels": labels}})
    };
    world.apply_object("one", object(json!(["x/a"]), json!({"l": "1"})), false).unwrap();
    world.apply_object("two", object(json!(["x/b", "x/a"]), json!({"m": "1"})), false).unwrap();
    world.apply_object("one", object(json!([]), json!({})), false).unwrap();
    let metadata = &world.live.as_ref().unwrap()["metadata"];
    assert_eq!(metadata["finalizers"], json!(["x/b", "x/a"]));
    assert_eq!(metadata["labels"], json!({"m": "1"}));
    let selector = |v: &str| json!({"selector": {"matchLabels": {"a": v}}});
    world.apply("one", selector("1"), false).unwrap();
    let conflict = world.apply("two", selector("2"), false).unwrap_err();
    assert!(conflict.message().ends_with(": .spec.selector"), "an atomic struct is one field: {conflict}");
}

#[test]
fn applied_items_keep_the_applied_order() {
    let order = |live: &[&str], applied: &[&str]| {
        let mut world = World::new();
        let list = |names: &[&str]| pods(names.iter().map(|n| container(n, "i")).collect());
        world.update("u", |d| d["spec"] = list(live));
        world.apply("one", list(applied), true).unwrap();
        let containers = world.spec()["template"]["spec"]["containers"].as_array().unwrap().clone();
        containers.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("")
    };
    let check = |live: &[&str], applied: &[&str], want: &str| {
        assert_eq!(order(live, applied), want, "{live:?} {applied:?}")
    };
    check(&["a", "b", "c"], &["c", "a"], "bca");
    check(&["a", "b"], &["x", "b"], "axb");
    check(&["a", "b", "c"], &["b", "x"], "abcx");
    check(&[], &["b", "a"], "ba");
}

#[test]
fn bad_entries_are_ignored_and_a_reset_forgets() {
    let mut world = World::new();
    world.update("a", |d| d["spec"] = json!({"replicas": 1}));
    world.update("b", |d| {
        d["metadata"]["managedFields"] =
            json!([{"manager": "x", "operation": "No", "apiVersion": "apps/v1"}]);
        d["spec"]["paused"] = json!(true);
    });
    assert_eq!(world.fields("a"), json!({"f:spec": {"f:replicas": {}}}));
    world.update("c", |d| {
        d["metadata"]["managedFields"] = json!([{}]);
        d["spec"]["paused"] = json!(false);
    });
    assert_eq!(world.live.as_ref().unwrap()["metadata"].get("managedFields"), None);
    let mut world = World::new();
    let refused = world.apply("one", pods(json!([{"image": "i"}])), false);
    assert!(refused.is_ok(), "upstream's schema gives `name` a default");
    let list = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w", "managedFields": []}});
    assert_eq!(world.apply_object("one", list, false).unwrap_err().code(), 400);
    let keyless = pods(json!([{"name": "a", "volumeMounts": [{"name": "v"}]}]));
    let error = world.apply("one", keyless, false).unwrap_err();
    assert!(error.message().contains("omits key field \"mountPath\""), "{error}");
}

#[test]
fn old_updaters_are_merged() {
    let mut world = World::new();
    for n in 0..12 {
        world.update(&format!("m{n:02}"), |d| d["metadata"]["labels"][format!("l{n}")] = json!("1"));
    }
    let live = world.live.as_ref().unwrap();
    let managers = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 10);
    assert!(world.fields("ancient-changes").to_string().contains("f:l2"));
}

#[test]
fn the_wire_form_is_read_and_written() {
    let check = |wire: Value| assert_eq!(FieldSet::from_wire(&wire).unwrap().to_wire(), wire);
    check(json!({"f:a": {}, "f:b": {".": {}, "v:1": {}, "k:{\"a\":1,\"b\":\"x\"}": {"f:c": {}}}, "i:3": {}}));
    let loose = FieldSet::from_wire(&json!({"k:{ \"b\": 1, \"a\": 2 }": {}})).unwrap();
    assert_eq!(loose.to_wire(), json!({"k:{\"a\":2,\"b\":1}": {}}));
    for bad in [json!([]), json!({"x:a": {}}), json!({"f:a": 1}), json!({"v:{": {}}), json!({"noprefix": {}})]
    {
        assert_eq!(FieldSet::from_wire(&bad), None, "{bad}");
    }
}
