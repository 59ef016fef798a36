//! Job: pods that run to their end, as often as wanted.

use super::job_policies::{validate_failure_policy, validate_replacement, validate_success_policy};
use super::job_status::{is, validate_status};
use super::job_update::{validate_completions_change, validate_template_change};
use crate::api::BuiltinOptions;
use crate::api::core::pod::{default_template, template_warnings, validate_template};
use crate::api::kit::checks::{
    domain_prefixed_path, drop_status, keep_other_half, none_negative, one_of, selector_fits, stay,
};
use crate::api::kit::columns::{age_column, template_columns};
use crate::api::kit::duration::{human_duration, parse};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::{
    ErrorSink, Path, at, column, count, default_text, default_to, describe, ensure, field_at, flag, get, int,
    list_mut, name_column, object_mut, selectors, set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;
use std::sync::Arc;

/// The labels of a Job's pods, each with its name of before.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const MANAGED_BY_BYTES_MAX: usize = 63;
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const MANY_PARALLELISM_MAX: i64 = 10_000;
const MANY_FAILED_MAX: i64 = 10_000;

/// The descriptor of Job.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: crate::api::kit::names(&["all"]),
        status: true,
        generation: true,
        strategy: Arc::new(JobRules),
        columns: columns(),
        selectable_fields: vec![field_at("status.successful", |o| {
            int(sub(o, "status"), "succeeded").unwrap_or(0).to_string()
        })],
        ..describe::<Job>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    let mut columns = vec![
        name_column(),
        column("Status", "string", "How far the job is.", |o, _| state(o).into()),
        column("Completions", "string", "Pods that succeeded, of those wanted.", |o, _| {
            completions(o).into()
        }),
        column("Duration", "string", "How long it ran or runs.", |o, now| duration(o, now).into()),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

fn state(job: &Value) -> &'static str {
    match () {
        () if is(job, "Complete") => "Complete",
        () if is(job, "Failed") => "Failed",
        () if get(sub(job, "metadata"), "deletionTimestamp").is_some() => "Terminating",
        () if is(job, "Suspended") => "Suspended",
        () if is(job, "FailureTarget") => "FailureTarget",
        () if is(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let done = int(sub(job, "status"), "succeeded").unwrap_or(0);
    let spec = sub(job, "spec");
    match (int(spec, "completions"), int(spec, "parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| parse(at(job, &["status", field]));
    time("startTime")
        .map_or_else(String::new, |start| human_duration(start, time("completionTime").unwrap_or(now)))
}

struct JobRules;

impl Strategy for JobRules {
    fn default(&self, object: &mut Value) {
        let template_labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
        let unlabelled = count(sub(object, "metadata"), "labels") == 0;
        if unlabelled
            && template_labels.as_object().is_some_and(|labels| !labels.is_empty())
            && let Some(metadata) = object_mut(object, "metadata")
        {
            set(metadata, "labels", template_labels);
        }
        let Some(spec) = object_mut(object, "spec") else { return };
        if get(spec, "completions").is_none() && get(spec, "parallelism").is_none() {
            default_to(spec, "completions", 1);
        }
        default_to(spec, "parallelism", 1);
        let tries = if get(spec, "backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
        default_to(spec, "backoffLimit", tries);
        default_text(spec, "completionMode", "NonIndexed");
        default_to(spec, "suspend", false);
        let counted = get(spec, "podFailurePolicy").is_some();
        if let Some(policy) = object_mut(spec, "podFailurePolicy") {
            for condition in list_mut(policy, "rules").flat_map(|rule| list_mut(rule, "onPodConditions")) {
                default_text(condition, "status", "True");
            }
        }
        let replacement = if counted { "Failed" } else { "TerminatingOrFailed" };
        default_text(spec, "podReplacementPolicy", replacement);
        default_to(spec, "manualSelector", false);
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn complete_create(&self, object: &mut Value, _: WriteContext<'_>) {
        if !flag(sub(object, "spec"), "manualSelector") {
            generate_selector(object);
            // Upstream copies the labels when it reads the stored Job.
            self.default(object);
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_generated(object, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_job_spec(spec, &path, &mut errors);
        match get(spec, "selector") {
            None => errors.required(&path.child("selector"), ""),
            Some(selector) => {
                selectors::validate(selector, &path.child("selector"), &mut errors);
                selector_fits(spec, &path, &mut errors);
            }
        }
        validate_pod_names(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validate_status(object, old);
        }
        let mut errors = self.validate(object);
        validate_completions_change(object, old, &mut errors);
        stay(&["selector"], object, old, &mut errors);
        validate_template_change(object, old, &mut errors);
        let fixed =
            ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
        stay(&fixed, object, old, &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let name = text(sub(object, "metadata"), "name");
        let mut warnings = Vec::new();
        if !name.is_empty() && !names::label(name).is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
                 recommended: [{}]",
                names::label(name).join(" ")
            ));
        }
        warnings.extend(template_warnings(object));
        warnings
    }
}

/// Gives the pods labels that no other Job's pods have, and selects by them.
fn generate_selector(job: &mut Value) {
    let uid = text(sub(job, "metadata"), "uid").to_owned();
    let name = text(sub(job, "metadata"), "name").to_owned();
    let Some(spec) = object_mut(job, "spec") else { return };
    if let Some(labels) =
        ensure(spec, "template").and_then(|t| ensure(t, "metadata")).and_then(|m| ensure(m, "labels"))
    {
        for label in NAME_LABELS {
            default_to(labels, label, name.as_str());
        }
        for label in UID_LABELS {
            default_to(labels, label, uid.as_str());
        }
    }
    if let Some(wanted) = ensure(spec, "selector").and_then(|s| ensure(s, "matchLabels")) {
        default_to(wanted, UID_LABELS[1], uid);
    }
}

fn validate_generated(job: &Value, errors: &mut ErrorList) {
    let spec = sub(job, "spec");
    let (path, metadata) = (Path::Root.child("spec"), sub(job, "metadata"));
    let Some(selector) = get(spec, "selector").filter(|_| !flag(spec, "manualSelector")) else { return };
    let (uid, name) = (text(metadata, "uid"), text(metadata, "name"));
    if uid.is_empty() {
        errors.required(&Path::Root.child("metadata").child("uid"), "");
    }
    let template = path.child("template");
    let template_metadata = template.child("metadata");
    let at_labels = template_metadata.child("labels");
    let labels = at(spec, &["template", "metadata", "labels"]);
    let mut expected = Value::Object(serde_json::Map::new());
    for (key, value) in UID_LABELS.iter().map(|k| (*k, uid)).chain(NAME_LABELS.iter().map(|k| (*k, name))) {
        set(&mut expected, key, value);
        match labels.get(key).and_then(Value::as_str) {
            None => errors.required(&at_labels.key(key), &format!("must be '{value}'")),
            Some(found) if found != value => {
                errors.invalid(&at_labels.key(key), labels.clone(), &format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    if !selectors::matches(selector, &expected) {
        errors.invalid(&path.child("selector"), selector.clone(), "`selector` not auto-generated");
    }
}

/// The pods of an indexed Job have its name and their index as host name.
fn validate_pod_names(job: &Value, errors: &mut ErrorList) {
    let spec = sub(job, "spec");
    let wanted = int(spec, "completions").unwrap_or(0);
    if text(spec, "completionMode") != "Indexed" || wanted <= 0 {
        return;
    }
    let name = text(sub(job, "metadata"), "name");
    let last = format!("{name}-{}", wanted - 1);
    if !names::label(&last).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {last}");
        errors.invalid(&Path::Root.child("metadata").child("name"), name, &detail);
    }
}

/// Validates what a Job and the template of a CronJob have in common.
pub(super) fn validate_job_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const NUMBERS: [&str; 7] = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    none_negative(spec, &NUMBERS, path, errors);
    if get(spec, "maxFailedIndexes").is_some() && get(spec, "backoffLimitPerIndex").is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = get(spec, "managedBy").and_then(Value::as_str) {
        domain_prefixed_path(manager, &path.child("managedBy"), errors);
        if manager.len() > MANAGED_BY_BYTES_MAX {
            errors.too_long(&path.child("managedBy"), MANAGED_BY_BYTES_MAX);
        }
    }
    one_of(spec, "completionMode", &MODES, path, errors);
    if text(spec, "completionMode") == "Indexed" {
        validate_indexed(spec, path, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = get(spec, field) {
                errors.invalid(&path.child(field), value.clone(), "requires indexed completion mode");
            }
        }
    }
    validate_failure_policy(spec, path, errors);
    validate_success_policy(spec, path, errors);
    validate_replacement(spec, path, errors);
    validate_template(spec, path, errors);
    validate_restarts(spec, path, errors);
}

fn validate_indexed(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let completions = int(spec, "completions");
    let parallelism = int(spec, "parallelism").unwrap_or(0);
    let failed = int(spec, "maxFailedIndexes");
    if completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let mut at_most = |field: &str, value: i64, most: i64, when: &str| {
        if value > most {
            let detail = format!("must be less than or equal to {most}{when}");
            errors.invalid(&path.child(field), value, &detail);
        }
    };
    let indexed = " when completion mode is Indexed";
    at_most("parallelism", parallelism, INDEXED_PARALLELISM_MAX, indexed);
    at_most("maxFailedIndexes", failed.unwrap_or(0), INDEXED_PARALLELISM_MAX, "");
    let many =
        completions.is_some_and(|n| n > MANY_COMPLETIONS) && get(spec, "backoffLimitPerIndex").is_some();
    if many {
        let when =
            format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most("parallelism", parallelism, MANY_PARALLELISM_MAX, &when);
        at_most("maxFailedIndexes", failed.unwrap_or(0), MANY_FAILED_MAX, &when);
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.required(&path.child("maxFailedIndexes"), &detail);
        }
    }
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        errors.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
    }
}

/// A container that ends is not to be started for ever.
fn validate_restarts(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let template = path.child("template");
    let pod_spec = template.child("spec");
    let at_policy = pod_spec.child("restartPolicy");
    match text(at(spec, &["template", "spec"]), "restartPolicy") {
        "" | "Always" => errors.required(&at_policy, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if get(spec, "podFailurePolicy").is_some() => errors.invalid(
            &at_policy,
            "OnFailure",
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&at_policy, other, &["OnFailure", "Never"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn job() -> Value {
        let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
        JobRules.default(&mut object);
        JobRules.prepare_for_create(&mut object, write(None));
        JobRules.complete_create(&mut object, write(None));
        object
    }

    #[test]
    fn defaults_and_labels_are_upstreams() {
        let object = job();
        let spec = &object["spec"];
        for (field, wanted) in [
            ("completions", json!(1)),
            ("parallelism", json!(1)),
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
            ("podReplacementPolicy", json!("TerminatingOrFailed")),
            ("manualSelector", json!(false)),
            ("selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})),
        ] {
            assert_eq!(spec[field], wanted, "{field}");
        }
        let labels = json!({"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u",
            "job-name": "j", "batch.kubernetes.io/job-name": "j"});
        assert_eq!(
            (&spec["template"]["metadata"]["labels"], &object["metadata"]["labels"]),
            (&labels, &labels)
        );
        assert_eq!(texts(&JobRules.validate(&object)), Vec::<String>::new());
    }

    #[test]
    fn jobs_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = job();
            change(&mut object["spec"]);
            assert_eq!(texts(&JobRules.validate(&object)), wanted);
        };
        check(
            |s| s["template"]["spec"]["restartPolicy"] = "Always".into(),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        );
        check(
            |s| s["parallelism"] = (-1).into(),
            &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            |s| s["backoffLimitPerIndex"] = 1.into(),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        );
        check(
            |s| {
                s["completionMode"] = "Indexed".into();
                s["completions"] = Value::Null;
            },
            &["spec.completions: Required value: when completion mode is Indexed"],
        );
        check(
            |s| s["managedBy"] = "me".into(),
            &[
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ],
        );
        check(
            |s| s["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = "w".into(),
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"batch.kubernetes.io/controller-uid\":\"w\"}}: `selector` not auto-generated",
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"u\",\"job-name\":\"j\"}: `selector` does not match template `labels`",
            ],
        );
    }

    #[test]
    fn a_started_job_keeps_its_template() {
        let check = |prepare: fn(&mut Value), change: fn(&mut Value), wanted: &[&str]| {
            let mut old = job();
            prepare(&mut old);
            let mut new = old.clone();
            change(&mut new["spec"]);
            let errors = JobRules.validate_update(&new, &old, write(None));
            let fields: Vec<String> = errors.iter().map(|e| e.field.to_string()).collect();
            assert_eq!(fields, wanted);
        };
        let idle: fn(&mut Value) = |o| o["spec"]["suspend"] = true.into();
        check(|_| {}, |s| s["parallelism"] = 3.into(), &[]);
        check(|_| {}, |s| s["completions"] = 3.into(), &["spec.completions"]);
        check(|_| {}, |s| s["template"]["spec"]["nodeSelector"] = json!({"a": "b"}), &["spec.template"]);
        check(idle, |s| s["template"]["spec"]["nodeSelector"] = json!({"a": "b"}), &[]);
        check(idle, |s| s["template"]["spec"]["containers"][0]["image"] = "i:2".into(), &["spec.template"]);
        let nodes: fn(&mut Value) =
            |s| s["template"]["spec"]["affinity"] = json!({"nodeAffinity": {"x": [1]}});
        let pods: fn(&mut Value) = |s| s["template"]["spec"]["affinity"] = json!({"podAffinity": {"x": [1]}});
        check(idle, nodes, &[]);
        check(idle, pods, &["spec.template"]);
    }

    #[test]
    fn columns_tell_how_far_it_is() {
        let check = |status: Value, wanted: Value| {
            let object = json!({"metadata": {"name": "j"}, "status": status, "spec": {"parallelism": 3,
                "template": {"spec": {"containers": []}}}});
            let cells = row(&columns(), &object);
            assert_eq!(json!([cells[1], cells[2], cells[3]]), wanted);
        };
        check(json!({}), json!(["Running", "0/1 of 3", ""]));
        check(
            json!({"succeeded": 1, "startTime": "1970-01-01T00:00:00Z", "completionTime": "1970-01-01T00:00:05Z",
                   "conditions": [{"type": "Complete", "status": "True"}]}),
            json!(["Complete", "1/1 of 3", "5s"]),
        );
        check(
            json!({"startTime": "1970-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]}),
            json!(["Suspended", "0/1 of 3", "60s"]),
        );
    }
}
