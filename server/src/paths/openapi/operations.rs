//! The paths of a resource with their operations, for both versions of OpenAPI.

use super::super::catalogue::{Resource, Subresource};
use super::schemas::Names;
use crate::handlers::delete::returns_deleted;
use serde_json::{Map, Value, json};

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

const OBJECT_MEDIA: &[&str] = &["application/json", "application/yaml"];
const PATCH_MEDIA: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// Custom kinds have no strategic merge.
const CUSTOM_PATCH_MEDIA: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// `api/v1` or `apis/apps/v1`.
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// How a document version writes parameters, bodies and answers.
pub(super) trait Dialect {
    /// A query parameter of a plain type.
    fn query(&self, name: &str, kind: &str, description: &str) -> Value;
    /// A path parameter.
    fn path(&self, name: &str, description: &str) -> Value;
    /// Puts the body into an operation: into its parameters or beside them.
    fn body(&self, operation: &mut Value, media: &[&str], schema: &str, required: bool);
    /// An answer; without a schema it is text.
    fn answer(&self, description: &str, schema: Option<&str>) -> Value;
}

/// A group version's place and its part of the operations' names.
pub(super) struct Place {
    root: String,
    /// `CoreV1`.
    word: String,
    /// `core_v1`.
    tag: String,
}

impl Place {
    pub(super) fn of(group: &str, version: &str) -> Self {
        let short = group.strip_suffix(".k8s.io").unwrap_or(group);
        let short = if short.is_empty() { "core" } else { short };
        let words: String = short.split(['.', '-']).map(capital).collect();
        let tag = words.get(..1).unwrap_or("").to_ascii_lowercase() + words.get(1..).unwrap_or("");
        Place {
            root: format!("/{}", root(group, version)),
            word: format!("{words}{}", capital(version)),
            tag: format!("{tag}_{version}"),
        }
    }
}

impl Place {
    /// `CoreV1`, or `Core` of a group alone.
    pub(super) fn word(&self) -> &str {
        &self.word
    }

    /// `core_v1`.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// `core`.
    pub(super) fn short(&self) -> &str {
        self.tag.split('_').next().unwrap_or("")
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Writes the paths of one resource.
pub(super) struct Writer<'a> {
    pub(super) dialect: &'a dyn Dialect,
    pub(super) place: &'a Place,
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) resource: &'a Resource,
    pub(super) names: &'a Names,
}

/// One operation: what it is called, takes and gives.
struct Operation<'a> {
    id: String,
    action: &'a str,
    kind: (&'a str, &'a str, &'a str),
    takes: Option<&'a str>,
    /// `None` for text.
    gives: Option<&'a str>,
}

impl Writer<'_> {
    /// Adds the resource's paths.
    pub(super) fn write(&self, paths: &mut Map<String, Value>) {
        let r = self.resource;
        let own = &self.names.own;
        let scope = if r.namespaced { "Namespaced" } else { "" };
        let all = format!("{}/{}", self.place.root, r.plural);
        let collection = match r.namespaced {
            true => format!("{}/namespaces/{{namespace}}/{}", self.place.root, r.plural),
            false => all.clone(),
        };
        let list = self.names.list.as_deref();
        if r.namespaced && r.verbs.contains(&"list") {
            let id = self.id("list", "", &format!("{}ForAllNamespaces", r.kind));
            let mut item = json!({"get": self.operation(&self.plain(id, "list", None, list))});
            item["parameters"] = Value::Array(self.common(false, false));
            paths.insert(all, item);
        }
        let mut item = Map::new();
        let mut put = |verb: &str, method: &str, operation: Operation<'_>| {
            if r.verbs.contains(&verb) {
                item.insert(method.to_owned(), self.operation(&operation));
            }
        };
        let name = format!("{scope}{}", r.kind);
        put("list", "get", self.plain(self.id("list", "", &name), "list", None, list));
        put("create", "post", self.plain(self.id("create", "", &name), "post", Some(own), Some(own)));
        let id = self.id("delete", "Collection", &name);
        put(
            "deletecollection",
            "delete",
            self.plain(id, "deletecollection", Some(DELETE_OPTIONS), Some(STATUS)),
        );
        self.finish(paths, &collection, item, false);
        let mut item = Map::new();
        let returned = r.stored.as_ref().is_some_and(|kind| returns_deleted(kind));
        let deleted = if returned { own.as_str() } else { STATUS };
        for (verb, method, word, takes, gives) in [
            ("get", "get", "read", None, own.as_str()),
            ("update", "put", "replace", Some(own.as_str()), own.as_str()),
            ("patch", "patch", "patch", Some(PATCH), own.as_str()),
            ("delete", "delete", "delete", Some(DELETE_OPTIONS), deleted),
        ] {
            if r.verbs.contains(&verb) {
                let operation = self.plain(self.id(word, "", &name), method, takes, Some(gives));
                item.insert(method.to_owned(), self.operation(&operation));
            }
        }
        let object = format!("{collection}/{{name}}");
        self.finish(paths, &object, item, true);
        if r.verbs.contains(&"watch") {
            self.watches(paths, &name);
        }
        for (sub, schema) in r.subresources.iter().zip(&self.names.below) {
            if sub.name == "proxy" {
                self.proxies(paths, sub, &object, &name);
                continue;
            }
            let item = self.below(sub, schema.as_deref(), &name);
            self.finish(paths, &format!("{object}/{}", sub.name), item, true);
        }
    }

    /// The paths that watched before `watch` was a parameter; clients made of the document still have them.
    fn watches(&self, paths: &mut Map<String, Value>, name: &str) {
        let r = self.resource;
        let root = format!("{}/watch", self.place.root);
        let mut put = |path: String, tail: String, action: &str, named: bool, namespaced: bool| {
            let plain = self.plain(self.id("watch", "", &tail), action, None, Some(WATCH_EVENT));
            let mut parameters = self.common(namespaced, named);
            parameters.extend(self.parameters("list"));
            let mut operation = self.operation(&plain);
            operation["description"] = json!("Deprecated: use the `watch` parameter of a list.");
            paths.insert(path, json!({"get": operation, "parameters": parameters}));
        };
        let collection = if r.namespaced { "/namespaces/{namespace}" } else { "" };
        if r.namespaced {
            put(
                format!("{root}/{}", r.plural),
                format!("{}ListForAllNamespaces", r.kind),
                "watchlist",
                false,
                false,
            );
        }
        let path = format!("{root}{collection}/{}", r.plural);
        put(path.clone(), format!("{name}List"), "watchlist", false, r.namespaced);
        put(format!("{path}/{{name}}"), name.to_owned(), "watch", true, r.namespaced);
    }

    /// The operations of a subresource; one whose kind has no schema (`exec`) is a connection.
    fn below(&self, sub: &Subresource, schema: Option<&str>, name: &str) -> Map<String, Value> {
        let mut item = Map::new();
        let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
        let tail = format!("{name}{}", capital(&sub.name));
        for verb in &sub.verbs {
            let (method, word, takes) = match *verb {
                "create" => ("post", "create", schema),
                "update" => ("put", "replace", schema),
                "patch" => ("patch", "patch", Some(PATCH)),
                _ => ("get", "read", None),
            };
            let text = sub.name == "log";
            let operation = match schema {
                None => {
                    let id = self.id("connect", &capital(method), &tail);
                    Operation { id, action: "connect", kind, takes: None, gives: None }
                }
                Some(schema) => {
                    let gives = (!text).then_some(schema);
                    Operation { id: self.id(word, "", &tail), action: method, kind, takes, gives }
                }
            };
            let mut operation = self.operation(&operation);
            let options = connect_parameters(&sub.kind, text).iter();
            let options =
                options.map(|(name, kind)| self.dialect.query(name, kind, "As the kind of this name says."));
            if let Some(all) = operation["parameters"].as_array_mut() {
                all.extend(options);
            }
            item.insert(method.to_owned(), operation);
        }
        item
    }

    /// A proxy takes every method, with and without a path below it.
    fn proxies(&self, paths: &mut Map<String, Value>, sub: &Subresource, object: &str, name: &str) {
        let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
        for (path, tail) in [("", ""), ("/{path}", "WithPath")] {
            let mut item = Map::new();
            for method in ["delete", "get", "head", "options", "patch", "post", "put"] {
                let id = self.id("connect", &capital(method), &format!("{name}Proxy{tail}"));
                let mut operation =
                    self.operation(&Operation { id, action: "connect", kind, takes: None, gives: None });
                operation["parameters"] =
                    json!([self.dialect.query("path", "string", "The path to ask for.")]);
                item.insert(method.to_owned(), operation);
            }
            let mut common = self.common(self.resource.namespaced, true);
            common.pop();
            if !path.is_empty() {
                common.push(self.dialect.path("path", "path to the resource"));
            }
            item.insert("parameters".to_owned(), Value::Array(common));
            paths.insert(format!("{object}/proxy{path}"), Value::Object(item));
        }
    }

    fn finish(&self, paths: &mut Map<String, Value>, path: &str, mut item: Map<String, Value>, named: bool) {
        if !item.is_empty() {
            let mut common = self.common(self.resource.namespaced, named);
            if item.values().all(|operation| operation["x-kubernetes-action"] == "connect") {
                // What a connection gives is nobody's to indent.
                common.pop();
            }
            item.insert("parameters".to_owned(), Value::Array(common));
            paths.insert(path.to_owned(), Value::Object(item));
        }
    }

    /// The parameters of all operations of a path.
    fn common(&self, namespaced: bool, named: bool) -> Vec<Value> {
        let mut common = Vec::with_capacity(3);
        if named {
            common.push(self.dialect.path("name", &format!("name of the {}", self.resource.kind)));
        }
        if namespaced {
            common.push(self.dialect.path("namespace", "the namespace that the object is in"));
        }
        common.push(self.dialect.query("pretty", "string", "`true` asks for indented output."));
        common
    }

    fn id(&self, verb: &str, infix: &str, rest: &str) -> String {
        format!("{verb}{}{infix}{rest}", self.place.word)
    }

    fn plain<'a>(
        &'a self,
        id: String,
        action: &'a str,
        takes: Option<&'a str>,
        gives: Option<&'a str>,
    ) -> Operation<'a> {
        Operation { id, action, kind: (self.group, self.version, &self.resource.kind), takes, gives }
    }

    fn operation(&self, o: &Operation<'_>) -> Value {
        let (group, version, kind) = o.kind;
        let mut operation = json!({
            "operationId": o.id,
            "tags": [self.place.tag],
            "parameters": self.parameters(o.action),
            "responses": {"200": self.dialect.answer("OK", o.gives)},
            "x-kubernetes-action": o.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        if matches!(o.action, "post" | "put" | "patch") {
            operation["responses"]["201"] = self.dialect.answer("Created", o.gives);
        }
        if matches!(o.action, "post" | "delete") {
            operation["responses"]["202"] = self.dialect.answer("Accepted", o.gives);
        }
        operation["responses"]["401"] = json!({"description": "Unauthorized"});
        if let Some(takes) = o.takes {
            let custom = self.resource.custom();
            let media = match o.action {
                "patch" if custom => CUSTOM_PATCH_MEDIA,
                "patch" => PATCH_MEDIA,
                _ => OBJECT_MEDIA,
            };
            self.dialect.body(&mut operation, media, takes, takes != DELETE_OPTIONS);
        }
        operation
    }

    fn parameters(&self, action: &str) -> Vec<Value> {
        let mut all: Vec<(&str, &str, &str)> = Vec::new();
        if matches!(action, "list" | "deletecollection") {
            all.extend(LIST);
        }
        if matches!(action, "delete" | "deletecollection") {
            all.extend(DELETE);
        }
        if action == "list" {
            all.extend(WATCH);
        }
        if matches!(action, "post" | "put" | "patch" | "delete" | "deletecollection") {
            all.push(("dryRun", "string", "`All` goes through every step but the write."));
        }
        if matches!(action, "post" | "put" | "patch") {
            all.push(("fieldManager", "string", "Who makes the change."));
            all.push((
                "fieldValidation",
                "string",
                "What happens to unknown and repeated fields: `Ignore`, `Warn` or `Strict`.",
            ));
        }
        if action == "patch" {
            all.push(("force", "boolean", "Takes over the fields of other managers in an apply."));
        }
        all.into_iter().map(|(name, kind, why)| self.dialect.query(name, kind, why)).collect()
    }
}

/// The options of a connection, which are its query.
fn connect_parameters(kind: &str, log: bool) -> &'static [(&'static str, &'static str)] {
    const EXEC: [(&str, &str); 6] = [
        ("command", "string"),
        ("container", "string"),
        ("stderr", "boolean"),
        ("stdin", "boolean"),
        ("stdout", "boolean"),
        ("tty", "boolean"),
    ];
    match kind {
        _ if log => &[
            ("container", "string"),
            ("follow", "boolean"),
            ("insecureSkipTLSVerifyBackend", "boolean"),
            ("limitBytes", "integer"),
            ("previous", "boolean"),
            ("sinceSeconds", "integer"),
            ("stream", "string"),
            ("tailLines", "integer"),
            ("timestamps", "boolean"),
        ],
        "PodExecOptions" => &EXEC,
        "PodAttachOptions" => &EXEC[1..],
        "PodPortForwardOptions" => &[("ports", "integer")],
        _ => &[],
    }
}

const LIST: [(&str, &str, &str); 9] = [
    ("continue", "string", "The token that came with the page before."),
    ("fieldSelector", "string", "Selects objects by their fields."),
    ("labelSelector", "string", "Selects objects by their labels."),
    ("limit", "integer", "How many objects a page has at most."),
    ("resourceVersion", "string", "The version from which, or at which, to read."),
    ("resourceVersionMatch", "string", "How the version is meant: `Exact` or `NotOlderThan`."),
    (
        "shardSelector",
        "string",
        "Selects a share of the objects; not served, as by an upstream without that gate.",
    ),
    ("sendInitialEvents", "boolean", "Begins a watch with the present objects, and marks where they end."),
    ("timeoutSeconds", "integer", "Ends the call after this time."),
];
const WATCH: [(&str, &str, &str); 2] = [
    ("allowWatchBookmarks", "boolean", "Lets the watch tell versions without objects."),
    ("watch", "boolean", "Follows the collection."),
];
const DELETE: [(&str, &str, &str); 4] = [
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object that can't be read any more; not served, as by an upstream without that gate.",
    ),
    ("orphanDependents", "boolean", "Replaced by `propagationPolicy`."),
    ("propagationPolicy", "string", "What happens to dependents: `Orphan`, `Background` or `Foreground`."),
];
