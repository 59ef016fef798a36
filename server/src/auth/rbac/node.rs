//! What a node agent may do: the rules of the `system:node` role, with writes held to its own Node and Lease.
//!
//! Upstream walks a graph from the node to its pods and what they use; here a node may read every Secret and ConfigMap by name.

use super::defaults::node_rules;
use super::rules;
use crate::auth::authorizer::{Attributes, Authorizer, Decision, RuleList};
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kubewright_core::UserInfo;

/// Decides for the members of `system:nodes`.
#[derive(Debug)]
pub struct NodeAuthorizer {
    rules: Vec<PolicyRule>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeAuthorizer {
    /// Decides by the default rules of nodes.
    pub fn new() -> Self {
        NodeAuthorizer { rules: node_rules() }
    }

    pub(super) fn decide(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = node_name(&a.user) else { return Decision::NoOpinion(String::new()) };
        if !self.rules.iter().any(|rule| rules::allows(rule, a)) {
            return Decision::NoOpinion(String::new());
        }
        let own = match (a.group, a.resource) {
            ("", "nodes") => "node",
            ("coordination.k8s.io", "leases") => "lease",
            _ => return Decision::Allow,
        };
        let writes_another = matches!(a.verb, "update" | "patch" | "delete") && a.name != node;
        if writes_another {
            return Decision::NoOpinion(format!("node {node:?} can only change its own {own}"));
        }
        Decision::Allow
    }
}

fn node_name(user: &UserInfo) -> Option<&str> {
    let member = user.groups.iter().flatten().any(|g| g == "system:nodes");
    user.username.as_deref().filter(|_| member)?.strip_prefix("system:node:").filter(|n| !n.is_empty())
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.decide(attributes)))
    }

    fn rules(&self, user: &UserInfo, _: &str) -> RuleList {
        let rules = if node_name(user).is_some() { self.rules.clone() } else { Vec::new() };
        RuleList { rules, ..RuleList::default() }
    }
}
