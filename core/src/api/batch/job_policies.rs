//! Validation of a Job's policies: how failures of pods count, when enough has succeeded, and lists of indexes.

use crate::ErrorList;
use crate::api::kit::meta::NEGATIVE;
use crate::api::kit::names::qualified;
use crate::api::kit::{ErrorSink, Path, count, get, int, list, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

const RULES_MAX: usize = 20;
const CONDITIONS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Validates `podFailurePolicy`.
pub(super) fn validate_failure_policy(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(policy) = get(spec, "podFailurePolicy") else { return };
    let policy_path = path.child("podFailurePolicy");
    let at = policy_path.child("rules");
    let rules = list(policy, "rules");
    if rules.len() > RULES_MAX {
        errors.too_many(&at, rules.len(), RULES_MAX);
    }
    for (i, rule) in rules.iter().enumerate() {
        validate_failure_rule(spec, rule, &at.index(i), errors);
    }
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("valid values: [{}]", words.join(" "))
}

fn validate_failure_rule(spec: &Value, rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at_action = path.child("action");
    match text(rule, "action") {
        "" => errors.required(&at_action, &quoted(&ACTIONS)),
        "FailIndex" if get(spec, "backoffLimitPerIndex").is_none() => {
            errors.invalid(&at_action, "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        action if ACTIONS.contains(&action) => {}
        other => errors.not_supported(&at_action, other, &ACTIONS),
    }
    let codes = get(rule, "onExitCodes");
    let conditions = list(rule, "onPodConditions");
    if let Some(codes) = codes {
        validate_exit_codes(spec, codes, &path.child("onExitCodes"), errors);
    }
    validate_conditions(conditions, &path.child("onPodConditions"), errors);
    match (codes.is_some(), conditions.is_empty()) {
        (true, false) => errors.invalid(
            path,
            rule.clone(),
            "specifying both OnExitCodes and OnPodConditions is not supported",
        ),
        (false, true) => errors.invalid(
            path,
            rule.clone(),
            "specifying one of OnExitCodes and OnPodConditions is required",
        ),
        _ => {}
    }
}

fn validate_conditions(conditions: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(path, conditions.len(), CONDITIONS_MAX);
    }
    for (i, pattern) in conditions.iter().enumerate() {
        let item = path.index(i);
        let kind = text(pattern, "type");
        for problem in qualified(kind) {
            errors.invalid(&item.child("type"), kind, &problem);
        }
        match text(pattern, "status") {
            "" => errors.required(&item.child("status"), &quoted(&STATUSES)),
            status if STATUSES.contains(&status) => {}
            other => errors.not_supported(&item.child("status"), other, &STATUSES),
        }
    }
}

fn validate_exit_codes(spec: &Value, codes: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    let operator = text(codes, "operator");
    match operator {
        "" => errors.required(&path.child("operator"), &quoted(&OPERATORS)),
        known if OPERATORS.contains(&known) => {}
        other => errors.not_supported(&path.child("operator"), other, &OPERATORS),
    }
    if let Some(name) = get(codes, "containerName") {
        let pod_spec = sub(sub(spec, "template"), "spec");
        let mut containers = list(pod_spec, "containers").iter().chain(list(pod_spec, "initContainers"));
        if !containers.any(|c| sub(c, "name") == name) {
            errors.invalid(
                &path.child("containerName"),
                name.clone(),
                "must be one of the container or initContainer names in the pod template",
            );
        }
    }
    let at = path.child("values");
    let values = list(codes, "values");
    if values.is_empty() {
        errors.invalid(&at, values.to_vec(), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many(&at, values.len(), EXIT_CODES_MAX);
    }
    let numbers: Vec<i64> = values.iter().filter_map(Value::as_i64).collect();
    let mut seen = BTreeSet::new();
    for (i, code) in numbers.iter().enumerate() {
        if operator == "In" && *code == 0 {
            errors.invalid(&at.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(*code) {
            errors.duplicate(&at.index(i), *code);
        }
    }
    if !numbers.is_sorted() {
        errors.invalid(&at, values.to_vec(), "must be ordered");
    }
}

/// Validates `podReplacementPolicy`.
pub(super) fn validate_replacement(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(policy) = get(spec, "podReplacementPolicy").and_then(Value::as_str) else { return };
    let allowed: &[&str] = match get(spec, "podFailurePolicy") {
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    if !allowed.contains(&policy) {
        errors.not_supported(&path.child("podReplacementPolicy"), policy, allowed);
    }
}

/// Validates `successPolicy`.
pub(super) fn validate_success_policy(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(policy) = get(spec, "successPolicy") else { return };
    let path = path.child("successPolicy");
    if text(spec, "completionMode") != "Indexed" {
        errors.invalid(&path, policy.clone(), "requires indexed completion mode");
        return;
    }
    let at = path.child("rules");
    if count(policy, "rules") == 0 {
        errors.required(&at, "at least one rules must be specified when the successPolicy is specified");
    }
    if count(policy, "rules") > RULES_MAX {
        errors.too_many(&at, count(policy, "rules"), RULES_MAX);
    }
    let completions = int(spec, "completions").unwrap_or(0);
    for (i, rule) in list(policy, "rules").iter().enumerate() {
        validate_success_rule(rule, completions, &at.index(i), errors);
    }
}

fn validate_success_rule(rule: &Value, completions: i64, path: &Path<'_>, errors: &mut ErrorList) {
    let indexes = get(rule, "succeededIndexes").and_then(Value::as_str);
    let wanted = int(rule, "succeededCount");
    if indexes.is_none() && wanted.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let at = path.child("succeededIndexes");
        if indexes.len() > INDEXES_BYTES_MAX {
            errors.too_long(&at, INDEXES_BYTES_MAX);
        }
        match intervals(indexes, completions) {
            Ok(parts) => total = parts.iter().map(|(low, high)| high - low + 1).sum(),
            Err(why) => errors.invalid(&at, indexes, &format!("error parsing succeededIndexes: {why}")),
        }
    }
    let Some(wanted) = wanted else { return };
    let at = path.child("succeededCount");
    if wanted < 0 {
        errors.invalid(&at, wanted, NEGATIVE);
    }
    if wanted > completions {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&at, wanted, &detail);
    }
    if indexes.is_some() && wanted > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&at, wanted, &detail);
    }
}

/// The intervals of a list of indexes, `0,2-4`: below the number of completions, and in order.
pub(super) fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for fragment in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = interval(fragment, completions)?;
        if let Some((_, last)) = parts.last().filter(|(_, last)| *last >= low) {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        parts.push((low, high));
    }
    Ok(parts)
}

fn interval(fragment: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = fragment.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {fragment:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let index = |text: &str| -> Result<i64, String> {
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    let low = index(limits[0])?;
    let Some(high) = limits.get(1) else { return Ok((low, low)) };
    let high = index(high)?;
    if low >= high {
        return Err(format!("non-increasing order, previous: {low}, current: {high}"));
    }
    Ok((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn lists_of_indexes_are_read() {
        let check = |text: &str, wanted: Result<Vec<(i64, i64)>, &str>| {
            assert_eq!(intervals(text, 10), wanted.map_err(str::to_owned), "{text}");
        };
        check("", Ok(vec![]));
        check("0,2-4,9", Ok(vec![(0, 0), (2, 4), (9, 9)]));
        check("3,1", Err("non-increasing order, previous: 3, current: 1"));
        check("4-2", Err("non-increasing order, previous: 4, current: 2"));
        check("10", Err("too large index: \"10\""));
        check("a", Err("cannot convert string to integer for index: \"a\""));
        assert!(intervals("1-2-3", 10).is_err());
    }

    #[test]
    fn policies_are_checked() {
        let check = |spec: Value, wanted: &[&str]| {
            let (mut errors, path) = (ErrorList::new(), Path::Root.child("spec"));
            validate_failure_policy(&spec, &path, &mut errors);
            validate_replacement(&spec, &path, &mut errors);
            validate_success_policy(&spec, &path, &mut errors);
            assert_eq!(texts(&errors), wanted);
        };
        let template = json!({"spec": {"containers": [{"name": "c"}]}});
        let failing = |rule: Value| json!({"template": template, "podFailurePolicy": {"rules": [rule]}});
        let codes = json!({"operator": "In", "values": [1, 2], "containerName": "c"});
        check(failing(json!({"action": "FailJob", "onExitCodes": codes})), &[]);
        check(
            failing(json!({"action": "FailIndex", "onPodConditions": [{"type": "D", "status": "True"}]})),
            &[
                "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            ],
        );
        check(
            failing(
                json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 0], "containerName": "x"}}),
            ),
            &[
                "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered",
            ],
        );
        let succeeding = |rule: Value| json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [rule]}});
        check(succeeding(json!({"succeededIndexes": "0-2", "succeededCount": 3})), &[]);
        check(
            succeeding(json!({"succeededIndexes": "0-2", "succeededCount": 4})),
            &[
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
            ],
        );
        check(
            json!({"podReplacementPolicy": "Never"}),
            &[
                "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \"TerminatingOrFailed\"",
            ],
        );
    }
}
