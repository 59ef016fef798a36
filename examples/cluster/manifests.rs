//! Manifests: read whole, checked whole, then applied.

use kubewright::client::{Api, Client};
use kubewright::core::api::{self, BuiltinOptions};
use kubewright::core::{ApiError, ContentType, GroupVersionResource, Reason, Registry, Verb};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No manifest file may be longer; more is surely no manifest.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads all documents of the files; `-` is the standard input.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for file in files {
        let found = documents(file).map_err(|why| format!("{}: {why}", file.display()))?;
        objects.extend(found);
    }
    if objects.is_empty() && !files.is_empty() {
        return Err("the manifests hold no objects".to_owned());
    }
    // What others live in or are made of goes first; the rest keeps its order.
    objects.sort_by_key(|o| !matches!(o["kind"].as_str(), Some("CustomResourceDefinition" | "Namespace")));
    Ok(objects)
}

/// The objects of one file, those of its lists among them.
fn documents(file: &Path) -> Result<Vec<Value>, String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    if read.map_err(|e| e.to_string())? as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {} MiB", FILE_BYTES_MAX >> 20));
    }
    // The parser draws the place below its sentence; the sentence tells it already.
    let sentence = |e: String| e.lines().next().unwrap_or("").trim_start_matches("error: ").to_owned();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| sentence(e.to_string()))?;
    let mut objects = Vec::new();
    for document in documents.into_iter().filter(|d| !d.is_null()) {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if document["kind"].as_str().is_some_and(|k| k.ends_with("List")) => {
                objects.extend(items.iter().cloned());
            }
            _ => objects.push(document),
        }
    }
    objects.iter().try_for_each(has_a_name)?;
    Ok(objects)
}

fn has_a_name(object: &Value) -> Result<(), String> {
    if object["kind"].as_str().is_none() || object["apiVersion"].as_str().is_none() {
        let short: String = object.to_string().chars().take(80).collect();
        return Err(format!("a document has no apiVersion or kind: {short}"));
    }
    if object["metadata"]["name"].as_str().is_none() {
        return Err(format!("a {} has no metadata.name", object["kind"].as_str().unwrap_or("")));
    }
    Ok(())
}

/// How people name an object.
pub(crate) fn named(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The group, version and kind that an object says it has.
fn group_version_kind(object: &Value) -> (&str, &str, &str) {
    let (api_version, kind) =
        (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    (group, version, kind)
}

/// Whether a CustomResourceDefinition defines a kind.
fn defines(definition: &Value, group: &str, kind: &str) -> bool {
    let spec = &definition["spec"];
    definition["kind"] == "CustomResourceDefinition"
        && spec["group"] == group
        && spec["names"]["kind"] == kind
}

/// Where objects of a kind go, and how they are merged into those that exist.
struct Place {
    api: Api<Value>,
    patch: ContentType,
}

/// The cluster, seen by someone who applies manifests.
pub(crate) struct Target {
    client: Client,
    builtin: Registry,
}

impl Target {
    pub(crate) fn new(client: &Client) -> Self {
        let mut builtin = Registry::new();
        for kind in api::builtin(&BuiltinOptions::default()) {
            let _ = builtin.insert(kind);
        }
        Target { client: client.clone(), builtin }
    }

    /// The client of an object's kind, built in or by a CustomResourceDefinition; `None` where nothing serves it.
    async fn find(&self, object: &Value) -> Result<Option<Place>, String> {
        let (group, version, kind) = group_version_kind(object);
        let (patch, known) = match self.builtin.by_kind(group, version, kind) {
            // Lists of built-in kinds are merged by their keys, those of others are replaced.
            Some(known) => (ContentType::StrategicMergePatch, Some((known.resource(), known.namespaced()))),
            None => (ContentType::MergePatch, self.custom(group, version, kind).await?),
        };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        Ok(known.map(|(resource, namespaced)| {
            let namespace = namespaced.then_some(namespace);
            Place { api: Api::dynamic(self.client.clone(), resource, kind, namespace), patch }
        }))
    }

    async fn custom(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<(GroupVersionResource, bool)>, String> {
        let resource = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let definitions = Api::dynamic(self.client.clone(), resource, "CustomResourceDefinition", None);
        let list = definitions.list(Default::default()).await.map_err(|e| e.to_string())?;
        let found = list.items.iter().find(|d| defines(d, group, kind)).map(|d| &d["spec"]);
        Ok(found.map(|spec| {
            let plural = spec["names"]["plural"].as_str().unwrap_or("");
            (GroupVersionResource::new(group, version, plural), spec["scope"] == "Namespaced")
        }))
    }

    /// The object as it is now.
    pub(crate) async fn get(&self, object: &Value) -> Result<Value, String> {
        let name = object["metadata"]["name"].as_str().unwrap_or("");
        let found = self.place(object).await?.api.get(name).await;
        found.map(|now| (*now).clone()).map_err(|e| told(object, &e))
    }

    async fn place(&self, object: &Value) -> Result<Place, String> {
        let (group, version, kind) = group_version_kind(object);
        let found = self.find(object).await?;
        found.ok_or_else(|| match group {
            "" => format!("no kind {kind} is served in {version}"),
            _ => format!("no kind {kind} is served in {group}/{version}"),
        })
    }

    /// Looks at every object before the first is applied: its kind must be served, or defined by another one of them, and the server
    /// must find no fault with it. What only shows once the others are there (their namespaces, their definitions) is passed over.
    pub(crate) async fn check(&self, objects: &[Value]) -> Result<(), String> {
        let mut wrong = Vec::new();
        for object in objects {
            let (group, _, kind) = group_version_kind(object);
            if self.find(object).await?.is_none() && objects.iter().any(|d| defines(d, group, kind)) {
                continue;
            }
            let refused = match self.place(object).await {
                Ok(place) => {
                    send(&place, object, true).await.err().filter(is_wrong).map(|e| told(object, &e))
                }
                Err(why) => Some(format!("{}: {why}", named(object))),
            };
            wrong.extend(refused);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
    }

    /// Creates an object, or merges it into the one that exists.
    pub(crate) async fn apply(&self, object: &Value) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match send(&self.place(object).await?, object, false).await {
                Ok(()) => return Ok(()),
                // A new cluster makes its service accounts, and serves new definitions, within moments.
                Err(e) if start.elapsed() < Duration::from_secs(10) && is_early(&e) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => return Err(told(object, &e)),
            }
        }
    }
}

fn told(object: &Value, e: &ApiError) -> String {
    let text = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let named = named(object);
    // Most of the server's sentences name the object themselves.
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    if !name.is_empty() && text.contains(&format!("\"{name}\"")) { text } else { format!("{named}: {text}") }
}

/// Creates or merges, or only tries to. Fields that the kind does not have are refused.
async fn send(place: &Place, object: &Value, dry_run: bool) -> Result<(), ApiError> {
    let api = &place.api;
    let mut create = api.request(Verb::Create, None).body(ContentType::Json, object.clone());
    create.options.dry_run = dry_run;
    create.options.field_validation = Some("Strict".to_owned());
    match api.client().send(create).await {
        Err(e) if e.is_already_exists() => {
            let mut patch = api.request(Verb::Patch, object["metadata"]["name"].as_str());
            patch.options.dry_run = dry_run;
            patch.options.field_validation = Some("Strict".to_owned());
            api.client().send(patch.body(place.patch, object.clone())).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Whether the object itself is at fault, now and later.
fn is_wrong(e: &ApiError) -> bool {
    matches!(e.reason(), Reason::Invalid | Reason::BadRequest) && !is_early(e)
}

fn is_early(e: &ApiError) -> bool {
    e.message().contains("serviceaccount") || e.message().contains("could not find the requested resource")
}
