//! Validation of the devices of a ResourceSlice.

use super::configuration::validate_set;
use crate::ErrorList;
use crate::api::kit::checks::needed_name;
use crate::api::kit::names::{NameRule, label, label_value, qualified, subdomain};
use crate::api::kit::quantities::{MALFORMED, nanos};
use crate::api::kit::{ErrorSink, Path, count, entries, flag, get, list, sub, text};
use serde_json::Value;

const ATTRIBUTES_MAX: usize = 32;
const VALUE_BYTES_MAX: usize = 64;
const POOL_BYTES_MAX: usize = 253;
const TAINTS_MAX: usize = 16;
const COUNTER_SETS_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;
/// What an attribute may be, of which it is one.
const VALUES: [&str; 8] = ["bool", "bools", "int", "ints", "string", "strings", "version", "versions"];

/// Validates the name of a pool.
pub(super) fn validate_pool_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > POOL_BYTES_MAX {
        errors.too_long(path, POOL_BYTES_MAX);
    }
    for part in name.split('/') {
        for problem in subdomain(part) {
            errors.invalid(path, part, &problem);
        }
    }
}

/// Validates a device; `own_nodes` tells whether each device of the slice says itself where it is.
pub(super) fn validate_device(device: &Value, own_nodes: bool, path: &Path<'_>, errors: &mut ErrorList) {
    needed_name(device, "name", NameRule::Label, path, errors);
    let total = count(device, "attributes") + count(device, "capacity");
    if total > ATTRIBUTES_MAX {
        let detail =
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.invalid(path, total, &detail);
    }
    let attributes = path.child("attributes");
    for (name, attribute) in entries(device, "attributes") {
        validate_key(name, &attributes.key(name), errors);
        validate_attribute(attribute, &attributes.key(name), errors);
    }
    let capacity = path.child("capacity");
    for (name, amount) in entries(device, "capacity") {
        validate_key(name, &capacity.key(name), errors);
        validate_quantity(amount, &capacity.key(name), errors);
        if get(amount, "requestPolicy").is_some() && !flag(device, "allowMultipleAllocations") {
            let at = capacity.key(name);
            errors.forbidden(&at.child("requestPolicy"), "allowMultipleAllocations must be true");
        }
    }
    let at = path.child("taints");
    let taints = list(device, "taints");
    if taints.len() > TAINTS_MAX {
        errors.too_many(&at, taints.len(), TAINTS_MAX);
    }
    for (i, taint) in taints.iter().enumerate() {
        validate_taint(taint, &at.index(i), errors);
    }
    let consumed = list(device, "consumesCounters");
    let at = path.child("consumesCounters");
    validate_set(consumed, COUNTER_SETS_MAX, |c| text(c, "counterSet"), &at, errors);
    for (i, set) in consumed.iter().enumerate() {
        needed_name(set, "counterSet", NameRule::Label, &at.index(i), errors);
        validate_counters(set, &at.index(i), errors);
    }
    validate_place(device, own_nodes, path, errors);
}

fn validate_key(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let (domain, id) = name.split_once('/').map_or((None, name), |(domain, id)| (Some(domain), id));
    if let Some(domain) = domain {
        for problem in subdomain(domain) {
            errors.invalid(path, domain, &problem);
        }
    }
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if id.is_empty() {
        errors.required(path, "the name must not be empty");
    } else if !first || !plain || id.len() > 32 {
        errors.invalid(
            path,
            id,
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or \
             '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
        );
    }
}

fn validate_attribute(attribute: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match VALUES.iter().filter(|field| get(attribute, field).is_some()).count() {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, attribute.clone(), "exactly one value must be specified"),
    }
    for field in ["string", "version"] {
        let value = text(attribute, field);
        if value.len() > VALUE_BYTES_MAX {
            errors.too_long(&path.child(field), VALUE_BYTES_MAX);
        }
        if field == "version" && get(attribute, field).is_some() && !is_version(value) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.invalid(&path.child(field), value, detail);
        }
    }
}

/// Whether a text is a version as semver.org has it: `1.2.3-rc.1+build`.
fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
    let number =
        |s: &str| s == "0" || (!s.is_empty() && !s.starts_with('0') && s.bytes().all(|b| b.is_ascii_digit()));
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(|s| word(s) && (!all_digits(s) || number(s))))
        && build.is_none_or(|b| b.split('.').all(word))
}

fn validate_quantity(owner: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let value = sub(owner, "value");
    if nanos(value).is_none() {
        errors.invalid(&path.child("value"), value.clone(), MALFORMED);
    }
}

fn validate_taint(taint: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (key, value) = (text(taint, "key"), text(taint, "value"));
    for problem in qualified(key) {
        errors.invalid(&path.child("key"), key, &problem);
    }
    for problem in label_value(value) {
        errors.invalid(&path.child("value"), value, &problem);
    }
    match text(taint, "effect") {
        "" => errors.required(&path.child("effect"), ""),
        "None" | "NoSchedule" | "NoExecute" => {}
        other => {
            let known = ["NoExecute", "NoSchedule", "None"];
            errors.not_supported(&path.child("effect"), other, &known);
        }
    }
}

/// Validates `counters`.
pub(super) fn validate_counters(owner: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("counters");
    match count(owner, "counters") {
        0 => errors.required(&at, ""),
        n if n > COUNTERS_MAX => errors.too_many(&at, n, COUNTERS_MAX),
        _ => {}
    }
    for (name, counter) in entries(owner, "counters") {
        for problem in label(name) {
            errors.invalid(&at, name.as_str(), &problem);
        }
        validate_quantity(counter, &at.key(name), errors);
    }
}

fn validate_place(device: &Value, own_nodes: bool, path: &Path<'_>, errors: &mut ErrorList) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to \
                       true in the ResourceSlice spec";
    let given: Vec<String> = ["nodeName", "nodeSelector", "allNodes"]
        .iter()
        .filter(|field| get(device, field).is_some())
        .map(|field| format!("`{field}`"))
        .collect();
    match (own_nodes, given.len()) {
        (true, 0) => errors.required(path, ONE),
        (true, 1) | (false, 0) => {}
        (true, _) => errors.invalid(path, format!("{{{}}}", given.join(", ")), ONE),
        (false, _) => errors.invalid(
            path,
            Value::Null,
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
             ResourceSlice spec",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::fields;
    use serde_json::json;

    #[test]
    fn devices_are_checked() {
        let check = |device: Value, own_nodes: bool, wanted: &[&str]| {
            let mut errors = ErrorList::new();
            validate_device(&device, own_nodes, &Path::Root.child("d"), &mut errors);
            assert_eq!(fields(&errors), wanted, "{device}");
        };
        check(
            json!({"name": "x", "attributes": {"a.io/model": {"string": "m"}, "v": {"version": "1.2.3-rc.1+b"}},
                   "capacity": {"memory": {"value": "1Gi"}}, "taints": [{"key": "k", "effect": "NoSchedule"}]}),
            false,
            &[],
        );
        check(json!({"name": "X"}), false, &["d.name"]);
        check(
            json!({"name": "x", "attributes": {"1a": {}, "v": {"version": "01.2.3"}}}),
            false,
            &["d.attributes[1a]", "d.attributes[1a]", "d.attributes[v].version"],
        );
        check(
            json!({"name": "x", "capacity": {"m": {"value": "a", "requestPolicy": {}}}}),
            false,
            &["d.capacity[m].value", "d.capacity[m].requestPolicy"],
        );
        check(json!({"name": "x"}), true, &["d"]);
        check(json!({"name": "x", "nodeName": "n"}), true, &[]);
        check(json!({"name": "x", "nodeName": "n"}), false, &["d"]);
        check(
            json!({"name": "x", "consumesCounters": [{"counterSet": "c"}]}),
            false,
            &["d.consumesCounters[0].counters"],
        );
    }
}
