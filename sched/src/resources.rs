//! Amounts of resources: what a pod asks for and what a node has, by upstream's rules.

use crate::intern::{Interner, Symbol};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubewright_core::quantity;
use std::collections::BTreeMap;

/// What upstream assumes of a container without a CPU request when it scores nodes, in millicores.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What upstream assumes of a container without a memory request when it scores nodes, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts: CPU in millicores, memory and ephemeral storage in bytes, others in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Millicores.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages and the like, ordered by symbol.
    pub scalars: Vec<(Symbol, i64)>,
}

impl Resources {
    /// Reads a resource list; `pods` is left out. A quantity that does not parse counts as 0 (the API refuses those).
    pub fn read(list: &BTreeMap<String, Quantity>, symbols: &mut Interner) -> Self {
        let mut resources = Resources::default();
        for (name, amount) in list {
            match name.as_str() {
                "cpu" => resources.milli_cpu = milli(amount),
                "memory" => resources.memory = whole(amount),
                "ephemeral-storage" => resources.ephemeral_storage = whole(amount),
                "pods" => {}
                other => resources.set_scalar(symbols.intern(other), whole(amount)),
            }
        }
        resources
    }

    /// The amount of a scalar resource.
    pub fn scalar(&self, name: Symbol) -> i64 {
        self.scalars.binary_search_by_key(&name, |(n, _)| *n).map_or(0, |at| self.scalars[at].1)
    }

    fn set_scalar(&mut self, name: Symbol, amount: i64) {
        match self.scalars.binary_search_by_key(&name, |(n, _)| *n) {
            Ok(at) => self.scalars[at].1 = amount,
            Err(at) => self.scalars.insert(at, (name, amount)),
        }
    }

    /// Adds other amounts to these.
    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes other amounts from these.
    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to the other's where that is larger.
    pub fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, op: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            self.set_scalar(*name, op(self.scalar(*name), *amount));
        }
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalars.iter().all(|(_, amount)| *amount == 0)
    }
}

/// No amount is taken for more than this, so that sums and percentages of absurd ones do not overflow.
const AMOUNT_MAX: i64 = 1 << 53;

/// A quantity in thousandths, rounded up.
fn milli(amount: &Quantity) -> i64 {
    quantity::Quantity::parse(&amount.0).map_or(0, |q| q.milli_value()).clamp(-AMOUNT_MAX, AMOUNT_MAX)
}

/// A quantity in whole units, rounded up.
pub(crate) fn whole(amount: &Quantity) -> i64 {
    quantity::Quantity::parse(&amount.0).map_or(0, |q| q.value()).clamp(-AMOUNT_MAX, AMOUNT_MAX)
}

/// What a pod asks for, and the same with upstream's assumptions for containers that ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodRequests {
    /// The sum that must fit on the node.
    pub requests: Resources,
    /// Millicores for scoring.
    pub non_zero_milli_cpu: i64,
    /// Bytes for scoring.
    pub non_zero_memory: i64,
}

impl PodRequests {
    /// Containers and sidecars together, or the largest moment of the init sequence, whichever is more, plus overhead; pod-level
    /// requests take the place of the sums that they name.
    pub fn of(pod: &Pod, symbols: &mut Interner) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut requests = sum(spec, symbols, read);
        let with_defaults = sum(spec, symbols, |container, symbols| {
            let mut resources = read(container, symbols);
            let asked = |name: &str| {
                container
                    .resources
                    .as_ref()
                    .and_then(|r| r.requests.as_ref())
                    .is_some_and(|r| r.contains_key(name))
            };
            if !asked("cpu") {
                resources.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if !asked("memory") {
                resources.memory = DEFAULT_MEMORY;
            }
            resources
        });
        let (mut cpu, mut memory) = (with_defaults.milli_cpu, with_defaults.memory);
        if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            let level = Resources::read(list, symbols);
            if list.contains_key("cpu") {
                (requests.milli_cpu, cpu) = (level.milli_cpu, level.milli_cpu);
            }
            if list.contains_key("memory") {
                (requests.memory, memory) = (level.memory, level.memory);
            }
        }
        if let Some(overhead) = &spec.overhead {
            let overhead = Resources::read(overhead, symbols);
            requests.add(&overhead);
            cpu += overhead.milli_cpu;
            memory += overhead.memory;
        }
        PodRequests { requests, non_zero_milli_cpu: cpu, non_zero_memory: memory }
    }
}

fn read(container: &Container, symbols: &mut Interner) -> Resources {
    let list = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    list.map_or_else(Resources::default, |list| Resources::read(list, symbols))
}

fn sum(
    spec: &PodSpec,
    symbols: &mut Interner,
    mut one: impl FnMut(&Container, &mut Interner) -> Resources,
) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&one(container, symbols));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = one(container, symbols);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&moment);
            sidecars.add(&moment);
            moment = sidecars.clone();
        } else {
            moment.add(&sidecars);
        }
        peak.raise_to(&moment);
    }
    running.raise_to(&peak);
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, cpu: i64, non_zero_cpu: i64) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let requests = PodRequests::of(&pod, &mut Interner::default());
        assert_eq!((requests.requests.milli_cpu, requests.non_zero_milli_cpu), (cpu, non_zero_cpu), "{spec}");
    }

    #[test]
    fn requests_follow_upstreams_sums() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        check(json!({"containers": [c("100m"), c("0.2")]}), 300, 300);
        check(json!({"containers": [{"name": "c"}]}), 0, 100);
        check(json!({"containers": [c("1")], "initContainers": [c("3")]}), 3000, 3000);
        check(json!({"containers": [c("1")], "initContainers": [sidecar, c("3")]}), 4000, 4000);
        check(json!({"containers": [c("1")], "overhead": {"cpu": "250m"}}), 1250, 1250);
        check(json!({"containers": [c("1")], "resources": {"requests": {"cpu": "2"}}}), 2000, 2000);
    }
}
