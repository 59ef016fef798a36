//! The search behind an allocation: depth first over claims, their requests, the alternatives of each, and devices.

use super::sharing::{self, Amounts, Assumptions};
use super::{DeviceId, DeviceObjects, Slice};
use k8s_openapi::api::resource::v1::{
    CapacityRequirements, Device, DeviceAttribute, DeviceClass, DeviceConstraint, DeviceToleration,
    ResourceClaim,
};
use kubewright_core::cel::DeviceFacts;
use kubewright_core::quantity::Quantity;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

/// Devices tried before a search is given up: constraints that contradict each other must not hold up the scheduler.
const STEPS_MAX: usize = 50_000;

/// A device that the node reaches.
pub(super) struct Source<'a> {
    pub(super) id: DeviceId,
    pub(super) slice: &'a Slice,
    pub(super) device: &'a Device,
    pub(super) facts: &'a DeviceFacts,
    /// Whether its pool is published as a whole.
    pub(super) complete: bool,
}

/// How many devices an alternative takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Exactly(usize),
    All,
}

/// One way to fulfil a request.
pub(super) struct Alternative<'a> {
    /// `request` or `request/subrequest`.
    pub(super) name: String,
    pub(super) class: &'a DeviceClass,
    pub(super) mode: Mode,
    pub(super) admin: bool,
    pub(super) tolerations: &'a [DeviceToleration],
    /// What it wants of the capacities of each device.
    pub(super) capacity: Option<&'a CapacityRequirements>,
    /// The sources that would do, by place.
    pub(super) eligible: Vec<usize>,
}

impl Alternative<'_> {
    pub(super) fn count(&self) -> usize {
        match self.mode {
            Mode::Exactly(n) => n,
            Mode::All => self.eligible.len(),
        }
    }
}

pub(super) struct RequestPlan<'a> {
    /// In order of preference.
    pub(super) alternatives: Vec<Alternative<'a>>,
}

/// What a claim wants.
pub(super) struct Plan<'a> {
    pub(super) claim: &'a ResourceClaim,
    pub(super) requests: Vec<RequestPlan<'a>>,
    pub(super) constraints: &'a [DeviceConstraint],
}

/// A device for a request.
#[derive(Clone, Debug)]
pub(super) struct Pick {
    pub(super) claim: usize,
    pub(super) request: usize,
    pub(super) alternative: usize,
    pub(super) source: usize,
    /// What it consumes of a device that others share.
    pub(super) consumes: Option<Amounts>,
}

/// A counter of a pool: driver, pool, set, name.
type CounterKey = (SmolStr, SmolStr, String, String);

pub(super) struct Search<'s, 'a> {
    sources: &'s [Source<'a>],
    plans: &'s [Plan<'a>],
    objects: &'s DeviceObjects,
    assumed: &'s Assumptions,
    used: Vec<bool>,
    /// What this search gives away of shared devices, with how many have a share.
    shares: FxHashMap<usize, (Amounts, usize)>,
    /// What is left of the shared counters.
    counters: FxHashMap<CounterKey, Quantity>,
    picks: Vec<Pick>,
    steps: usize,
}

impl<'s, 'a> Search<'s, 'a> {
    pub(super) fn new(
        sources: &'s [Source<'a>],
        plans: &'s [Plan<'a>],
        objects: &'s DeviceObjects,
        assumed: &'s Assumptions,
    ) -> Self {
        let mut search = Search {
            sources,
            plans,
            objects,
            assumed,
            used: vec![false; sources.len()],
            shares: FxHashMap::default(),
            counters: FxHashMap::default(),
            picks: Vec::new(),
            steps: 0,
        };
        search.read_counters(objects);
        search
    }

    /// Whether a claim has the device for itself.
    fn is_taken(&self, id: &DeviceId) -> bool {
        self.objects.is_taken(id) || self.assumed.is_taken(id)
    }

    /// Whether claims share the device by now.
    fn has_shares(&self, id: &DeviceId) -> bool {
        self.objects.consumed(id).is_some() || self.assumed.consumed(id).is_some()
    }

    /// Reads the counters of the pools in sight, less what allocated devices consume.
    fn read_counters(&mut self, objects: &DeviceObjects) {
        let sharing = self.sources.iter().filter(|s| s.device.consumes_counters.is_some());
        let mut pools: Vec<(SmolStr, SmolStr)> =
            sharing.map(|s| (s.id.driver.clone(), s.id.pool.clone())).collect();
        pools.sort_unstable();
        pools.dedup();
        for key in pools {
            let Some(pool) = objects.pools.get(&key) else { continue };
            for slice in pool.current() {
                for set in slice.slice.spec.shared_counters.iter().flatten() {
                    for (name, counter) in &set.counters {
                        let place = (key.0.clone(), key.1.clone(), set.name.clone(), name.clone());
                        let value = Quantity::parse(&counter.value.0).unwrap_or_default();
                        self.counters.insert(place, value);
                    }
                }
            }
            for slice in pool.current() {
                for device in slice.slice.spec.devices.iter().flatten() {
                    let id = DeviceId {
                        driver: key.0.clone(),
                        pool: key.1.clone(),
                        device: device.name.as_str().into(),
                    };
                    if device.consumes_counters.is_some() && (self.is_taken(&id) || self.has_shares(&id)) {
                        self.consume(&id, device, true);
                    }
                }
            }
        }
    }

    /// Takes what a device consumes from the counters, or gives it back.
    fn consume(&mut self, id: &DeviceId, device: &Device, take: bool) {
        for consumption in device.consumes_counters.iter().flatten() {
            for (name, counter) in &consumption.counters {
                let place =
                    (id.driver.clone(), id.pool.clone(), consumption.counter_set.clone(), name.clone());
                let amount = Quantity::parse(&counter.value.0).unwrap_or_default();
                if let Some(left) = self.counters.get_mut(&place) {
                    if take {
                        *left -= amount;
                    } else {
                        *left += amount;
                    }
                }
            }
        }
    }

    /// Whether the counters hold what a device consumes.
    fn affords(&self, source: &Source<'_>) -> bool {
        source.device.consumes_counters.iter().flatten().all(|consumption| {
            consumption.counters.iter().all(|(name, counter)| {
                let id = &source.id;
                let place =
                    (id.driver.clone(), id.pool.clone(), consumption.counter_set.clone(), name.clone());
                let amount = Quantity::parse(&counter.value.0).unwrap_or_default();
                self.counters.get(&place).is_some_and(|left| *left >= amount)
            })
        })
    }

    /// The picks; `None` where there are none that will do.
    pub(super) fn run(mut self) -> Result<Option<Vec<Pick>>, String> {
        Ok(self.request(0, 0)?.then_some(self.picks))
    }

    fn request(&mut self, claim: usize, request: usize) -> Result<bool, String> {
        let Some(plan) = self.plans.get(claim) else { return Ok(true) };
        let Some(wanted) = plan.requests.get(request) else { return self.request(claim + 1, 0) };
        for (alternative, way) in wanted.alternatives.iter().enumerate() {
            let pick = Pick { claim, request, alternative, source: 0, consumes: None };
            let found = match way.mode {
                Mode::Exactly(count) => self.some(&pick, count, 0)?,
                Mode::All => self.all(&pick)?,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Picks so many of the eligible devices, beginning at a place: the devices of one alternative are interchangeable.
    fn some(&mut self, pick: &Pick, left: usize, from: usize) -> Result<bool, String> {
        if left == 0 {
            return self.request(pick.claim, pick.request + 1);
        }
        let plans = self.plans;
        let way = &plans[pick.claim].requests[pick.request].alternatives[pick.alternative];
        for at in from..way.eligible.len() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err("the search for devices took too long".to_owned());
            }
            if self.take(pick, way.eligible[at]) {
                // A shared device may serve once more.
                let next = at + usize::from(!sharing::is_shared(self.sources[way.eligible[at]].device));
                if self.some(pick, left - 1, next)? {
                    return Ok(true);
                }
                self.give_back();
            }
        }
        Ok(false)
    }

    fn all(&mut self, pick: &Pick) -> Result<bool, String> {
        let plans = self.plans;
        let way = &plans[pick.claim].requests[pick.request].alternatives[pick.alternative];
        let before = self.picks.len();
        let every = way.eligible.iter().all(|source| self.take(pick, *source));
        if every && self.request(pick.claim, pick.request + 1)? {
            return Ok(true);
        }
        while self.picks.len() > before {
            self.give_back();
        }
        Ok(false)
    }

    fn take(&mut self, pick: &Pick, source: usize) -> bool {
        let plans = self.plans;
        let way = &plans[pick.claim].requests[pick.request].alternatives[pick.alternative];
        let from = &self.sources[source];
        if !self.agrees(pick.claim, &way.name, from) {
            return false;
        }
        let consumes = if way.admin {
            None
        } else if sharing::is_shared(from.device) {
            match self.share_of(source, way) {
                None => return false,
                share => share,
            }
        } else if self.used[source] || self.is_taken(&from.id) || !self.affords(from) || !suffices(from, way)
        {
            return false;
        } else {
            self.used[source] = true;
            self.consume(&from.id, from.device, true);
            None
        };
        if let Some(amounts) = &consumes {
            let (total, shares) = self.shares.entry(source).or_default();
            sharing::count(total, amounts, true);
            *shares += 1;
            if *shares == 1 && !self.has_shares(&from.id) {
                self.consume(&from.id, from.device, true);
            }
        }
        self.picks.push(Pick { source, consumes, ..pick.clone() });
        true
    }

    /// What a request consumes of a shared device, where there is enough.
    fn share_of(&self, source: usize, way: &Alternative<'_>) -> Option<Amounts> {
        let from = &self.sources[source];
        let amounts = sharing::consumption(from.device, &from.id.driver, way.capacity)?;
        let mine = self.shares.get(&source).map(|(total, _)| total);
        let known = [self.objects.consumed(&from.id), self.assumed.consumed(&from.id), mine];
        let used: Vec<&Amounts> = known.into_iter().flatten().collect();
        let enough = !self.is_taken(&from.id)
            && sharing::holds(from.device, &from.id.driver, &used, &amounts)
            && (!used.is_empty() || self.affords(from));
        enough.then_some(amounts)
    }

    fn give_back(&mut self) {
        let Some(pick) = self.picks.pop() else { return };
        let way = &self.plans[pick.claim].requests[pick.request].alternatives[pick.alternative];
        let from = &self.sources[pick.source];
        if way.admin {
            return;
        }
        let Some(amounts) = pick.consumes else {
            self.used[pick.source] = false;
            return self.consume(&from.id, from.device, false);
        };
        let Some((total, shares)) = self.shares.get_mut(&pick.source) else { return };
        sharing::count(total, &amounts, false);
        *shares -= 1;
        if *shares == 0 {
            self.shares.remove(&pick.source);
            if !self.has_shares(&from.id) {
                self.consume(&from.id, from.device, false);
            }
        }
    }

    /// Whether the claim's constraints accept the device beside those that were picked before.
    fn agrees(&self, claim: usize, request: &str, from: &Source<'_>) -> bool {
        let plan = &self.plans[claim];
        plan.constraints.iter().filter(|c| concerns(c, request)).all(|constraint| {
            let others = || {
                self.picks.iter().filter(|p| p.claim == claim).filter(|p| {
                    concerns(constraint, &plan.requests[p.request].alternatives[p.alternative].name)
                })
            };
            let matched = constraint.match_attribute.as_ref().is_none_or(|name| {
                let mut common = values(from, name);
                others().for_each(|p| {
                    let theirs = values(&self.sources[p.source], name);
                    common.retain(|v| theirs.contains(v));
                });
                !common.is_empty()
            });
            let distinct = constraint.distinct_attribute.as_ref().is_none_or(|name| {
                let own = values(from, name);
                let apart = |p: &Pick| {
                    let theirs = values(&self.sources[p.source], name);
                    // A second share of one device is never distinct.
                    !own.iter().any(|v| theirs.contains(v))
                };
                !own.is_empty() && others().all(apart)
            });
            matched && distinct
        })
    }
}

/// Whether a constraint is about a request, by its name or that of the request that it is an alternative of.
fn concerns(constraint: &DeviceConstraint, request: &str) -> bool {
    let named = constraint.requests.as_deref().unwrap_or_default();
    named.is_empty() || named.iter().any(|n| n == request || request.split('/').next() == Some(n))
}

/// Whether a device that is not shared has as much as a request wants of its capacities.
fn suffices(from: &Source<'_>, way: &Alternative<'_>) -> bool {
    let Some(asked) = way.capacity else { return true };
    let amounts = sharing::consumption(from.device, &from.id.driver, Some(asked));
    amounts.is_some_and(|amounts| sharing::holds(from.device, &from.id.driver, &[], &amounts))
}

/// The values of an attribute, one where it is no list.
fn values(source: &Source<'_>, name: &str) -> Vec<DeviceAttribute> {
    let Some(attribute) = attribute(source, name) else { return Vec::new() };
    let one = DeviceAttribute::default;
    let lists =
        attribute.strings.iter().flatten().map(|v| DeviceAttribute { string: Some(v.clone()), ..one() });
    let lists = lists
        .chain(
            attribute
                .versions
                .iter()
                .flatten()
                .map(|v| DeviceAttribute { version: Some(v.clone()), ..one() }),
        )
        .chain(attribute.ints.iter().flatten().map(|v| DeviceAttribute { int: Some(*v), ..one() }))
        .chain(attribute.bools.iter().flatten().map(|v| DeviceAttribute { bool: Some(*v), ..one() }));
    let listed: Vec<DeviceAttribute> = lists.collect();
    if listed.is_empty() { vec![attribute.clone()] } else { listed }
}

/// An attribute by its full name; those without a domain belong to the driver's.
fn attribute<'d>(source: &'d Source<'_>, name: &str) -> Option<&'d DeviceAttribute> {
    let all = source.device.attributes.as_ref()?;
    all.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        (domain == source.id.driver).then(|| all.get(id)).flatten()
    })
}
