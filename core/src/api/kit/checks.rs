//! Rules that many kinds have: a text of a fixed set, a name, a percentage, an owner of a template, the halves of spec and status.

use super::access::{at, carry, get, int, remove, sub, text};
use super::meta::{NEGATIVE, immutable};
use super::names::{self, NameRule};
use super::selectors;
use super::{ErrorSink, Path};
use crate::ErrorList;
use crate::resource::{ScalePaths, WriteContext};
use serde_json::Value;

/// A text that, where set, is one of some.
pub(crate) fn one_of(owner: &Value, field: &str, allowed: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    let value = text(owner, field);
    if !value.is_empty() && !allowed.contains(&value) {
        errors.not_supported(&path.child(field), value, allowed);
    }
}

/// A text that must be one of some.
pub(crate) fn must_be_one_of(
    owner: &Value,
    field: &str,
    allowed: &[&str],
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    match text(owner, field) {
        "" => errors.required(&path.child(field), ""),
        _ => one_of(owner, field, allowed, path, errors),
    }
}

/// Texts that must not be empty.
pub(crate) fn required(owner: &Value, fields: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    for field in fields {
        if text(owner, field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
}

/// A name inside an object: needed, and of this form.
pub(crate) fn needed_name(
    owner: &Value,
    field: &str,
    rule: NameRule,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    if text(owner, field).is_empty() {
        errors.required(&path.child(field), "");
    } else {
        optional_name(owner, field, rule, path, errors);
    }
}

/// A name inside an object, which is of this form where it is set.
pub(crate) fn optional_name(
    owner: &Value,
    field: &str,
    rule: NameRule,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let name = text(owner, field);
    for problem in rule.problems(name).iter().filter(|_| !name.is_empty()) {
        errors.invalid(&path.child(field), name, problem);
    }
}

/// Several numbers that, where set, are not negative.
pub(crate) fn none_negative(owner: &Value, fields: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    for field in fields {
        if let Some(number) = int(owner, field).filter(|n| *n < 0) {
            errors.invalid(&path.child(field), number, NEGATIVE);
        }
    }
}

/// Numbers that never get smaller than they were.
pub(crate) fn never_less(field: &str, object: &Value, old: &Value, errors: &mut ErrorList) {
    let count = |o: &Value| int(sub(o, "status"), field).unwrap_or(0);
    if count(object) < count(old) {
        let status = Path::Root.child("status");
        errors.invalid(&status.child(field), count(object), "cannot be decremented");
    }
}

/// Fields of a spec that stay as they were.
pub(crate) fn stay(fields: &[&str], object: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::Root.child("spec");
    for field in fields {
        let (new, old) = (sub(sub(object, "spec"), field), sub(sub(old, "spec"), field));
        immutable(new, old, &path.child(field), errors);
    }
}

/// The text of a domain and a path, `example.com/thing`.
pub(crate) fn domain_prefixed_path(path_text: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if path_text.is_empty() {
        errors.required(path, "");
        return;
    }
    match path_text.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            for problem in names::subdomain(host) {
                errors.invalid(path, host, &problem);
            }
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !rest.bytes().all(allowed) {
                let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.invalid(path, rest, detail);
            }
        }
        _ => errors.invalid(path, path_text, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// The selector of a kind that makes pods of a template: it must be there, ask for something, and fit the template.
pub(crate) fn owner_selector(spec: &Value, noun: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let at_selector = path.child("selector");
    let Some(selector) = get(spec, "selector") else {
        errors.required(&at_selector, "");
        return;
    };
    selectors::validate(selector, &at_selector, errors);
    if selectors::is_empty(selector) {
        errors.invalid(&at_selector, selector.clone(), &format!("empty selector is invalid for {noun}"));
    } else {
        selector_fits(spec, path, errors);
    }
}

/// A template's labels must satisfy the selector beside it.
pub(crate) fn selector_fits(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let labels = at(spec, &["template", "metadata", "labels"]);
    if get(spec, "template").is_some() && !selectors::matches(sub(spec, "selector"), labels) {
        let template = path.child("template");
        let metadata = template.child("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata.child("labels"), labels.clone(), detail);
    }
}

/// Pods of a template that are kept alive: they restart always and have no deadline.
pub(crate) fn lasting(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let pod_spec = at(spec, &["template", "spec"]);
    let template = path.child("template");
    let spec_path = template.child("spec");
    let policy = text(pod_spec, "restartPolicy");
    if !policy.is_empty() && policy != "Always" {
        errors.not_supported(&spec_path.child("restartPolicy"), policy, &["Always"]);
    }
    if get(pod_spec, "activeDeadlineSeconds").is_some() {
        errors.forbidden(
            &spec_path.child("activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

/// The scale subresource of kinds with `spec.replicas` and a selector.
pub(crate) fn replicas_scale() -> ScalePaths {
    ScalePaths {
        spec_replicas: ".spec.replicas".to_owned(),
        status_replicas: ".status.replicas".to_owned(),
        label_selector: Some(".spec.selector".to_owned()),
    }
}

/// A new object has no status.
pub(crate) fn drop_status(object: &mut Value) {
    remove(object, "status");
}

/// A write of the object leaves its status, one of the status the spec.
pub(crate) fn keep_other_half(object: &mut Value, old: &Value, cx: WriteContext<'_>) {
    carry(object, old, if cx.subresource == Some("status") { "spec" } else { "status" });
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the kinds' tests have in common.

    use crate::ErrorList;
    use crate::resource::{PrinterColumn, WriteContext};
    use serde_json::Value;

    /// A write of the object itself, or of a subresource.
    pub(crate) fn write(subresource: Option<&'static str>) -> WriteContext<'static> {
        WriteContext::new(subresource, jiff::Timestamp::UNIX_EPOCH)
    }

    /// Errors as a client reads them.
    pub(crate) fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    /// The fields that errors are about.
    pub(crate) fn fields(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(|e| e.field.to_string()).collect()
    }

    /// The cells of a row, at one minute past the epoch.
    pub(crate) fn row(columns: &[PrinterColumn], object: &Value) -> Value {
        let now = jiff::Timestamp::from_second(60).unwrap_or_default();
        columns
            .iter()
            .map(|column| match &column.cell {
                crate::resource::Cell::Computed(cell) => cell(object, now),
                crate::resource::Cell::Path(path) => path.first(object).cloned().unwrap_or_default(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::fields;
    use super::*;
    use serde_json::json;

    #[test]
    fn domain_prefixed_paths_have_both_parts() {
        let check = |text: &str, wanted: usize| {
            let mut errors = ErrorList::new();
            domain_prefixed_path(text, &Path::Root.child("x"), &mut errors);
            assert_eq!(errors.len(), wanted, "{text} {errors:?}");
        };
        check("a.io/b", 0);
        check("", 1);
        check("a", 1);
        check("/b", 1);
        check("a/", 1);
        check("A/b", 1);
        check("a/b c", 1);
    }

    #[test]
    fn owners_need_a_selector_that_fits() {
        let check = |spec: Value, wanted: &[&str]| {
            let mut errors = ErrorList::new();
            owner_selector(&spec, "thing", &Path::Root.child("spec"), &mut errors);
            assert_eq!(fields(&errors), wanted, "{spec}");
        };
        check(json!({}), &["spec.selector"]);
        check(json!({"selector": {}}), &["spec.selector"]);
        check(
            json!({"selector": {"matchLabels": {"a": "b"}}, "template": {}}),
            &["spec.template.metadata.labels"],
        );
        let labels = json!({"metadata": {"labels": {"a": "b"}}});
        check(json!({"selector": {"matchLabels": {"a": "b"}}, "template": labels}), &[]);
    }
}
