//! The paths of a kind with their operations, for both versions of OpenAPI.

use crate::subresources;
use kubewright_core::KindDescriptor;
use serde_json::{Map, Value, json};

/// `api/v1` or `apis/apps/v1`.
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// How a document version writes schemas: references, bodies and answers.
pub(super) trait Dialect {
    /// A query parameter of a plain type.
    fn query(&self, name: &str, kind: &str, description: &str) -> Value;
    /// A path parameter.
    fn path(&self, name: &str) -> Value;
    /// Adds the body to an operation.
    fn body(&self, operation: &mut Value, media: &[&str], schema: &str);
    /// The answers of an operation.
    fn answers(&self, schema: &str) -> Value;
}

fn gvk(kind: &KindDescriptor) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// Adds a kind's paths. `schema` and `list` are the names of its schemas.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    dialect: &dyn Dialect,
    kind: &KindDescriptor,
    schema: &str,
    list: &str,
) {
    let root = format!("/{}", root(&kind.group, &kind.version));
    let collection = if kind.namespaced() {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let mut common = vec![dialect.query("pretty", "string", "Asks for indented output.")];
    if kind.namespaced() {
        let all = json!({"get": operation(dialect, kind, "list", list, "ForAllNamespaces")});
        paths.insert(format!("{root}/{}", kind.plural), all);
        common.push(dialect.path("namespace"));
    }
    let mut item = json!({
        "get": operation(dialect, kind, "list", list, ""),
        "post": operation(dialect, kind, "post", schema, ""),
        "delete": operation(dialect, kind, "deletecollection", schema, ""),
    });
    item["parameters"] = json!(common);
    paths.insert(collection.clone(), item);
    common.push(dialect.path("name"));
    let mut item = json!({
        "get": operation(dialect, kind, "get", schema, ""),
        "put": operation(dialect, kind, "put", schema, ""),
        "patch": operation(dialect, kind, "patch", schema, ""),
        "delete": operation(dialect, kind, "delete", schema, ""),
    });
    item["parameters"] = json!(common);
    paths.insert(format!("{collection}/{{name}}"), item);
    for sub in subresources::of(kind).iter().filter(|s| s.name == "status") {
        let mut item = json!({
            "get": operation(dialect, kind, "get", schema, "Status"),
            "put": operation(dialect, kind, "put", schema, "Status"),
            "patch": operation(dialect, kind, "patch", schema, "Status"),
        });
        item["parameters"] = json!(common);
        paths.insert(format!("{collection}/{{name}}/{}", sub.name), item);
    }
}

fn operation(dialect: &dyn Dialect, kind: &KindDescriptor, action: &str, schema: &str, what: &str) -> Value {
    let verb = match action {
        "get" => "read",
        "post" => "create",
        "put" => "replace",
        "deletecollection" => "deleteCollection",
        other => other,
    };
    let scope = if kind.namespaced() && what != "ForAllNamespaces" { "Namespaced" } else { "" };
    let version = kind.api_version().replace(['/', '.', '-'], "_");
    let mut operation = json!({
        "operationId": format!("{verb}_{version}_{scope}{}{what}", kind.kind),
        "responses": dialect.answers(schema),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind),
    });
    let mut parameters = Vec::new();
    if matches!(action, "post" | "put" | "patch") {
        let text = |name: &str, why: &str| dialect.query(name, "string", why);
        parameters.push(text("dryRun", "`All` goes through every step but the write."));
        parameters.push(text("fieldManager", "Who makes the change."));
        parameters.push(text(
            "fieldValidation",
            "What happens to unknown and repeated fields: `Ignore`, `Warn` or `Strict`.",
        ));
        let media: &[&str] = match (action, kind.origin) {
            ("patch", kubewright_core::resource::Origin::BuiltIn) => &[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ],
            ("patch", _) => &["application/json-patch+json", "application/merge-patch+json"],
            _ => &["application/json"],
        };
        let body = if action == "patch" { "io.k8s.apimachinery.pkg.apis.meta.v1.Patch" } else { schema };
        dialect.body(&mut operation, media, body);
    }
    if action == "list" {
        for name in ["continue", "fieldSelector", "labelSelector", "resourceVersion"] {
            parameters.push(dialect.query(name, "string", "As for every list."));
        }
        parameters.push(dialect.query("limit", "integer", "How many items a page has."));
        parameters.push(dialect.query("watch", "boolean", "Follows the collection."));
    }
    let own = operation["parameters"].as_array().cloned().unwrap_or_default();
    parameters.extend(own);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    operation
}
