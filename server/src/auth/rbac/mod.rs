//! Role-based access control over the plane's own Role, ClusterRole and binding objects.

mod aggregate;
mod bootstrap;
mod defaults;
mod escalation;
mod namespaced;
mod policy;
pub(super) mod rules;

pub use aggregate::keep_aggregated;
pub use bootstrap::ensure_bootstrap_policy;
pub(super) use defaults::node_rules;
pub use escalation::Escalation;

use super::authorizer::{Attributes, Authorizer, Decision, RuleList};
use super::objects::ObjectReader;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use kubewright_core::UserInfo;
use parking_lot::Mutex;
use policy::{Policy, revisions};
use std::fmt;
use std::sync::Arc;

/// The group that may do everything, whatever the objects say.
pub(crate) const MASTERS: &str = "system:masters";

/// Decides by the RBAC objects as they are at the moment of the request.
///
/// The objects are compiled once per change: a decision looks up the user and its groups and walks their rules.
pub struct RbacAuthorizer {
    reader: Arc<dyn ObjectReader>,
    policy: ArcSwap<Policy>,
    /// Held while a new policy is compiled, so that one change is compiled once.
    compiling: Mutex<()>,
}

impl fmt::Debug for RbacAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RbacAuthorizer")
    }
}

impl RbacAuthorizer {
    /// Decides by the objects of this reader.
    pub fn new(reader: Arc<dyn ObjectReader>) -> Self {
        RbacAuthorizer { reader, policy: ArcSwap::default(), compiling: Mutex::new(()) }
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.load();
        let now = revisions(&*self.reader);
        if policy.revisions == Some(now) {
            return arc_swap::Guard::into_inner(policy);
        }
        let _one_at_a_time = self.compiling.lock();
        let policy = self.policy.load_full();
        let now = revisions(&*self.reader);
        if policy.revisions == Some(now) {
            return policy;
        }
        let policy = Arc::new(Policy::compile(&*self.reader, now));
        self.policy.store(policy.clone());
        policy
    }

    fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if is_master(&attributes.user) {
            return Decision::Allow;
        }
        let allowed = self
            .policy()
            .any_rule(&attributes.user, attributes.namespace, |rule| rules::allows(rule, attributes));
        if allowed { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }
}

pub(crate) fn is_master(user: &UserInfo) -> bool {
    user.groups.as_ref().is_some_and(|groups| groups.iter().any(|g| g == MASTERS))
}

impl Authorizer for RbacAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.decide(attributes)))
    }

    fn explain(&self, attributes: &Attributes<'_>) -> String {
        if is_master(&attributes.user) {
            return String::new();
        }
        let policy = self.policy();
        let allows = |rule: &_| rules::allows(rule, attributes);
        let by = policy.granted_by(&attributes.user, attributes.namespace, allows);
        by.map_or_else(String::new, |by| format!("RBAC: allowed by {by}"))
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleList {
        let mut list = RuleList::default();
        if is_master(user) {
            list.rules = rules::everything();
        }
        self.policy().any_rule(user, namespace, |rule| {
            list.rules.push(rule.clone());
            false
        });
        list
    }
}

/// Several authorizers in a row: the first that allows or denies decides.
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    /// Asks these in order.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Union(authorizers)
    }
}

impl fmt::Debug for Union {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Union({})", self.0.len())
    }
}

impl Authorizer for Union {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let mut reasons = Vec::new();
            for authorizer in &self.0 {
                match authorizer.authorize(attributes).await {
                    Decision::NoOpinion(reason) if reason.is_empty() => {}
                    Decision::NoOpinion(reason) => reasons.push(reason),
                    decided => return decided,
                }
            }
            Decision::NoOpinion(reasons.join(", "))
        })
    }

    fn explain(&self, attributes: &Attributes<'_>) -> String {
        let explained = self.0.iter().map(|authorizer| authorizer.explain(attributes));
        explained.into_iter().find(|reason| !reason.is_empty()).unwrap_or_default()
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleList {
        let mut all = RuleList::default();
        for authorizer in &self.0 {
            let list = authorizer.rules(user, namespace);
            all.rules.extend(list.rules);
            all.incomplete |= list.incomplete;
            all.errors.extend(list.errors);
        }
        all
    }
}

#[cfg(test)]
mod tests;
