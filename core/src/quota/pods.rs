//! What a pod asks for altogether, and what of it a quota counts.

use super::Amounts;
use crate::api::kit::names::qualified;
use crate::api::kit::resource_names::is_native;
use crate::api::kit::{at, list, sub, text};
use crate::meta;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub(super) const NAMES: &[&str] = &[
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// What every container must state where a quota counts it.
const DEMANDED: &[&str] =
    &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const HUGE_PAGES: &str = "hugepages-";

/// Which half of a container's `resources` is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl Half {
    fn field(self) -> &'static str {
        match self {
            Half::Requests => "requests",
            Half::Limits => "limits",
        }
    }
}

/// Whether a name is one of an extended resource, as `nvidia.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified(&format!("requests.{name}")).is_empty()
}

pub(super) fn counts(name: &str) -> bool {
    NAMES.contains(&name)
        || name.starts_with(HUGE_PAGES)
        || name.strip_prefix("requests.").is_some_and(|n| n.starts_with(HUGE_PAGES) || !is_native(name))
}

/// The sum of what a pod's containers ask for (or are limited to), as a node has to hold it: init containers run one after another,
/// those that restart always run on, amounts of the whole pod take precedence and the overhead comes on top.
pub fn pod_total(pod: &Value, half: Half) -> Amounts {
    let spec = sub(pod, "spec");
    let mut sum = Amounts::default();
    for container in list(spec, "containers") {
        sum.add(&container_amounts(pod, container, half));
    }
    let (mut running, mut peak) = (Amounts::default(), Amounts::default());
    for container in list(spec, "initContainers") {
        let own = container_amounts(pod, container, half);
        if text(container, "restartPolicy") == "Always" {
            sum.add(&own);
            running.add(&own);
            peak.raise(&running);
        } else {
            let mut both = running.clone();
            both.add(&own);
            peak.raise(&both);
        }
    }
    sum.raise(&peak);
    for (name, amount) in Amounts::parse(at(spec, &["resources", half.field()])).0 {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with(HUGE_PAGES) {
            sum.set(name, amount);
        }
    }
    let overhead = Amounts::parse(sub(spec, "overhead"));
    match half {
        Half::Requests => sum.add(&overhead),
        Half::Limits => {
            sum.add(&overhead.only(|name| sum.get(name).is_some_and(|a| !a.is_zero())));
        }
    }
    sum
}

/// A container's own amounts; of one that is being resized the largest of what it has, was given and wants.
fn container_amounts(pod: &Value, container: &Value, half: Half) -> Amounts {
    let mut amounts = Amounts::parse(at(container, &["resources", half.field()]));
    let name = text(container, "name");
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let all = statuses.iter().flat_map(|s| list(sub(pod, "status"), s));
    let Some(status) = all.into_iter().find(|s| text(s, "name") == name) else { return amounts };
    let mut given = Amounts::parse(at(status, &["resources", half.field()]));
    if half == Half::Requests {
        given.raise(&Amounts::parse(sub(status, "allocatedResources")));
    }
    if given.is_empty() {
        return amounts;
    }
    if resize_is_infeasible(pod) {
        return given;
    }
    amounts.raise(&given);
    amounts
}

fn resize_is_infeasible(pod: &Value) -> bool {
    let pending = |c: &Value| text(c, "type") == "PodResizePending" && text(c, "reason") == "Infeasible";
    list(sub(pod, "status"), "conditions").iter().any(pending)
}

/// What quotas count of these requests and limits.
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::default();
    usage.count("pods", 1);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = requests.get(name) {
            usage.set(name, *amount);
            usage.set(format!("requests.{name}"), *amount);
        }
        if let Some(amount) = limits.get(name) {
            usage.set(format!("limits.{name}"), *amount);
        }
    }
    for (name, amount) in &requests.0 {
        if name.starts_with(HUGE_PAGES) {
            usage.set(name.clone(), *amount);
            usage.set(format!("requests.{name}"), *amount);
        } else if is_extended(name) {
            usage.set(format!("requests.{name}"), *amount);
        }
    }
    usage
}

/// Whether a pod still takes room: one that has ended, or whose grace is over, does not.
pub fn takes_room(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(sub(pod, "status"), "phase"), "Failed" | "Succeeded") {
        return false;
    }
    let grace = at(pod, &["metadata", "deletionGracePeriodSeconds"]).as_i64();
    match (meta::deletion_timestamp(pod), grace) {
        (Some(deleted), Some(grace)) => {
            let end = deleted.saturating_add(SignedDuration::from_secs(grace));
            end.is_ok_and(|end| now <= end)
        }
        _ => true,
    }
}

pub(super) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    let mut usage = Amounts::default();
    usage.count("count/pods", 1);
    if takes_room(pod, now) {
        usage.add(&computed(&pod_total(pod, Half::Requests), &pod_total(pod, Half::Limits)));
    }
    usage
}

/// What of the counted resources some container does not state.
pub(super) fn missing(pod: &Value, counted: &[&str]) -> Option<String> {
    let mut missing: std::collections::BTreeMap<&str, std::collections::BTreeSet<&str>> = Default::default();
    let spec = sub(pod, "spec");
    for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
        let half = |half: Half| Amounts::parse(at(container, &["resources", half.field()]));
        let stated = computed(&half(Half::Requests), &half(Half::Limits));
        for name in DEMANDED.iter().filter(|n| counted.contains(n) && stated.get(n).is_none()) {
            missing.entry(name).or_default().insert(text(container, "name"));
        }
    }
    if missing.is_empty() {
        return None;
    }
    let told = |(name, containers): (&&str, &std::collections::BTreeSet<&str>)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
    };
    Some(format!("must specify {}", missing.iter().map(told).collect::<Vec<_>>().join("; ")))
}

/// Whether an affinity of the pod looks into other namespaces.
pub(super) fn looks_across_namespaces(pod: &Value) -> bool {
    let across = |term: &Value| {
        !list(term, "namespaces").is_empty() || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = at(pod, &["spec", "affinity", kind]);
        list(terms, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(across)
            || list(terms, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| across(sub(weighted, "podAffinityTerm")))
    })
}
