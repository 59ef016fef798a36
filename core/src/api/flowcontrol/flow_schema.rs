//! FlowSchema: which requests belong to which priority level.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, needed_name};
use crate::api::kit::columns::{age_column, or};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{NameRule, label};
use crate::api::kit::{
    ErrorSink, Path, column, default_int, describe, flag, get, int, list, name_column, object_mut, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::Value;
use std::sync::Arc;

const PRECEDENCE_MAX: i64 = 10_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// The kinds of subjects, each with its field.
const SUBJECTS: [(&str, &str); 3] =
    [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

/// The descriptor of FlowSchema.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        status: true,
        generation: true,
        strategy: Arc::new(SchemaRules),
        columns: columns(),
        ..describe::<FlowSchema>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("PriorityLevel", "string", "The level of its requests.", |o, _| {
            text(sub(sub(o, "spec"), "priorityLevelConfiguration"), "name").into()
        }),
        column("MatchingPrecedence", "integer", "The lowest is asked first.", |o, _| {
            int(sub(o, "spec"), "matchingPrecedence").unwrap_or(0).into()
        }),
        column("DistinguisherMethod", "string", "What makes flows of the requests.", |o, _| {
            or(text(sub(sub(o, "spec"), "distinguisherMethod"), "type"), "<none>").into()
        }),
        age_column(),
        column("MissingPL", "string", "Whether its level is missing.", |o, _| {
            let conditions = list(sub(o, "status"), "conditions");
            let dangling = conditions.iter().find(|c| text(c, "type") == "Dangling");
            dangling.map_or("?", |c| text(c, "status")).into()
        }),
    ]
}

struct SchemaRules;

impl Strategy for SchemaRules {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object_mut(object, "spec") {
            default_int(spec, "matchingPrecedence", 1000);
        }
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
        let name = text(sub(object, "metadata"), "name");
        validate_spec(sub(object, "spec"), name, &Path::Root.child("spec"), &mut errors);
        super::validate_status(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource != Some("status") {
            return self.validate(object);
        }
        let mut errors = ErrorList::new();
        super::validate_status(object, &mut errors);
        errors
    }
}

fn validate_spec(spec: &Value, name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
    let at = path.child("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        errors.invalid(&at, precedence, &format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(&at, precedence, detail);
    }
    if let Some(method) = get(spec, "distinguisherMethod") {
        let kind = text(method, "type");
        if !matches!(kind, "ByUser" | "ByNamespace") {
            let at = path.child("distinguisherMethod");
            errors.not_supported(&at.child("type"), kind, &["ByNamespace", "ByUser"]);
        }
    }
    let level = sub(spec, "priorityLevelConfiguration");
    let at_level = path.child("priorityLevelConfiguration");
    if text(level, "name").is_empty() {
        errors.required(&at_level.child("name"), "must reference a priority level");
    } else {
        needed_name(level, "name", NameRule::Subdomain, &at_level, errors);
    }
    let rules = path.child("rules");
    for (i, rule) in list(spec, "rules").iter().enumerate() {
        validate_rule(rule, &rules.index(i), errors);
    }
}

fn validate_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let subjects = list(rule, "subjects");
    if subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    let at = path.child("subjects");
    for (i, subject) in subjects.iter().enumerate() {
        validate_subject(subject, &at.index(i), errors);
    }
    let (resources, urls) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(path, detail);
    }
    let at = path.child("resourceRules");
    for (i, resource) in resources.iter().enumerate() {
        validate_resources(resource, &at.index(i), errors);
    }
    let at = path.child("nonResourceRules");
    for (i, rule) in urls.iter().enumerate() {
        validate_urls(rule, &at.index(i), errors);
    }
}

fn validate_subject(subject: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(subject, "kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind) else {
        errors.not_supported(&path.child("kind"), kind, &SUBJECTS.map(|(name, _)| name));
        return;
    };
    let at = path.child(own);
    match get(subject, own) {
        None => errors.required(&at, &format!("{own} is required when subject kind is '{kind}'")),
        Some(named) => {
            let name = text(named, "name");
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            }
            if *own == "serviceAccount" {
                if !matches!(name, "" | "*") {
                    needed_name(named, "name", NameRule::Subdomain, &at, errors);
                }
                if text(named, "namespace").is_empty() {
                    errors.required(&at.child("namespace"), "must specify namespace for service account");
                } else {
                    needed_name(named, "namespace", NameRule::Label, &at, errors);
                }
            }
        }
    }
    for (name, field) in SUBJECTS.iter().filter(|(_, field)| field != own) {
        if get(subject, field).is_some() {
            let detail = format!("{field} is forbidden when subject kind is not '{name}'");
            errors.forbidden(&path.child(field), &detail);
        }
    }
}

fn texts<'a>(owner: &'a Value, field: &str) -> Vec<&'a str> {
    list(owner, field).iter().map(|v| v.as_str().unwrap_or("")).collect()
}

/// A list with at least one item, in which a star stands alone; whether its items are to be looked at.
fn validate_list(
    rule: &Value,
    field: &str,
    missing: &str,
    others: &str,
    path: &Path<'_>,
    errors: &mut ErrorList,
) -> bool {
    let values = texts(rule, field);
    let at = path.child(field);
    if values.is_empty() {
        errors.required(&at, missing);
    } else if values.len() > 1 && values.contains(&"*") {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.invalid(&at, sub(rule, field).clone(), &detail);
    }
    !values.contains(&"*")
}

fn validate_verbs(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let plain = validate_list(rule, "verbs", "verbs must contain at least one value", "verbs", path, errors);
    if plain && texts(rule, "verbs").iter().any(|verb| !VERBS.contains(verb)) {
        errors.not_supported(&path.child("verbs"), sub(rule, "verbs").clone(), &VERBS);
    }
}

fn validate_resources(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_verbs(rule, path, errors);
    let missing = "resource rules must supply at least one api group";
    validate_list(rule, "apiGroups", missing, "api groups", path, errors);
    let missing = "resource rules must supply at least one resource";
    validate_list(rule, "resources", missing, "resources", path, errors);
    if texts(rule, "namespaces").is_empty() && flag(rule, "clusterScope") {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if validate_list(rule, "namespaces", missing, "namespaces", path, errors) {
        let at = path.child("namespaces");
        for (i, name) in texts(rule, "namespaces").iter().enumerate() {
            for problem in label(name) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
                errors.invalid(&at.index(i), *name, &detail);
            }
        }
    }
}

fn validate_urls(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_verbs(rule, path, errors);
    let missing = "nonResourceURLs must contain at least one value";
    if !validate_list(rule, "nonResourceURLs", missing, "non-resource URLs", path, errors) {
        return;
    }
    let at = path.child("nonResourceURLs");
    for (i, url) in texts(rule, "nonResourceURLs").iter().enumerate() {
        let stars = url.matches('*').count();
        let problem = match *url {
            "" => "must not be empty",
            "/" => continue,
            url if !url.starts_with('/') => "must start with slash",
            url if url.contains(' ') => "must not contain white-space",
            url if url.contains("//") => "must not contain double slash",
            url if stars > 1 || (stars == 1 && !url.ends_with("/*")) => {
                "wildcard can only do suffix matching"
            }
            _ => continue,
        };
        errors.invalid(&at.index(i), *url, problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    #[test]
    fn schemas_are_refused_in_upstreams_words() {
        let schema = |rule: Value| {
            let mut object = json!({"metadata": {"name": "s"}, "spec": {
                "priorityLevelConfiguration": {"name": "p"}, "rules": [rule]}});
            SchemaRules.default(&mut object);
            object
        };
        let check = |rule: Value, wanted: &[&str]| {
            assert_eq!(texts(&SchemaRules.validate(&schema(rule))), wanted);
        };
        let user = json!({"kind": "User", "user": {"name": "*"}});
        let good = json!({"subjects": [user], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz/*"]}]});
        check(good.clone(), &[]);
        check(
            json!({"subjects": [{"kind": "Robot"}, {"kind": "Group", "user": {}}]}),
            &[
                "spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "spec.rules[0].subjects[1].group: Required value: group is required when subject kind is 'Group'",
                "spec.rules[0].subjects[1].user: Forbidden: user is forbidden when subject kind is not 'User'",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        );
        check(
            json!({"subjects": [user], "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [""], "resources": ["pods"]}]}),
            &[
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
            ],
        );
        check(
            json!({"subjects": [user], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["a", "/*/b"]}]}),
            &[
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/*/b\": wildcard can only do suffix matching",
            ],
        );
        let mut object = schema(good);
        assert_eq!(row(&columns(), &object), json!(["s", "p", 1000, "<none>", "<unknown>", "?"]));
        object["spec"]["matchingPrecedence"] = 1.into();
        assert_eq!(SchemaRules.validate(&object).len(), 1);
        let status = json!({"status": {"conditions": [{"type": "A"}, {"type": "A"}]}});
        assert_eq!(SchemaRules.validate_update(&status, &status, write(Some("status"))).len(), 1);
    }
}
