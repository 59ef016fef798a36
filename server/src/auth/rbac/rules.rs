//! What one rule allows, and what rules cover of others.

use crate::auth::authorizer::Attributes;
use k8s_openapi::api::rbac::v1::PolicyRule;

/// Whether the rule allows the action.
pub(in crate::auth) fn allows(rule: &PolicyRule, a: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, a.verb) {
        return false;
    }
    if let Some(path) = a.path {
        return rule.non_resource_urls.iter().flatten().any(|pattern| path_matches(pattern, path));
    }
    rule.api_groups.as_ref().is_some_and(|groups| has(groups, a.group))
        && rule.resources.iter().flatten().any(|r| resource_matches(r, a.resource, a.subresource))
        && names_allow(rule.resource_names.as_deref(), a.name)
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|v| v == "*" || v == wanted)
}

fn names_allow(names: Option<&[String]>, name: &str) -> bool {
    names.is_none_or(|names| names.is_empty() || names.iter().any(|n| n == name))
}

/// `pods`, `pods/log`, `*/scale`, `*`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((first, second)) => {
            !subresource.is_empty() && second == subresource && (first == "*" || first == resource)
        }
    }
}

/// `/healthz`, `/healthz/*`, `*`.
fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

/// The rules of `system:masters`.
pub(super) fn everything() -> Vec<PolicyRule> {
    let star = || vec!["*".to_owned()];
    vec![
        PolicyRule {
            verbs: star(),
            api_groups: Some(star()),
            resources: Some(star()),
            ..PolicyRule::default()
        },
        PolicyRule { verbs: star(), non_resource_urls: Some(star()), ..PolicyRule::default() },
    ]
}

/// The parts of `wanted` that no rule of `owned` covers, each as a rule of one verb and one resource or path.
pub(super) fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut missing = Vec::new();
    for rule in wanted.iter().flat_map(breakdown) {
        if !owned.iter().any(|o| covers(o, &rule)) && !missing.contains(&rule) {
            missing.push(rule);
        }
    }
    missing
}

/// A rule as rules of one verb, one group, one resource and one name each.
fn breakdown(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut out = Vec::new();
    let one = |s: &String| vec![s.clone()];
    for verb in &rule.verbs {
        for path in rule.non_resource_urls.iter().flatten() {
            let urls = Some(one(path));
            out.push(PolicyRule { verbs: one(verb), non_resource_urls: urls, ..PolicyRule::default() });
        }
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let base = PolicyRule {
                    verbs: one(verb),
                    api_groups: Some(one(group)),
                    resources: Some(one(resource)),
                    ..PolicyRule::default()
                };
                let names = rule.resource_names.iter().flatten();
                let named: Vec<_> = names
                    .map(|name| PolicyRule { resource_names: Some(one(name)), ..base.clone() })
                    .collect();
                if named.is_empty() { out.push(base) } else { out.extend(named) }
            }
        }
    }
    out
}

/// Whether one rule covers another of one verb and one resource or path.
fn covers(owner: &PolicyRule, sub: &PolicyRule) -> bool {
    let all = |owned: Option<&Vec<String>>, wanted: Option<&Vec<String>>| {
        wanted.into_iter().flatten().all(|w| owned.is_some_and(|o| has(o, w)))
    };
    let verbs = sub.verbs.iter().all(|v| has(&owner.verbs, v));
    let names = match (&owner.resource_names, &sub.resource_names) {
        (None, _) => true,
        (Some(owned), _) if owned.is_empty() => true,
        (Some(owned), Some(wanted)) => !wanted.is_empty() && wanted.iter().all(|w| owned.contains(w)),
        (Some(_), None) => false,
    };
    let resources = sub.resources.iter().flatten().all(|wanted| {
        let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
        owner
            .resources
            .iter()
            .flatten()
            .any(|o| o == wanted || (wanted != "*" && resource_matches(o, resource, subresource)))
    });
    let paths = sub
        .non_resource_urls
        .iter()
        .flatten()
        .all(|wanted| owner.non_resource_urls.iter().flatten().any(|o| path_matches(o, wanted)));
    verbs && names && resources && paths && all(owner.api_groups.as_ref(), sub.api_groups.as_ref())
}

/// A rule in the words of upstream's escalation message.
pub(super) fn describe(rule: &PolicyRule) -> String {
    let list = |v: &[String]| {
        let quoted: Vec<String> = v.iter().map(|s| format!("{s:?}")).collect();
        format!("[{}]", quoted.join(" "))
    };
    let mut parts = Vec::new();
    let fields = [
        ("APIGroups", rule.api_groups.as_ref()),
        ("Resources", rule.resources.as_ref()),
        ("NonResourceURLs", rule.non_resource_urls.as_ref()),
        ("ResourceNames", rule.resource_names.as_ref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            parts.push(format!("{name}:{}", list(value)));
        }
    }
    parts.push(format!("Verbs:{}", list(&rule.verbs)));
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::defaults::{path_rule, rule};
    use super::*;

    #[test]
    fn rules_match_as_upstreams() {
        let check = |r: &PolicyRule, verb: &str, group: &str, resource: &str, name: &str, want: bool| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let a = Attributes { verb, group, resource, subresource, name, ..Attributes::default() };
            assert_eq!(allows(r, &a), want, "{verb} {resource}/{subresource} {name} by {}", describe(r));
        };
        let pods = rule("get,list", "", "pods,pods/log,*/scale");
        check(&pods, "get", "", "pods", "", true);
        check(&pods, "get", "", "pods/log", "", true);
        check(&pods, "get", "", "pods/exec", "", false);
        check(&pods, "get", "", "things/scale", "", true);
        check(&pods, "create", "", "pods", "", false);
        check(&pods, "get", "apps", "pods", "", false);
        let named = PolicyRule { resource_names: Some(vec!["a".to_owned()]), ..rule("*", "*", "*") };
        check(&named, "delete", "apps", "deployments/status", "a", true);
        check(&named, "delete", "apps", "deployments", "b", false);
        check(&named, "list", "apps", "deployments", "", false);
    }

    #[test]
    fn paths_match_by_prefix() {
        let check = |pattern: &str, path: &str, want: bool| {
            let a = Attributes { verb: "get", path: Some(path), ..Attributes::default() };
            assert_eq!(allows(&path_rule("get", pattern), &a), want, "{pattern} {path}");
        };
        check("/healthz", "/healthz", true);
        check("/healthz", "/healthz/etcd", false);
        check("/apis/*", "/apis/apps", true);
        check("/apis/*", "/api", false);
        check("*", "/anything", true);
    }

    #[test]
    fn what_is_missing_is_named() {
        let owned = [rule("get,list", "", "pods"), rule("*", "apps", "*")];
        assert!(
            uncovered(&owned, &[rule("get", "", "pods"), rule("delete", "apps", "deployments/scale")])
                .is_empty()
        );
        let missing = uncovered(&owned, &[rule("get,delete", "", "pods,secrets")]);
        let texts: Vec<String> = missing.iter().map(describe).collect();
        assert_eq!(
            texts,
            [
                "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}",
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}",
                "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"delete\"]}",
            ]
        );
        assert_eq!(uncovered(&owned, &[rule("*", "", "pods")]).len(), 1);
        assert_eq!(uncovered(&owned, &[rule("get", "", "*")]).len(), 1);
        assert!(uncovered(&everything(), &[rule("*", "*", "*"), path_rule("*", "*")]).is_empty());
    }
}
