//! SchedulingGates: a pod with gates is not tried until all are gone.

use crate::diagnosis::Refusal;
use crate::framework::{Plugin, Points};
use crate::pod::PodInfo;

/// Holds pods while `spec.schedulingGates` names anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn points(&self) -> Points {
        Points::PRE_ENQUEUE
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Refusal> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        Err(Refusal::unresolvable(format!("waiting for scheduling gates: [{}]", pod.gates.join(" "))))
    }
}
