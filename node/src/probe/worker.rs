//! The loop of one probe of one instance of a container.

use super::{Outcome, ProbeKind, Thresholds, run_probe};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use kubewright_core::{Entropy, SharedClock};
use kubewright_runtime::ContainerRuntime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Hears a bad result.
pub(crate) type Report = Box<dyn Fn(ProbeKind, &Outcome) + Send + Sync>;

/// What a probe is about, and who hears its results.
pub(crate) struct ProbeTarget {
    /// The container.
    pub(crate) container: Container,
    /// The runtime's id of the instance.
    pub(crate) id: String,
    /// The pod's primary address.
    pub(crate) pod_ip: String,
    /// When the instance started.
    pub(crate) started_at: Timestamp,
    /// Runs exec probes.
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    /// Tells the time.
    pub(crate) clock: SharedClock,
    /// Spreads first runs.
    pub(crate) entropy: Arc<Entropy>,
    /// Whether the startup probe succeeded (`true` at once without one).
    pub(crate) started: watch::Receiver<bool>,
    /// Hears decisions.
    pub(crate) decided: Box<dyn Fn(ProbeKind, bool) + Send + Sync>,
    /// Hears each bad result, for events.
    pub(crate) bad: Report,
}

/// Runs a probe until it has nothing more to say: a startup probe until its first decision, a liveness probe until it
/// failed, a readiness probe for ever. Dropping the future ends it.
pub(crate) async fn watch_probe(target: Arc<ProbeTarget>, kind: ProbeKind) {
    let Some(probe) = kind.of(&target.container).cloned() else { return };
    if kind != ProbeKind::Startup {
        let mut started = target.started.clone();
        if started.wait_for(|s| *s).await.is_err() {
            return;
        }
    }
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    initial_delay(&target, &probe).await;
    let mut thresholds = Thresholds::default();
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome =
            run_probe(&*target.runtime, &probe, &target.container, &target.id, &target.pod_ip).await;
        if outcome != Outcome::Good {
            (target.bad)(kind, &outcome);
        }
        let good = match outcome {
            Outcome::Good => true,
            Outcome::Bad(_) => false,
            Outcome::Error(_) => continue,
        };
        let Some(decision) = thresholds.push(&probe, good) else { continue };
        (target.decided)(kind, decision);
        match kind {
            ProbeKind::Startup => return,
            ProbeKind::Liveness if !decision => return,
            ProbeKind::Liveness | ProbeKind::Readiness => {}
        }
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}

async fn initial_delay(target: &ProbeTarget, probe: &Probe) {
    let delay = seconds(probe.initial_delay_seconds, 0);
    let age = target.clock.now().duration_since(target.started_at);
    let age = Duration::try_from(age).unwrap_or_default();
    if let Some(left) = delay.checked_sub(age).filter(|l| !l.is_zero()) {
        tokio::time::sleep(left).await;
    } else if age > Duration::from_secs(60) {
        // An agent that restarts finds many old containers; their probes shall not all run in one instant.
        tokio::time::sleep(Duration::from_millis(target.entropy.next_u64() % 1000)).await;
    }
}
