//! Startup, liveness and readiness probes: what their results mean, and how one is run.

mod grpc;
mod http;
mod run;
#[cfg(test)]
#[path = "tests.rs"]
mod runs;
mod worker;

pub(crate) use http::get as http_get;
pub(crate) use run::{Outcome, run_probe};
pub(crate) use worker::{ProbeTarget, Report, watch_probe};

use k8s_openapi::api::core::v1::{Container, Probe};
use kubewright_runtime::port::{Container as Instance, ContainerState};
use rustc_hash::FxHashMap;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Holds the others back until it succeeded once.
    Startup,
    /// Ends the container when it fails.
    Liveness,
    /// Decides whether the container takes part in services.
    Readiness,
}

impl ProbeKind {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// The probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What the probes of one instance of a container say; `None` before the first decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerProbes {
    /// Startup.
    pub startup: Option<bool>,
    /// Liveness.
    pub liveness: Option<bool>,
    /// Readiness.
    pub readiness: Option<bool>,
}

/// What the probes of a pod say, by the containers' runtime ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeStates(FxHashMap<String, ContainerProbes>);

impl ProbeStates {
    /// Of one instance.
    pub fn of(&self, id: &str) -> ContainerProbes {
        self.0.get(id).copied().unwrap_or_default()
    }

    /// Notes what is known of an instance.
    pub fn set(&mut self, id: &str, probes: ContainerProbes) {
        self.0.insert(id.to_owned(), probes);
    }

    /// Notes a decision; gives whether it is a new one.
    pub fn decide(&mut self, id: &str, kind: ProbeKind, good: bool) -> bool {
        let entry = self.0.entry(id.to_owned()).or_default();
        let slot = match kind {
            ProbeKind::Startup => &mut entry.startup,
            ProbeKind::Liveness => &mut entry.liveness,
            ProbeKind::Readiness => &mut entry.readiness,
        };
        slot.replace(good) != Some(good)
    }

    /// Forgets the instances that do not hold.
    pub fn retain(&mut self, hold: impl Fn(&str) -> bool) {
        self.0.retain(|id, _| hold(id));
    }

    /// Whether a running instance has started: at once, or when its startup probe succeeded.
    pub fn started(&self, container: &Container, instance: &Instance) -> bool {
        instance.state == ContainerState::Running
            && (container.startup_probe.is_none() || self.of(&instance.id).startup == Some(true))
    }

    /// Whether a running instance is ready: started, and its readiness probe succeeds.
    pub fn ready(&self, container: &Container, instance: &Instance) -> bool {
        self.started(container, instance)
            && (container.readiness_probe.is_none() || self.of(&instance.id).readiness == Some(true))
    }
}

/// Turns single results into decisions by the thresholds of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    last: Option<bool>,
    run: i32,
}

impl Thresholds {
    /// Takes a result; gives a decision where the threshold is reached.
    pub fn push(&mut self, probe: &Probe, good: bool) -> Option<bool> {
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let needed =
            if good { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.run >= needed.max(1)).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_decide() {
        let check = |success: i32, failure: i32, results: &[bool], wanted: &[Option<bool>]| {
            let probe = Probe {
                success_threshold: Some(success),
                failure_threshold: Some(failure),
                ..Probe::default()
            };
            let mut t = Thresholds::default();
            let got: Vec<_> = results.iter().map(|r| t.push(&probe, *r)).collect();
            assert_eq!(got, wanted);
        };
        check(1, 3, &[true, false, false, false, true], &[Some(true), None, None, Some(false), Some(true)]);
        check(2, 1, &[true, true, false, true], &[None, Some(true), Some(false), None]);
        check(1, 2, &[false, true, false], &[None, Some(true), None]);
        check(0, 0, &[false, true], &[Some(false), Some(true)]);
    }
}
