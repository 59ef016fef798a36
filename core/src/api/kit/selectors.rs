//! Label selectors as JSON: their printing, their validation, and whether they match.

use super::access::{count, entries, list, text};
use super::names;
use super::{ErrorSink, Path};
use crate::ErrorList;
use serde_json::Value;

/// A LabelSelector as `a=b,c in (d,e)`; `<none>` where it selects nothing or all.
pub(crate) fn format_label_selector(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = entries(selector, "matchLabels")
        .map(|(k, v)| (k.clone(), format!("{k}={}", v.as_str().unwrap_or(""))))
        .collect();
    for requirement in list(selector, "matchExpressions") {
        let key = text(requirement, "key");
        let mut values: Vec<&str> = list(requirement, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let shown = match text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key.to_owned(), shown));
    }
    parts.sort();
    if parts.is_empty() {
        return "<none>".to_owned();
    }
    parts.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>().join(",")
}

/// Whether a LabelSelector asks for nothing.
pub(crate) fn is_empty(selector: &Value) -> bool {
    count(selector, "matchLabels") + count(selector, "matchExpressions") == 0
}

/// Whether a map of labels satisfies a LabelSelector.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    let value = |key: &str| labels.get(key).and_then(Value::as_str);
    let among = |r: &Value, v: &str| list(r, "values").iter().any(|x| x == v);
    entries(selector, "matchLabels").all(|(k, v)| value(k) == v.as_str())
        && list(selector, "matchExpressions").iter().all(|r| {
            let found = value(text(r, "key"));
            match text(r, "operator") {
                "In" => found.is_some_and(|v| among(r, v)),
                "NotIn" => !found.is_some_and(|v| among(r, v)),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// Validates a LabelSelector.
pub(crate) fn validate(selector: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_labels(selector, "matchLabels", path, errors);
    let expressions = path.child("matchExpressions");
    for (i, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        validate_requirement(requirement, &expressions.index(i), errors);
    }
}

fn validate_requirement(requirement: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let values = path.child("values");
    match text(requirement, "operator") {
        "In" | "NotIn" if count(requirement, "values") == 0 => {
            errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if count(requirement, "values") > 0 => {
            errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    validate_label_key(text(requirement, "key"), &path.child("key"), errors);
    for (i, value) in list(requirement, "values").iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        for problem in names::label_value(value) {
            errors.invalid(&values.index(i), value, &problem);
        }
    }
}

/// Validates a label key.
pub(crate) fn validate_label_key(key: &str, path: &Path<'_>, errors: &mut ErrorList) {
    for problem in names::qualified(key) {
        errors.invalid(path, key, &problem);
    }
}

/// Validates a map of labels.
pub(crate) fn validate_labels(owner: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child(field);
    for (key, value) in entries(owner, field) {
        validate_label_key(key, &at, errors);
        let value = value.as_str().unwrap_or("");
        for problem in names::label_value(value) {
            errors.invalid(&at, value, &problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_print_and_match() {
        let check = |selector: Value, shown: &str, labels: Value, wanted: bool| {
            assert_eq!(format_label_selector(&selector), shown);
            assert_eq!(matches(&selector, &labels), wanted, "{selector} {labels}");
        };
        check(json!({}), "<none>", json!({}), true);
        check(json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2", json!({"a": "1", "b": "2"}), true);
        check(json!({"matchLabels": {"a": "1"}}), "a=1", json!({"a": "2"}), false);
        let some = json!({"matchExpressions": [
            {"key": "t", "operator": "In", "values": ["y", "x"]},
            {"key": "e", "operator": "Exists"},
            {"key": "d", "operator": "DoesNotExist"}]});
        check(some.clone(), "!d,e,t in (x,y)", json!({"t": "x", "e": ""}), true);
        assert!(!matches(&some, &json!({"t": "x", "e": "", "d": ""})));
    }

    #[test]
    fn wrong_selectors_are_refused() {
        let mut errors = ErrorList::new();
        let selector = json!({"matchLabels": {"a b": "!"}, "matchExpressions": [
            {"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["x"]}, {"key": "a", "operator": "Like"}]});
        validate(&selector, &Path::Root.child("selector"), &mut errors);
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "selector.matchLabels",
                "selector.matchLabels",
                "selector.matchExpressions[0].values",
                "selector.matchExpressions[1].values",
                "selector.matchExpressions[2].operator"
            ]
        );
    }
}
