//! Validation of a Job's status, which outside controllers may write: it can't contradict itself, and what is finished stays so.

use super::job_policies::intervals;
use crate::ErrorList;
use crate::api::kit::checks::none_negative;
use crate::api::kit::duration::parse;
use crate::api::kit::{ErrorSink, Path, count, flag, get, int, list, same, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether a condition of the Job is true.
pub(super) fn is(job: &Value, condition: &str) -> bool {
    list(sub(job, "status"), "conditions")
        .iter()
        .any(|c| text(c, "type") == condition && text(c, "status") == "True")
}

fn finished(job: &Value) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

fn indexed(job: &Value) -> bool {
    text(sub(job, "spec"), "completionMode") == "Indexed"
}

/// Two states of a Job, and where the errors go.
struct Check<'a> {
    job: &'a Value,
    old: &'a Value,
    errors: ErrorList,
}

/// Validates a write of the status.
pub(super) fn validate_status(job: &Value, old: &Value) -> ErrorList {
    let mut check = Check { job, old, errors: ErrorList::new() };
    check.numbers();
    check.conditions();
    check.times();
    check.finished();
    check.indexes();
    check.transitions();
    check.errors
}

impl<'a> Check<'a> {
    fn status(&self) -> &'a Value {
        sub(self.job, "status")
    }

    /// Rules hold only for what a write changes, so that a status which broke them before can still be written.
    fn changed(&self, field: &str) -> bool {
        !same(sub(self.status(), field), sub(sub(self.old, "status"), field))
    }

    fn turned(&self, condition: &str) -> bool {
        is(self.job, condition) != is(self.old, condition)
    }

    fn invalid(&mut self, field: &str, detail: &str) {
        let value = sub(self.status(), field).clone();
        self.errors.invalid(&Path::Root.child("status").child(field), value, detail);
    }

    fn required(&mut self, field: &str, detail: &str) {
        self.errors.required(&Path::Root.child("status").child(field), detail);
    }

    fn number(&self, field: &str) -> i64 {
        int(self.status(), field).unwrap_or(0)
    }

    fn numbers(&mut self) {
        let status = self.status();
        let path = Path::Root.child("status");
        let fields = ["active", "succeeded", "failed", "ready", "terminating"];
        none_negative(status, &fields, &path, &mut self.errors);
        let at = path.child("uncountedTerminatedPods");
        let mut seen = BTreeSet::new();
        for field in ["succeeded", "failed"] {
            let list_path = at.child(field);
            for (i, uid) in list(sub(status, "uncountedTerminatedPods"), field).iter().enumerate() {
                let uid = uid.as_str().unwrap_or("");
                if uid.is_empty() {
                    self.errors.invalid(&list_path.index(i), uid, "must not be empty");
                } else if !seen.insert(uid) {
                    self.errors.duplicate(&list_path.index(i), uid);
                }
            }
        }
        if get(status, "ready").is_some() && self.number("ready") > self.number("active") {
            self.invalid("ready", "cannot set more ready pods than active");
        }
    }

    fn conditions(&mut self) {
        let job = self.job;
        let (complete, failed) = (is(job, "Complete"), is(job, "Failed"));
        let (met, target) = (is(job, "SuccessCriteriaMet"), is(job, "FailureTarget"));
        let turned = self.turned("Complete");
        let success_policy = get(sub(job, "spec"), "successPolicy").is_some();
        let rules = [
            (
                complete && failed && (turned || self.turned("Failed")),
                "cannot set Complete=True and Failed=true conditions",
            ),
            (
                complete && target && (turned || self.turned("FailureTarget")),
                "cannot set Complete=True and FailureTarget=true conditions",
            ),
            (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
            (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
            (
                success_policy && complete && !met,
                "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
            ),
        ];
        for (_, detail) in rules.iter().filter(|(broken, _)| *broken) {
            self.invalid("conditions", detail);
        }
    }

    fn times(&mut self) {
        let status = self.status();
        let complete = is(self.job, "Complete");
        let (start, end) = (get(status, "startTime"), get(status, "completionTime"));
        if self.turned("Complete") || self.changed("completionTime") {
            if end.is_some() && !complete {
                let detail = "cannot set completionTime when there is no Complete=True condition";
                self.invalid("completionTime", detail);
            }
            if end.is_none() && complete {
                self.required("completionTime", "completionTime is required for Complete jobs");
            }
        }
        if (self.changed("startTime") || self.changed("completionTime"))
            && let (Some(start), Some(end)) = (start.and_then(parse), end.and_then(parse))
            && end < start
        {
            self.invalid("completionTime", "completionTime cannot be set before startTime");
        }
    }

    fn finished(&mut self) {
        let done = finished(self.job);
        if !done {
            return;
        }
        let turned = done != finished(self.old);
        let status = self.status();
        if (turned || self.changed("active")) && self.number("active") > 0 {
            self.invalid("active", "active>0 is invalid for finished job");
        }
        if (turned || self.changed("startTime")) && get(status, "startTime").is_none() {
            self.required("startTime", "startTime is required for finished job");
        }
        let uncounted = sub(status, "uncountedTerminatedPods");
        if (turned || self.changed("uncountedTerminatedPods"))
            && count(uncounted, "succeeded") + count(uncounted, "failed") > 0
        {
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            self.invalid("uncountedTerminatedPods", detail);
        }
    }

    fn indexes(&mut self) {
        let (status, spec) = (self.status(), sub(self.job, "spec"));
        let (completed, failed) = (text(status, "completedIndexes"), text(status, "failedIndexes"));
        let (new_completed, new_failed) = (self.changed("completedIndexes"), self.changed("failedIndexes"));
        let completions = int(spec, "completions");
        for (field, list, new) in
            [("completedIndexes", completed, new_completed), ("failedIndexes", failed, new_failed)]
        {
            if let Some(completions) = completions.filter(|_| new)
                && let Err(why) = intervals(list, completions)
            {
                self.invalid(field, &format!("error parsing {field}: {why}"));
            }
        }
        if new_completed && !completed.is_empty() && !indexed(self.job) {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            self.invalid("completedIndexes", detail);
        }
        if new_failed && get(spec, "backoffLimitPerIndex").is_none() && get(status, "failedIndexes").is_some()
        {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            self.invalid("failedIndexes", detail);
        }
        if let Some(completions) = completions.filter(|_| new_completed || new_failed)
            && let (Ok(completed), Ok(failed)) =
                (intervals(completed, completions), intervals(failed, completions))
            && let Some(index) = overlap(&completed, &failed)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            self.invalid("failedIndexes", &detail);
        }
    }

    /// What a write may not take back.
    fn transitions(&mut self) {
        for condition in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
            if is(self.old, condition) && !is(self.job, condition) {
                let terminal = if condition == "SuccessCriteriaMet" { "" } else { "terminal " };
                self.invalid(
                    "conditions",
                    &format!("cannot disable the {terminal}{condition}=True condition"),
                );
            }
        }
        let (old, spec) = (sub(self.old, "status"), sub(self.job, "spec"));
        let before = |field: &str| int(old, field).unwrap_or(0);
        if self.number("failed") < before("failed") {
            self.invalid("failed", "cannot decrease the failed counter");
        }
        // An indexed Job whose parallelism follows its completions may shrink.
        let elastic = indexed(self.job) && int(spec, "completions") == int(spec, "parallelism");
        if !elastic && self.number("succeeded") < before("succeeded") {
            self.invalid("succeeded", "cannot decrease the succeeded counter");
        }
        let both = get(self.status(), "completionTime").is_some() && get(old, "completionTime").is_some();
        if both && self.changed("completionTime") {
            self.invalid("completionTime", "completionTime cannot be mutated");
        }
        if get(old, "startTime").is_some() && self.changed("startTime") && !flag(spec, "suspend") {
            self.required("startTime", "startTime cannot be removed for unsuspended job");
        }
        let met = |job| is(job, "SuccessCriteriaMet");
        if is(self.old, "Complete") && !met(self.old) && met(self.job) {
            let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            self.invalid("conditions", detail);
        }
    }
}

/// The first index that both hold.
fn overlap(a: &[(i64, i64)], b: &[(i64, i64)]) -> Option<i64> {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.0 <= y.1 && y.0 <= x.1 {
            return Some(x.0.max(y.0));
        }
        if x.0 <= y.0 { i += 1 } else { j += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    fn job(status: Value) -> Value {
        json!({"spec": {"completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1},
               "status": status})
    }

    fn done() -> Value {
        json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z",
               "conditions": [{"type": "Complete", "status": "True"}]})
    }

    #[test]
    fn a_status_is_held_to_sense() {
        let check = |status: Value, old: Value, wanted: &[&str]| {
            assert_eq!(texts(&validate_status(&job(status), &job(old))), wanted);
        };
        check(json!({"active": 1, "ready": 1}), json!({}), &[]);
        check(done(), json!({}), &[]);
        check(
            json!({"active": 1, "ready": 2}),
            json!({}),
            &["status.ready: Invalid value: 2: cannot set more ready pods than active"],
        );
        check(
            json!({"completedIndexes": "0-2", "failedIndexes": "2"}),
            json!({}),
            &[
                "status.failedIndexes: Invalid value: \"2\": failedIndexes and completedIndexes overlap at index: 2",
            ],
        );
        check(
            json!({"completedIndexes": "7"}),
            json!({}),
            &[
                "status.completedIndexes: Invalid value: \"7\": error parsing completedIndexes: too large index: \"7\"",
            ],
        );
        let mut early = done();
        early["completionTime"] = "2025-01-01T00:00:00Z".into();
        check(
            early,
            json!({}),
            &[
                "status.completionTime: Invalid value: \"2025-01-01T00:00:00Z\": completionTime cannot be set before startTime",
            ],
        );
    }

    #[test]
    fn what_is_finished_stays() {
        let fields = |status: Value, old: Value| -> Vec<String> {
            validate_status(&job(status), &job(old)).iter().map(|e| e.field.to_string()).collect()
        };
        assert_eq!(fields(done(), done()), Vec::<String>::new());
        let mut undone = done();
        undone["conditions"] = json!([]);
        assert_eq!(fields(undone, done()), ["status.completionTime", "status.conditions"]);
        let mut fewer = done();
        fewer["succeeded"] = 0.into();
        assert_eq!(fields(fewer, done()), ["status.succeeded"]);
        let mut busy = done();
        busy["active"] = 1.into();
        assert_eq!(fields(busy, done()), ["status.active"]);
        let failed = json!({"failed": 1, "conditions": [{"type": "Failed", "status": "True"}]});
        assert_eq!(fields(failed, json!({})), ["status.startTime"]);
    }
}
