//! The rules of roles.

use crate::ErrorList;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, at, count, get, list, selectors};
use crate::resource::Strategy;
use serde_json::Value;

pub(super) struct RoleRules {
    pub(super) cluster: bool,
}

impl Strategy for RoleRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::PathSegment, &mut errors);
        let path = Path::Root.child("rules");
        for (i, rule) in list(object, "rules").iter().enumerate() {
            self.validate_rule(rule, &path.index(i), &mut errors);
        }
        if self.cluster && get(object, "aggregationRule").is_some() {
            validate_aggregation(object, &mut errors);
        }
        errors
    }
}

impl RoleRules {
    fn validate_rule(&self, rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
        if count(rule, "verbs") == 0 {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        if count(rule, "nonResourceURLs") > 0 {
            if !self.cluster {
                let urls = rule.get("nonResourceURLs").cloned().unwrap_or_default();
                errors.invalid(
                    &path.child("nonResourceURLs"),
                    urls,
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if count(rule, "apiGroups") + count(rule, "resources") + count(rule, "resourceNames") > 0 {
                let urls = rule.get("nonResourceURLs").cloned().unwrap_or_default();
                errors.invalid(
                    &path.child("nonResourceURLs"),
                    urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            return;
        }
        if count(rule, "apiGroups") == 0 {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if count(rule, "resources") == 0 {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn validate_aggregation(role: &Value, errors: &mut ErrorList) {
    let path = Path::Root.child("aggregationRule");
    let at_selectors = path.child("clusterRoleSelectors");
    let wanted = list(at(role, &["aggregationRule"]), "clusterRoleSelectors");
    if wanted.is_empty() {
        errors.required(
            &at_selectors,
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        );
    }
    for (i, selector) in wanted.iter().enumerate() {
        selectors::validate(selector, &at_selectors.index(i), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_name_verbs_and_targets() {
        let check = |cluster: bool, rule: Value, wanted: &[&str]| {
            let errors =
                RoleRules { cluster }.validate(&json!({"metadata": {"name": "system:x"}, "rules": [rule]}));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, wanted);
        };
        check(false, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), &[]);
        check(false, json!({}), &["rules[0].verbs", "rules[0].apiGroups", "rules[0].resources"]);
        check(true, json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}), &[]);
        check(
            false,
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
            &["rules[0].nonResourceURLs"],
        );
    }
}
