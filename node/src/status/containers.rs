//! The status of each container.

use super::StatusInput;
use crate::actions::should_start;
use crate::observed::restart_count;
use crate::policy::is_sidecar;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, PodSpec, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubewright_runtime::port::{Container as Instance, ContainerState};

const LOST: &str = "The container could not be located when the pod was terminated";

/// The statuses of the init containers, in the spec's order.
pub(super) fn inits(spec: &PodSpec, old: &PodStatus, input: &StatusInput<'_>) -> Vec<ContainerStatus> {
    let list = spec.init_containers.as_deref().unwrap_or(&[]);
    let old = old.init_container_statuses.as_deref().unwrap_or(&[]);
    list.iter().map(|c| one(spec, c, true, old, input)).collect()
}

/// The statuses of the containers, by name.
pub(super) fn regular(spec: &PodSpec, old: &PodStatus, input: &StatusInput<'_>) -> Vec<ContainerStatus> {
    let old = old.container_statuses.as_deref().unwrap_or(&[]);
    let mut all: Vec<_> = spec.containers.iter().map(|c| one(spec, c, false, old, input)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The statuses of the ephemeral containers, in the spec's order.
pub(super) fn ephemeral(spec: &PodSpec, old: &PodStatus, input: &StatusInput<'_>) -> Vec<ContainerStatus> {
    let old = old.ephemeral_container_statuses.as_deref().unwrap_or(&[]);
    let all = crate::ephemeral::containers(spec);
    all.iter().map(|c| ContainerStatus { ready: false, ..one(spec, c, false, old, input) }).collect()
}

fn one(
    spec: &PodSpec,
    container: &Container,
    init: bool,
    old: &[ContainerStatus],
    input: &StatusInput<'_>,
) -> ContainerStatus {
    let old = old.iter().find(|s| s.name == container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        volume_mounts: mounts(container),
        ..ContainerStatus::default()
    };
    let mut instances = input.observed.instances(&container.name);
    match instances.next() {
        None => without_instance(spec, container, init, old, input, &mut status),
        Some(newest) => {
            let last = instances.find(|c| c.state == ContainerState::Exited);
            with_instance(container, newest, last, old, input, &mut status);
        }
    }
    waiting(spec, container, input, &mut status);
    status.ready = ready(container, init, &status, input);
    status
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.iter().flatten();
    let all: Vec<_> = mounts
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    Some(all).filter(|a| !a.is_empty())
}

fn waiting_state(reason: &str, message: Option<String>) -> State {
    let waiting =
        ContainerStateWaiting { reason: Some(reason.to_owned()).filter(|r| !r.is_empty()), message };
    State { waiting: Some(waiting), ..State::default() }
}

fn lost(old: &ContainerStatus) -> State {
    let running = old.state.as_ref().and_then(|s| s.running.as_ref());
    State {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(LOST.to_owned()),
            container_id: old.container_id.clone(),
            started_at: running.and_then(|r| r.started_at.clone()),
            ..ContainerStateTerminated::default()
        }),
        ..State::default()
    }
}

/// The runtime knows no instance: it was never made, or it is gone.
fn without_instance(
    spec: &PodSpec,
    container: &Container,
    init: bool,
    old: Option<&ContainerStatus>,
    input: &StatusInput<'_>,
    status: &mut ContainerStatus,
) {
    let has_inits = spec.init_containers.as_ref().is_some_and(|i| !i.is_empty());
    let first = spec.init_containers.as_ref().and_then(|i| i.first());
    // Upstream says so for every container of a pod with init containers, those included.
    let reason =
        if has_inits && !(init && first.is_none()) { "PodInitializing" } else { "ContainerCreating" };
    status.state = Some(waiting_state(reason, None));
    let Some(old) = old else { return };
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    status.image_id = old.image_id.clone();
    let Some(state) = &old.state else { return };
    if state.terminated.is_some() {
        status.container_id = old.container_id.clone();
        status.state = old.state.clone();
        status.started = old.started;
    } else if state.running.is_some() {
        status.container_id = old.container_id.clone();
        let gone = lost(old);
        let again = !input.ending && crate::policy::restarts_after(spec, container, 137);
        if again {
            status.restart_count = old.restart_count.saturating_add(1);
            status.last_state = Some(gone);
        } else {
            status.state = Some(gone);
        }
    } else if input.ended {
        status.state = Some(lost(old));
    }
}

fn with_instance(
    container: &Container,
    newest: &Instance,
    last: Option<&Instance>,
    old: Option<&ContainerStatus>,
    input: &StatusInput<'_>,
    status: &mut ContainerStatus,
) {
    status.restart_count = restart_count(newest).max(old.map_or(0, |o| o.restart_count));
    status.container_id = Some(format!("{}://{}", input.runtime, newest.id));
    status.image_id.clone_from(&newest.image_ref);
    if !newest.image.is_empty() && !newest.image.starts_with("sha256:") {
        status.image.clone_from(&newest.image);
    }
    status.state = Some(match newest.state {
        ContainerState::Running => State {
            running: Some(ContainerStateRunning { started_at: time(newest.started_at) }),
            ..State::default()
        },
        ContainerState::Exited => {
            State { terminated: Some(terminated(newest, input.runtime)), ..State::default() }
        }
        ContainerState::Created => waiting_state("", None),
        ContainerState::Unknown => match old {
            Some(o) if o.state.as_ref().is_some_and(|s| s.running.is_some()) => lost(o),
            _ => waiting_state("", None),
        },
    });
    status.started = Some(input.probes.started(container, newest));
    status.last_state = match last {
        Some(i) => Some(State { terminated: Some(terminated(i, input.runtime)), ..State::default() }),
        // The dead one may have been removed from the runtime; what was known of it stays.
        None => old.filter(|_| status.restart_count > 0).and_then(|o| o.last_state.clone()),
    };
}

/// Puts the reason for which a container waits over its state.
fn waiting(spec: &PodSpec, container: &Container, input: &StatusInput<'_>, status: &mut ContainerStatus) {
    let Some((reason, message)) = input.waits.get(&container.name) else { return };
    if input.ending || !should_start(spec, container, input.observed.newest(&container.name)) {
        return;
    }
    if let Some(state) = status.state.take()
        && state.terminated.is_some()
    {
        status.last_state = Some(state);
    }
    status.state = Some(waiting_state(reason, Some(message.clone()).filter(|m| !m.is_empty())));
    status.started = Some(false);
}

fn ready(container: &Container, init: bool, status: &ContainerStatus, input: &StatusInput<'_>) -> bool {
    let Some(state) = &status.state else { return false };
    if init && !is_sidecar(container) {
        return state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    }
    let newest = input.observed.newest(&container.name);
    state.running.is_some() && newest.is_some_and(|c| input.probes.ready(container, c))
}

pub(crate) fn time(nanos: i64) -> Option<Time> {
    // The API shows whole seconds.
    (nanos > 0).then(|| Timestamp::from_second(nanos / 1_000_000_000).ok().map(Time)).flatten()
}

fn terminated(c: &Instance, runtime: &str) -> ContainerStateTerminated {
    let reason = match (c.reason.as_str(), c.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        exit_code: c.exit_code,
        reason: Some(reason.to_owned()),
        message: Some(c.message.clone()).filter(|m| !m.is_empty()),
        started_at: time(c.started_at),
        finished_at: time(c.finished_at),
        container_id: Some(format!("{runtime}://{}", c.id)),
        signal: None,
    }
}
