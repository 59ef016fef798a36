//! The discovery documents of the fake server.

use kubewright_core::{ApiError, GroupVersionResource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The document under a discovery path.
pub(super) fn document(
    path: &str,
    kinds: &[(GroupVersionResource, String, bool)],
) -> Result<Value, ApiError> {
    match path {
        "/api" => Ok(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Ok(groups(kinds)),
        _ => {
            let api_version = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"));
            let api_version = api_version.ok_or_else(ApiError::no_such_path)?;
            let of_version: Vec<Value> = kinds
                .iter()
                .filter(|(resource, ..)| resource.api_version() == api_version)
                .map(|(resource, kind, namespaced)| {
                    json!({
                        "name": resource.resource, "kind": kind, "namespaced": namespaced, "singularName": "",
                        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                    })
                })
                .collect();
            if of_version.is_empty() {
                return Err(ApiError::no_such_path());
            }
            Ok(json!({"kind": "APIResourceList", "groupVersion": api_version, "resources": of_version}))
        }
    }
}

fn groups(kinds: &[(GroupVersionResource, String, bool)]) -> Value {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (resource, ..) in kinds.iter().filter(|(r, ..)| !r.group.is_empty()) {
        let versions = groups.entry(&resource.group).or_default();
        if !versions.contains(&resource.version.as_str()) {
            versions.push(&resource.version);
        }
    }
    let version = |group: &str, v: &str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let groups: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let all: Vec<Value> = versions.iter().map(|v| version(group, v)).collect();
            json!({"name": group, "versions": all, "preferredVersion": all[0]})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}
