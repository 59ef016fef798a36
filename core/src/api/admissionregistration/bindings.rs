//! What the bindings of the two kinds of admission policies have in common.

use super::matching::{default_resources, validate_resources};
use crate::ErrorList;
use crate::api::kit::checks::{must_be_one_of, needed_name};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, path_segment};
use crate::api::kit::selectors::{self, format_label_selector};
use crate::api::kit::{ErrorSink, Path, column, get, list, name_column, object_mut, sub, text};
use crate::resource::{PrinterColumn, Strategy};
use serde_json::Value;
use std::collections::BTreeSet;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const ALONE: &str = "name and selector are mutually exclusive";

pub(super) fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("PolicyName", "string", "The policy.", |o, _| text(sub(o, "spec"), "policyName").into()),
        column("ParamRef", "string", "The object with the parameters.", |o, _| parameters(o).into()),
        age_column(),
    ]
}

fn parameters(binding: &Value) -> String {
    let reference = sub(sub(binding, "spec"), "paramRef");
    match (text(reference, "name"), text(reference, "namespace"), get(reference, "selector")) {
        ("", _, None) => "<unset>".to_owned(),
        ("", _, Some(selector)) => format_label_selector(selector),
        (name, "", _) => format!("*/{name}"),
        (name, namespace, _) => format!("{namespace}/{name}"),
    }
}

/// The rules of a binding.
pub(super) struct BindingRules {
    /// Whether it says what follows of a violation.
    pub(super) actions: bool,
}

impl Strategy for BindingRules {
    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        if let Some(resources) = spec.and_then(|spec| object_mut(spec, "matchResources")) {
            default_resources(resources);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        needed_name(spec, "policyName", NameRule::Subdomain, &path, &mut errors);
        if let Some(reference) = get(spec, "paramRef") {
            validate_parameters(reference, &path.child("paramRef"), &mut errors);
        }
        if let Some(resources) = get(spec, "matchResources") {
            validate_resources(resources, &path.child("matchResources"), &mut errors);
        }
        if self.actions {
            validate_actions(spec, &path.child("validationActions"), &mut errors);
        }
        errors
    }
}

fn validate_parameters(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (name, selector) = (text(reference, "name"), get(reference, "selector"));
    for problem in path_segment(name) {
        errors.invalid(&path.child("name"), name, &problem);
    }
    if let Some(selector) = selector {
        selectors::validate(selector, &path.child("selector"), errors);
    }
    match (name.is_empty(), selector.is_some()) {
        (false, true) => {
            errors.forbidden(&path.child("name"), ALONE);
            errors.forbidden(&path.child("selector"), ALONE);
        }
        (true, false) => errors.required(path, "one of name or selector must be specified"),
        _ => {}
    }
    must_be_one_of(reference, "parameterNotFoundAction", &["Allow", "Deny"], path, errors);
}

fn validate_actions(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let actions = list(spec, "validationActions");
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        let action = action.as_str().unwrap_or("");
        if !ACTIONS.contains(&action) {
            errors.not_supported(&path.index(i), action, &ACTIONS);
        }
        if !seen.insert(action) {
            errors.duplicate(&path.index(i), action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.invalid(
            path,
            actions.to_vec(),
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        );
    }
    if actions.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts};
    use serde_json::json;

    #[test]
    fn bindings_are_refused_in_upstreams_words() {
        let rules = BindingRules { actions: true };
        let check = |spec: Value, wanted: &[&str]| {
            let mut object = json!({"metadata": {"name": "b"}, "spec": spec});
            rules.default(&mut object);
            assert_eq!(texts(&rules.validate(&object)), wanted);
        };
        check(json!({"policyName": "p", "validationActions": ["Deny"], "matchResources": {}}), &[]);
        check(
            json!({"validationActions": []}),
            &[
                "spec.policyName: Required value",
                "spec.validationActions: Required value: at least one validation action is required",
            ],
        );
        check(
            json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}}),
            &[
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            ],
        );
        check(
            json!({"policyName": "p", "validationActions": ["Deny", "Deny", "Log"], "paramRef": {"parameterNotFoundAction": "Deny"}}),
            &[
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.validationActions[1]: Duplicate value: \"Deny\"",
                "spec.validationActions[2]: Unsupported value: \"Log\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            ],
        );
        let object =
            json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "paramRef": {"name": "x"}}});
        assert_eq!(row(&columns(), &object), json!(["b", "p", "*/x", "<unknown>"]));
    }
}
