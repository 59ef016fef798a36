//! What a node agent may do: read what the pods of its node use, and write what is its own.
//!
//! What kind of write it is, and on which object, is for the admission plugin `NodeRestriction`; this one sees no objects.

mod graph;

use super::authorizer::{Attributes, Authorizer, Decision, RuleList};
use super::objects::ObjectReader;
use super::rbac::{node_rules, rules};
use futures::future::BoxFuture;
use graph::{Graph, Thing};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kubewright_core::UserInfo;
use std::fmt;
use std::sync::Arc;

const LEASES: &str = "kube-node-lease";

/// Decides for the members of `system:nodes`.
pub struct NodeAuthorizer {
    rules: Vec<PolicyRule>,
    graph: Graph,
}

impl fmt::Debug for NodeAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeAuthorizer")
    }
}

/// Which node a user is: `None` for a user who is no node, an empty name for a node without one.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.username.as_deref()?.strip_prefix("system:node:")?;
    user.groups.iter().flatten().any(|g| g == "system:nodes").then_some(name)
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

impl NodeAuthorizer {
    /// Decides by the default rules of nodes and by what pods use, as this reader has it.
    pub fn new(reader: Arc<dyn ObjectReader>) -> Self {
        NodeAuthorizer { rules: node_rules(), graph: Graph::new(reader) }
    }

    pub(crate) fn decide(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(&a.user) else { return no("") };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", a.user.username.as_deref().unwrap_or("")));
        }
        if a.path.is_none() {
            match (a.group, a.resource) {
                ("", "secrets") => return self.reads(node, Thing::Secret, a),
                ("", "configmaps") => return self.reads(node, Thing::ConfigMap, a),
                ("", "persistentvolumeclaims") if a.subresource == "status" => {
                    return self.claim_status(node, a);
                }
                ("", "persistentvolumeclaims") => return self.gets(node, Thing::Claim, a),
                ("", "persistentvolumes") => return self.gets(node, Thing::Volume, a),
                ("", "serviceaccounts") => return self.token(node, a),
                ("", "nodes") => return own_node(node, a),
                ("", "pods") => return self.pods(node, a),
                ("resource.k8s.io", "resourceclaims") => return self.gets(node, Thing::ResourceClaim, a),
                ("resource.k8s.io", "resourceslices") => return self.slices(node, a),
                ("storage.k8s.io", "volumeattachments") => return self.gets(node, Thing::Attachment, a),
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rules::allows(rule, a)) { Decision::Allow } else { no("") }
    }

    fn related(&self, node: &str, thing: Thing, a: &Attributes<'_>) -> Decision {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        if self.graph.relates(node, thing, a.namespace, a.name) {
            return Decision::Allow;
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    fn reads(&self, node: &str, thing: Thing, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, thing, a)
    }

    fn gets(&self, node: &str, thing: Thing, a: &Attributes<'_>) -> Decision {
        if a.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, thing, a)
    }

    fn claim_status(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, Thing::Claim, a)
    }

    fn token(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, Thing::ServiceAccount, a)
    }

    fn pods(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.subresource, a.verb) {
            ("", "get") => self.gets(node, Thing::Pod, a),
            ("", "list" | "watch") if selects(a, "spec.nodeName", node) => Decision::Allow,
            ("", "list" | "watch") if !a.name.is_empty() => self.related(node, Thing::Pod, a),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Decision::Allow
            }
            _ => no(""),
        }
    }

    fn slices(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            "create" => Decision::Allow,
            "get" | "update" | "patch" | "delete" => self.related(node, Thing::Slice, a),
            "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) => Decision::Allow,
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }
}

/// Whether the request is held to objects whose field has this value.
fn selects(a: &Attributes<'_>, field: &str, value: &str) -> bool {
    let terms = a.field_selector.unwrap_or("").split(',');
    let of = |term: &str| {
        let (name, rest) = term.trim().split_once('=')?;
        Some(name == field && rest.strip_prefix('=').unwrap_or(rest) == value)
    };
    terms.filter_map(of).any(|held| held)
}

fn own_node(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::Allow,
        ("", "get" | "list" | "watch") if a.name == node => Decision::Allow,
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            no(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => no(""),
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != LEASES {
        return no(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Decision::Allow
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Decision::Allow
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.decide(attributes)))
    }

    fn rules(&self, user: &UserInfo, _: &str) -> RuleList {
        if node_of(user).is_none() {
            return RuleList::default();
        }
        let why = "node authorizer does not support user rule resolution".to_owned();
        RuleList { rules: Vec::new(), incomplete: true, errors: vec![why] }
    }
}

#[cfg(test)]
mod tests;
