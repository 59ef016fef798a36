//! MutatingAdmissionPolicy: expressions that change objects before they are written.

use super::validating_admission_policy::{default_policy, param_kind, validate_policy};
use super::webhooks::REINVOCATIONS;
use crate::api::BuiltinOptions;
use crate::api::kit::checks::must_be_one_of;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, column, count, describe, get, list, name_column, names, sub, text};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use serde_json::Value;
use std::sync::Arc;

/// The types of patches, each with its field.
const PATCHES: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];

/// The descriptor of MutatingAdmissionPolicy.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: names(&["api-extensions"]),
        generation: true,
        strategy: Arc::new(PolicyRules),
        columns: vec![
            name_column(),
            column("Mutations", "integer", "How many changes it makes.", |o, _| {
                count(sub(o, "spec"), "mutations").into()
            }),
            column("ParamKind", "string", "The kind of its parameters.", |o, _| param_kind(o).into()),
            age_column(),
        ],
        ..describe::<MutatingAdmissionPolicy>(Scope::Cluster)
    }
}

struct PolicyRules;

impl Strategy for PolicyRules {
    fn default(&self, object: &mut Value) {
        default_policy(object);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_policy(spec, &path, &mut errors);
        must_be_one_of(spec, "reinvocationPolicy", &REINVOCATIONS, &path, &mut errors);
        let at = path.child("mutations");
        if count(spec, "mutations") == 0 {
            errors.required(&at, "mutations must contain at least one item");
        }
        for (i, mutation) in list(spec, "mutations").iter().enumerate() {
            validate_mutation(mutation, &at.index(i), &mut errors);
        }
        errors
    }
}

fn validate_mutation(mutation: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(mutation, "patchType");
    must_be_one_of(mutation, "patchType", &PATCHES.map(|(name, _)| name), path, errors);
    for (name, field) in PATCHES {
        let at = path.child(field);
        match (get(mutation, field), name == kind) {
            (None, true) => errors.required(&at, &format!("must be specified when patchType is {name}")),
            (Some(patch), true) if text(patch, "expression").trim().is_empty() => {
                errors.required(&at.child("expression"), "expression is not specified");
            }
            (Some(_), false) => {
                errors.forbidden(&at, &format!("may only be specified when patchType is {name}"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn mutations_need_their_expression() {
        let check = |mutations: Value, wanted: &[&str]| {
            let mut object = json!({"metadata": {"name": "p"}, "spec": {"reinvocationPolicy": "Never", "mutations": mutations,
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}}});
            PolicyRules.default(&mut object);
            assert_eq!(texts(&PolicyRules.validate(&object)), wanted);
        };
        check(json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]), &[]);
        check(json!([]), &["spec.mutations: Required value: mutations must contain at least one item"]);
        check(
            json!([{"patchType": "JSONPatch", "applyConfiguration": {"expression": "x"}}, {"patchType": "Odd"}]),
            &[
                "spec.mutations[0].applyConfiguration: Forbidden: may only be specified when patchType is ApplyConfiguration",
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[1].patchType: Unsupported value: \"Odd\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            ],
        );
    }
}
