//! Nobody may grant what they do not have.

use super::RbacAuthorizer;
use super::policy::GROUP;
use super::{is_master, rules};
use crate::auth::authorizer::{Attributes, Authorizer, Decision};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use kubewright_core::{ApiError, UserInfo};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Checks writes of roles and bindings, as upstream's registry does.
#[derive(Clone)]
pub struct Escalation {
    rbac: Arc<RbacAuthorizer>,
    authorizer: Arc<dyn Authorizer>,
}

impl fmt::Debug for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Escalation")
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    rules: Option<Vec<PolicyRule>>,
    aggregation_rule: Option<Value>,
    role_ref: Option<RoleRef>,
}

impl Escalation {
    /// Takes the rules that users have from `rbac`, and asks `authorizer` for the verbs `escalate` and `bind`.
    pub fn new(rbac: Arc<RbacAuthorizer>, authorizer: Arc<dyn Authorizer>) -> Self {
        Escalation { rbac, authorizer }
    }

    /// Checks an object of the RBAC group that `user` is about to write.
    ///
    /// # Errors
    /// 403 in upstream's words, with the rules that the user lacks.
    pub async fn check(
        &self,
        user: &UserInfo,
        resource: &str,
        namespace: &str,
        name: &str,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        if is_master(user)
            || !matches!(resource, "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings")
        {
            return Ok(());
        }
        let unchanged = |field: &str| old.is_some_and(|old| old.get(field) == object.get(field));
        let written = Written::deserialize(object).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let binding = resource.ends_with("bindings");
        let same = if binding {
            unchanged("roleRef") && unchanged("subjects")
        } else {
            unchanged("rules") && unchanged("aggregationRule")
        };
        if same {
            return Ok(());
        }
        let wanted = match (&written.role_ref, binding) {
            (Some(role), true) => {
                if self.may(user, "bind", namespace, plural(role), &role.name).await {
                    return Ok(());
                }
                let rules = self.rbac.policy().role_rules(role, namespace);
                let rules = rules.ok_or_else(|| ApiError::not_found(GROUP, plural(role), &role.name))?;
                Vec::clone(&rules)
            }
            _ => {
                if self.may(user, "escalate", namespace, resource, name).await {
                    return Ok(());
                }
                // A role that aggregates may grow to anything.
                let all = written.aggregation_rule.is_some().then(rules::everything);
                all.or(written.rules).unwrap_or_default()
            }
        };
        let owned = self.rbac.policy().rules_of(user, namespace);
        let missing = rules::uncovered(&owned, &wanted);
        if missing.is_empty() { Ok(()) } else { Err(refusal(user, resource, name, &missing)) }
    }

    async fn may(&self, user: &UserInfo, verb: &str, namespace: &str, resource: &str, name: &str) -> bool {
        let namespace = if resource == "clusterroles" { "" } else { namespace };
        let user = Cow::Borrowed(user);
        let a = Attributes {
            user,
            verb,
            group: GROUP,
            version: "v1",
            resource,
            namespace,
            name,
            ..Attributes::default()
        };
        self.authorizer.authorize(&a).await == Decision::Allow
    }
}

fn plural(role: &RoleRef) -> &'static str {
    if role.kind == "ClusterRole" { "clusterroles" } else { "roles" }
}

fn refusal(user: &UserInfo, resource: &str, name: &str, missing: &[PolicyRule]) -> ApiError {
    let groups: Vec<String> = user.groups.iter().flatten().map(|g| format!("{g:?}")).collect();
    let rules: Vec<String> = missing.iter().map(rules::describe).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.username.as_deref().unwrap_or(""),
        groups.join(" "),
        rules.join("\n")
    );
    ApiError::forbidden(GROUP, resource, name, &why)
}
