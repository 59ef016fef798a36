//! Allocation by structured parameters: which devices of a node a pod's claims get, and how that is written down.

use super::search::{Alternative, Mode, Pick, Plan, RequestPlan, Search, Source};
use super::sharing::{self, Assumptions};
use super::{DeviceId, DeviceObjects, Slice, expressions};
use crate::node::{NodeIndex, NodeTable};
use crate::selection::TextTerm;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, CapacityRequirements, Device, DeviceAllocationConfiguration, DeviceAllocationResult,
    DeviceRequest, DeviceRequestAllocationResult, DeviceToleration, ResourceClaim,
};
use std::sync::Arc;

/// The most devices that one claim may get.
const RESULTS_MAX: usize = 32;

/// What an allocation comes to.
pub(crate) enum Outcome {
    /// One result for each claim.
    Allocated(Vec<AllocationResult>),
    /// The node has not got what the claims want.
    Impossible,
}

/// Allocates claims on a node.
pub(crate) struct Allocator<'a> {
    pub(crate) objects: &'a DeviceObjects,
    pub(crate) nodes: &'a NodeTable,
    pub(crate) node: NodeIndex,
    /// What chosen pods get and no claim shows yet.
    pub(crate) assumed: &'a Assumptions,
}

impl<'a> Allocator<'a> {
    /// Finds devices for the claims.
    ///
    /// # Errors
    /// A class that is not there, a selector that is wrong or fails, a pool that is being changed where all its devices are wanted, or a
    /// search that takes too long.
    pub(crate) fn allocate(&self, claims: &'a [Arc<ResourceClaim>]) -> Result<Outcome, String> {
        let sources = self.sources();
        let mut plans = Vec::new();
        for claim in claims {
            match self.plan(claim, &sources)? {
                Some(plan) => plans.push(plan),
                None => return Ok(Outcome::Impossible),
            }
        }
        let Some(picks) = Search::new(&sources, &plans, self.objects, self.assumed).run()? else {
            return Ok(Outcome::Impossible);
        };
        let results = plans.iter().enumerate().map(|(at, plan)| {
            let own: Vec<&Pick> = picks.iter().filter(|p| p.claim == at).collect();
            self.result(plan, &own, &sources)
        });
        Ok(Outcome::Allocated(results.collect()))
    }

    /// The devices that the node reaches, in order of driver, pool and slice.
    fn sources(&self) -> Vec<Source<'a>> {
        let name = self.nodes.name(self.node).as_str();
        let mut sources = Vec::new();
        for (key, pool) in self.objects.pools_of(name) {
            let complete = pool.is_complete();
            for slice in pool.current() {
                let of_slice = self.reaches_slice(slice);
                for (at, device) in slice.slice.spec.devices.iter().flatten().enumerate() {
                    let per_device = slice.slice.spec.per_device_node_selection == Some(true);
                    if (of_slice && !per_device) || (per_device && self.reaches_device(device)) {
                        let id = DeviceId {
                            driver: key.0.clone(),
                            pool: key.1.clone(),
                            device: device.name.as_str().into(),
                        };
                        sources.push(Source { id, slice, device, facts: &slice.facts[at], complete });
                    }
                }
            }
        }
        // Devices that are to be made ready first come last.
        sources.sort_by_key(|s| s.device.binding_conditions.as_ref().is_some_and(|c| !c.is_empty()));
        sources
    }

    fn reaches_slice(&self, slice: &Slice) -> bool {
        let spec = &slice.slice.spec;
        self.reaches(spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref())
    }

    fn reaches_device(&self, device: &Device) -> bool {
        self.reaches(device.node_name.as_deref(), device.all_nodes, device.node_selector.as_ref())
    }

    fn reaches(&self, name: Option<&str>, all: Option<bool>, selector: Option<&NodeSelector>) -> bool {
        all == Some(true)
            || name == Some(self.nodes.name(self.node).as_str())
            || selector.is_some_and(|s| selects(s, self.nodes, self.node))
    }

    /// What a claim wants, with the devices that would do; `None` where some request has none that would.
    fn plan(&self, claim: &'a ResourceClaim, sources: &[Source<'a>]) -> Result<Option<Plan<'a>>, String> {
        let spec = claim.spec.devices.as_ref();
        let mut requests = Vec::new();
        for request in spec.iter().flat_map(|d| d.requests.iter().flatten()) {
            let alternatives = self.alternatives(request, sources)?;
            if alternatives.is_empty() {
                return Ok(None);
            }
            requests.push(RequestPlan { alternatives });
        }
        let fewest = |r: &RequestPlan<'_>| r.alternatives.iter().map(Alternative::count).min().unwrap_or(0);
        if requests.iter().map(fewest).sum::<usize>() > RESULTS_MAX {
            return Ok(None);
        }
        let constraints = spec.and_then(|d| d.constraints.as_deref()).unwrap_or_default();
        Ok(Some(Plan { claim, requests, constraints }))
    }

    fn alternatives(
        &self,
        request: &'a DeviceRequest,
        sources: &[Source<'a>],
    ) -> Result<Vec<Alternative<'a>>, String> {
        let mut wishes: Vec<Wish<'a>> = request
            .exactly
            .iter()
            .map(|e| Wish {
                name: request.name.clone(),
                class: &e.device_class_name,
                selectors: &e.selectors,
                mode: e.allocation_mode.as_deref(),
                count: e.count,
                admin: e.admin_access == Some(true),
                tolerations: e.tolerations.as_deref().unwrap_or_default(),
                capacity: e.capacity.as_ref(),
            })
            .collect();
        wishes.extend(request.first_available.iter().flatten().map(|s| Wish {
            name: format!("{}/{}", request.name, s.name),
            class: &s.device_class_name,
            selectors: &s.selectors,
            mode: s.allocation_mode.as_deref(),
            count: s.count,
            admin: false,
            tolerations: s.tolerations.as_deref().unwrap_or_default(),
            capacity: s.capacity.as_ref(),
        }));
        let mut alternatives = Vec::new();
        for wish in wishes {
            alternatives.extend(self.alternative(wish, sources)?);
        }
        Ok(alternatives)
    }

    /// One way to fulfil a request; `None` where too few devices would do.
    fn alternative(&self, wish: Wish<'a>, sources: &[Source<'a>]) -> Result<Option<Alternative<'a>>, String> {
        let Some(class) = self.objects.class(wish.class) else {
            return Err(format!("request {}: device class {} does not exist", wish.name, wish.class));
        };
        let all = wish.mode == Some("All");
        let mut eligible = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let tests = expressions(&class.spec.selectors).chain(expressions(wish.selectors));
            if !self.is_selected(source, tests, &wish.name)? || !tolerates(source.device, wish.tolerations) {
                continue;
            }
            if source.complete {
                eligible.push(at);
            } else if all {
                return Err(format!(
                    "request {}: asks for all devices, but resource pool {} is currently being updated",
                    wish.name, source.id.pool
                ));
            }
        }
        let count = usize::try_from(wish.count.unwrap_or(1)).unwrap_or(0);
        let mode = if all { Mode::All } else { Mode::Exactly(count) };
        // A shared device may serve more than once.
        let shared = eligible.iter().any(|at| sharing::is_shared(sources[*at].device));
        let enough = if all {
            !eligible.is_empty()
        } else {
            eligible.len() >= count || (shared && count <= RESULTS_MAX)
        };
        Ok((enough && eligible.len().min(count) <= RESULTS_MAX).then(|| Alternative {
            name: wish.name,
            class,
            mode,
            admin: wish.admin,
            tolerations: wish.tolerations,
            capacity: wish.capacity,
            eligible,
        }))
    }

    fn is_selected<'e>(
        &self,
        source: &Source<'_>,
        mut expressions: impl Iterator<Item = &'e str>,
        request: &str,
    ) -> Result<bool, String> {
        let test = |text: &str| match self.objects.selector(text) {
            Some(Ok(selector)) => selector.matches(source.facts).map_err(|e| e.to_string()),
            Some(Err(error)) => Err(error.clone()),
            None => Err("it was not compiled".to_owned()),
        };
        expressions.try_fold(true, |so_far, text| match so_far {
            false => Ok(false),
            true => test(text).map_err(|e| format!("request {request}: selector {text:?}: {e}")),
        })
    }

    fn result(&self, plan: &Plan<'a>, picks: &[&Pick], sources: &[Source<'a>]) -> AllocationResult {
        let mut results = Vec::new();
        let mut config = Vec::new();
        let mut chosen: Vec<&str> = Vec::new();
        for (number, pick) in picks.iter().enumerate() {
            let alternative = &plan.requests[pick.request].alternatives[pick.alternative];
            let (id, device) = (&sources[pick.source].id, sources[pick.source].device);
            let uid = plan.claim.metadata.uid.as_deref().unwrap_or("");
            let share = pick.consumes.as_ref();
            results.push(DeviceRequestAllocationResult {
                request: alternative.name.clone(),
                driver: id.driver.to_string(),
                pool: id.pool.to_string(),
                device: id.device.to_string(),
                admin_access: alternative.admin.then_some(true),
                tolerations: Some(alternative.tolerations.to_vec()).filter(|t| !t.is_empty()),
                binding_conditions: device.binding_conditions.clone(),
                binding_failure_conditions: device.binding_failure_conditions.clone(),
                consumed_capacity: share.map(|amounts| sharing::as_result(device, &id.driver, amounts)),
                share_id: share.map(|_| sharing::share_id(uid, &alternative.name, id, number)),
            });
            if chosen.contains(&alternative.name.as_str()) {
                continue;
            }
            chosen.push(&alternative.name);
            config.extend(alternative.class.spec.config.iter().flatten().map(|c| {
                DeviceAllocationConfiguration {
                    source: "FromClass".to_owned(),
                    requests: Some(vec![alternative.name.clone()]),
                    opaque: c.opaque.clone(),
                }
            }));
        }
        let of_claim = plan.claim.spec.devices.iter().flat_map(|d| d.config.iter().flatten());
        let concerns = |requests: &Option<Vec<String>>| {
            let named = requests.as_deref().unwrap_or_default();
            let is = |r: &String| chosen.iter().any(|c| c == r || c.split('/').next() == Some(r));
            named.is_empty() || named.iter().any(is)
        };
        config.extend(of_claim.filter(|c| concerns(&c.requests)).map(|c| DeviceAllocationConfiguration {
            source: "FromClaim".to_owned(),
            requests: c.requests.clone(),
            opaque: c.opaque.clone(),
        }));
        AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult {
                config: Some(config).filter(|c| !c.is_empty()),
                results: Some(results),
            }),
            node_selector: self.node_selector(picks, sources),
        }
    }

    /// From where the devices can be reached: this node where one of them is a node's own, else what the slices ask of nodes.
    fn node_selector(&self, picks: &[&Pick], sources: &[Source<'a>]) -> Option<NodeSelector> {
        let mut merged = NodeSelectorTerm::default();
        let mut any = false;
        for source in picks.iter().map(|p| &sources[p.source]) {
            let spec = &source.slice.slice.spec;
            let per_device = spec.per_device_node_selection == Some(true);
            let (name, selector) = match per_device {
                true => (source.device.node_name.as_ref(), source.device.node_selector.as_ref()),
                false => (spec.node_name.as_ref(), spec.node_selector.as_ref()),
            };
            if name.is_some_and(|n| !n.is_empty()) || source.device.binds_to_node == Some(true) {
                return Some(self.this_node());
            }
            // Selectors of slices have one term.
            for term in selector.iter().flat_map(|s| s.node_selector_terms.first()) {
                any = true;
                add(&mut merged.match_expressions, term.match_expressions.as_ref());
                add(&mut merged.match_fields, term.match_fields.as_ref());
            }
        }
        any.then(|| NodeSelector { node_selector_terms: vec![merged] })
    }

    fn this_node(&self) -> NodeSelector {
        let here = NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![self.nodes.name(self.node).to_string()]),
        };
        let term = NodeSelectorTerm { match_fields: Some(vec![here]), match_expressions: None };
        NodeSelector { node_selector_terms: vec![term] }
    }
}

/// A request or one of its alternatives.
struct Wish<'a> {
    name: String,
    class: &'a str,
    selectors: &'a super::Selectors,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: bool,
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

type Requirements = Option<Vec<NodeSelectorRequirement>>;

fn add(to: &mut Requirements, from: Option<&Vec<NodeSelectorRequirement>>) {
    for requirement in from.into_iter().flatten() {
        let list = to.get_or_insert_default();
        if !list.contains(requirement) {
            list.push(requirement.clone());
        }
    }
}

/// Whether a node selector accepts a node.
pub(crate) fn selects(selector: &NodeSelector, nodes: &NodeTable, node: NodeIndex) -> bool {
    selector.node_selector_terms.iter().any(|t| TextTerm::new(t).matches(nodes, node))
}

/// Whether the request can live with the device's taints.
fn tolerates(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let of_note = |e: &str| e == "NoSchedule" || e == "NoExecute";
    device.taints.iter().flatten().filter(|t| of_note(&t.effect)).all(|taint| {
        tolerations.iter().any(|t| {
            let empty = |text: &Option<String>| text.as_deref().unwrap_or("").is_empty();
            (empty(&t.effect) || t.effect.as_deref() == Some(&taint.effect))
                && (empty(&t.key) || t.key.as_deref() == Some(&taint.key))
                && (t.operator.as_deref() == Some("Exists")
                    || t.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
        })
    })
}
