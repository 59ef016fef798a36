//! Which resources the server has, from its own discovery: also those that came after this program was built.

use kubewright_core::{ApiError, ApiRequest, GroupVersionResource, ResponseBody, Target, Verb};
use kubewright_reconcile::client::Client;
use serde_json::Value;
use std::collections::BTreeSet;

/// A resource that can be listed and deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovered {
    pub(crate) resource: GroupVersionResource,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    /// Whether it can be watched.
    pub(crate) watched: bool,
}

/// What discovery tells.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) found: Vec<Discovered>,
    /// The groups that could not be read: those of API servers that don't answer now. Their resources are not gone.
    pub(crate) failed: Vec<(String, ApiError)>,
}

impl Discovery {
    /// Whether a group could not be read.
    pub(crate) fn lacks(&self, group: &str) -> bool {
        self.failed.iter().any(|(failed, _)| failed == group)
    }
}

/// Every resource with the verbs `list` and `delete`, each group in its preferred version only.
///
/// # Errors
/// The server's, about its own groups; one that another server answers for may be missing.
pub(crate) async fn discover(client: &Client) -> Result<Discovery, ApiError> {
    let mut found = resources(&document(client, "/api/v1").await?, "", "v1");
    let mut failed = Vec::new();
    let groups = document(client, "/apis").await?;
    let mut kinds = BTreeSet::new();
    for group in list(&groups["groups"]) {
        let name = group["name"].as_str().unwrap_or("");
        let preferred = group["preferredVersion"]["version"].as_str().unwrap_or("");
        let others = list(&group["versions"]).iter().filter_map(|v| v["version"].as_str());
        for version in std::iter::once(preferred).chain(others.filter(|v| *v != preferred)) {
            let all = match document(client, &format!("/apis/{name}/{version}")).await {
                Ok(document) => resources(&document, name, version),
                // It went in between.
                Err(e) if e.is_not_found() => continue,
                Err(e) => {
                    failed.push((name.to_owned(), e));
                    continue;
                }
            };
            // A resource that only an older version serves counts too.
            found.extend(
                all.into_iter().filter(|d| kinds.insert((name.to_owned(), d.resource.resource.clone()))),
            );
        }
    }
    Ok(Discovery { found, failed })
}

/// The resource of a kind in one version of its group; `None` where there is none.
///
/// # Errors
/// The server's.
pub(crate) async fn resource_of(
    client: &Client,
    api_version: &str,
    kind: &str,
) -> Result<Option<GroupVersionResource>, ApiError> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let document = match document(client, &path).await {
        Err(e) if e.is_not_found() => return Ok(None),
        other => other?,
    };
    let found = resources(&document, group, version).into_iter().find(|d| d.kind == kind);
    Ok(found.map(|d| d.resource))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn resources(document: &Value, group: &str, version: &str) -> Vec<Discovered> {
    let can = |resource: &Value, verb: &str| list(&resource["verbs"]).iter().any(|v| v == verb);
    let of = |resource: &Value| -> Option<Discovered> {
        let name = resource["name"].as_str().filter(|name| !name.contains('/'))?;
        (can(resource, "list") && can(resource, "delete")).then(|| Discovered {
            resource: GroupVersionResource::new(group, version, name),
            kind: resource["kind"].as_str().unwrap_or("").to_owned(),
            namespaced: resource["namespaced"].as_bool().unwrap_or(false),
            watched: can(resource, "watch"),
        })
    };
    list(&document["resources"]).iter().filter_map(of).collect()
}

async fn document(client: &Client, path: &str) -> Result<Value, ApiError> {
    let request = ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
    match client.send(request).await?.body {
        ResponseBody::Value(value) => Ok(value),
        ResponseBody::Raw { bytes, .. } => serde_json::from_slice(&bytes).map_err(ApiError::internal),
        other => Err(ApiError::internal(format!("a document was expected at {path}, not {other:?}"))),
    }
}
