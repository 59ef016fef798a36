//! Ending containers and pods, in the documented order.

use crate::actions::KillWhy;
use crate::agent::Inner;
use crate::events::{NORMAL, WARNING};
use crate::observe::{attachment, observe};
use crate::observed::Observed;
use crate::policy::{grace_seconds, is_sidecar};
use crate::worker::PodWorker;
use crate::{hooks, policy};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use kubewright_runtime::Error;
use kubewright_runtime::port::ContainerState;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A container whose hook used up the grace period still gets this long after its stop signal.
const GRACE_SECONDS_MIN: u64 = 2;

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

/// The seconds that one container gets: of its failed probe where that has its own, else the pod's.
fn container_grace(
    pod: &Pod,
    container: Option<&Container>,
    why: KillWhy,
    given: Option<Duration>,
) -> Duration {
    if let Some(given) = given {
        return given;
    }
    let probe = container.and_then(|c| match why {
        KillWhy::Startup => c.startup_probe.as_ref(),
        KillWhy::Liveness => c.liveness_probe.as_ref(),
        KillWhy::Other => None,
    });
    let seconds =
        probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or_else(|| grace_seconds(pod));
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1))
}

/// Ends one container: `preStop`, its stop signal, and SIGKILL when the grace period is over.
#[expect(clippy::too_many_arguments, reason = "each says something else about one kill")]
pub(crate) async fn kill_container(
    a: &Inner,
    w: &PodWorker,
    pod: &Pod,
    id: &str,
    name: &str,
    message: String,
    why: KillWhy,
    grace: Option<Duration>,
) {
    let container = find(pod, name);
    let grace = container_grace(pod, container, why, grace);
    let message = if message.is_empty() { format!("Stopping container {name}") } else { message };
    a.events.container(pod, name, NORMAL, "Killing", message);
    w.invalidate();
    let began = Instant::now();
    let hook = container.and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|h| (c, h)));
    if let Some((container, hook)) = hook.filter(|_| !a.settings.simulated) {
        let observed = w.observed();
        let ip = observed.ips.first().map_or("", String::as_str);
        let run = hooks::run_hook(&*a.runtime, hook, container, id, ip);
        if let Ok(Err(why)) = tokio::time::timeout(grace, run).await {
            tracing::debug!(pod = w.name, container = name, error = why, "preStop hook failed");
            a.events.container(pod, name, WARNING, "FailedPreStopHook", "PreStopHook failed".to_owned());
        }
    }
    let left = grace.saturating_sub(began.elapsed()).max(Duration::from_secs(GRACE_SECONDS_MIN).min(grace));
    if let Err(e) = a.runtime.stop_container(id, left).await {
        tracing::debug!(pod = w.name, container = name, error = %e, "stopping failed");
    }
}

/// Ends everything of a pod that runs: containers together, then sidecars from the last to the first, then sandboxes.
///
/// # Errors
/// The runtime's; what is left is tried again.
pub(crate) async fn kill_pod(
    a: &Inner,
    w: &PodWorker,
    pod: &Pod,
    observed: &Observed,
    grace: Option<Duration>,
) -> Result<(), Error> {
    let deadline = Instant::now() + container_grace(pod, None, KillWhy::Other, grace);
    let spec = policy::spec(pod);
    let sidecars: Vec<&str> =
        spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let alive = |c: &&kubewright_runtime::port::Container| {
        matches!(c.state, ContainerState::Running | ContainerState::Unknown)
    };
    let (last, first): (Vec<_>, Vec<_>) =
        observed.containers.iter().filter(alive).partition(|c| sidecars.contains(&c.metadata.name.as_str()));
    join_all(
        first.iter().map(|c| {
            kill_container(a, w, pod, &c.id, &c.metadata.name, String::new(), KillWhy::Other, grace)
        }),
    )
    .await;
    for name in sidecars.iter().rev() {
        for c in last.iter().filter(|c| c.metadata.name == *name) {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
            kill_container(a, w, pod, &c.id, name, String::new(), KillWhy::Other, Some(left)).await;
        }
    }
    for sandbox in &observed.sandboxes {
        a.runtime.stop_pod_sandbox(&sandbox.id).await?;
        if let Some(network) = &a.network
            && let Err(e) = network.teardown_pod(&attachment(pod, &sandbox.id)).await
        {
            tracing::debug!(pod = w.name, error = %e, "giving back the network failed");
        }
    }
    w.invalidate();
    Ok(())
}

/// Ends a pod for good. Gives whether nothing of it is left running; call it again otherwise.
pub(crate) async fn end_pod(a: &Inner, w: &Arc<PodWorker>) -> Result<bool, Error> {
    let pod = w.pod();
    let grace = w.with(|s| {
        s.ending = true;
        s.waits.clear();
        for watched in s.watched.values() {
            watched.cancel_health.cancel();
        }
        // Without the object nobody can prolong its end: what the deletion gave it is over.
        let forced = s.gone && s.pod.metadata.deletion_timestamp.is_some();
        forced.then_some(Duration::from_secs(1))
    });
    let observed = observe(a, w).await?;
    a.report(w, false);
    kill_pod(a, w, &pod, &observed, grace).await?;
    let observed = observe(a, w).await?;
    let over = !observed.any_running();
    if over {
        w.with(|s| {
            s.ended = true;
            s.watched.clear();
        });
        a.report(w, false);
    }
    Ok(over)
}
