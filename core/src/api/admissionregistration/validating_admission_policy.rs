//! ValidatingAdmissionPolicy: expressions that objects must satisfy to be written.

use super::matching::{
    default_resources, report, validate_conditions, validate_param_kind, validate_resources,
    validate_variables,
};
use super::webhooks::FAILURE_POLICIES;
use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, must_be_one_of, one_of};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, qualified};
use crate::api::kit::{
    ErrorSink, Path, column, count, default_text, describe, get, list, name_column, names, object_mut, sub,
    text,
};
use crate::cel::admission::compile_policy;
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;

/// The descriptor of ValidatingAdmissionPolicy.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: names(&["api-extensions"]),
        status: true,
        generation: true,
        strategy: Arc::new(PolicyRules),
        columns: vec![
            name_column(),
            column("Validations", "integer", "How many expressions it has.", |o, _| {
                count(sub(o, "spec"), "validations").into()
            }),
            column("ParamKind", "string", "The kind of its parameters.", |o, _| param_kind(o).into()),
            age_column(),
        ],
        ..describe::<ValidatingAdmissionPolicy>(Scope::Cluster)
    }
}

/// The kind of a policy's parameters, as a table shows it.
pub(super) fn param_kind(policy: &Value) -> String {
    match get(sub(policy, "spec"), "paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
        None => "<unset>".to_owned(),
    }
}

/// The defaults that the two kinds of policies share.
pub(super) fn default_policy(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else { return };
    default_text(spec, "failurePolicy", "Fail");
    if let Some(resources) = object_mut(spec, "matchConstraints") {
        default_resources(resources);
    }
}

/// The rules that the two kinds of policies share.
pub(super) fn validate_policy(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    must_be_one_of(spec, "failurePolicy", &FAILURE_POLICIES, path, errors);
    if let Some(kind) = get(spec, "paramKind") {
        validate_param_kind(kind, &path.child("paramKind"), errors);
    }
    let at = path.child("matchConstraints");
    match get(spec, "matchConstraints") {
        None => errors.required(&at, ""),
        Some(resources) => {
            validate_resources(resources, &at, errors);
            if count(resources, "resourceRules") == 0 {
                errors.required(&at.child("resourceRules"), "");
            }
        }
    }
    validate_conditions(spec, path, errors);
    validate_variables(spec, path, errors);
    report(&compile_policy(spec), path, errors);
}

struct PolicyRules;

impl Strategy for PolicyRules {
    fn default(&self, object: &mut Value) {
        default_policy(object);
    }

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
        validate_policy(spec, &path, &mut errors);
        if count(spec, "validations") + count(spec, "auditAnnotations") == 0 {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.required(&path.child("validations"), detail);
            errors.required(&path.child("auditAnnotations"), detail);
        }
        let at = path.child("validations");
        for (i, validation) in list(spec, "validations").iter().enumerate() {
            validate_validation(validation, &at.index(i), &mut errors);
        }
        validate_annotations(object, &path.child("auditAnnotations"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") { ErrorList::new() } else { self.validate(object) }
    }
}

fn validate_validation(validation: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if text(validation, "expression").trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    }
    let (message, expression) = (text(validation, "message"), text(validation, "messageExpression"));
    if !expression.is_empty() && expression.trim().is_empty() {
        errors.invalid(&path.child("messageExpression"), expression, "must be non-empty if specified");
    }
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&path.child("message"), message, "message must not contain line breaks");
    }
    one_of(validation, "reason", &REASONS, path, errors);
}

fn validate_annotations(policy: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let annotations = list(sub(policy, "spec"), "auditAnnotations");
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.invalid(path, annotations.to_vec(), &detail);
    }
    let policy = text(sub(policy, "metadata"), "name");
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let item = path.index(i);
        let key = text(annotation, "key");
        let full = format!("{policy}/{key}");
        for problem in qualified(&full) {
            errors.invalid(&item.child("key"), full.as_str(), &problem);
        }
        let expression = text(annotation, "valueExpression").trim();
        if expression.is_empty() {
            errors.required(&item.child("valueExpression"), "valueExpression is not specified");
        } else if expression.len() > ANNOTATION_BYTES_MAX {
            let detail = format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length");
            errors.required(&item.child("valueExpression"), &detail);
        }
        if !seen.insert(key) {
            errors.duplicate(&item.child("key"), key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts};
    use serde_json::json;

    #[test]
    fn policies_are_refused_in_upstreams_words() {
        let policy = || {
            let mut object = json!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
                "validations": [{"expression": "true"}]}});
            PolicyRules.default(&mut object);
            object
        };
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = policy();
            change(&mut object["spec"]);
            assert_eq!(texts(&PolicyRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |s| s["validations"] = json!([]),
            &[
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        );
        check(
            |s| s["matchConstraints"]["resourceRules"] = json!([]),
            &["spec.matchConstraints.resourceRules: Required value"],
        );
        check(
            |s| s["validations"][0] = json!({"expression": " ", "message": "a\nb", "reason": "Odd"}),
            &[
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                "spec.validations[0].reason: Unsupported value: \"Odd\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            ],
        );
        check(
            |s| s["auditAnnotations"] = json!([{"key": "a", "valueExpression": "'x'"}, {"key": "a"}]),
            &[
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
            ],
        );
        check(
            |s| {
                s["variables"] = json!([{"name": "v", "expression": "object.spec"}, {"name": "w", "expression": "variables.v.x + nope"}]);
                s["validations"] = json!([{"expression": "variables.v.replicas", "messageExpression": "1"},
                    {"expression": "variables.v.replicas == 1 && request.namespace != ''"}, {"expression": "'a'"}]);
            },
            &[
                "spec.variables[1].expression: Invalid value: \"variables.v.x + nope\": compilation failed: ERROR: <input>:1:17: undeclared reference to 'nope' (in container '')\n | variables.v.x + nope\n | ................^",
                "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string",
                "spec.validations[2].expression: Invalid value: \"'a'\": must evaluate to bool",
            ],
        );
        let columns = descriptor(&BuiltinOptions::default()).columns;
        assert_eq!(row(&columns, &policy()), json!(["p", 1, "<unset>", "<unknown>"]));
    }
}
