//! ResourceQuota: how much a namespace may use altogether.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::resource_names::{is_quota_name, validate_amount, validate_quota};
use crate::api::kit::{
    ErrorSink, Path, column, count, describe, entries, get, list, name_column, names, same, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const CONFLICTS: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("NotTerminating", "Terminating")];
const COMPUTE: [&str; 6] =
    ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// The descriptor of ResourceQuota.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["quota"]),
        status: true,
        strategy: Arc::new(QuotaRules),
        columns: vec![
            name_column(),
            column("Request", "string", "What is used of what may be asked for.", |o, _| {
                used(o, |name| !name.starts_with("limits.")).into()
            }),
            column("Limit", "string", "What is used of what may be promised at most.", |o, _| {
                used(o, |name| name.starts_with("limits.")).into()
            }),
            age_column(),
        ],
        ..describe::<ResourceQuota>(Scope::Namespaced)
    }
}

fn used(quota: &Value, of: fn(&str) -> bool) -> String {
    let status = sub(quota, "status");
    let mut parts: Vec<String> = entries(status, "hard")
        .filter(|(name, _)| of(name))
        .map(|(name, hard)| {
            let used = sub(status, "used").get(name).and_then(Value::as_str).unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"))
        })
        .collect();
    parts.sort();
    parts.join(", ")
}

struct QuotaRules;

impl Strategy for QuotaRules {
    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_amounts(spec, "hard", &path, &mut errors);
        validate_scopes(spec, &path, &mut errors);
        if let Some(selector) = get(spec, "scopeSelector") {
            validate_selector(spec, selector, &path.child("scopeSelector"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            let mut errors = ErrorList::new();
            for field in ["hard", "used"] {
                validate_amounts(sub(object, "status"), field, &Path::Root.child("status"), &mut errors);
            }
            return errors;
        }
        let mut errors = self.validate(object);
        let scopes = |o| -> BTreeSet<&str> {
            list(sub(o, "spec"), "scopes").iter().filter_map(Value::as_str).collect()
        };
        let selector = |o| sub(sub(o, "spec"), "scopeSelector");
        if scopes(object) != scopes(old) || !same(selector(object), selector(old)) {
            let path = Path::Root.child("spec");
            let value = sub(sub(object, "spec"), "scopes").clone();
            errors.invalid(&path.child("scopes"), value, "field is immutable");
        }
        errors
    }
}

fn validate_amounts(owner: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child(field);
    for (name, amount) in entries(owner, field) {
        validate_quota(name, &at.key(name), errors);
        validate_amount(name, amount, &at.key(name), errors);
    }
}

/// Whether a scope can be told of what a quota counts.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

/// What of the quota a scope can't be told of.
fn misfits(spec: &Value, scope: &str) -> usize {
    entries(spec, "hard").filter(|(name, _)| is_quota_name(name) && !fits(scope, name)).count()
}

fn validate_scopes(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("scopes");
    let scopes: Vec<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    let value = || sub(spec, "scopes").clone();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(&at, value(), "unsupported scope");
        }
        for _ in 0..misfits(spec, scope) {
            errors.invalid(&at, value(), "unsupported scope applied to resource");
        }
    }
    for (a, b) in CONFLICTS {
        if scopes.contains(&a) && scopes.contains(&b) {
            errors.invalid(&at, value(), "conflicting scopes");
        }
    }
}

fn validate_selector(spec: &Value, selector: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("matchExpressions");
    let mut seen = BTreeSet::new();
    for requirement in list(selector, "matchExpressions") {
        let scope = text(requirement, "scopeName");
        seen.insert(scope);
        if !SCOPES.contains(&scope) {
            errors.invalid(&at.child("scopeName"), scope, "unsupported scope");
        }
        for _ in 0..misfits(spec, scope) {
            errors.invalid(&at, selector.clone(), "unsupported scope applied to resource");
        }
        let operator = text(requirement, "operator");
        if SCOPES[..4].contains(&scope) && operator != "Exists" {
            errors.invalid(
                &at.child("operator"),
                operator,
                "must be 'Exist' only operator when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort and ResourceQuotaScopeNotBestEffort",
            );
        }
        match (operator, count(requirement, "values")) {
            ("In" | "NotIn", 0) => errors.required(
                &at.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            ("Exists" | "DoesNotExist", n) if n > 0 => errors.invalid(
                &at.child("values"),
                sub(requirement, "values").clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
    }
    for (a, b) in CONFLICTS {
        if seen.contains(a) && seen.contains(b) {
            errors.invalid(&at, sub(spec, "scopes").clone(), "conflicting scopes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn quota(spec: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": spec})
    }

    #[test]
    fn quotas_are_refused_in_upstreams_words() {
        let check = |spec: Value, wanted: &[&str]| {
            assert_eq!(texts(&QuotaRules.validate(&quota(spec))), wanted);
        };
        check(json!({"hard": {"pods": "5", "limits.cpu": "2", "count/jobs.batch": "3"}}), &[]);
        check(
            json!({"hard": {"pods": "-1"}}),
            &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            json!({"hard": {"pods": "500m"}}),
            &["spec.hard[pods]: Invalid value: \"500m\": must be an integer"],
        );
        check(
            json!({"hard": {"storage": "1"}}),
            &["spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota"],
        );
        check(
            json!({"hard": {"services": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
            &[
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ],
        );
        check(
            json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
            &[
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        );
    }

    #[test]
    fn scopes_stay_and_use_is_shown() {
        let old = quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}));
        let new = quota(json!({"hard": {"pods": "2"}, "scopes": ["NotBestEffort"]}));
        assert_eq!(
            texts(&QuotaRules.validate_update(&new, &old, write(None))),
            ["spec.scopes: Invalid value: [\"NotBestEffort\"]: field is immutable"]
        );
        let object = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"pods": "5", "cpu": "2", "limits.cpu": "4"}, "used": {"pods": "1", "limits.cpu": "1"}}});
        let columns = descriptor(&BuiltinOptions::default()).columns;
        assert_eq!(
            row(&columns, &object),
            json!(["q", "cpu: 0/2, pods: 1/5", "limits.cpu: 1/4", "<unknown>"])
        );
    }
}
