//! What a claim asks for, also in templates: its defaults and validation.

use super::configuration::{CONFIG_MAX, validate_configuration, validate_selectors, validate_set};
use crate::ErrorList;
use crate::api::kit::checks::needed_name;
use crate::api::kit::names::{NameRule, label, qualified};
use crate::api::kit::{
    ErrorSink, Path, default_int, default_text, get, int, list, list_mut, object_mut, sub, text,
};
use serde_json::Value;

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// The defaults of a claim's spec.
pub(super) fn default_claim(spec: &mut Value) {
    let Some(devices) = object_mut(spec, "devices") else { return };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = object_mut(request, "exactly") {
            default_request(exactly);
        }
        list_mut(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    default_text(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        default_int(request, "count", 1);
    }
    for toleration in list_mut(request, "tolerations") {
        default_text(toleration, "operator", "Equal");
    }
}

/// Whether a claim has a request of this name, or `request/alternative`.
pub(super) fn has_request(devices: &Value, name: &str) -> bool {
    let (first, rest) = name.split_once('/').map_or((name, None), |(a, b)| (a, Some(b)));
    let request = list(devices, "requests").iter().find(|r| text(r, "name") == first);
    match (request, rest) {
        (Some(request), Some(rest)) => {
            list(request, "firstAvailable").iter().any(|r| text(r, "name") == rest)
        }
        (request, None) => request.is_some(),
        (None, Some(_)) => false,
    }
}

/// Validates a claim's spec.
pub(super) fn validate_claim(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let devices = sub(spec, "devices");
    let path = path.child("devices");
    let requests = list(devices, "requests");
    let at = path.child("requests");
    validate_set(requests, REQUESTS_MAX, |r| text(r, "name"), &at, errors);
    for (i, request) in requests.iter().enumerate() {
        validate_request(request, &at.index(i), errors);
    }
    let at = path.child("constraints");
    let constraints = list(devices, "constraints");
    if constraints.len() > CONSTRAINTS_MAX {
        errors.too_many(&at, constraints.len(), CONSTRAINTS_MAX);
    }
    for (i, constraint) in constraints.iter().enumerate() {
        validate_constraint(constraint, devices, &at.index(i), errors);
    }
    let at = path.child("config");
    let configs = list(devices, "config");
    if configs.len() > CONFIG_MAX {
        errors.too_many(&at, configs.len(), CONFIG_MAX);
    }
    for (i, config) in configs.iter().enumerate() {
        validate_references(config, devices, &at.index(i), errors);
        validate_configuration(config, &at.index(i), errors);
    }
}

fn validate_request(request: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    needed_name(request, "name", NameRule::Label, path, errors);
    let alternatives = list(request, "firstAvailable");
    match (get(request, "exactly"), alternatives.is_empty()) {
        (None, true) => {
            errors.required(path, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (Some(_), false) => errors.invalid(
            path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (Some(exactly), true) => validate_wish(exactly, &path.child("exactly"), errors),
        (None, false) => {
            let at = path.child("firstAvailable");
            validate_set(alternatives, ALTERNATIVES_MAX, |r| text(r, "name"), &at, errors);
            for (i, alternative) in alternatives.iter().enumerate() {
                needed_name(alternative, "name", NameRule::Label, &at.index(i), errors);
                validate_wish(alternative, &at.index(i), errors);
            }
        }
    }
}

fn validate_wish(wish: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    needed_name(wish, "deviceClassName", NameRule::Subdomain, path, errors);
    validate_selectors(wish, path, errors);
    let count = int(wish, "count").unwrap_or(0);
    match text(wish, "allocationMode") {
        "All" if count != 0 => {
            errors.invalid(&path.child("count"), count, "must not be specified when allocationMode is 'All'")
        }
        "ExactCount" if count <= 0 => {
            errors.invalid(&path.child("count"), count, "must be greater than zero");
        }
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let at = path.child("tolerations");
    for (i, toleration) in list(wish, "tolerations").iter().enumerate() {
        validate_toleration(toleration, &at.index(i), errors);
    }
}

fn validate_toleration(toleration: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (key, value) = (text(toleration, "key"), text(toleration, "value"));
    for problem in qualified(key).iter().filter(|_| !key.is_empty()) {
        errors.invalid(&path.child("key"), key, problem);
    }
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`")
        }
        "Exists" => {}
        "Equal" => {
            for problem in crate::api::kit::names::label_value(value) {
                errors.invalid(&path.child("value"), value, &problem);
            }
        }
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    let effect = text(toleration, "effect");
    if !matches!(effect, "" | "None" | "NoSchedule" | "NoExecute") {
        let known = ["NoExecute", "NoSchedule", "None"];
        errors.not_supported(&path.child("effect"), effect, &known);
    }
}

/// Validates names of requests.
pub(super) fn validate_references(owner: &Value, devices: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("requests");
    let names = list(owner, "requests");
    validate_set(names, REQUESTS_MAX, |name| name.as_str().unwrap_or(""), &at, errors);
    for (i, name) in names.iter().enumerate() {
        validate_reference(name.as_str().unwrap_or(""), devices, &at.index(i), errors);
    }
}

/// Validates the name of a request.
pub(super) fn validate_reference(name: &str, devices: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if name.matches('/').count() <= 1 {
        for problem in name.split('/').flat_map(label) {
            errors.invalid(path, name, &problem);
        }
    }
    if !has_request(devices, name) {
        errors.invalid(path, name, REFERENCE);
    }
}

fn validate_constraint(constraint: &Value, devices: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_references(constraint, devices, path, errors);
    let mut attributes =
        ["matchAttribute", "distinctAttribute"].into_iter().filter(|field| get(constraint, field).is_some());
    match attributes.next() {
        None => errors.required(
            path,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        ),
        Some(field) => {
            let name = text(constraint, field);
            if !name.contains('/') {
                errors.invalid(&path.child(field), name, "a fully qualified name must be a domain and a name separated by a slash");
            }
            for problem in qualified(name) {
                errors.invalid(&path.child(field), name, &problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn claims_are_defaulted_and_checked() {
        let check = |devices: Value, wanted: &[&str]| {
            let mut spec = json!({"devices": devices});
            default_claim(&mut spec);
            let mut errors = ErrorList::new();
            validate_claim(&spec, &Path::Root.child("spec"), &mut errors);
            assert_eq!(texts(&errors), wanted);
        };
        let good = json!({"name": "r", "exactly": {"deviceClassName": "gpu"}});
        let mut spec = json!({"devices": {"requests": [good]}});
        default_claim(&mut spec);
        let exactly = &spec["devices"]["requests"][0]["exactly"];
        assert_eq!((&exactly["allocationMode"], &exactly["count"]), (&json!("ExactCount"), &json!(1)));
        check(
            json!({"requests": [good], "constraints": [{"requests": ["r"], "matchAttribute": "a.io/b"}]}),
            &[],
        );
        check(
            json!({"requests": [good, good, {"name": "s"}]}),
            &[
                "spec.devices.requests[1]: Duplicate value: \"r\"",
                "spec.devices.requests[2]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ],
        );
        check(
            json!({"requests": [{"name": "r", "exactly": {"allocationMode": "All", "count": 2}}]}),
            &[
                "spec.devices.requests[0].exactly.deviceClassName: Required value",
                "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            ],
        );
        let first = json!({"name": "r", "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]});
        check(
            json!({"requests": [first], "constraints": [{"requests": ["r/a"], "matchAttribute": "a.io/b"}]}),
            &[],
        );
        check(
            json!({"requests": [first], "constraints": [{"requests": ["r/b"], "matchAttribute": "a.io/b"}]}),
            &[
                "spec.devices.constraints[0].requests[0]: Invalid value: \"r/b\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            ],
        );
    }
}
