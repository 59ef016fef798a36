//! The conditions of a pod that its node keeps; those of others are left as they are.

use crate::policy::is_sidecar;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The types that a node writes.
pub(super) const OWNED: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

struct Draft {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Draft {
    fn yes(reason: &'static str) -> Self {
        Draft { status: true, reason, message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Draft { status: false, reason, message }
    }
}

/// All conditions: those that a node owns, then the others of `old`.
pub(super) fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    old: &PodStatus,
    new: &PodStatus,
    phase: &str,
    ready_sandbox: bool,
    now: Timestamp,
) -> Vec<PodCondition> {
    let inits = new.init_container_statuses.as_deref().unwrap_or(&[]);
    let regular = new.container_statuses.as_deref().unwrap_or(&[]);
    let containers = containers_ready(spec, inits, regular, phase);
    let ready = ready(spec, old, &containers);
    let sandbox = if ready_sandbox { Draft::yes("") } else { Draft::no("", String::new()) };
    let drafts = [sandbox, initialized(spec, inits, regular, phase), ready, containers, Draft::yes("")];
    let past = old.conditions.as_deref().unwrap_or(&[]);
    let mut all: Vec<PodCondition> = OWNED
        .iter()
        .zip(drafts)
        .map(|(name, draft)| finish(name, draft, past, pod.metadata.generation, now))
        .collect();
    all.extend(past.iter().filter(|c| !OWNED.contains(&c.type_.as_str())).cloned());
    all
}

fn finish(
    name: &str,
    draft: Draft,
    past: &[PodCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if draft.status { "True" } else { "False" };
    let before = past.iter().find(|c| c.type_ == name);
    if name == "PodScheduled"
        && let Some(before) = before.filter(|c| c.status == "True")
    {
        // The scheduler's word; a node says it only for a pod that nobody scheduled.
        return before.clone();
    }
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: Some(draft.reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(draft.message).filter(|m| !m.is_empty()),
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: generation,
        last_probe_time: None,
    }
}

fn go_list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn initialized(spec: &PodSpec, inits: &[ContainerStatus], regular: &[ContainerStatus], phase: &str) -> Draft {
    let pairs = spec.init_containers.iter().flatten().zip(inits);
    let open: Vec<&str> = pairs
        .filter(|(c, s)| if is_sidecar(c) { s.started != Some(true) } else { !s.ready })
        .map(|(c, _)| c.name.as_str())
        .collect();
    if phase == "Succeeded" {
        return Draft::yes("PodCompleted");
    }
    let started = regular.iter().any(|s| {
        s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    });
    if open.is_empty() || started {
        return Draft::yes("");
    }
    Draft::no("ContainersNotInitialized", format!("containers with incomplete status: {}", go_list(&open)))
}

fn containers_ready(
    spec: &PodSpec,
    inits: &[ContainerStatus],
    regular: &[ContainerStatus],
    phase: &str,
) -> Draft {
    if phase == "Succeeded" {
        return Draft::no("PodCompleted", String::new());
    }
    if phase == "Failed" {
        return Draft::no("PodFailed", String::new());
    }
    let sidecars =
        spec.init_containers.iter().flatten().zip(inits).filter(|(c, _)| is_sidecar(c)).map(|(_, s)| s);
    let by_spec = spec.containers.iter().filter_map(|c| regular.iter().find(|s| s.name == c.name));
    let unready: Vec<&str> = sidecars.chain(by_spec).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return Draft::yes("");
    }
    Draft::no("ContainersNotReady", format!("containers with unready status: {}", go_list(&unready)))
}

fn ready(spec: &PodSpec, old: &PodStatus, containers: &Draft) -> Draft {
    if !containers.status {
        return Draft { status: false, reason: containers.reason, message: containers.message.clone() };
    }
    let conditions = old.conditions.as_deref().unwrap_or(&[]);
    let mut open = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *kind) {
            None => {
                open.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
            }
            Some(c) if c.status != "True" => open.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if open.is_empty() { Draft::yes("") } else { Draft::no("ReadinessGatesNotReady", open.join(", ")) }
}
