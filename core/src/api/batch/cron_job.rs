//! CronJob: a Job again and again, by the calendar.

use super::job::validate_job_spec;
use super::schedule::Schedule;
use crate::api::BuiltinOptions;
use crate::api::core::pod::{default_template, warnings_at};
use crate::api::kit::checks::{drop_status, keep_other_half, must_be_one_of, none_negative};
use crate::api::kit::columns::{age_column, container_images, container_names, or};
use crate::api::kit::duration::age_of;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::selectors::format_label_selector;
use crate::api::kit::{
    ErrorSink, Path, at, column, computed, count, default_text, default_to, describe, flag, get, name_column,
    names, object_mut, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::Value;
use std::sync::Arc;

const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// The names of its Jobs have eleven bytes more, and no more than 63.
const NAME_BYTES_MAX: usize = 52;

/// The descriptor of CronJob.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["cj"]),
        categories: names(&["all"]),
        status: true,
        generation: true,
        strategy: Arc::new(CronJobRules),
        columns: columns(),
        ..describe::<CronJob>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Schedule", "string", "When a job is due.", |o, _| text(sub(o, "spec"), "schedule").into()),
        column("Timezone", "string", "Whose time the schedule means.", |o, _| {
            or(text(sub(o, "spec"), "timeZone"), "<none>").into()
        }),
        column("Suspend", "boolean", "Whether no more jobs are started.", |o, _| {
            match get(sub(o, "spec"), "suspend") {
                None => "<unset>".into(),
                Some(_) if flag(sub(o, "spec"), "suspend") => "True".into(),
                Some(_) => "False".into(),
            }
        }),
        column("Active", "integer", "How many jobs run.", |o, _| count(sub(o, "status"), "active").into()),
        column("Last Schedule", "string", "How long ago the last job was started.", |o, now| {
            match get(sub(o, "status"), "lastScheduleTime") {
                Some(time) => age_of(time, now).into(),
                None => "<none>".into(),
            }
        }),
        age_column(),
        computed("Containers", "string", "The names of the template's containers.", 1, |o, _| {
            container_names(pod_spec(o)).into()
        }),
        computed("Images", "string", "The images of the template's containers.", 1, |o, _| {
            container_images(pod_spec(o)).into()
        }),
        computed("Selector", "string", "Which pods belong to the jobs.", 1, |o, _| {
            format_label_selector(at(o, &["spec", "jobTemplate", "spec", "selector"])).into()
        }),
    ]
}

fn pod_spec(object: &Value) -> &Value {
    at(object, &["spec", "jobTemplate", "spec", "template", "spec"])
}

struct CronJobRules;

impl Strategy for CronJobRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_text(spec, "concurrencyPolicy", "Allow");
        default_to(spec, "suspend", false);
        default_to(spec, "successfulJobsHistoryLimit", 3);
        default_to(spec, "failedJobsHistoryLimit", 1);
        let job_spec = object_mut(spec, "jobTemplate").and_then(|job| object_mut(job, "spec"));
        if let Some(template) = job_spec.and_then(|spec| object_mut(spec, "template")) {
            default_template(template);
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
        validate_spec(sub(object, "spec"), None, &mut errors);
        let name = text(sub(object, "metadata"), "name");
        if name.len() > NAME_BYTES_MAX {
            let metadata = Path::Root.child("metadata");
            errors.invalid(&metadata.child("name"), name, "must be no more than 52 characters");
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        if cx.subresource != Some("status") {
            validate_spec(sub(object, "spec"), Some(sub(old, "spec")), &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let template = at(object, &["spec", "jobTemplate", "spec", "template"]);
        warnings_at(template, "spec.jobTemplate.spec.template")
    }
}

fn validate_spec(spec: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::Root.child("spec");
    validate_schedule(spec, old, &path, errors);
    none_negative(spec, &["startingDeadlineSeconds"], &path, errors);
    if old.is_none_or(|old| get(old, "timeZone") != get(spec, "timeZone")) {
        validate_time_zone(spec, &path, errors);
    }
    must_be_one_of(spec, "concurrencyPolicy", &POLICIES, &path, errors);
    let template = path.child("jobTemplate");
    let job_path = template.child("spec");
    let job = at(spec, &["jobTemplate", "spec"]);
    validate_job_spec(job, &job_path, errors);
    if let Some(selector) = get(job, "selector") {
        errors.invalid(&job_path.child("selector"), selector.clone(), "`selector` will be auto-generated");
    }
    if flag(job, "manualSelector") {
        errors.not_supported(&job_path.child("manualSelector"), true, &["nil", "false"]);
    }
    none_negative(spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], &path, errors);
}

fn validate_schedule(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let at_schedule = path.child("schedule");
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.required(&at_schedule, "");
        return;
    }
    if let Err(why) = Schedule::parse(schedule) {
        errors.invalid(&at_schedule, schedule, &why);
    }
    if !schedule.contains("TZ") {
        return;
    }
    // Schedules with a zone in them were allowed once, and may stay.
    let allowed = old.is_some_and(|old| text(old, "schedule").contains("TZ"));
    if !allowed {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&at_schedule, schedule, detail);
    } else if get(spec, "timeZone").is_some() {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.invalid(&at_schedule, schedule, detail);
    }
}

fn validate_time_zone(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(zone) = get(spec, "timeZone").and_then(Value::as_str) else { return };
    let at_zone = path.child("timeZone");
    if zone.is_empty() {
        errors.invalid(&at_zone, zone, "timeZone must be nil or non-empty string");
        return;
    }
    let is_part = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    if !zone.split('/').all(is_part) {
        errors.invalid(&at_zone, zone, &format!("unknown time zone {zone}"));
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(&at_zone, zone, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn cron_job() -> Value {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}]}}}}}});
        CronJobRules.default(&mut object);
        object
    }

    #[test]
    fn defaults_are_upstreams() {
        let object = cron_job();
        let spec = &object["spec"];
        assert_eq!((&spec["concurrencyPolicy"], &spec["suspend"]), (&json!("Allow"), &json!(false)));
        assert_eq!(
            (&spec["successfulJobsHistoryLimit"], &spec["failedJobsHistoryLimit"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(
            row(&columns(), &object),
            json!(["c", "*/5 * * * *", "<none>", "False", 0, "<none>", "<unknown>", "c", "i:1", "<none>"])
        );
    }

    #[test]
    fn cron_jobs_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = cron_job();
            change(&mut object);
            assert_eq!(texts(&CronJobRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(|o| o["spec"]["schedule"] = "".into(), &["spec.schedule: Required value"]);
        check(
            |o| o["spec"]["schedule"] = "61 * * * *".into(),
            &["spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61"],
        );
        check(
            |o| o["spec"]["schedule"] = "TZ=UTC * * * * *".into(),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        );
        check(
            |o| o["spec"]["timeZone"] = "Mars/..".into(),
            &["spec.timeZone: Invalid value: \"Mars/..\": unknown time zone Mars/.."],
        );
        check(
            |o| o["spec"]["concurrencyPolicy"] = "Wait".into(),
            &[
                "spec.concurrencyPolicy: Unsupported value: \"Wait\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        );
        check(
            |o| o["spec"]["jobTemplate"]["spec"]["manualSelector"] = true.into(),
            &[
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"false\", \"nil\"",
            ],
        );
        check(
            |o| o["metadata"]["name"] = "c".repeat(53).into(),
            &[&format!(
                "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
                "c".repeat(53)
            )],
        );
        let mut old = cron_job();
        old["spec"]["schedule"] = "TZ=UTC 0 * * * *".into();
        let errors = CronJobRules.validate_update(&old, &old, write(None));
        assert_eq!(errors, vec![], "an old schedule with a zone stays");
    }
}
