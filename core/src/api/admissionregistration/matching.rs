//! Which requests admission is asked about: rules, selectors and conditions.

use crate::api::kit::checks::must_be_one_of;
use crate::api::kit::names::{label_1035, path_segment, qualified, subdomain};
use crate::api::kit::{ErrorSink, Path, default_text, default_to, get, list, list_mut, selectors, sub, text};
use crate::cel::admission::PolicyCode;
use crate::{ErrorList, FieldError, FieldPath};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const CONDITIONS_MAX: usize = 64;

/// The defaults of what a policy or webhook matches by: selectors that take all, and the equivalents of each resource.
pub(super) fn default_matching(owner: &mut Value) {
    default_text(owner, "matchPolicy", "Equivalent");
    for field in ["namespaceSelector", "objectSelector"] {
        default_to(owner, field, Map::new());
    }
}

/// The defaults of a list of rules.
pub(super) fn default_rules(owner: &mut Value, field: &str) {
    for rule in list_mut(owner, field) {
        default_text(rule, "scope", "*");
    }
}

/// The defaults of `matchConstraints` and `matchResources`.
pub(super) fn default_resources(resources: &mut Value) {
    default_matching(resources);
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

/// Validates the two selectors, where they are set.
pub(super) fn validate_selectors(owner: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = get(owner, field) {
            selectors::validate(selector, &path.child(field), errors);
        }
    }
}

/// Validates `matchConstraints` or `matchResources`.
pub(super) fn validate_resources(resources: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    must_be_one_of(resources, "matchPolicy", &MATCH_POLICIES, path, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        if get(resources, field).is_none() {
            errors.required(&path.child(field), "");
        }
    }
    validate_selectors(resources, path, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        let at = path.child(field);
        for (i, rule) in list(resources, field).iter().enumerate() {
            let item = at.index(i);
            validate_names(rule, &item.child("resourceNames"), errors);
            validate_rule(rule, &item, errors);
        }
    }
}

fn validate_names(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, name) in list(rule, "resourceNames").iter().enumerate() {
        let name = name.as_str().unwrap_or("");
        for problem in path_segment(name) {
            errors.invalid(&path.index(i), name, &problem);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.index(i), name);
        }
    }
}

fn texts<'a>(owner: &'a Value, field: &str) -> Vec<&'a str> {
    list(owner, field).iter().map(|v| v.as_str().unwrap_or("")).collect()
}

/// Validates a rule: operations on resources of groups and versions.
pub(super) fn validate_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (field, others) in
        [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")]
    {
        let at = path.child(field);
        let values = texts(rule, field);
        if values.is_empty() {
            errors.required(&at, "");
        }
        if values.len() > 1 && values.contains(&"*") {
            let detail = format!("if '*' is present, must not specify other {others}");
            errors.invalid(&at, sub(rule, field).clone(), &detail);
        }
        for (i, value) in values.iter().enumerate() {
            if field == "operations" && !OPERATIONS.contains(value) {
                errors.not_supported(&at.index(i), *value, &OPERATIONS);
            }
            if field == "apiVersions" && value.is_empty() {
                errors.required(&at.index(i), "");
            }
        }
    }
    validate_targets(rule, &path.child("resources"), errors);
    let scope = text(rule, "scope");
    if !scope.is_empty() && !SCOPES.contains(&scope) {
        errors.not_supported(&path.child("scope"), scope, &SCOPES);
    }
}

/// Resources with and without subresources; a star makes those that it stands for superfluous.
fn validate_targets(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let targets = texts(rule, "resources");
    if targets.is_empty() {
        errors.required(path, "");
    }
    let (mut all_below, mut below_all) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, target) in targets.iter().enumerate() {
        let at = path.index(i);
        if target.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let Some((resource, below)) = target.split_once('/') else {
            plain = *target != "*";
            continue;
        };
        for (there, star) in [
            (all_below.contains(resource), format!("{resource}/*")),
            (below_all.contains(below), format!("*/{below}")),
        ] {
            if there {
                let detail = format!("if '{star}' is present, must not specify {target}");
                errors.invalid(&at, *target, &detail);
            }
        }
        if below == "*" {
            all_below.insert(resource);
        }
        if resource == "*" {
            below_all.insert(below);
        }
    }
    let whole = || sub(rule, "resources").clone();
    if targets.len() > 1 && targets.contains(&"*/*") {
        errors.invalid(path, whole(), "if '*/*' is present, must not specify other resources");
    }
    if targets.contains(&"*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, whole(), detail);
    }
}

/// Tells which expressions do not compile.
pub(super) fn report(code: &PolicyCode, path: &Path<'_>, errors: &mut ErrorList) {
    for problem in &code.problems {
        let (list, i, field) = problem.place;
        let at = FieldPath::new(&format!("{path}.{list}[{i}].{field}"));
        errors.push(FieldError::invalid(&at, problem.text.as_str(), &problem.detail));
    }
}

/// Validates `matchConditions` but for what their expressions say.
pub(super) fn validate_conditions(owner: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("matchConditions");
    let conditions = list(owner, "matchConditions");
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(&at, conditions.len(), CONDITIONS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let item = at.index(i);
        if text(condition, "expression").trim().is_empty() {
            errors.required(&item.child("expression"), "");
        }
        let name = text(condition, "name");
        if name.is_empty() {
            errors.required(&item.child("name"), "");
            continue;
        }
        for problem in qualified(name) {
            errors.invalid(&item.child("name"), name, &problem);
        }
        if !seen.insert(name) {
            errors.duplicate(&item.child("name"), name);
        }
    }
}

/// Validates `paramKind`.
pub(super) fn validate_param_kind(kind: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("apiVersion");
    let api_version = text(kind, "apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        errors.required(&at, "");
    } else if version.contains('/') {
        let detail = format!("unexpected GroupVersion string: {api_version}");
        errors.invalid(&at, api_version, &detail);
    } else {
        if !group.is_empty() && !subdomain(group).is_empty() {
            errors.invalid(&at, group, &subdomain(group).join(","));
        }
        if version.is_empty() {
            errors.invalid(&at, api_version, "version must be specified");
        } else if !label_1035(version).is_empty() {
            errors.invalid(&at, version, &label_1035(version).join(","));
        }
    }
    let name = text(kind, "kind");
    let problems = label_1035(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&path.child("kind"), "");
    } else if !problems.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
        errors.invalid(&path.child("kind"), name, &detail);
    }
}

/// Validates `variables` of a policy.
pub(super) fn validate_variables(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("variables");
    for (i, variable) in list(spec, "variables").iter().enumerate() {
        let item = at.index(i);
        let name = text(variable, "name");
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if name.trim().is_empty() {
            errors.required(&item.child("name"), "name is not specified");
        } else if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            errors.invalid(&item.child("name"), name, "name is not a valid CEL identifier");
        }
        if text(variable, "expression").trim().is_empty() {
            errors.required(&item.child("expression"), "expression is not specified");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn rules_are_refused_in_upstreams_words() {
        let check = |operations: Value, resources: Value, wanted: &[&str]| {
            let rule = json!({"operations": operations, "apiGroups": ["*"], "apiVersions": ["v1"], "resources": resources});
            let mut errors = ErrorList::new();
            validate_rule(&rule, &Path::Root.child("r"), &mut errors);
            assert_eq!(texts(&errors), wanted);
        };
        check(json!(["CREATE"]), json!(["pods", "pods/*"]), &[]);
        check(json!([]), json!([]), &["r.operations: Required value", "r.resources: Required value"]);
        check(
            json!(["*", "CREATE"]),
            json!(["*", "pods"]),
            &[
                "r.operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
                "r.resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
            ],
        );
        check(
            json!(["PATCH"]),
            json!(["pods/*", "pods/log"]),
            &[
                "r.operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "r.resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ],
        );
    }

    #[test]
    fn conditions_variables_and_parameters_are_checked() {
        let mut errors = ErrorList::new();
        let path = Path::Root.child("spec");
        let spec = json!({
            "matchConditions": [{"name": "a", "expression": " "}, {"name": "a", "expression": "true"}],
            "variables": [{"name": "1a", "expression": "1"}, {}]});
        validate_conditions(&spec, &path, &mut errors);
        validate_variables(&spec, &path, &mut errors);
        validate_param_kind(&json!({"apiVersion": "a/b/c"}), &path.child("paramKind"), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "spec.matchConditions[0].expression: Required value",
                "spec.matchConditions[1].name: Duplicate value: \"a\"",
                "spec.variables[0].name: Invalid value: \"1a\": name is not a valid CEL identifier",
                "spec.variables[1].name: Required value: name is not specified",
                "spec.variables[1].expression: Required value: expression is not specified",
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Required value",
            ]
        );
    }
}
