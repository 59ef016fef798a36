//! The life that objects of every kind lead: made, read, listed, watched, patched, updated, applied, given a status, deleted one by one
//! and by label.

use super::kinds::{Kind, kinds};
use super::site::{APPLY, JSON_PATCH, MERGE, STRATEGIC, Site, Watch, in_process, over_tls};
use futures::FutureExt;
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;

/// One kind on one server.
struct Life<'a> {
    site: &'a Site,
    kind: &'a Kind,
    namespace: &'a str,
    /// Where the objects are.
    path: String,
    /// The name of the kind.
    called: String,
}

impl Life<'_> {
    fn object(&self, n: usize, labels: Value) -> Value {
        let mut object = (self.kind.body)(self.namespace, n);
        object["metadata"] = json!({"name": (self.kind.name)(n), "labels": labels});
        object
    }

    fn at(&self, n: usize) -> String {
        format!("{}/{}", self.path, (self.kind.name)(n))
    }

    /// Every namespace's objects.
    fn everywhere(&self) -> String {
        format!("{}/{}", self.kind.version_path(), self.kind.plural())
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let list = self.site.get(path).await.ok();
        assert_eq!(list["kind"], format!("{}List", self.called));
        assert!(list["metadata"]["resourceVersion"].as_str().is_some_and(|v| v.parse::<u64>().is_ok()));
        let items = list["items"].as_array().expect("a list, never null");
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The documents of discovery know the kind, with all its verbs.
    async fn discovery(&self) {
        let group = self.kind.group();
        if group != "v1" {
            let groups = self.site.get("/apis").await.ok();
            let found = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == group);
            let version = self.kind.at.rsplit_once('/').unwrap().0;
            let has =
                |g: &Value| g["versions"].as_array().unwrap().iter().any(|v| v["groupVersion"] == version);
            assert!(found.is_some_and(has), "{group} in /apis");
            assert!(has(&self.site.get(&format!("/apis/{group}")).await.ok()));
        }
        let list = self.site.get(&self.kind.version_path()).await.ok();
        let find =
            |name: &str| list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
        let found = find(self.kind.plural()).expect("the resource");
        assert_eq!((&found["namespaced"], &found["kind"]), (&json!(!self.kind.cluster), &json!(self.called)));
        let verbs =
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        assert_eq!(found["verbs"], verbs);
        assert!(found["storageVersionHash"].is_string() || self.kind.plural() == "events", "{found}");
        let status = find(&format!("{}/status", self.kind.plural()));
        let claims = self.kind.plural() == "resourceclaims";
        assert_eq!(status.is_some(), self.kind.status.is_some() || claims, "the status in {list}");
        if let Some(status) = status {
            assert_eq!(status["verbs"], json!(["get", "patch", "update"]));
        }
    }

    /// Makes the first object, and fails to make it again.
    async fn made(&self) -> Value {
        let wanted = self.object(0, json!({"life": "first"}));
        let got = self.site.post(&format!("{}?fieldManager=maker", self.path), &wanted).await;
        let warnings = got.warnings();
        match self.kind.warns {
            "" => assert!(warnings.is_empty(), "{warnings:?}"),
            words => assert_eq!(warnings, [format!("299 - \"{words}\"")]),
        }
        assert_eq!(got.code, 201, "{}", got.text);
        let made = got.ok();
        let meta = &made["metadata"];
        assert_eq!(
            (&made["kind"], meta["name"].as_str()),
            (&json!(self.called), wanted["metadata"]["name"].as_str())
        );
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            assert!(meta[field].is_string(), "{field} in {meta}");
        }
        assert_eq!(meta["namespace"].as_str(), (!self.kind.cluster).then_some(self.namespace));
        let manager = &meta["managedFields"][0];
        assert_eq!((&manager["manager"], &manager["operation"]), (&json!("maker"), &json!("Update")));
        assert_eq!(manager["apiVersion"], made["apiVersion"]);
        assert!(manager["fieldsV1"]["f:metadata"]["f:labels"]["f:life"].is_object(), "{manager}");

        let again = self.site.post(&self.path, &wanted).await.refused(409, "AlreadyExists");
        assert_eq!(
            (&again["details"]["name"], &again["details"]["kind"]),
            (&meta["name"], &json!(self.kind.plural()))
        );
        let mut got = self.site.get(&self.at(0)).await.ok();
        if self.kind.restless {
            assert_eq!(got["spec"], made["spec"]);
        } else {
            assert_eq!(got.take(), made);
        }
        made
    }

    /// Finds it by its label, here and everywhere, and nothing by another.
    async fn listed(&self) {
        let name = (self.kind.name)(0);
        let wanted = std::slice::from_ref(&name);
        for path in [&self.path, &self.everywhere()] {
            assert_eq!(self.names(&format!("{path}?labelSelector=life%3Dfirst")).await, wanted, "{path}");
            assert_eq!(self.names(&format!("{path}?fieldSelector=metadata.name%3D{name}")).await, wanted);
            assert!(self.names(&format!("{path}?labelSelector=life%3Dnone")).await.is_empty());
        }
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
        let table =
            self.site.call("GET", &format!("{}?labelSelector=life", self.path), &table, "").await.ok();
        assert_eq!(table["kind"], "Table");
        assert_eq!(
            table["columnDefinitions"].as_array().unwrap().len(),
            table["rows"][0]["cells"].as_array().unwrap().len()
        );
        if self.kind.plural() != "events" {
            assert_eq!(
                (&table["columnDefinitions"][0]["name"], &table["rows"][0]["cells"][0]),
                (&json!("Name"), &json!(name))
            );
        }
        let partial = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
        let partial = self.site.call("GET", &self.at(0), &partial, "").await.ok();
        assert_eq!(
            (&partial["kind"], &partial["metadata"]["name"]),
            (&json!("PartialObjectMetadata"), &json!(name))
        );
        assert!(partial.get("spec").is_none() && partial.get("status").is_none());
    }

    /// The watch tells of a write, and of nothing else but what the server itself wrote before it.
    async fn told(&self, watch: &mut Watch, written: &Value) {
        let version = |o: &Value| o["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        loop {
            let (what, object) = watch.next().await;
            assert_eq!(what, format!("MODIFIED {}", (self.kind.name)(0)));
            if version(&object) == version(written) {
                assert_eq!(&object, written, "an event shows the object as the write did");
                return;
            }
            assert!(self.kind.restless && version(&object) < version(written), "{object}");
        }
    }

    /// Replaces what is at a path by a changed version of it; again where the server itself came between.
    async fn replace(&self, path: &str, change: impl Fn(&mut Value)) -> Value {
        for _ in 0..100 {
            let mut current = self.site.get(path).await.ok();
            change(&mut current);
            let got = self.site.put(path, &current).await;
            if !(self.kind.restless && got.code == 409) {
                return got.ok();
            }
        }
        panic!("the server never comes to rest");
    }

    /// Changes it by all patches, an update and an apply; each is seen by the watch.
    async fn changed(&self, watch: &mut Watch) {
        let (at, name) = (self.at(0), (self.kind.name)(0));
        let merge = json!({"metadata": {"annotations": {"merged": "yes"}}});
        let strategic = json!({"metadata": {"labels": {"patched": "yes"}}});
        let precise = json!([{"op": "add", "path": "/metadata/annotations/precise", "value": "yes"}]);
        for (how, patch) in [(MERGE, merge), (STRATEGIC, strategic), (JSON_PATCH, precise)] {
            let patched = self.site.patch(how, &at, &patch).await.ok();
            self.told(watch, &patched).await;
        }
        let stale = self.site.get(&at).await.ok();
        for annotation in ["merged", "precise"] {
            assert_eq!(stale["metadata"]["annotations"][annotation], "yes");
        }
        assert_eq!(stale["metadata"]["labels"]["patched"], "yes");

        let note = |o: &mut Value| o["metadata"]["annotations"]["updated"] = json!("yes");
        let mut wanted = stale.clone();
        note(&mut wanted);
        let dry = self.site.put(&format!("{at}?dryRun=All"), &wanted).await;
        if !self.kind.restless {
            assert_eq!(dry.ok()["metadata"]["annotations"]["updated"], "yes");
            assert_eq!(self.site.get(&at).await.ok(), stale, "a dry run leaves no trace");
        }
        let updated = self.replace(&at, note).await;
        assert_eq!(updated["metadata"]["annotations"]["updated"], "yes");
        assert_eq!(updated["metadata"]["uid"], stale["metadata"]["uid"]);
        self.told(watch, &updated).await;
        let conflict = self.site.put(&at, &stale).await;
        conflict.refused(409, "Conflict");
        let words =
            "the object has been modified; please apply your changes to the latest version and try again";
        conflict.says(409, words);
        let mut other = updated.clone();
        other["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
        self.site.put(&at, &other).await.refused(409, "Conflict");

        let applied = json!({"apiVersion": updated["apiVersion"], "kind": updated["kind"],
            "metadata": {"name": name, "annotations": {"applied": "yes"}}});
        let applied = self.site.patch(APPLY, &format!("{at}?fieldManager=applier"), &applied).await.ok();
        assert_eq!(applied["metadata"]["annotations"]["applied"], "yes");
        let managers = applied["metadata"]["managedFields"].as_array().unwrap();
        assert!(managers.iter().any(|m| m["manager"] == "applier" && m["operation"] == "Apply"));
        self.told(watch, &applied).await;
        let old = json!({"metadata": {"resourceVersion": "1"}});
        self.site.merge(&at, old).await.refused(409, "Conflict");
        self.site.merge(&format!("{}/none", self.path), json!({})).await.refused(404, "NotFound");
    }

    /// Writes its status in every way, which changes nothing but the status.
    async fn status(&self, watch: &mut Watch) {
        let Some(wanted) = &self.kind.status else { return };
        let at = format!("{}/status", self.at(0));
        let before = self.site.get(&at).await.ok();
        assert_eq!(before["spec"], self.site.get(&self.at(0)).await.ok()["spec"], "the whole object");
        let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": wanted});
        let patched = self.site.merge(&at, patch).await.ok();
        self.told(watch, &patched).await;
        let holds = |object: &Value, key: &str| {
            let (field, value) = wanted.as_object().unwrap().iter().next_back().unwrap();
            assert_eq!(strip(&object["status"][field], value), *value, "{field}");
            if let Some(annotates) = self.kind.annotates {
                assert_eq!(
                    object["metadata"]["annotations"][key] == "true",
                    annotates,
                    "{}",
                    object["metadata"]
                );
            }
        };
        holds(&patched, "patchedstatus");
        assert_eq!(patched["spec"], before["spec"]);
        let managers = patched["metadata"]["managedFields"].as_array().unwrap();
        assert!(managers.iter().any(|m| m["subresource"] == "status"), "{managers:?}");
        let (field, value) = wanted.as_object().unwrap().iter().next_back().unwrap();
        let updated = self
            .replace(&at, |o| {
                o["metadata"]["annotations"]["updatedstatus"] = json!("true");
                o["status"][field] = value.clone();
            })
            .await;
        holds(&updated, "updatedstatus");
        // A status that comes with the object itself is left out.
        let kept = self
            .replace(&self.at(0), |o| {
                o["metadata"]["annotations"]["last"] = json!("yes");
                o["status"] = json!({});
            })
            .await;
        assert!(kept["status"].as_object().is_some_and(|s| !s.is_empty()), "{kept}");
        if !self.kind.restless {
            assert_eq!(kept["status"], updated["status"]);
        }
        // Whether the update of the status was a change depends on the kind.
        loop {
            let (what, object) = watch.next().await;
            assert!(what.starts_with("MODIFIED"), "{what}");
            if object["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"] {
                break;
            }
        }
    }

    /// Takes away what somebody else than the server would take away.
    async fn let_go(&self, n: usize) {
        if self.kind.held.is_some() {
            let going = self.site.get(&self.at(n)).await.ok();
            assert!(going["metadata"]["deletionTimestamp"].is_string());
            assert_eq!(going["metadata"]["finalizers"], json!([self.kind.held]));
            let free = json!({"metadata": {"finalizers": null}});
            self.site.merge(&self.at(n), free).await.ok();
        }
    }

    async fn deleted(&self, watch: &mut Watch) {
        let at = self.at(0);
        let wrong = json!({"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}});
        let refused =
            self.site.call("DELETE", &at, &[("content-type", "application/json")], wrong.to_string()).await;
        refused.refused(409, "Conflict");
        let query = if self.kind.orphans { "?propagationPolicy=Background" } else { "" };
        self.site.delete(&format!("{at}{query}")).await.ok();
        self.let_go(0).await;
        let gone = loop {
            let (what, object) = watch.next().await;
            if what.starts_with("DELETED") {
                break object;
            }
            assert!(self.kind.held.is_some() || self.kind.restless, "{what}");
        };
        assert_eq!(gone["metadata"]["labels"]["life"], "first");
        let missing = self.site.get(&at).await.refused(404, "NotFound");
        let resource = if self.kind.group() == "v1" {
            self.kind.plural().to_owned()
        } else {
            format!("{}.{}", self.kind.plural(), self.kind.group())
        };
        assert_eq!(missing["message"], format!("{resource} \"{}\" not found", (self.kind.name)(0)));
        self.site.delete(&at).await.refused(404, "NotFound");
    }

    /// Deletes those with a label, and leaves the others.
    async fn collection(&self) {
        for n in 1..4 {
            self.site
                .make(&self.path, self.object(n, json!({"life": if n < 3 { "some" } else { "other" }})))
                .await;
        }
        assert_eq!(self.names(&format!("{}?labelSelector=life%3Dsome", self.path)).await.len(), 2);
        self.site
            .delete(&format!("{}?labelSelector=life%3Dsome&propagationPolicy=Background", self.path))
            .await
            .ok();
        self.let_go(1).await;
        self.let_go(2).await;
        self.emptied("some").await;
        assert_eq!(self.names(&format!("{}?labelSelector=life", self.path)).await, [(self.kind.name)(3)]);
        self.site
            .delete(&format!("{}?labelSelector=life%3Dother&propagationPolicy=Background", self.path))
            .await
            .ok();
        self.let_go(3).await;
        self.emptied("other").await;
    }

    /// Waits until none has the label; a definition goes when its objects have.
    async fn emptied(&self, label: &str) {
        for _ in 0..500 {
            if self.names(&format!("{}?labelSelector=life%3D{label}", self.path)).await.is_empty() {
                return;
            }
            assert!(self.kind.restless, "they go at once");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("they stay");
    }

    async fn live(&self) {
        self.discovery().await;
        self.made().await;
        self.listed().await;
        let list = self.site.get(&format!("{}?labelSelector=life%3Dfirst", self.path)).await.ok();
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch = self
            .site
            .watch(&format!("{}?labelSelector=life%3Dfirst&resourceVersion={version}", self.path))
            .await;
        self.changed(&mut watch).await;
        self.status(&mut watch).await;
        self.deleted(&mut watch).await;
        self.collection().await;
    }
}

/// What is there of a value that was written, without what defaults and clocks added to it.
fn strip(found: &Value, written: &Value) -> Value {
    match (found, written) {
        (Value::Object(found), Value::Object(written)) => written
            .iter()
            .map(|(k, v)| (k.clone(), found.get(k).map_or(Value::Null, |f| strip(f, v))))
            .collect(),
        (Value::Array(found), Value::Array(written)) => written
            .iter()
            .map(|w| found.iter().map(|f| strip(f, w)).find(|f| f == w).unwrap_or(Value::Null))
            .collect(),
        (found, _) => found.clone(),
    }
}

async fn every_kind(site: Site) {
    let namespace = "lives";
    let home = site.namespace(namespace).await;
    let mut failed = Vec::new();
    for kind in kinds() {
        let path = if kind.cluster {
            format!("{}/{}", kind.version_path(), kind.plural())
        } else {
            format!("{}{}/{}", kind.version_path(), home.strip_prefix("/api/v1").unwrap(), kind.plural())
        };
        let list = site.get(&path).await.ok();
        let called = list["kind"].as_str().unwrap().strip_suffix("List").unwrap().to_owned();
        let life = Life { site: &site, kind: &kind, namespace, path, called };
        if AssertUnwindSafe(life.live()).catch_unwind().await.is_err() {
            failed.push(kind.at);
        }
    }
    assert!(failed.is_empty(), "{failed:?} (each told above)");
}

#[tokio::test]
async fn every_kind_lives_in_process() {
    every_kind(in_process().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_lives_over_tls() {
    every_kind(over_tls().await).await;
}
