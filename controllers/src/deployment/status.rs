//! The status of a Deployment: its counts, and the conditions that `kubectl rollout status` reads.

use super::plan;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubewright_core::Resource;
use std::sync::Arc;
use std::time::Duration;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// What a pass learnt beside the ReplicaSets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass<'a> {
    /// The name of a ReplicaSet that this pass created.
    pub(super) created: Option<&'a str>,
    /// Why it could not be created.
    pub(super) create_error: Option<&'a str>,
    /// Whether progress is judged: not while paused, scaling or being deleted.
    pub(super) judge_progress: bool,
}

/// The whole status after a pass.
pub(super) fn status_of(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    pass: Pass<'_>,
    now: Time,
) -> DeploymentStatus {
    let mut status = counts(deployment, new, all);
    available_condition(deployment, &mut status, &now);
    match deadline(deployment) {
        None => remove(&mut status, PROGRESSING),
        Some(limit) => {
            pause_condition(deployment, &mut status, &now);
            if let Some(name) = pass.created {
                let message = format!("Created new replica set {name:?}");
                renew(&mut status, "True", "NewReplicaSetCreated", message, &now);
            } else if let Some(error) = pass.create_error {
                let message = format!("Failed to create new replica set: {error}");
                renew(&mut status, "False", "ReplicaSetCreateError", message, &now);
            } else if new.is_some() && condition(&status, PROGRESSING).is_none() {
                let message = format!("Found new replica set {:?}", new.map_or("", |n| n.name()));
                renew(&mut status, "True", "FoundNewReplicaSet", message, &now);
            }
            if pass.judge_progress {
                progress_condition(deployment, new, &mut status, limit, &now);
            }
        }
    }
    failure_condition(new, all, &mut status, &now);
    if status.conditions.as_ref().is_some_and(Vec::is_empty) {
        status.conditions = None;
    }
    status
}

fn counts(deployment: &Deployment, new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>]) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| -> i32 { all.iter().map(|s| of(s)).sum() };
    let actual = |s: &ReplicaSet| s.status.as_ref().map_or(0, |s| s.replicas);
    let some = |n: i32| Some(n).filter(|n| *n > 0);
    let available = sum(&plan::available);
    let terminating = sum(&|s| s.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0));
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&actual)),
        updated_replicas: some(new.map_or(0, actual)),
        ready_replicas: some(sum(&|s| s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((sum(&plan::replicas) - available).max(0)),
        terminating_replicas: some(terminating).or(old.terminating_replicas.map(|_| 0)),
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

pub(super) fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|c| c.type_ != kind);
    }
}

/// Sets a condition unless it has this status and reason already.
fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: String, now: &Time) {
    let present = condition(status, kind);
    if present.is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    replace(status, kind, value, reason, message, now);
}

fn replace(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: &Time,
) {
    let since = condition(status, kind).filter(|c| c.status == value);
    let since = since.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| now.clone());
    remove(status, kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(since),
    });
}

fn renew(status: &mut DeploymentStatus, value: &str, reason: &str, message: String, now: &Time) {
    set(status, PROGRESSING, value, reason, message, now);
}

fn available_condition(deployment: &Deployment, status: &mut DeploymentStatus, now: &Time) {
    let (_, unavailable) = plan::fenceposts(deployment);
    let enough = status.available_replicas.unwrap_or(0) >= plan::wanted(deployment) - unavailable;
    let (value, reason, message) = match enough {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    set(status, AVAILABLE, value, reason, message.to_owned(), now);
}

fn pause_condition(deployment: &Deployment, status: &mut DeploymentStatus, now: &Time) {
    let reason = condition(status, PROGRESSING).and_then(|c| c.reason.clone()).unwrap_or_default();
    if reason == TIMED_OUT {
        return;
    }
    if is_paused(deployment) {
        set(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned(), now);
    } else if reason == PAUSED {
        renew(status, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now);
    }
}

/// Whether the rollout is paused.
pub(super) fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false)
}

/// The progress deadline; upstream takes the largest number for none.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Whether all pods are of the new template, available, and none is left over.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let want = plan::wanted(deployment);
    let of = |n: Option<i32>| n.unwrap_or(0);
    of(status.updated_replicas) == want
        && of(status.replicas) == want
        && of(status.available_replicas) == want
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |n: Option<i32>| n.unwrap_or(0);
    let leftover = |s: &DeploymentStatus| of(s.replicas) - of(s.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || leftover(new) < leftover(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

fn progress_condition(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    status: &mut DeploymentStatus,
    limit: Duration,
    now: &Time,
) {
    let present = condition(status, PROGRESSING).cloned();
    let reason = present.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or("");
    if reason == COMPLETE && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", deployment.name()),
    };
    let old = deployment.status.clone().unwrap_or_default();
    if is_complete(deployment, status) {
        renew(status, "True", COMPLETE, format!("{subject} has successfully progressed."), now);
    } else if has_progressed(&old, status) {
        let message = format!("{subject} is progressing.");
        replace(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
    } else if present.is_some_and(|c| overdue(&c, limit, now.0)) {
        renew(status, "False", TIMED_OUT, format!("{subject} has timed out progressing."), now);
    }
}

fn overdue(progressing: &DeploymentCondition, limit: Duration, now: Timestamp) -> bool {
    match progressing.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => remaining(progressing, limit, now).is_zero(),
    }
}

fn remaining(progressing: &DeploymentCondition, limit: Duration, now: Timestamp) -> Duration {
    let since = progressing.last_update_time.as_ref().map_or(now, |t| t.0);
    limit.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

/// When the deadline has to be looked at again; `None` when nothing is under way.
pub(super) fn check_in(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let limit = deadline(deployment)?;
    let progressing = condition(status, PROGRESSING)?;
    let over = matches!(progressing.reason.as_deref(), Some(COMPLETE | TIMED_OUT | PAUSED));
    if over || is_complete(deployment, status) || is_paused(deployment) {
        return None;
    }
    Some(remaining(progressing, limit, now) + Duration::from_secs(1))
}

fn failure_condition(
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    status: &mut DeploymentStatus,
    now: &Time,
) {
    let failures = new.into_iter().chain(all.iter().map(|s| &**s));
    let failure = failures
        .flat_map(|s| s.status.iter().flat_map(|s| s.conditions.iter().flatten()))
        .find(|c| c.type_ == REPLICA_FAILURE);
    match failure {
        None => remove(status, REPLICA_FAILURE),
        Some(c) => {
            let reason = c.reason.clone().unwrap_or_default();
            set(status, REPLICA_FAILURE, &c.status, &reason, c.message.clone().unwrap_or_default(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The reason of the Progressing condition after a pass with these counts, when `elapsed` seconds went by since the last progress.
    fn check(old: Value, set: (i32, i32, i32), elapsed: i64, want: &str) {
        let at = |s: i64| Timestamp::from_second(1_000_000 + s).unwrap().to_string();
        let mut status = old;
        status["conditions"] = json!([{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": at(0), "lastTransitionTime": at(0)}]);
        let deployment: Deployment =
            serde_json::from_value(json!({"metadata": {"name": "d"}, "status": status,
            "spec": {"replicas": 3, "progressDeadlineSeconds": 60, "selector": {}, "template": {}}}))
            .unwrap();
        let set: Arc<ReplicaSet> = Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": "s"}, "spec": {"replicas": set.0, "selector": {}},
                "status": {"replicas": set.0, "readyReplicas": set.1, "availableReplicas": set.2}}),
            )
            .unwrap(),
        );
        let pass = Pass { judge_progress: true, ..Pass::default() };
        let now = Time(Timestamp::from_second(1_000_000 + elapsed).unwrap());
        let status = status_of(&deployment, Some(&set), std::slice::from_ref(&set), pass, now);
        let reason = condition(&status, PROGRESSING).unwrap().reason.clone().unwrap();
        assert_eq!(reason, want);
    }

    #[test]
    fn progress_is_judged_by_counts_and_time() {
        let old = |updated: i32, available: i32| json!({"replicas": 3, "updatedReplicas": updated, "readyReplicas": available, "availableReplicas": available});
        check(old(1, 0), (3, 0, 0), 5, "ReplicaSetUpdated");
        check(old(3, 2), (3, 3, 3), 5, COMPLETE);
        check(old(3, 2), (3, 2, 2), 59, "ReplicaSetUpdated");
        check(old(3, 2), (3, 2, 2), 61, TIMED_OUT);
        check(old(3, 1), (3, 2, 2), 61, "ReplicaSetUpdated");
    }
}
