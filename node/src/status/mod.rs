//! The status of a pod as a pure function of its spec, what the runtime says, what its probes say, and the time.

mod conditions;
mod containers;
mod patch;
mod phase;
mod qos;

pub use patch::status_patch;
pub use qos::qos_class;

use crate::observed::Observed;
use crate::policy::host_network;
use crate::probe::ProbeStates;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// Why a container waits: reason and message.
pub type Waits = BTreeMap<String, (String, String)>;

/// What a status is made from, beside the pod.
#[derive(Clone, Copy)]
pub struct StatusInput<'a> {
    /// What the runtime says.
    pub observed: &'a Observed,
    /// What the probes say.
    pub probes: &'a ProbeStates,
    /// Why containers wait.
    pub waits: &'a Waits,
    /// The runtime's name, the scheme of container ids.
    pub runtime: &'a str,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// The pod was ended on purpose: what ended stays ended.
    pub ending: bool,
    /// The pod's containers have all ended and none will run again.
    pub ended: bool,
    /// The node refused the pod, or ended it: phase `Failed` with this reason and message.
    pub failed: Option<(&'a str, &'a str)>,
    /// Now.
    pub now: Timestamp,
}

/// The status that the pod should have.
pub fn compute(pod: &Pod, input: &StatusInput<'_>) -> PodStatus {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let old = pod.status.clone().unwrap_or_default();
    let mut status = PodStatus {
        start_time: old.start_time.clone().or(Some(Time(input.now))),
        qos_class: old.qos_class.clone().or_else(|| Some(qos_class(spec).to_owned())),
        observed_generation: pod.metadata.generation,
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        ..PodStatus::default()
    };
    if input.host_ips.is_empty() {
        status.host_ips = None;
    }
    addresses(pod, &old, input, &mut status);
    let inits = containers::inits(spec, &old, input);
    let regular = containers::regular(spec, &old, input);
    status.phase = Some(phase::phase(spec, &inits, &regular, input.ended).to_owned());
    // A pod whose containers may still run is never shown as over.
    let over = input.ended || !input.observed.any_running();
    if let Some((reason, message)) = input.failed.filter(|_| over) {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(reason.to_owned());
        status.message = Some(message.to_owned()).filter(|m| !m.is_empty());
    } else if is_ended(old.phase.as_deref()) {
        // An ended pod stays ended, whatever the runtime still shows.
        status.phase = old.phase.clone();
        status.reason = old.reason.clone();
        status.message = old.message.clone();
    }
    let phase = status.phase.clone().unwrap_or_default();
    status.ephemeral_container_statuses =
        Some(containers::ephemeral(spec, &old, input)).filter(|c| !c.is_empty());
    status.init_container_statuses = Some(inits).filter(|i| !i.is_empty());
    status.container_statuses = Some(regular).filter(|c| !c.is_empty());
    let ready_sandbox = input.observed.ready_sandbox().is_some() && !input.ended;
    status.conditions =
        Some(conditions::conditions(pod, spec, &old, &status, &phase, ready_sandbox, input.now));
    status
}

fn is_ended(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn addresses(pod: &Pod, old: &PodStatus, input: &StatusInput<'_>, status: &mut PodStatus) {
    let ips: Vec<String> = if host_network(pod) {
        input.host_ips.to_vec()
    } else if input.observed.ips.is_empty() {
        // Known once, kept: an ended pod still shows the address that it had.
        old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect()
    } else {
        input.observed.ips.clone()
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips =
        Some(ips.into_iter().map(|ip| PodIP { ip }).collect::<Vec<_>>()).filter(|p| !p.is_empty());
}

#[cfg(test)]
mod tests;
