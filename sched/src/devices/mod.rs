//! Devices as placement sees them: claims, classes, and what drivers publish in slices, by pool and node.

mod allocate;
mod search;
mod sharing;

pub(crate) use allocate::{Allocator, Outcome, selects};
pub(crate) use sharing::{Assumed, Assumptions};

use crate::cluster::ClusterObject;
use crate::pod::PodKey;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceClass, DeviceRequestAllocationResult, ResourceClaim, ResourceSlice,
};
use kubewright_core::cel::{DeviceFacts, DeviceSelector};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Compiled selectors that nothing uses any more are forgotten when there are more than this.
const SELECTORS_MAX: usize = 10_000;

/// A claim of devices that a pod names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodClaim {
    /// Its name in the pod.
    pub name: SmolStr,
    /// The claim; none where it is still to be made from a template.
    pub claim: Option<SmolStr>,
    /// Whether it is made for the pod and must be owned by it.
    pub from_template: bool,
}

/// The claims of a pod; those that turned out not to be needed are left out.
pub(crate) fn claims_of(pod: &Pod) -> Vec<PodClaim> {
    let statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref()).unwrap_or_default();
    let claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    let read = |claim: &k8s_openapi::api::core::v1::PodResourceClaim| {
        let named = claim.resource_claim_name.as_deref().map(SmolStr::from);
        let made = statuses.iter().find(|s| s.name == claim.name);
        if named.is_none() && made.is_some_and(|s| s.resource_claim_name.is_none()) {
            return None;
        }
        let from_template = named.is_none();
        let claim_name =
            named.or_else(|| made.and_then(|s| s.resource_claim_name.as_deref()).map(SmolStr::from));
        Some(PodClaim { name: claim.name.as_str().into(), claim: claim_name, from_template })
    };
    claims.filter_map(read).collect()
}

/// A device, by driver, pool and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId {
    pub(crate) driver: SmolStr,
    pub(crate) pool: SmolStr,
    pub(crate) device: SmolStr,
}

impl DeviceId {
    /// The device of an allocation's result.
    pub(crate) fn of(result: &DeviceRequestAllocationResult) -> Self {
        DeviceId {
            driver: result.driver.as_str().into(),
            pool: result.pool.as_str().into(),
            device: result.device.as_str().into(),
        }
    }
}

/// The devices that an allocation takes from others; those for administrators are not taken, shares leave the rest to others.
pub(crate) fn taken_by(allocation: &AllocationResult) -> impl Iterator<Item = DeviceId> + '_ {
    let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
    results.filter(|r| r.admin_access != Some(true) && r.share_id.is_none()).map(DeviceId::of)
}

/// Driver and pool.
type PoolKey = (SmolStr, SmolStr);

/// A slice with its devices as selectors see them.
struct Slice {
    slice: Arc<ResourceSlice>,
    facts: Vec<DeviceFacts>,
}

impl Slice {
    fn new(slice: &Arc<ResourceSlice>) -> Self {
        let empty = BTreeMap::new();
        let facts = |d: &Device| {
            DeviceFacts::new(
                &slice.spec.driver,
                d.attributes.as_ref().unwrap_or(&empty),
                d.capacity.as_ref().unwrap_or(&BTreeMap::new()),
                d.allow_multiple_allocations == Some(true),
            )
        };
        Slice { facts: slice.spec.devices.iter().flatten().map(facts).collect(), slice: slice.clone() }
    }

    fn key(&self) -> PoolKey {
        (self.slice.spec.driver.as_str().into(), self.slice.spec.pool.name.as_str().into())
    }
}

/// The slices of a pool by name, of whatever generation.
#[derive(Default)]
struct Pool {
    slices: BTreeMap<SmolStr, Slice>,
}

impl Pool {
    /// The slices of the latest generation; what came before does not count.
    fn current(&self) -> impl Iterator<Item = &Slice> {
        let latest = self.slices.values().map(|s| s.slice.spec.pool.generation).max().unwrap_or(0);
        self.slices.values().filter(move |s| s.slice.spec.pool.generation == latest)
    }

    /// Whether its driver has published all of the latest generation.
    fn is_complete(&self) -> bool {
        let count = i64::try_from(self.current().count()).unwrap_or(i64::MAX);
        self.current().all(|s| s.slice.spec.pool.resource_slice_count == count)
    }
}

/// The cluster's devices and what belongs to them.
#[derive(Default)]
pub struct DeviceObjects {
    claims: FxHashMap<PodKey, Arc<ResourceClaim>>,
    classes: FxHashMap<SmolStr, Arc<DeviceClass>>,
    pools: BTreeMap<PoolKey, Pool>,
    /// The pool of each slice.
    slices: FxHashMap<SmolStr, PoolKey>,
    /// The pools with slices of a node.
    by_node: FxHashMap<SmolStr, BTreeSet<PoolKey>>,
    /// The pools with slices of more than one node.
    shared: BTreeSet<PoolKey>,
    /// Devices that claims have, with how many say so.
    taken: FxHashMap<DeviceId, u32>,
    /// What is used of devices that claims share.
    consumed: FxHashMap<DeviceId, sharing::Amounts>,
    /// What claims are about to get.
    assumed: Arc<Mutex<Assumptions>>,
    /// Selectors, compiled when the objects came that name them; the text of what is wrong with others.
    selectors: FxHashMap<String, Result<DeviceSelector, String>>,
}

impl fmt::Debug for DeviceObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceObjects({} claims, {} pools)", self.claims.len(), self.pools.len())
    }
}

impl DeviceObjects {
    /// A claim.
    pub fn claim(&self, key: &PodKey) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(key)
    }

    /// A class.
    pub fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name)
    }

    pub(crate) fn is_taken(&self, device: &DeviceId) -> bool {
        self.taken.contains_key(device)
    }

    pub(crate) fn consumed(&self, device: &DeviceId) -> Option<&sharing::Amounts> {
        self.consumed.get(device)
    }

    /// What claims are about to get, to be held by those who add to it.
    pub(crate) fn shared_assumptions(&self) -> Arc<Mutex<Assumptions>> {
        self.assumed.clone()
    }

    /// What claims are about to get.
    pub(crate) fn assumptions(&self) -> MutexGuard<'_, Assumptions> {
        self.assumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools_of(&self, node: &str) -> impl Iterator<Item = (&PoolKey, &Pool)> {
        let near = self.by_node.get(node).into_iter().flatten();
        let far =
            self.shared.iter().filter(|k| !self.by_node.get(node).is_some_and(|near| near.contains(*k)));
        near.chain(far).filter_map(|key| self.pools.get_key_value(key))
    }

    fn selector(&self, expression: &str) -> Option<&Result<DeviceSelector, String>> {
        self.selectors.get(expression)
    }

    pub(crate) fn apply(&mut self, object: &ClusterObject) -> bool {
        let key = object.key();
        match object {
            ClusterObject::ResourceClaim(claim) => {
                self.compile(&expressions_of_claim(claim));
                self.count(key.clone(), Some(claim))
            }
            ClusterObject::DeviceClass(class) => {
                self.compile(&expressions_of_class(class));
                let before = self.classes.insert(key.name, class.clone());
                before.is_none_or(|b| b != *class)
            }
            ClusterObject::ResourceSlice(slice) => self.set_slice(key.name, slice),
            _ => false,
        }
    }

    pub(crate) fn remove(&mut self, object: &ClusterObject) -> bool {
        let key = object.key();
        match object {
            ClusterObject::ResourceClaim(_) => self.count(key, None),
            ClusterObject::DeviceClass(_) => self.classes.remove(&key.name).is_some(),
            ClusterObject::ResourceSlice(_) => self.forget_slice(&key.name),
            _ => false,
        }
    }

    /// Puts a claim in or out, and counts the devices that it has.
    fn count(&mut self, key: PodKey, claim: Option<&Arc<ResourceClaim>>) -> bool {
        let allocation = |c: &Arc<ResourceClaim>| c.status.as_ref().and_then(|s| s.allocation.clone());
        let before = match claim {
            Some(claim) => self.claims.insert(key, claim.clone()),
            None => self.claims.remove(&key),
        };
        for device in claim.and_then(allocation).iter().flat_map(taken_by) {
            *self.taken.entry(device).or_default() += 1;
        }
        for device in before.as_ref().and_then(allocation).iter().flat_map(taken_by) {
            if let Some(n) = self.taken.get_mut(&device) {
                *n -= 1;
                if *n == 0 {
                    self.taken.remove(&device);
                }
            }
        }
        for (device, amounts) in claim.and_then(allocation).iter().flat_map(sharing::consumed_by) {
            sharing::count(self.consumed.entry(device).or_default(), &amounts, true);
        }
        for (device, amounts) in before.as_ref().and_then(allocation).iter().flat_map(sharing::consumed_by) {
            if let Some(total) = self.consumed.get_mut(&device) {
                sharing::count(total, &amounts, false);
                if total.values().all(|n| n.is_zero()) {
                    self.consumed.remove(&device);
                }
            }
        }
        before.as_ref() != claim
    }

    fn set_slice(&mut self, name: SmolStr, slice: &Arc<ResourceSlice>) -> bool {
        let known =
            self.slices.get(&name).and_then(|key| self.pools.get(key)).and_then(|p| p.slices.get(&name));
        if known.is_some_and(|k| k.slice == *slice) {
            return false;
        }
        self.forget_slice(&name);
        let slice = Slice::new(slice);
        let key = slice.key();
        self.slices.insert(name.clone(), key.clone());
        match slice.slice.spec.node_name.as_deref().filter(|n| !n.is_empty()) {
            Some(node) => self.by_node.entry(node.into()).or_default().insert(key.clone()),
            None => self.shared.insert(key.clone()),
        };
        self.pools.entry(key).or_default().slices.insert(name, slice);
        true
    }

    fn forget_slice(&mut self, name: &SmolStr) -> bool {
        let Some(key) = self.slices.remove(name) else { return false };
        let Some(pool) = self.pools.get_mut(&key) else { return false };
        let Some(gone) = pool.slices.remove(name) else { return false };
        let node = gone.slice.spec.node_name.clone();
        let same = |s: &Slice| s.slice.spec.node_name == node;
        if !pool.slices.values().any(same) {
            match node.as_deref().filter(|n| !n.is_empty()) {
                Some(node) => {
                    if let Some(of_node) = self.by_node.get_mut(node) {
                        of_node.remove(&key);
                    }
                }
                None => {
                    self.shared.remove(&key);
                }
            }
        }
        if pool.slices.is_empty() {
            self.pools.remove(&key);
        }
        true
    }

    fn compile(&mut self, expressions: &[&str]) {
        if self.selectors.len() > SELECTORS_MAX {
            let claims = self.claims.values().flat_map(|c| expressions_of_claim(c));
            let classes = self.classes.values().flat_map(|c| expressions_of_class(c));
            let used: BTreeSet<&str> = claims.chain(classes).collect();
            self.selectors.retain(|text, _| used.contains(text.as_str()));
        }
        for text in expressions {
            if !self.selectors.contains_key(*text) {
                let made = DeviceSelector::compile(text).map_err(|e| e.to_string());
                self.selectors.insert((*text).to_owned(), made);
            }
        }
    }
}

type Selectors = Option<Vec<k8s_openapi::api::resource::v1::DeviceSelector>>;

fn expressions(selectors: &Selectors) -> impl Iterator<Item = &str> {
    selectors.iter().flatten().filter_map(|s| s.cel.as_ref()).map(|c| c.expression.as_str())
}

fn expressions_of_class(class: &DeviceClass) -> Vec<&str> {
    expressions(&class.spec.selectors).collect()
}

fn expressions_of_claim(claim: &ResourceClaim) -> Vec<&str> {
    let requests = claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten());
    let mut all = Vec::new();
    for request in requests {
        all.extend(request.exactly.iter().flat_map(|e| expressions(&e.selectors)));
        all.extend(request.first_available.iter().flatten().flat_map(|s| expressions(&s.selectors)));
    }
    all
}
