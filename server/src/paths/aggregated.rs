//! Aggregated discovery: everything in two documents, for clients that ask for this form.

use super::catalogue::{Catalogue, Group, Resource};
use super::discovery::names;
use crate::aggregation::Remote;
use serde_json::{Value, json};

/// One of the forms, as it is told in `Content-Type`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) version: &'static str,
    pub(super) content_type: &'static str,
}

const V2: Form = Form {
    version: "v2",
    content_type: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
};
/// What clients before 1.30 ask for; the shape is the same.
const V2BETA1: Form = Form {
    version: "v2beta1",
    content_type: "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
};

/// The form that the client prefers to everything else we have; `None` for the first form of discovery.
pub(super) fn asked(accept: &str) -> Option<&'static Form> {
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        let (mut shape, mut group, mut version) = ("", "", "");
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            match name {
                "as" => shape = value,
                "g" => group = value,
                "v" => version = value,
                _ => {}
            }
        }
        match (shape, group, version) {
            ("", "", "") => return None,
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some(&V2),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => return Some(&V2BETA1),
            _ => {}
        }
    }
    None
}

/// `/api` for the core group, `/apis` for all others.
pub(super) fn document(catalogue: &Catalogue, core: bool, version: &str) -> Value {
    let groups = catalogue.groups.iter().filter(|g| g.name.is_empty() == core);
    let items: Vec<Value> = groups.map(group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn group(group: &Group) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !group.name.is_empty() {
        metadata["name"] = json!(group.name.as_str());
    }
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|v| {
            if let Some(remote) = &v.remote {
                return elsewhere(group, remote);
            }
            let resources: Vec<Value> = v.resources.iter().map(|r| resource(group, &v.name, r)).collect();
            json!({"version": v.name.as_str(), "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

/// What another server serves, out of its own discovery; stale while it does not answer.
fn elsewhere(group: &Group, remote: &Remote) -> Value {
    let fetched = remote.fetched.load();
    let listed: Vec<&Value> = match &fetched.resources {
        Some(list) => list["resources"].as_array().into_iter().flatten().collect(),
        None => Vec::new(),
    };
    let version = remote.version.as_str();
    let kind = |r: &Value| {
        let own = |field: &str, default: &str| {
            r[field].as_str().filter(|t| !t.is_empty()).unwrap_or(default).to_owned()
        };
        json!({"group": own("group", &group.name), "version": own("version", version), "kind": r["kind"]})
    };
    let name = |r: &Value| r["name"].as_str().unwrap_or("").to_owned();
    let mut resources = Vec::new();
    for r in listed.iter().filter(|r| !name(r).contains('/')) {
        let scope = if r["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut entry = json!({"resource": r["name"], "responseKind": kind(r), "scope": scope,
            "singularResource": r["singularName"].as_str().unwrap_or(""), "verbs": r["verbs"]});
        for field in ["shortNames", "categories"] {
            if let Some(words) = r.get(field).filter(|w| !w.is_null()) {
                entry[field] = words.clone();
            }
        }
        let below: Vec<Value> = listed
            .iter()
            .filter_map(|s| Some((s, name(s).strip_prefix(&name(r))?.strip_prefix('/')?.to_owned())))
            .map(|(s, sub)| json!({"subresource": sub, "responseKind": kind(s), "verbs": s["verbs"]}))
            .collect();
        if !below.is_empty() {
            entry["subresources"] = Value::Array(below);
        }
        resources.push(entry);
    }
    let freshness = if remote.is_available() { "Current" } else { "Stale" };
    json!({"version": version, "resources": resources, "freshness": freshness})
}

fn resource(group: &Group, version: &str, r: &Resource) -> Value {
    let mut entry = json!({
        "resource": r.plural.as_str(),
        "responseKind": {"group": group.name.as_str(), "version": version, "kind": r.kind.as_str()},
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular.as_str(),
        "verbs": r.verbs,
    });
    names(&mut entry, r);
    let subresources: Vec<Value> = r
        .subresources
        .iter()
        .map(|s| {
            let kind =
                json!({"group": s.group.as_str(), "version": s.version.as_str(), "kind": s.kind.as_str()});
            json!({"subresource": s.name.as_str(), "responseKind": kind, "verbs": s.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_exists_is_taken() {
        let check = |accept: &str, want: Option<&str>| {
            assert_eq!(asked(accept).map(|f| f.version), want, "{accept}");
        };
        let v2 = V2.content_type;
        let beta = V2BETA1.content_type;
        check(v2, Some("v2"));
        check(&format!("{beta},application/json"), Some("v2beta1"));
        check(&format!("{v2},{beta},application/json"), Some("v2"));
        check(&format!("application/vnd.kubernetes.protobuf, {v2}"), Some("v2"));
        check(&format!("application/json,{v2}"), None);
        check("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json", None);
        check("*/*", None);
        check("", None);
        assert!(v2.contains(&format!("v={};", V2.version)));
    }
}
