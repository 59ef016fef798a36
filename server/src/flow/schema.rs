//! A flow schema, compiled: whether it takes a request, and which flow the request belongs to.

use super::level::Level;
use crate::auth::Attributes;
use k8s_openapi::api::flowcontrol::v1::{FlowSchemaSpec, PolicyRulesWithSubjects, Subject};
use smol_str::SmolStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A flow schema with the level that it puts requests under.
pub(super) struct Schema {
    pub(super) name: SmolStr,
    pub(super) uid: SmolStr,
    pub(super) precedence: i32,
    pub(super) level: Arc<Level>,
    distinguisher: Distinguisher,
    rules: Vec<PolicyRulesWithSubjects>,
    pub(super) dispatched: AtomicU64,
}

impl Schema {
    pub(super) fn new(name: &str, uid: &str, spec: &FlowSchemaSpec, level: Arc<Level>) -> Self {
        let method = spec.distinguisher_method.as_ref().map(|m| m.type_.as_str());
        Schema {
            name: name.into(),
            uid: uid.into(),
            precedence: spec.matching_precedence.unwrap_or(1000),
            level,
            distinguisher: match method {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: spec.rules.clone().unwrap_or_default(),
            dispatched: AtomicU64::new(0),
        }
    }

    /// Whether a request is of this schema.
    pub(super) fn takes(&self, a: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| rule.subjects.iter().any(|s| is_subject(s, a)) && covers(rule, a))
    }

    /// The flow of a request of this schema.
    pub(super) fn flow(&self, a: &Attributes<'_>) -> u64 {
        let mut hash = DefaultHasher::new();
        self.name.hash(&mut hash);
        match self.distinguisher {
            Distinguisher::Nothing => {}
            Distinguisher::User => a.user.username.hash(&mut hash),
            Distinguisher::Namespace => a.namespace.hash(&mut hash),
        }
        hash.finish()
    }
}

fn is_subject(subject: &Subject, a: &Attributes<'_>) -> bool {
    let name = a.user.username.as_deref().unwrap_or("");
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|u| u.name == "*" || u.name == name),
        "Group" => subject.group.as_ref().is_some_and(|wanted| {
            wanted.name == "*" || a.user.groups.iter().flatten().any(|g| *g == wanted.name)
        }),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|wanted| {
            let account = name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'));
            account.is_some_and(|(ns, n)| ns == wanted.namespace && (wanted.name == "*" || wanted.name == n))
        }),
        _ => false,
    }
}

fn covers(rule: &PolicyRulesWithSubjects, a: &Attributes<'_>) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|v| v == "*" || v == wanted);
    if let Some(path) = a.path {
        return rule.non_resource_rules.iter().flatten().any(|r| {
            has(&r.verbs, a.verb) && r.non_resource_urls.iter().any(|pattern| matches_path(pattern, path))
        });
    }
    rule.resource_rules.iter().flatten().any(|r| {
        let placed = if a.namespace.is_empty() {
            r.cluster_scope == Some(true)
        } else {
            r.namespaces.as_deref().is_some_and(|list| has(list, a.namespace))
        };
        placed && has(&r.verbs, a.verb) && has(&r.api_groups, a.group) && names_resource(&r.resources, a)
    })
}

fn names_resource(list: &[String], a: &Attributes<'_>) -> bool {
    list.iter().any(|wanted| match wanted.split_once('/') {
        None => wanted == "*" || (a.subresource.is_empty() && wanted == a.resource),
        Some((resource, subresource)) => resource == a.resource && subresource == a.subresource,
    })
}

fn matches_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Overflow;
    use super::*;
    use crate::auth::authenticated;
    use kubewright_core::{ApiRequest, GroupVersionResource, Target, Verb};
    use serde_json::{Value, json};

    fn schema(rule: Value) -> Schema {
        let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]});
        let level = Arc::new(Level::new("l", "", Overflow::Reject));
        Schema::new("s", "", &serde_json::from_value(spec).unwrap(), level)
    }

    #[test]
    fn rules_say_which_requests_they_are_for() {
        let check = |subject: Value, rest: Value, request: &ApiRequest, want: bool| {
            let mut rule = rest;
            rule["subjects"] = json!([subject]);
            let found = schema(rule.clone()).takes(&Attributes::of(request));
            assert_eq!(found, want, "{rule} for {:?} {:?}", request.verb, request.target);
        };
        let jane = json!({"kind": "User", "user": {"name": "jane"}});
        let dev = json!({"kind": "Group", "group": {"name": "dev"}});
        let robots = json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "*"}});
        let anybody = json!({"kind": "User", "user": {"name": "*"}});
        let pods = |namespaces: &[&str], cluster: bool| {
            json!({"resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods", "nodes/status"],
                "namespaces": namespaces, "clusterScope": cluster}]})
        };
        let list = |user: &str, namespace: Option<&str>| {
            let resource = GroupVersionResource::new("", "v1", "pods");
            let mut request = ApiRequest::resource(Verb::List, resource, namespace, None);
            request.user = authenticated(user, &["dev"]).into();
            request
        };
        check(jane.clone(), pods(&["*"], false), &list("jane", Some("a")), true);
        check(jane.clone(), pods(&["b"], false), &list("jane", Some("a")), false);
        check(jane.clone(), pods(&["*"], false), &list("jane", None), false);
        check(jane.clone(), pods(&[], true), &list("jane", None), true);
        check(jane.clone(), pods(&["*"], true), &list("joe", None), false);
        check(dev, pods(&["*"], true), &list("joe", None), true);
        check(robots.clone(), pods(&["*"], true), &list("system:serviceaccount:a:r", None), true);
        check(robots, pods(&["*"], true), &list("system:serviceaccount:b:r", None), false);
        check(anybody.clone(), pods(&["*"], true), &list("x", None).subresource("status"), false);
        let paths =
            json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/metrics/*"]}]});
        let get = |path: &str| ApiRequest::new(Verb::Get, Target::Path(path.to_owned()));
        check(anybody.clone(), paths.clone(), &get("/healthz?verbose"), true);
        check(anybody.clone(), paths.clone(), &get("/healthz/etcd"), false);
        check(anybody.clone(), paths.clone(), &get("/metrics/slis"), true);
        check(anybody.clone(), paths.clone(), &list("x", None), false);
        check(anybody, pods(&["*"], true), &get("/healthz"), false);
        let s = schema(json!({"subjects": [jane]}));
        let flow = |user: &str| s.flow(&Attributes::of(&list(user, None)));
        assert_eq!(flow("jane"), flow("jane"));
        assert_ne!(flow("jane"), flow("joe"));
    }
}
