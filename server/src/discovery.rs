//! What the server serves, told in upstream's documents: the legacy ones, one for each group version, and the aggregated one.

use crate::kinds::Kinds;
use crate::ports::VirtualDescriptor;
use crate::server::Shared;
use crate::subresources;
use bytes::Bytes;
use kubewright_core::{ApiError, ApiResponse, KindDescriptor, ResponseBody, Verb};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// One resource of a group version, whatever it is made of.
struct Resource {
    plural: String,
    singular: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<&'static str>,
    short_names: Vec<String>,
    categories: Vec<String>,
    subresources: Vec<Sub>,
}

struct Sub {
    name: String,
    group: String,
    version: String,
    kind: String,
    verbs: Vec<&'static str>,
}

/// Groups by name, then versions by precedence, then resources by name.
type Groups = BTreeMap<String, BTreeMap<Precedence, Vec<Resource>>>;

/// A version, ordered as clients should prefer: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence(u8, std::cmp::Reverse<(u64, u64)>, String);

impl Precedence {
    fn of(version: &str) -> Self {
        let parsed = version.strip_prefix('v').and_then(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let major: u64 = rest[..digits].parse().ok()?;
            let (class, minor) = match &rest[digits..] {
                "" => (0, "0"),
                tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                    (Some(minor), _) => (1, minor),
                    (None, Some(minor)) => (2, minor),
                    (None, None) => return None,
                },
            };
            Some((class, major, minor.parse().ok()?))
        });
        match parsed {
            Some((class, major, minor)) => {
                Precedence(class, std::cmp::Reverse((major, minor)), version.to_owned())
            }
            None => Precedence(3, std::cmp::Reverse((0, 0)), version.to_owned()),
        }
    }
}

/// Answers a discovery path (`/api`, `/apis/apps/v1`); `None` where it is no discovery path.
pub(crate) fn answer(shared: &Shared, path: &str, accept: &str) -> Option<Result<ApiResponse, ApiError>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if !matches!(parts.first(), Some(&"api" | &"apis")) {
        return None;
    }
    let kinds = shared.kinds.load();
    let groups = groups(shared, &kinds);
    let document = match parts.as_slice() {
        [root @ ("api" | "apis")] => {
            if let Some((content_type, version)) = aggregated(accept) {
                return Some(aggregate(&groups, *root == "api", content_type, version));
            }
            Ok(if *root == "api" { core_versions(shared) } else { group_list(&groups) })
        }
        ["apis", group] => groups
            .get(*group)
            .filter(|_| !group.is_empty())
            .map(|versions| api_group(group, versions, true))
            .ok_or_else(ApiError::no_such_path),
        ["api", version] => resource_list(&groups, "", version),
        ["apis", group, version] if !group.is_empty() => resource_list(&groups, group, version),
        _ => Err(ApiError::no_such_path()),
    };
    Some(document.map(|d| ApiResponse::new(200, ResponseBody::Value(d))))
}

/// The aggregated form that the client prefers to the legacy one.
fn aggregated(accept: &str) -> Option<(&'static str, &'static str)> {
    for clause in accept.split(',') {
        let clause: String = clause.chars().filter(|c| !c.is_whitespace()).collect();
        let asks = clause.contains("as=APIGroupDiscoveryList") && clause.contains("g=apidiscovery.k8s.io");
        if asks && clause.starts_with("application/json") {
            if clause.contains(";v=v2;") || clause.ends_with(";v=v2") {
                return Some((AGGREGATED_V2, "v2"));
            }
            if clause.contains("v=v2beta1") {
                return Some((AGGREGATED_V2BETA1, "v2beta1"));
            }
        }
    }
    None
}

fn groups(shared: &Shared, kinds: &Kinds) -> Groups {
    let mut groups = Groups::new();
    for kind in kinds.registry.iter() {
        let versions = groups.entry(kind.group.to_string()).or_default();
        versions.entry(Precedence::of(&kind.version)).or_default().push(stored(kind));
    }
    for computed in shared.virtuals.values() {
        let d = computed.descriptor();
        let versions = groups.entry(d.group.to_string()).or_default();
        versions.entry(Precedence::of(&d.version)).or_default().push(computed_resource(&d));
    }
    for resources in groups.values_mut().flat_map(BTreeMap::values_mut) {
        resources.sort_by(|a, b| a.plural.cmp(&b.plural));
    }
    groups
}

fn stored(kind: &Arc<KindDescriptor>) -> Resource {
    let namespaces = kind.group.is_empty() && kind.plural == "namespaces";
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let verbs = verbs.into_iter().filter(|v| !(namespaces && *v == "deletecollection"));
    let subresources = subresources::of(kind).into_iter().map(|s| {
        let own = (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str());
        let (group, version, name) = s.kind.unwrap_or(own);
        Sub {
            name: s.name.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            kind: name.to_owned(),
            verbs: s.verbs.iter().map(|v| v.as_str()).collect(),
        }
    });
    Resource {
        plural: kind.plural.to_string(),
        singular: kind.singular.to_string(),
        kind: kind.kind.to_string(),
        namespaced: kind.namespaced(),
        verbs: verbs.collect(),
        short_names: kind.short_names.iter().map(ToString::to_string).collect(),
        categories: kind.categories.iter().map(ToString::to_string).collect(),
        subresources: subresources.collect(),
    }
}

fn computed_resource(d: &VirtualDescriptor) -> Resource {
    Resource {
        plural: d.plural.to_string(),
        singular: d.singular.to_string(),
        kind: d.kind.to_string(),
        namespaced: d.namespaced,
        verbs: d.verbs.iter().map(|v: &Verb| v.as_str()).collect(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
    }
}

fn core_versions(shared: &Shared) -> Value {
    let (address, port) = shared.advertise.load().unwrap_or((std::net::Ipv4Addr::LOCALHOST.into(), 6443));
    let server = std::net::SocketAddr::new(address, port).to_string();
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]})
}

fn api_group(name: &str, versions: &BTreeMap<Precedence, Vec<Resource>>, whole: bool) -> Value {
    let all: Vec<Value> =
        versions.keys().map(|v| json!({"groupVersion": format!("{name}/{}", v.2), "version": v.2})).collect();
    let mut group = json!({"name": name, "versions": all, "preferredVersion": all.first()});
    if whole {
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
    }
    group
}

fn group_list(groups: &Groups) -> Value {
    let named = groups.iter().filter(|(name, _)| !name.is_empty());
    let all: Vec<Value> = named.map(|(name, versions)| api_group(name, versions, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all})
}

fn resource_list(groups: &Groups, group: &str, version: &str) -> Result<Value, ApiError> {
    let resources = groups.get(group).and_then(|versions| versions.get(&Precedence::of(version)));
    let resources = resources.ok_or_else(ApiError::no_such_path)?;
    let mut all = Vec::new();
    for r in resources {
        let mut entry = json!({"name": r.plural, "singularName": r.singular, "namespaced": r.namespaced,
            "kind": r.kind, "verbs": r.verbs});
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        all.push(entry);
        for s in &r.subresources {
            let name = format!("{}/{}", r.plural, s.name);
            let mut entry = json!({"name": name, "singularName": "", "namespaced": r.namespaced, "kind": s.kind, "verbs": s.verbs});
            if (s.group.as_str(), s.version.as_str()) != (group, version) {
                if !s.group.is_empty() {
                    entry["group"] = json!(s.group);
                }
                entry["version"] = json!(s.version);
            }
            all.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all}),
    )
}

fn aggregate(
    groups: &Groups,
    core: bool,
    content_type: &'static str,
    version: &str,
) -> Result<ApiResponse, ApiError> {
    let mut items = Vec::new();
    for (name, versions) in groups.iter().filter(|(name, _)| name.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|(v, resources)| {
                let resources: Vec<Value> = resources.iter().map(|r| discovered(name, &v.2, r)).collect();
                json!({"version": v.2, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if name.is_empty() {
            json!({"creationTimestamp": null})
        } else {
            json!({"name": name, "creationTimestamp": null})
        };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    let bytes = Bytes::from(serde_json::to_vec(&document).map_err(ApiError::internal)?);
    Ok(ApiResponse::new(200, ResponseBody::Raw { content_type, bytes }))
}

fn discovered(group: &str, version: &str, r: &Resource) -> Value {
    let subresources: Vec<Value> = r
        .subresources
        .iter()
        .map(|s| {
            json!({"subresource": s.name, "verbs": s.verbs,
            "responseKind": {"group": s.group, "version": s.version, "kind": s.kind}})
        })
        .collect();
    let mut entry = json!({"resource": r.plural, "singularResource": r.singular, "verbs": r.verbs,
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": group, "version": version, "kind": r.kind}});
    if !r.short_names.is_empty() {
        entry["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        entry["categories"] = json!(r.categories);
    }
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions = ["v1alpha1", "v1", "foo", "v1beta2", "v11", "v2", "v1beta10"].map(Precedence::of);
        versions.sort();
        let names: Vec<&str> = versions.iter().map(|v| v.2.as_str()).collect();
        assert_eq!(names, ["v11", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }
}
