//! Devices that several claims share: how much of their capacities an allocation consumes, and what is on its way to be allocated.

use super::{DeviceId, taken_by};
use crate::pod::PodKey;
use k8s_openapi::api::resource::v1::{
    AllocationResult, CapacityRequestPolicy, CapacityRequirements, Device, DeviceCapacity,
    DeviceRequestAllocationResult,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use kubewright_core::quantity::{Format, Quantity};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// Amounts of capacities, by their full names.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

fn amount(wire: &WireQuantity) -> Quantity {
    Quantity::parse(&wire.0).unwrap_or_default()
}

/// A capacity's full name: one without a domain is the driver's.
fn full(driver: &str, name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{driver}/{name}") }
}

/// Whether several claims may have the device at a time.
pub(crate) fn is_shared(device: &Device) -> bool {
    device.allow_multiple_allocations == Some(true)
}

/// What a request would consume of a device, by the full names of the capacities; `None` where the device lacks one that is asked for,
/// or its policy does not allow the amount.
pub(crate) fn consumption(
    device: &Device,
    driver: &str,
    asked: Option<&CapacityRequirements>,
) -> Option<Amounts> {
    let mut wanted: BTreeMap<String, Quantity> = BTreeMap::new();
    for (name, value) in asked.and_then(|a| a.requests.as_ref()).into_iter().flatten() {
        wanted.insert(full(driver, name), amount(value));
    }
    let mut consumed = Amounts::new();
    for (name, capacity) in device.capacity.iter().flatten() {
        let name = full(driver, name);
        let value = consumed_of(capacity, wanted.remove(&name))?;
        if value.signum() < 0 {
            return None;
        }
        consumed.insert(name, value);
    }
    wanted.is_empty().then_some(consumed)
}

fn consumed_of(capacity: &DeviceCapacity, wanted: Option<Quantity>) -> Option<Quantity> {
    let policy = capacity.request_policy.as_ref();
    let Some(wanted) = wanted else {
        let default = policy.and_then(|p| p.default.as_ref());
        return Some(amount(default.unwrap_or(&capacity.value)));
    };
    policy.map_or(Some(wanted), |policy| rounded(policy, wanted))
}

/// Rounds up to what the policy allows; `None` where that is more than it allows.
fn rounded(policy: &CapacityRequestPolicy, wanted: Quantity) -> Option<Quantity> {
    if let Some(range) = &policy.valid_range {
        let (min, max) = (amount(&range.min), range.max.as_ref().map(amount));
        let mut value = wanted.max(min);
        if let Some(step) = range.step.as_ref().map(amount).filter(|s| s.value() > 0) {
            let over = i128::from(value.value()) - i128::from(min.value());
            let size = i128::from(step.value());
            let steps = (over + size - 1) / size;
            let whole = i64::try_from(i128::from(min.value()) + steps * size).ok()?;
            value = Quantity::new(whole, Format::BinarySI);
        }
        return max.is_none_or(|max| value <= max).then_some(value);
    }
    match policy.valid_values.as_deref() {
        Some(values) if !values.is_empty() => values.iter().map(amount).filter(|v| *v >= wanted).min(),
        _ => Some(wanted),
    }
}

/// Whether a device holds an amount beside what is used of it.
pub(crate) fn holds(device: &Device, driver: &str, used: &[&Amounts], more: &Amounts) -> bool {
    device.capacity.iter().flatten().all(|(name, capacity)| {
        let name = full(driver, name);
        let mut sum = more.get(&name).copied().unwrap_or_default();
        used.iter().filter_map(|u| u.get(&name)).for_each(|u| sum += *u);
        sum <= amount(&capacity.value)
    })
}

/// Adds amounts, or takes them away.
pub(crate) fn count(total: &mut Amounts, more: &Amounts, take: bool) {
    for (name, value) in more {
        let entry = total.entry(name.clone()).or_default();
        if take {
            *entry += *value;
        } else {
            *entry -= *value;
        }
    }
}

/// As an allocation's result tells it: by the names that the device gives its capacities.
pub(crate) fn as_result(device: &Device, driver: &str, amounts: &Amounts) -> BTreeMap<String, WireQuantity> {
    let names = device.capacity.iter().flatten().map(|(name, _)| name);
    names
        .filter_map(|name| Some((name.clone(), WireQuantity(amounts.get(&full(driver, name))?.to_string()))))
        .collect()
}

/// The id of a share: no two of one device are alike, and the same allocation gives the same.
pub(crate) fn share_id(claim: &str, request: &str, device: &DeviceId, number: usize) -> String {
    let half = |salt: u8| {
        let mut hasher = FxHasher::default();
        (salt, claim, request, device, number).hash(&mut hasher);
        hasher.finish()
    };
    let (a, b) = (half(1), half(2));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        ((b >> 48) & 0x3fff) | 0x8000,
        b & 0xffff_ffff_ffff
    )
}

/// What the results of an allocation consume of shared devices.
pub(crate) fn consumed_by(allocation: &AllocationResult) -> impl Iterator<Item = (DeviceId, Amounts)> + '_ {
    let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
    results.filter(|r| r.share_id.is_some()).map(|r| (DeviceId::of(r), amounts_of(r)))
}

fn amounts_of(result: &DeviceRequestAllocationResult) -> Amounts {
    let consumed = result.consumed_capacity.iter().flatten();
    consumed.map(|(name, value)| (full(&result.driver, name), amount(value))).collect()
}

/// An allocation on its way.
#[derive(Debug)]
pub(crate) struct Assumed {
    pub(crate) result: AllocationResult,
    /// For whom.
    pub(crate) pod: PodKey,
}

/// What claims get that do not show it yet. All profiles of a scheduler share it, so that no two give away one device.
#[derive(Debug, Default)]
pub(crate) struct Assumptions {
    claims: FxHashMap<PodKey, Assumed>,
    devices: FxHashSet<DeviceId>,
    consumed: FxHashMap<DeviceId, Amounts>,
}

impl Assumptions {
    pub(crate) fn of(&self, claim: &PodKey) -> Option<&Assumed> {
        self.claims.get(claim)
    }

    pub(crate) fn is_taken(&self, device: &DeviceId) -> bool {
        self.devices.contains(device)
    }

    pub(crate) fn consumed(&self, device: &DeviceId) -> Option<&Amounts> {
        self.consumed.get(device)
    }

    pub(crate) fn insert(&mut self, claim: PodKey, assumed: Assumed) {
        self.claims.insert(claim, assumed);
        self.count();
    }

    /// What a claim shows, or one that is gone, need not be assumed any more.
    pub(crate) fn settle(&mut self, claim: &PodKey) {
        if self.claims.remove(claim).is_some() {
            self.count();
        }
    }

    pub(crate) fn give_up(&mut self, pod: &PodKey) {
        let before = self.claims.len();
        self.claims.retain(|_, a| a.pod != *pod);
        if self.claims.len() != before {
            self.count();
        }
    }

    fn count(&mut self) {
        self.devices = self.claims.values().flat_map(|a| taken_by(&a.result)).collect();
        self.consumed.clear();
        for (device, amounts) in self.claims.values().flat_map(|a| consumed_by(&a.result)) {
            count(self.consumed.entry(device).or_default(), &amounts, true);
        }
    }
}
