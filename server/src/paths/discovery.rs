//! Discovery in its first form: one document for the groups, one for each group version.

use super::catalogue::{Catalogue, Group, Resource, Subresource, storage_version_hash};
use kubewright_core::ApiError;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// `/`: where something is to be found.
pub(super) fn paths(catalogue: &Catalogue) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/healthz/etcd",
        "/healthz/ping",
        "/livez",
        "/livez/etcd",
        "/livez/ping",
        "/metrics",
        "/metrics/slis",
        "/openid/v1/jwks",
        "/readyz",
        "/readyz/etcd",
        "/readyz/informer-sync",
        "/readyz/ping",
        "/readyz/shutdown",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in &catalogue.groups {
        let root = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|v| format!("{root}/{}", v.name)));
        if !group.name.is_empty() {
            paths.push(root);
        }
    }
    paths.sort();
    json!({"paths": paths})
}

/// `/api`.
pub(super) fn core_versions(advertise: SocketAddr) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": advertise.to_string()}],
    })
}

/// `/apis`.
pub(super) fn groups(catalogue: &Catalogue) -> Value {
    let groups: Vec<Value> = catalogue.groups.iter().filter(|g| !g.name.is_empty()).map(about).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(catalogue: &Catalogue, name: &str) -> Result<Value, ApiError> {
    let group = catalogue.group(name).ok_or_else(ApiError::no_such_path)?;
    let mut document = about(group);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Ok(document)
}

fn about(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|v| json!({"groupVersion": group.group_version(&v.name), "version": v.name.as_str()}))
        .collect();
    json!({"name": group.name.as_str(), "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(super) fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Result<Value, ApiError> {
    let of_group = catalogue.group(group).ok_or_else(ApiError::no_such_path)?;
    let of_version = catalogue.version(group, version).ok_or_else(ApiError::no_such_path)?;
    let mut all = Vec::new();
    for r in &of_version.resources {
        all.push(resource(r));
        all.extend(r.subresources.iter().map(|s| subresource(r, s, group, version)));
    }
    let group_version = of_group.group_version(version);
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all}),
    )
}

fn resource(r: &Resource) -> Value {
    let mut entry = json!({
        "name": r.plural.as_str(),
        "singularName": r.singular.as_str(),
        "namespaced": r.namespaced,
        "kind": r.kind.as_str(),
        "verbs": r.verbs,
    });
    names(&mut entry, r);
    if let Some(kind) = &r.stored {
        entry["storageVersionHash"] = json!(storage_version_hash(kind));
    }
    entry
}

/// Puts in the short names and categories, where there are any.
pub(super) fn names(entry: &mut Value, r: &Resource) {
    let Some(kind) = &r.stored else { return };
    for (field, words) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !words.is_empty() {
            entry[field] = words.iter().map(|w| Value::from(w.as_str())).collect();
        }
    }
}

fn subresource(r: &Resource, s: &Subresource, group: &str, version: &str) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", r.plural, s.name),
        "singularName": "",
        "namespaced": r.namespaced,
        "kind": s.kind.as_str(),
        "verbs": s.verbs,
    });
    if s.group != group || s.version != version {
        entry["group"] = json!(s.group.as_str());
        entry["version"] = json!(s.version.as_str());
    }
    entry
}
