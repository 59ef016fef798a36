//! Manifests: read, applied, and waited for.

use kubewright::client::{Api, Client};
use kubewright::core::api::{self, BuiltinOptions};
use kubewright::core::{ContentType, GroupVersionResource, Registry};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Reads all documents of the files; `-` is the standard input.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for file in files {
        let told = |why: String| format!("{}: {why}", file.display());
        let text = if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| told(e.to_string()))?;
            text
        } else {
            std::fs::read_to_string(file).map_err(|e| told(e.to_string()))?
        };
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| told(e.to_string()))?;
        for document in documents.into_iter().filter(|d| !d.is_null()) {
            match document.get("items").and_then(Value::as_array) {
                Some(items) if document["kind"].as_str().is_some_and(|k| k.ends_with("List")) => {
                    objects.extend(items.iter().cloned());
                }
                _ => objects.push(document),
            }
        }
    }
    for object in &objects {
        if object["kind"].as_str().is_none() || object["apiVersion"].as_str().is_none() {
            return Err(format!("a document has no apiVersion or kind: {}", short(object)));
        }
        if object["metadata"]["name"].as_str().is_none() {
            return Err(format!("a {} has no metadata.name", object["kind"].as_str().unwrap_or("")));
        }
    }
    Ok(objects)
}

fn short(object: &Value) -> String {
    object.to_string().chars().take(80).collect()
}

/// How people name an object.
fn named(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The client of an object's kind, built in or by a CustomResourceDefinition.
async fn api(client: &Client, object: &Value) -> Result<Api<Value>, String> {
    let (api_version, kind) =
        (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut registry = Registry::new();
    for kind in api::builtin(&BuiltinOptions::default()) {
        let _ = registry.insert(kind);
    }
    let (resource, namespaced) = match registry.by_kind(group, version, kind) {
        Some(known) => (known.resource(), known.namespaced()),
        None => custom(client, group, version, kind).await?,
    };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    Ok(Api::dynamic(client.clone(), resource, kind, namespaced.then_some(namespace)))
}

async fn custom(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<(GroupVersionResource, bool), String> {
    let definitions = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let definitions = Api::dynamic(client.clone(), definitions, "CustomResourceDefinition", None);
    let list = definitions.list(Default::default()).await.map_err(|e| e.to_string())?;
    let found = list
        .items
        .iter()
        .map(|d| &d["spec"])
        .find(|spec| spec["group"] == group && spec["names"]["kind"] == kind);
    let spec = found.ok_or_else(|| format!("no kind {kind} is served in {group}/{version}"))?;
    let plural = spec["names"]["plural"].as_str().unwrap_or("");
    Ok((GroupVersionResource::new(group, version, plural), spec["scope"] == "Namespaced"))
}

/// Creates an object, or merges it into the one that exists.
pub(crate) async fn apply(client: &Client, object: &Value) -> Result<(), String> {
    let told = |e: kubewright::core::ApiError| format!("{}: {e}", named(object));
    let start = Instant::now();
    loop {
        let api = api(client, object).await?;
        match api.create(object).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_already_exists() => {
                let name = object["metadata"]["name"].as_str().unwrap_or("");
                let patched = api.patch(name, ContentType::MergePatch, object.clone()).await;
                return patched.map(drop).map_err(told);
            }
            // A new cluster makes its service accounts, and serves new definitions, within moments.
            Err(e) if start.elapsed() < Duration::from_secs(10) && is_early(&e) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => return Err(told(e)),
        }
    }
}

fn is_early(e: &kubewright::core::ApiError) -> bool {
    e.message().contains("serviceaccount") || e.message().contains("could not find the requested resource")
}

/// Waits until every object is ready; the error says what is not, and why.
pub(crate) async fn until_ready(client: &Client, objects: &[Value], limit: Duration) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let mut waiting = Vec::new();
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap_or("");
            let now =
                api(client, object).await?.get(name).await.map_err(|e| format!("{}: {e}", named(object)))?;
            if let Some(why) = unready(&now) {
                waiting.push(format!("  {}: {why}", named(object)));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(waiting.join("\n") + &pods(client).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Why an object is not ready yet.
fn unready(object: &Value) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    match object["kind"].as_str().unwrap_or("") {
        "Deployment" | "ReplicaSet" => {
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let ready = status["readyReplicas"].as_i64().unwrap_or(0);
            let seen = status["observedGeneration"] == object["metadata"]["generation"];
            let updated =
                object["kind"] != "Deployment" || status["updatedReplicas"].as_i64().unwrap_or(0) == wanted;
            (ready < wanted || !seen || !updated).then(|| format!("{ready} of {wanted} pods are ready"))
        }
        "Pod" => {
            let phase = status["phase"].as_str().unwrap_or("");
            let ready = condition(status, "Ready") == Some("True");
            (phase != "Succeeded" && !ready).then(|| format!("it is {phase}: {}", reasons(status)))
        }
        "CustomResourceDefinition" => {
            (condition(status, "Established") != Some("True")).then(|| "not established".to_owned())
        }
        _ => None,
    }
}

fn condition<'a>(status: &'a Value, name: &str) -> Option<&'a str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == name)?["status"].as_str()
}

/// What the containers and conditions of a pod complain of.
fn reasons(status: &Value) -> String {
    let containers = ["initContainerStatuses", "containerStatuses"].map(|k| status[k].as_array().cloned());
    let waiting = containers.into_iter().flatten().flatten().filter_map(|c| {
        let (waiting, ended) = (&c["state"]["waiting"], &c["state"]["terminated"]);
        let state = if waiting.is_null() { ended } else { waiting };
        Some(format!("{} {}", state["reason"].as_str()?, state["message"].as_str().unwrap_or("")))
    });
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let unmet = conditions
        .iter()
        .filter(|c| c["status"] == "False")
        .filter_map(|c| c["message"].as_str().map(str::to_owned));
    waiting.chain(unmet).collect::<Vec<_>>().join("; ")
}

async fn pods(client: &Client) -> String {
    let pods = Api::dynamic(client.clone(), GroupVersionResource::new("", "v1", "pods"), "Pod", None);
    let Ok(list) = pods.list(Default::default()).await else { return String::new() };
    list.items.iter().filter_map(|p| Some(format!("\n  {}: {}", named(p), unready(p)?))).collect()
}
