//! Upstream's validation of where a pod may run: affinity, tolerations, spreading.

use crate::ErrorList;
use crate::api::kit::names;
use crate::api::kit::selectors::{self, validate_label_key};
use crate::api::kit::{ErrorSink, Path, count, get, int, list, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate(affinity: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(node) = get(affinity, "nodeAffinity") {
        validate_node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = get(affinity, kind) {
            validate_pod_affinity(pods, &path.child(kind), errors);
        }
    }
}

fn validate_node_affinity(affinity: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(selector) = get(affinity, REQUIRED) {
        let at = path.child(REQUIRED);
        let terms = at.child("nodeSelectorTerms");
        if count(selector, "nodeSelectorTerms") == 0 {
            errors.required(&terms, "must have at least one node selector term");
        }
        for (i, term) in list(selector, "nodeSelectorTerms").iter().enumerate() {
            validate_node_term(term, &terms.index(i), errors);
        }
    }
    let at = path.child(PREFERRED);
    for (i, preferred) in list(affinity, PREFERRED).iter().enumerate() {
        let item = at.index(i);
        validate_weight(preferred, &item, errors);
        validate_node_term(sub(preferred, "preference"), &item.child("preference"), errors);
    }
}

fn validate_weight(preferred: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let weight = int(preferred, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn validate_node_term(term: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("matchExpressions");
    for (i, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let item = at.index(i);
        validate_operator(requirement, &item, errors);
        validate_label_key(text(requirement, "key"), &item.child("key"), errors);
        let values = item.child("values");
        for (j, value) in list(requirement, "values").iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            for problem in names::label_value(value) {
                errors.invalid(&values.index(j), value, &problem);
            }
        }
    }
    let at = path.child("matchFields");
    for (i, requirement) in list(term, "matchFields").iter().enumerate() {
        let item = at.index(i);
        let (key, operator) = (text(requirement, "key"), text(requirement, "operator"));
        match operator {
            "In" | "NotIn" if count(requirement, "values") != 1 => errors.required(
                &item.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            other => errors.invalid(&item.child("operator"), other, "not a valid selector operator"),
        }
        if key != "metadata.name" {
            errors.invalid(&item.child("key"), key, "not a valid field selector key");
        }
    }
}

fn validate_operator(requirement: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let found = count(requirement, "values");
    let values = path.child("values");
    match text(requirement, "operator") {
        "In" | "NotIn" if found == 0 => {
            errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if found > 0 => {
            errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if found != 1 => {
            errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
}

fn validate_pod_affinity(affinity: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child(REQUIRED);
    for (i, term) in list(affinity, REQUIRED).iter().enumerate() {
        validate_pod_term(term, &at.index(i), errors);
    }
    let at = path.child(PREFERRED);
    for (i, preferred) in list(affinity, PREFERRED).iter().enumerate() {
        let item = at.index(i);
        validate_weight(preferred, &item, errors);
        validate_pod_term(sub(preferred, "podAffinityTerm"), &item.child("podAffinityTerm"), errors);
    }
}

fn validate_pod_term(term: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = get(term, field) {
            selectors::validate(selector, &path.child(field), errors);
        }
    }
    let at = path.child("namespaces");
    for name in list(term, "namespaces").iter().filter_map(Value::as_str) {
        for problem in names::label(name) {
            errors.invalid(&at, name, &problem);
        }
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    validate_label_key(key, &path.child("topologyKey"), errors);
}

/// Validates the tolerations of a pod spec.
pub(crate) fn validate_tolerations(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("tolerations");
    for (i, toleration) in list(spec, "tolerations").iter().enumerate() {
        validate_toleration(toleration, &at.index(i), errors);
    }
}

fn validate_toleration(toleration: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
    if !key.is_empty() {
        validate_label_key(key, &path.child("key"), errors);
    }
    if key.is_empty() && operator != "Exists" {
        errors.invalid(
            &path.child("operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if get(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
        errors.invalid(
            &path.child("effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        );
    }
    match operator {
        "" | "Equal" => {
            for problem in names::label_value(value) {
                errors.invalid(&path.child("operator"), value, &problem);
            }
        }
        "Exists" => {
            if !value.is_empty() {
                errors.invalid(
                    &path.child("operator"),
                    toleration.clone(),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
        }
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        errors.not_supported(&path.child("effect"), effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

/// Validates the topology spread constraints of a pod spec.
pub(super) fn validate_spread(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("topologySpreadConstraints");
    let mut seen = BTreeSet::new();
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let item = at.index(i);
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&item.child("maxSkew"), skew, "must be greater than zero");
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            errors.required(&item.child("topologyKey"), "can not be empty");
        } else {
            validate_label_key(key, &item.child("topologyKey"), errors);
        }
        let action = text(constraint, "whenUnsatisfiable");
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(
                &item.child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        if !seen.insert((key, action)) {
            errors.duplicate(&item.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            if domains <= 0 {
                errors.invalid(&item.child("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                errors.invalid(
                    &item.child("minDomains"),
                    domains,
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                );
            }
        }
        if let Some(selector) = get(constraint, "labelSelector") {
            selectors::validate(selector, &item.child("labelSelector"), errors);
        }
    }
}
