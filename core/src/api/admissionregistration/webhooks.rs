//! What the two kinds of webhook configurations have in common.

use super::client_config;
use super::matching::{
    MATCH_POLICIES, default_matching, default_rules, report, validate_conditions, validate_rule,
    validate_selectors,
};
use crate::ErrorList;
use crate::api::kit::checks::one_of;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, label_1035, subdomain};
use crate::api::kit::{
    ErrorSink, Path, column, count, default_text, default_to, get, int, list, list_mut, name_column,
    object_mut, same, sub, text,
};
use crate::cel::admission::compile_conditions;
use crate::resource::{PrinterColumn, Strategy, WriteContext};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const OLD_SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Webhooks", "integer", "How many webhooks it has.", |o, _| count(o, "webhooks").into()),
        age_column(),
    ]
}

/// The rules of a configuration of webhooks.
pub(super) struct WebhookRules {
    /// Whether the webhooks change what they are asked about.
    pub(super) mutating: bool,
}

impl Strategy for WebhookRules {
    fn default(&self, object: &mut Value) {
        for hook in list_mut(object, "webhooks") {
            default_text(hook, "failurePolicy", "Fail");
            default_matching(hook);
            default_to(hook, "timeoutSeconds", 10);
            if self.mutating {
                default_text(hook, "reinvocationPolicy", "Never");
            }
            default_rules(hook, "rules");
            if let Some(config) = object_mut(hook, "clientConfig") {
                client_config::default_port(config);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        self.check(object, Strict { side_effects: true, versions: true, names: true })
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let hooks = list(old, "webhooks");
        let names: BTreeSet<&str> = hooks.iter().map(|h| text(h, "name")).collect();
        let known = |h: &Value| {
            let versions = list(h, "admissionReviewVersions");
            versions.is_empty() || versions.iter().any(is_review_version)
        };
        // What was allowed once may stay.
        let strict = Strict {
            side_effects: hooks.iter().all(|h| SIDE_EFFECTS.contains(&text(h, "sideEffects"))),
            versions: hooks.iter().all(known),
            names: names.len() == hooks.len(),
        };
        if same(sub(object, "webhooks"), sub(old, "webhooks")) {
            ErrorList::new()
        } else {
            self.check(object, strict)
        }
    }
}

struct Strict {
    side_effects: bool,
    versions: bool,
    names: bool,
}

fn is_review_version(version: &Value) -> bool {
    REVIEW_VERSIONS.iter().any(|known| version == known)
}

impl WebhookRules {
    fn check(&self, object: &Value, strict: Strict) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let path = Path::Root.child("webhooks");
        let mut seen = BTreeSet::new();
        for (i, hook) in list(object, "webhooks").iter().enumerate() {
            let item = path.index(i);
            self.validate_hook(hook, &strict, &item, &mut errors);
            let name = text(hook, "name");
            if strict.names && !name.is_empty() && !seen.insert(name) {
                errors.duplicate(&item.child("name"), name);
            }
        }
        errors
    }

    fn validate_hook(&self, hook: &Value, strict: &Strict, path: &Path<'_>, errors: &mut ErrorList) {
        validate_full_name(text(hook, "name"), &path.child("name"), errors);
        let rules = path.child("rules");
        for (i, rule) in list(hook, "rules").iter().enumerate() {
            validate_rule(rule, &rules.index(i), errors);
        }
        one_of(hook, "failurePolicy", &FAILURE_POLICIES, path, errors);
        one_of(hook, "matchPolicy", &MATCH_POLICIES, path, errors);
        let allowed: &[&str] = if strict.side_effects { &SIDE_EFFECTS } else { &OLD_SIDE_EFFECTS };
        if get(hook, "sideEffects").is_none() {
            let detail = format!("must specify one of {}", allowed.join(", "));
            errors.required(&path.child("sideEffects"), &detail);
        }
        one_of(hook, "sideEffects", allowed, path, errors);
        if let Some(seconds) = int(hook, "timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.invalid(&path.child("timeoutSeconds"), seconds, detail);
        }
        validate_selectors(hook, path, errors);
        if self.mutating {
            one_of(hook, "reinvocationPolicy", &REINVOCATIONS, path, errors);
        }
        client_config::validate(sub(hook, "clientConfig"), &path.child("clientConfig"), errors);
        validate_conditions(hook, path, errors);
        report(&compile_conditions(hook), path, errors);
        validate_versions(hook, strict.versions, &path.child("admissionReviewVersions"), errors);
    }
}

/// A name of at least three labels, so that nobody else has it.
fn validate_full_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let problems = subdomain(name);
    if name.is_empty() {
        errors.required(path, "");
    } else if !problems.is_empty() {
        errors.invalid(path, name, &problems.join(","));
    } else if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.invalid(path, name, detail);
    }
}

fn validate_versions(hook: &Value, strict: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let versions = list(hook, "admissionReviewVersions");
    if versions.is_empty() {
        errors.required(path, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !seen.insert(version) {
            errors.invalid(&path.index(i), version, "duplicate version");
            continue;
        }
        for problem in label_1035(version) {
            errors.invalid(&path.index(i), version, &problem);
        }
    }
    if strict && !versions.iter().any(is_review_version) {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    const RULES: WebhookRules = WebhookRules { mutating: true };

    fn configuration() -> Value {
        let mut object = json!({"metadata": {"name": "c"}, "webhooks": [{
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]});
        RULES.default(&mut object);
        object
    }

    #[test]
    fn webhooks_are_defaulted() {
        let object = configuration();
        let hook = &object["webhooks"][0];
        for (field, wanted) in [
            ("failurePolicy", json!("Fail")),
            ("matchPolicy", json!("Equivalent")),
            ("timeoutSeconds", json!(10)),
            ("reinvocationPolicy", json!("Never")),
            ("namespaceSelector", json!({})),
        ] {
            assert_eq!(hook[field], wanted, "{field}");
        }
        assert_eq!(
            (&hook["clientConfig"]["service"]["port"], &hook["rules"][0]["scope"]),
            (&json!(443), &json!("*"))
        );
        assert_eq!(row(&columns(), &object), json!(["c", 1, "<unknown>"]));
    }

    #[test]
    fn webhooks_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = configuration();
            change(&mut object["webhooks"][0]);
            assert_eq!(texts(&RULES.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |h| h["name"] = "a.b".into(),
            &[
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ],
        );
        check(
            |h| h["sideEffects"] = Value::Null,
            &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        );
        check(
            |h| h["timeoutSeconds"] = 31.into(),
            &[
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ],
        );
        check(
            |h| h["admissionReviewVersions"] = json!(["v2"]),
            &[
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        check(
            |h| h["reinvocationPolicy"] = "Always".into(),
            &[
                "webhooks[0].reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\"",
            ],
        );
        let mut old = configuration();
        old["webhooks"][0]["sideEffects"] = "Some".into();
        let mut new = old.clone();
        new["webhooks"][0]["timeoutSeconds"] = 5.into();
        assert_eq!(RULES.validate(&new).len(), 1);
        assert_eq!(RULES.validate_update(&new, &old, write(None)), vec![], "an old class of effects stays");
    }
}
