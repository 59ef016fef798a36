//! LimitRange: what pods, containers and claims of a namespace may ask for, and what they ask for by default.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::bare_columns;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, qualified};
use crate::api::kit::quantities::nanos;
use crate::api::kit::resource_names::{overcommits, validate, validate_container};
use crate::api::kit::{
    ErrorSink, Path, at, count, describe, ensure, entries, get, list, list_mut, names, object_mut, set, sub,
    text,
};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::LimitRange;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const FIELDS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
const ONE: i128 = 1_000_000_000;

/// The descriptor of LimitRange.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["limits"]),
        strategy: Arc::new(LimitRangeRules),
        columns: bare_columns(),
        ..describe::<LimitRange>(Scope::Namespaced)
    }
}

struct LimitRangeRules;

impl Strategy for LimitRangeRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        for limit in list_mut(spec, "limits").filter(|limit| text(limit, "type") == "Container") {
            // The most allowed is what is given by default, and what is given is what is asked for.
            fill(limit, "default", "max");
            fill(limit, "defaultRequest", "default");
            fill(limit, "defaultRequest", "min");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let spec = Path::Root.child("spec");
        let path = spec.child("limits");
        let mut seen = BTreeSet::new();
        for (i, limit) in list(sub(object, "spec"), "limits").iter().enumerate() {
            let item = path.index(i);
            let kind = text(limit, "type");
            validate_type(kind, &item.child("type"), &mut errors);
            if !seen.insert(kind) {
                errors.duplicate(&item.child("type"), kind);
            }
            validate_limit(limit, &item, &mut errors);
        }
        errors
    }
}

/// Puts the amounts of one field into another where that has none of its own.
fn fill(limit: &mut Value, field: &str, from: &str) {
    let missing: Vec<(String, Value)> = entries(limit, from)
        .filter(|(name, _)| get(sub(limit, field), name).is_none())
        .map(|(name, amount)| (name.clone(), amount.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    if let Some(amounts) = ensure(limit, field) {
        for (name, amount) in missing {
            set(amounts, &name, amount);
        }
    }
}

fn validate_type(kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let problems = qualified(kind);
    for problem in &problems {
        errors.invalid(path, kind, problem);
    }
    let standard = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
    if problems.is_empty() && !kind.contains('/') && !standard {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn validate_limit(limit: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(limit, "type");
    let mut names = BTreeSet::new();
    for field in FIELDS {
        let at_field = path.child(field);
        if kind == "Pod" && field.starts_with("default") {
            if count(limit, field) > 0 {
                errors.forbidden(&at_field, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, _) in entries(limit, field) {
            names.insert(name.as_str());
            match kind {
                "Pod" | "Container" => validate_container(name, &at_field.key(name), errors),
                _ => validate(name, &at_field.key(name), errors),
            }
        }
    }
    let bounded = |field: &str| !at(limit, &[field, "storage"]).is_null();
    if kind == "PersistentVolumeClaim" && !bounded("min") && !bounded("max") {
        errors.required(
            &path.child("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for name in names {
        validate_amounts(limit, name, path, errors);
    }
}

/// Two fields that must stand in order: (lower, upper, field blamed, value shown, what they are called).
const ORDER: [(&str, &str, &str, &str, &str, &str); 6] = [
    ("min", "max", "min", "min", "min", "max"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min", "default request"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request", "max"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request", "default limit"),
    ("min", "default", "default", "min", "min", "default"),
    ("default", "max", "default", "max", "default", "max"),
];

fn validate_amounts(limit: &Value, name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let pod = text(limit, "type") == "Pod";
    let given = |field: &str| get(sub(limit, field), name).filter(|_| !(pod && field.starts_with("default")));
    let amount = |field: &str| given(field).and_then(nanos);
    let shown = |field: &str| given(field).map(plain).unwrap_or_default();
    for (low, high, blamed, value, low_name, high_name) in ORDER {
        if let (Some(a), Some(b)) = (amount(low), amount(high))
            && a > b
        {
            let detail =
                format!("{low_name} value {} is greater than {high_name} value {}", shown(low), shown(high));
            errors.invalid(&path.child(blamed).key(name), shown(value), &detail);
        }
    }
    let ratio_path = path.child("maxLimitRequestRatio");
    let at_ratio = ratio_path.key(name);
    let Some(ratio) = amount("maxLimitRequestRatio") else {
        validate_equal(limit, name, path, errors);
        return;
    };
    let stated = shown("maxLimitRequestRatio");
    if ratio < ONE {
        errors.invalid(&at_ratio, stated.as_str(), &format!("ratio {stated} is less than 1"));
    }
    if let (Some(min), Some(max)) = (amount("min").filter(|min| *min > 0), amount("max")) {
        let most = max as f64 / min as f64;
        if ratio as f64 / ONE as f64 > most {
            let detail = format!("ratio {stated} is greater than max/min = {most:.6}");
            errors.invalid(&at_ratio, stated.as_str(), &detail);
        }
    }
    validate_equal(limit, name, path, errors);
}

/// What can't be promised twice is asked for as it is given.
fn validate_equal(limit: &Value, name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let (default, request) = (sub(sub(limit, "default"), name), sub(sub(limit, "defaultRequest"), name));
    if overcommits(name) || default.is_null() || request.is_null() || nanos(default) == nanos(request) {
        return;
    }
    let detail = format!(
        "default value {} must equal to defaultRequest value {} in {name}",
        plain(default),
        plain(request)
    );
    errors.invalid(&path.child("defaultRequest").key(name), plain(request), &detail);
}

fn plain(amount: &Value) -> String {
    amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn containers_get_defaults_from_the_bounds() {
        let mut object = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "2"}}]}});
        LimitRangeRules.default(&mut object);
        assert_eq!(
            object["spec"]["limits"],
            json!([
                {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "2"},
                 "defaultRequest": {"cpu": "2", "memory": "1Mi"}},
                {"type": "Pod", "max": {"cpu": "2"}}])
        );
    }

    #[test]
    fn limits_are_refused_in_upstreams_words() {
        let check = |limits: Value, wanted: &[&str]| {
            let object = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
            assert_eq!(texts(&LimitRangeRules.validate(&object)), wanted);
        };
        check(json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]), &[]);
        check(
            json!([{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}, "default": {"cpu": "1"}}]),
            &[
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ],
        );
        check(
            json!([{"type": "Thing"}, {"type": "Thing"}]),
            &[
                "spec.limits[0].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified",
                "spec.limits[1].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified",
                "spec.limits[1].type: Duplicate value: \"Thing\"",
            ],
        );
        check(
            json!([{"type": "PersistentVolumeClaim"}]),
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        );
        check(
            json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "3"}}]),
            &[
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ],
        );
        check(
            json!([{"type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"}}]),
            &[
                "spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in example.com/gpu",
            ],
        );
    }
}
