//! What must be done so that the runtime has what the pod's spec says: a pure decision.
//!
//! The rules are upstream's: a pod without a ready sandbox gets a new one; init containers come one after the other, those
//! with `restartPolicy: Always` stay; then all containers; whatever failed a probe or changed is ended and, as its policy says,
//! started again.

use crate::observed::Observed;
use crate::policy::{is_sidecar, pod_policy, restarts_after};
use crate::probe::{ContainerProbes, ProbeStates};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kubewright_runtime::port::{Container as Instance, ContainerState, NamespaceMode};

/// A container to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// A sentence for the event.
    pub message: String,
    /// Which probe asked for it.
    pub why: KillWhy,
}

/// Why a single container is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillWhy {
    /// Its startup probe failed; that probe's own grace period counts.
    Startup,
    /// Its liveness probe failed; that probe's own grace period counts.
    Liveness,
    /// Its specification changed, or it is in an unknown state.
    Other,
}

/// What to do, in this order: kill the pod, or kill containers; make a sandbox; start containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// End everything that is there: the sandbox changed, or nothing is left to run.
    pub kill_pod: bool,
    /// Then make a sandbox.
    pub create_sandbox: bool,
    /// The number of that sandbox.
    pub attempt: u32,
    /// Containers to end.
    pub kill: Vec<Kill>,
    /// Init containers to start, by their place in the spec.
    pub start_init: Vec<usize>,
    /// Containers to start, by their place in the spec.
    pub start: Vec<usize>,
    /// Ephemeral containers to start, by their place in the spec; they wait for no others.
    pub start_ephemeral: Vec<usize>,
}

/// Decides.
pub fn compute(pod: &Pod, observed: &Observed, probes: &ProbeStates) -> Actions {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let (changed, attempt) = sandbox_changed(spec, observed);
    if changed {
        return with_new_sandbox(spec, observed, attempt);
    }
    let mut actions = Actions { attempt, ..Actions::default() };
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate();
    actions.start_ephemeral =
        ephemeral.filter(|(_, c)| observed.newest(&c.name).is_none()).map(|(i, _)| i).collect();
    if init_actions(spec, observed, probes, &mut actions).is_none() {
        return actions;
    }
    let mut kept = 0;
    for (i, container) in spec.containers.iter().enumerate() {
        match observed.newest(&container.name) {
            Some(c) if c.state == ContainerState::Running => {
                match unhealthy(container, c, probes.of(&c.id)) {
                    None => kept += 1,
                    Some((why, message)) => {
                        // A failed probe restarts a container only where its policy would; a failed probe ends it anyway.
                        let again = why == KillWhy::Other || restarts_after(spec, container, 137);
                        kill(&mut actions, c, why, message, again);
                        if again {
                            actions.start.push(i);
                        }
                    }
                }
            }
            instance => {
                if should_start(spec, container, instance) {
                    if let Some(c) = instance
                        && c.state == ContainerState::Unknown
                    {
                        let text =
                            format!("Container is in {:?} state, try killing it before restart", "Unknown");
                        kill(&mut actions, c, KillWhy::Other, text, false);
                    }
                    actions.start.push(i);
                }
            }
        }
    }
    if kept == 0 && actions.start.is_empty() {
        // Only sidecars are left: they end with the pod.
        actions.kill_pod = true;
        actions.start_init.clear();
        actions.start_ephemeral.clear();
    }
    actions
}

fn kill(actions: &mut Actions, c: &Instance, why: KillWhy, message: String, again: bool) {
    let message = if again { format!("{message}, will be restarted") } else { message };
    actions.kill.push(Kill { id: c.id.clone(), name: c.metadata.name.clone(), message, why });
}

/// Whether a container that does not run must be started.
pub fn should_start(spec: &PodSpec, container: &Container, instance: Option<&Instance>) -> bool {
    match instance {
        None => true,
        Some(c) => match c.state {
            ContainerState::Running => false,
            ContainerState::Created | ContainerState::Unknown => true,
            ContainerState::Exited => restarts_after(spec, container, c.exit_code),
        },
    }
}

/// Whether a running container must be ended, and why.
fn unhealthy(container: &Container, c: &Instance, probes: ContainerProbes) -> Option<(KillWhy, String)> {
    let name = &container.name;
    let noted = c.annotations.get(crate::names::CONTAINER_HASH);
    if noted.is_some_and(|h| *h != crate::cri::spec_hash(container)) {
        return Some((KillWhy::Other, format!("Container {name} definition changed")));
    }
    if probes.startup == Some(false) {
        return Some((KillWhy::Startup, format!("Container {name} failed startup probe")));
    }
    if probes.liveness == Some(false) {
        return Some((KillWhy::Liveness, format!("Container {name} failed liveness probe")));
    }
    None
}

/// Whether the pod needs a (new) sandbox, and its number.
fn sandbox_changed(spec: &PodSpec, observed: &Observed) -> (bool, u32) {
    let Some(newest) = observed.sandboxes.first() else { return (true, 0) };
    let attempt = newest.metadata.attempt;
    let ready =
        observed.sandboxes.iter().filter(|s| s.state == kubewright_runtime::port::PodSandboxState::Ready);
    if ready.count() > 1 || observed.ready_sandbox().is_none() {
        return (true, attempt + 1);
    }
    let host = spec.host_network.unwrap_or(false);
    if host != (newest.namespaces.network == NamespaceMode::Node) {
        return (true, attempt + 1);
    }
    (false, attempt)
}

fn with_new_sandbox(spec: &PodSpec, observed: &Observed, attempt: u32) -> Actions {
    let mut actions = Actions { kill_pod: true, create_sandbox: true, attempt, ..Actions::default() };
    let ran = attempt != 0 && !observed.containers.is_empty();
    if ran && pod_policy(spec) == "Never" && !any_restarts(spec) {
        // It ran already; a pod that must not be restarted is not run anew in another sandbox.
        actions.create_sandbox = false;
        return actions;
    }
    let done = |c: &Container| {
        observed
            .newest(&c.name)
            .is_some_and(|i| i.state == ContainerState::Exited && !restarts_after(spec, c, i.exit_code))
    };
    actions.start = (0..spec.containers.len()).filter(|i| !done(&spec.containers[*i])).collect();
    if actions.start.is_empty() {
        actions.create_sandbox = false;
        return actions;
    }
    if spec.init_containers.as_ref().is_some_and(|i| !i.is_empty()) {
        actions.start.clear();
        actions.start_init.push(0);
    }
    actions
}

/// Whether some container restarts whatever the pod's policy says.
fn any_restarts(spec: &PodSpec) -> bool {
    spec.containers.iter().any(|c| {
        c.restart_policy.as_deref().is_some_and(|p| p != "Never")
            || c.restart_policy_rules.as_ref().is_some_and(|r| !r.is_empty())
    })
}

/// Decides about init containers; `None` where the pod's containers must wait for them.
fn init_actions(
    spec: &PodSpec,
    observed: &Observed,
    probes: &ProbeStates,
    actions: &mut Actions,
) -> Option<()> {
    let inits = spec.init_containers.as_deref().unwrap_or(&[]);
    let initialized = spec.containers.iter().any(|c| observed.in_sandbox(&c.name).is_some());
    for (i, init) in inits.iter().enumerate() {
        let instance = observed.in_sandbox(&init.name);
        let went_on =
            initialized || inits[i + 1..].iter().any(|later| observed.in_sandbox(&later.name).is_some());
        let goes_on = if is_sidecar(init) {
            sidecar(i, init, instance, probes, actions)
        } else {
            initialized || one_init(spec, i, init, instance, actions)
        };
        if !goes_on && (!is_sidecar(init) || !went_on) {
            return None;
        }
    }
    Some(())
}

/// A sidecar; gives whether it has started, so that the next one may.
fn sidecar(
    i: usize,
    init: &Container,
    instance: Option<&Instance>,
    probes: &ProbeStates,
    actions: &mut Actions,
) -> bool {
    match instance {
        Some(c) if c.state == ContainerState::Running => {
            if let Some((why, message)) = unhealthy(init, c, probes.of(&c.id)) {
                kill(actions, c, why, message, true);
                actions.start_init.push(i);
                return false;
            }
            probes.started(init, c)
        }
        instance => {
            if let Some(c) = instance
                && c.state == ContainerState::Unknown
            {
                kill(actions, c, KillWhy::Other, "Init container is in an unknown state".to_owned(), true);
            }
            actions.start_init.push(i);
            false
        }
    }
}

/// An init container that runs to its end; gives whether it did.
fn one_init(
    spec: &PodSpec,
    i: usize,
    init: &Container,
    instance: Option<&Instance>,
    actions: &mut Actions,
) -> bool {
    let Some(c) = instance else {
        actions.start_init.push(i);
        return false;
    };
    match c.state {
        ContainerState::Running => false,
        ContainerState::Exited if c.exit_code == 0 => true,
        ContainerState::Exited => {
            // `Always` of the pod means that a failed init container is tried again.
            if restarts_after(spec, init, c.exit_code) {
                actions.start_init.push(i);
            } else {
                actions.kill_pod = true;
            }
            false
        }
        ContainerState::Created | ContainerState::Unknown => {
            actions.start_init.push(i);
            false
        }
    }
}

#[cfg(test)]
mod tests;
