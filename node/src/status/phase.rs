//! The phase of a pod.

use crate::policy::{is_sidecar, restarts_after};
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec};

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
}

fn last_exit_code(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// `Pending`, `Running`, `Succeeded` or `Failed`. `ended`: nothing runs any more, and nothing will.
pub(super) fn phase(
    spec: &PodSpec,
    inits: &[ContainerStatus],
    regular: &[ContainerStatus],
    ended: bool,
) -> &'static str {
    let mut pending_init = false;
    for (container, status) in spec.init_containers.iter().flatten().zip(inits) {
        if is_sidecar(container) {
            pending_init |= status.started != Some(true) && exit_code(status).is_none();
            continue;
        }
        match exit_code(status).or_else(|| if is_running(status) { None } else { last_exit_code(status) }) {
            Some(0) => {}
            Some(code) if !restarts_after(spec, container, code) => return "Failed",
            _ => pending_init = true,
        }
    }
    let started =
        regular.iter().any(|s| is_running(s) || exit_code(s).is_some() || last_exit_code(s).is_some());
    if pending_init && !started && !ended {
        return "Pending";
    }
    of_containers(spec, regular, ended)
}

fn of_containers(spec: &PodSpec, regular: &[ContainerStatus], ended: bool) -> &'static str {
    let (mut running, mut waiting, mut stopped, mut succeeded, mut again) = (0, 0, 0, 0, false);
    for status in regular {
        if is_running(status) {
            running += 1;
        } else if let Some(code) = exit_code(status) {
            stopped += 1;
            succeeded += usize::from(code == 0);
            let container = spec.containers.iter().find(|c| c.name == status.name);
            again |= container.is_some_and(|c| restarts_after(spec, c, code));
        } else if last_exit_code(status).is_some() {
            // Waits to be started again.
            stopped += 1;
            again = true;
        } else {
            waiting += 1;
        }
    }
    if waiting > 0 && !ended {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if again && !ended {
        return "Running";
    }
    match stopped + waiting {
        0 => "Pending",
        _ if stopped == succeeded && waiting == 0 => "Succeeded",
        _ => "Failed",
    }
}
