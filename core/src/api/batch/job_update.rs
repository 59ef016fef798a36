//! What of a Job may change: its completions with its parallelism, and its pods while it waits.

use super::job_status::is;
use crate::ErrorList;
use crate::api::kit::meta::{IMMUTABLE, immutable};
use crate::api::kit::{
    ErrorSink, Path, carry, ensure, flag, get, int, list, list_mut, object_mut, remove, same, set, sub, text,
};
use serde_json::Value;

/// What may change in the pods of a Job that is suspended, beside where nodes attract them and what they ask for.
const SCHEDULING: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

/// The completions of an indexed Job may change with its parallelism, those of others stay.
pub(super) fn validate_completions_change(job: &Value, old: &Value, errors: &mut ErrorList) {
    let (spec, old_spec) = (sub(job, "spec"), sub(old, "spec"));
    let path = Path::Root.child("spec");
    let (new, before) = (get(spec, "completions"), get(old_spec, "completions"));
    if new == before {
        return;
    }
    let at = path.child("completions");
    if text(spec, "completionMode") != "Indexed" {
        errors.invalid(&at, new.cloned().unwrap_or_default(), IMMUTABLE);
    } else if let Some(new) = new.filter(|n| Some(*n) != get(spec, "parallelism")) {
        errors.invalid(&at, new.clone(), "can only be modified in tandem with spec.parallelism");
    }
}

/// The template stays, but for where the pods may run and what they ask for while the Job is suspended and has none.
pub(super) fn validate_template_change(job: &Value, old: &Value, errors: &mut ErrorList) {
    let template = sub(sub(job, "spec"), "template");
    let mut before = sub(sub(old, "spec"), "template").clone();
    let status = sub(old, "status");
    let idle = get(status, "startTime").is_none()
        || (is(old, "Suspended") && int(status, "active").unwrap_or(0) == 0);
    if flag(sub(old, "spec"), "suspend") && idle {
        if let Some(metadata) = ensure(&mut before, "metadata") {
            for field in ["labels", "annotations"] {
                carry(metadata, sub(template, "metadata"), field);
            }
        }
        if let Some(pod_spec) = object_mut(&mut before, "spec") {
            allow_scheduling(pod_spec, sub(template, "spec"));
        }
    }
    let path = Path::Root.child("spec");
    immutable(template, &before, &path.child("template"), errors);
}

fn allow_scheduling(before: &mut Value, now: &Value) {
    let (mut old_affinity, new_affinity) = (sub(before, "affinity").clone(), sub(now, "affinity"));
    for field in SCHEDULING {
        carry(before, now, field);
    }
    // Of affinity only that to nodes.
    if old_affinity.is_null() {
        old_affinity = Value::Object(serde_json::Map::new());
    }
    carry(&mut old_affinity, new_affinity, "nodeAffinity");
    match count_of(&old_affinity) {
        0 => {
            remove(before, "affinity");
        }
        _ => set(before, "affinity", old_affinity),
    }
    for field in ["containers", "initContainers"] {
        let resources: Vec<Value> = list(now, field).iter().map(|c| sub(c, "resources").clone()).collect();
        for (container, resources) in list_mut(before, field).zip(resources) {
            set(container, "resources", resources);
        }
    }
}

fn count_of(value: &Value) -> usize {
    value.as_object().map_or(0, |map| map.values().filter(|v| !same(v, &Value::Null)).count())
}
