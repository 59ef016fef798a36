//! The RBAC objects, compiled: which rules each user and group has, in which namespace.

use crate::auth::objects::ObjectReader;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kubewright_core::{GroupVersionResource, Resource, UserInfo};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// What changed last of the four resources.
pub(super) type Revisions = [u64; 4];

pub(super) fn revisions(reader: &dyn ObjectReader) -> Revisions {
    resources().each_ref().map(|resource| reader.changed_at(resource).unwrap_or(0))
}

fn resources() -> &'static [GroupVersionResource; 4] {
    static RESOURCES: std::sync::LazyLock<[GroupVersionResource; 4]> = std::sync::LazyLock::new(|| {
        [Role::resource(), ClusterRole::resource(), RoleBinding::resource(), ClusterRoleBinding::resource()]
    });
    &RESOURCES
}

type Rules = Arc<Vec<PolicyRule>>;

/// The rules of a role that a binding gives to a subject.
struct Grant {
    rules: Rules,
    /// The binding, the role and the subject in upstream's words.
    by: Box<str>,
}

/// The rules of each subject.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// Everything that the objects grant.
#[derive(Default)]
pub(crate) struct Policy {
    /// Of which objects it was compiled; `None` before the first time.
    pub(super) revisions: Option<Revisions>,
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
    roles: HashMap<(String, String), Rules>,
    cluster_roles: HashMap<String, Rules>,
}

impl Policy {
    pub(super) fn compile(reader: &dyn ObjectReader, revisions: Revisions) -> Self {
        let mut policy = Policy { revisions: Some(revisions), ..Policy::default() };
        policy.cluster_roles = cluster_roles(&objects(reader));
        for role in objects::<Role>(reader) {
            let key = (role.namespace().unwrap_or("").to_owned(), role.name().to_owned());
            policy.roles.insert(key, Arc::new(role.rules.clone().unwrap_or_default()));
        }
        for binding in objects::<ClusterRoleBinding>(reader) {
            if let Some(rules) = policy.role_rules(&binding.role_ref, "") {
                let by = told("ClusterRoleBinding", binding.name(), &binding.role_ref);
                policy.cluster.add(&rules, binding.subjects.as_deref(), "", &by);
            }
        }
        for binding in objects::<RoleBinding>(reader) {
            let namespace = binding.namespace().unwrap_or("");
            if let Some(rules) = policy.role_rules(&binding.role_ref, namespace) {
                let grants = policy.namespaces.entry(namespace.to_owned()).or_default();
                let by = told("RoleBinding", &format!("{}/{namespace}", binding.name()), &binding.role_ref);
                grants.add(&rules, binding.subjects.as_deref(), namespace, &by);
            }
        }
        policy
    }

    /// The rules of a role that a binding in `namespace` (empty for a cluster role binding) refers to.
    pub(super) fn role_rules(&self, role: &RoleRef, namespace: &str) -> Option<Rules> {
        match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name).cloned(),
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())).cloned(),
            _ => None,
        }
    }

    /// Whether `found` says yes to a rule that the user has in the namespace (cluster-wide ones included).
    pub(super) fn any_rule(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut found: impl FnMut(&PolicyRule) -> bool,
    ) -> bool {
        let local = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        [Some(&self.cluster), local].into_iter().flatten().any(|g| g.any_rule(user, &mut found))
    }

    /// By which binding the user has a rule of which `found` says yes.
    pub(super) fn granted_by<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &str,
        found: impl Fn(&PolicyRule) -> bool,
    ) -> Option<&'a str> {
        let local = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        let grants = [Some(&self.cluster), local].into_iter().flatten();
        let mut all = grants.flat_map(|g| g.of(user));
        all.find(|grant| grant.rules.iter().any(&found)).map(|grant| &*grant.by)
    }

    /// All the rules that the user has in the namespace.
    pub(super) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        self.any_rule(user, namespace, |rule| {
            rules.push(rule.clone());
            false
        });
        rules
    }
}

impl Grants {
    fn add(&mut self, rules: &Rules, subjects: Option<&[Subject]>, namespace: &str, by: &str) {
        for subject in subjects.into_iter().flatten() {
            let (map, name, shown) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name.clone(), subject.name.clone()),
                "Group" => (&mut self.groups, subject.name.clone(), subject.name.clone()),
                "ServiceAccount" => {
                    let namespace = subject.namespace.as_deref().unwrap_or(namespace);
                    let name = format!("system:serviceaccount:{namespace}:{}", subject.name);
                    (&mut self.users, name, format!("{}/{namespace}", subject.name))
                }
                _ => continue,
            };
            let by = format!("{by} {} {shown:?}", subject.kind).into();
            map.entry(name).or_default().push(Grant { rules: rules.clone(), by });
        }
    }

    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let by_name = user.username.as_ref().and_then(|name| self.users.get(name));
        let by_group = user.groups.iter().flatten().filter_map(|group| self.groups.get(group));
        by_name.into_iter().chain(by_group).flatten()
    }

    fn any_rule(&self, user: &UserInfo, found: &mut impl FnMut(&PolicyRule) -> bool) -> bool {
        self.of(user).flat_map(|grant| grant.rules.iter()).any(found)
    }
}

/// A binding with its role, up to the subject.
fn told(kind: &str, name: &str, role: &RoleRef) -> String {
    format!("{kind} {name:?} of {} {:?} to", role.kind, role.name)
}

/// The objects of a kind; a kind that the plane does not serve has none, and one that does not decode grants nothing.
fn objects<K: Resource>(reader: &dyn ObjectReader) -> Vec<Arc<K>> {
    let objects = reader.list(&K::resource(), "").unwrap_or_default();
    objects.iter().filter_map(|o| o.decode::<K>().ok()).collect()
}

/// The rules of every cluster role, aggregated ones computed from the roles that they select.
fn cluster_roles(roles: &[Arc<ClusterRole>]) -> HashMap<String, Rules> {
    let rules = |role: &Arc<ClusterRole>| match aggregated_rules(role, roles) {
        Some(rules) => rules,
        None => role.rules.clone().unwrap_or_default(),
    };
    roles.iter().map(|role| (role.name().to_owned(), Arc::new(rules(role)))).collect()
}

/// What an aggregating role consists of, each rule once; `None` for an ordinary role.
pub(super) fn aggregated_rules(role: &ClusterRole, roles: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    role.aggregation_rule.as_ref()?;
    let (mut rules, mut seen) = (Vec::new(), vec![role.name()]);
    collect(role, roles, &mut seen, &mut rules);
    Some(rules)
}

/// Adds the rules of a role; those of an aggregating one are those of the roles that it selects.
fn collect<'a>(
    role: &'a ClusterRole,
    roles: &'a [Arc<ClusterRole>],
    seen: &mut Vec<&'a str>,
    rules: &mut Vec<PolicyRule>,
) {
    let Some(aggregation) = &role.aggregation_rule else {
        for rule in role.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        return;
    };
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        for other in roles.iter().filter(|r| selects(selector, r)) {
            if !seen.contains(&other.name()) {
                seen.push(other.name());
                collect(other, roles, seen, rules);
            }
        }
    }
}

fn selects(
    selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    role: &ClusterRole,
) -> bool {
    let labels = role.metadata.labels.as_ref();
    let value = |key: &str| labels.and_then(|l| l.get(key));
    let exact = selector.match_labels.iter().flatten().all(|(k, v)| value(k) == Some(v));
    let expressions = selector.match_expressions.iter().flatten().all(|e| {
        let (found, values) = (value(&e.key), e.values.as_deref().unwrap_or_default());
        match e.operator.as_str() {
            "In" => found.is_some_and(|v| values.contains(v)),
            "NotIn" => found.is_none_or(|v| !values.contains(v)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    });
    exact && expressions
}
