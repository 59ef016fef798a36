//! DynamicResources: a pod goes where the devices are that its claims have or can get.
//!
//! Which devices a claim gets is decided when the node is chosen (Reserve) and written in PreBind.

use crate::cluster::ClusterObject;
use crate::devices::{Allocator, Assumed, Assumptions, DeviceId, Outcome, PodClaim, selects};
use crate::diagnosis::{Diagnosis, Refusal};
use crate::events::{ClusterEvent, Hint};
use crate::framework::{
    CycleContext, NodeScore, Plugin, Points, PostFilter, PreFilter, PreScore, TableChange, Trial, Verdict,
    normalize_by_max,
};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, Verb};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How many pods may share a claim.
const RESERVED_MAX: usize = 256;
const ELSEWHERE: &str = "resourceclaim not available on the node";
const NOT_ENOUGH: &str = "cannot allocate all claims";

/// The first alternative of a request counts so much, each further one less by one.
const ALTERNATIVES_MAX: usize = 8;

/// Filters by devices and allocates them.
#[derive(Debug, Default)]
pub struct DynamicResources {
    /// What claims are about to get, shared with the other profiles of the scheduler; known since the first Reserve.
    assumed: Option<Arc<Mutex<Assumptions>>>,
}

/// The claims of a pod.
#[derive(Debug, Default)]
struct Claims {
    allocated: Vec<Arc<ResourceClaim>>,
    pending: Vec<Arc<ResourceClaim>>,
}

fn key(claim: &ResourceClaim) -> PodKey {
    let meta = &claim.metadata;
    PodKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
}

fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

fn is_reserved(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let reserved = claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten());
    reserved.into_iter().any(|r| r.uid == pod.uid.as_str())
}

/// A claim of the pod that exists and can be used.
fn find(pod: &PodInfo, nodes: &NodeTable, wanted: &PodClaim) -> Result<Arc<ResourceClaim>, Refusal> {
    let refuse = |text: String| Err(Refusal::unresolvable(text));
    let Some(name) = &wanted.claim else {
        return refuse(format!(
            "waiting for resource claim controller to create the resourceclaim for \"{}\"",
            wanted.name
        ));
    };
    let Some(claim) = nodes.objects.devices.claim(&PodKey::new(&pod.key.namespace, name)) else {
        return refuse(format!("resourceclaim \"{name}\" not found"));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return refuse(format!("resourceclaim \"{name}\" is being deleted"));
    }
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if wanted.from_template && !owners.any(|o| o.controller == Some(true) && o.uid == pod.uid.as_str()) {
        let namespace = &pod.key.namespace;
        return refuse(format!(
            "ResourceClaim {namespace}/{name} was not created for pod {} (pod is not owner)",
            pod.key
        ));
    }
    let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref()).map_or(0, Vec::len);
    if users >= RESERVED_MAX && !is_reserved(claim, pod) {
        return refuse("resourceclaim in use".to_owned());
    }
    Ok(claim.clone())
}

impl DynamicResources {
    fn claims(&self, pod: &PodInfo, nodes: &NodeTable) -> Result<Claims, Refusal> {
        let mut claims = Claims::default();
        for wanted in pod.class.claims() {
            let claim = find(pod, nodes, wanted)?;
            if allocation(&claim).is_some() {
                claims.allocated.push(claim);
            } else if nodes.objects.devices.assumptions().of(&key(&claim)).is_some_and(|a| a.pod != pod.key) {
                return Err(Refusal::unresolvable("resourceclaim is being allocated for another pod"));
            } else {
                claims.pending.push(claim);
            }
        }
        Ok(claims)
    }

    fn allocate(
        &self,
        claims: &Claims,
        nodes: &NodeTable,
        node: NodeIndex,
    ) -> Result<Vec<AllocationResult>, Refusal> {
        let reachable = |c: &Arc<ResourceClaim>| {
            let selector = allocation(c).and_then(|a| a.node_selector.as_ref());
            selector.is_none_or(|s| selects(s, nodes, node))
        };
        if !claims.allocated.iter().all(reachable) {
            return Err(Refusal::new(ELSEWHERE));
        }
        if claims.pending.is_empty() {
            return Ok(Vec::new());
        }
        let assumed = nodes.objects.devices.assumptions();
        let allocator = Allocator { objects: &nodes.objects.devices, nodes, node, assumed: &assumed };
        match allocator.allocate(&claims.pending) {
            Ok(Outcome::Allocated(results)) => Ok(results),
            Ok(Outcome::Impossible) => Err(Refusal::new(NOT_ENOUGH)),
            Err(text) => Err(Refusal::unresolvable(text)),
        }
    }

    fn assumptions(&self, change: impl FnOnce(&mut Assumptions)) {
        if let Some(assumed) = &self.assumed {
            change(&mut assumed.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// What a device's conditions say of whether the pod can be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotYet,
    Failed,
}

/// Whether the devices that a claim got are ready, as far as they say what is to be waited for.
fn readiness(claim: &ResourceClaim, allocation: &AllocationResult) -> Readiness {
    let statuses = claim.status.iter().flat_map(|s| s.devices.iter().flatten());
    let mut all = Readiness::Ready;
    for result in allocation.devices.iter().flat_map(|d| d.results.iter().flatten()) {
        let named = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
        let (wanted, failures) =
            (named(&result.binding_conditions), named(&result.binding_failure_conditions));
        if wanted.is_empty() {
            continue;
        }
        let id = DeviceId::of(result);
        let of_device = statuses.clone().find(|s| {
            (s.driver.as_str(), s.pool.as_str(), s.device.as_str())
                == (id.driver.as_str(), id.pool.as_str(), id.device.as_str())
                && s.share_id == result.share_id
        });
        let conditions = of_device.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let holds = |name: &String| conditions.iter().any(|c| c.type_ == *name && c.status == "True");
        if failures.iter().any(holds) {
            return Readiness::Failed;
        }
        if !wanted.iter().all(holds) {
            all = Readiness::NotYet;
        }
    }
    all
}

/// Whether nobody else uses a claim.
fn is_idle(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default();
    users.iter().all(|u| u.uid == pod.uid.as_str())
}

/// Takes a claim's devices back.
fn deallocation(claim: &ResourceClaim) -> ApiRequest {
    let key = key(claim);
    let claims = GroupVersionResource::new("resource.k8s.io", "v1", "resourceclaims");
    let request = ApiRequest::resource(Verb::Patch, claims, Some(&key.namespace), Some(&key.name));
    let meta = &claim.metadata;
    let patch = json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {"allocation": Value::Null, "reservedFor": Value::Null, "devices": Value::Null},
    });
    request.subresource("status").body(ContentType::MergePatch, patch)
}

/// How far up in the lists of alternatives the devices are that claims get.
fn preference(claims: &[Arc<ResourceClaim>], results: &[AllocationResult]) -> i64 {
    let mut sum = 0;
    for (claim, result) in claims.iter().zip(results) {
        let got = |name: &str| {
            let results = result.devices.iter().flat_map(|d| d.results.iter().flatten());
            results.into_iter().any(|r| r.request == name)
        };
        for request in claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
            let mut ways = request.first_available.iter().flatten();
            let place = ways.position(|w| got(&format!("{}/{}", request.name, w.name)));
            sum += place.map_or(0, |at| i64::try_from(ALTERNATIVES_MAX.saturating_sub(at)).unwrap_or(0));
        }
    }
    sum
}

fn has_alternatives(claim: &ResourceClaim) -> bool {
    let mut requests = claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten());
    requests.any(|r| r.first_available.as_ref().is_some_and(|ways| !ways.is_empty()))
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER
            | Points::FILTER
            | Points::POST_FILTER
            | Points::PRE_SCORE
            | Points::SCORE
            | Points::RESERVE
            | Points::PRE_BIND
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if cx.pod.class.claims().is_empty() {
            return PreFilter::Skip;
        }
        match self.claims(cx.pod, cx.nodes) {
            Ok(claims) => PreFilter::Continue(Some(Box::new(claims))),
            Err(refusal) => PreFilter::Refuse(refusal),
        }
    }

    fn watches(&self, pod: &PodInfo) -> Watched {
        if pod.class.claims().is_empty() { Watched::NOTHING } else { Watched::DEVICES }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let Some(claims) = cx.state::<Claims>() else { return Ok(()) };
        self.allocate(claims, cx.nodes, node).map(drop)
    }

    /// A claim whose devices nobody uses and that keep the pod from other nodes is given back, to be allocated anew.
    fn post_filter(&self, pod: &PodInfo, diagnosis: &mut Diagnosis, trial: &mut dyn Trial) -> PostFilter {
        let elsewhere = diagnosis
            .refused
            .iter()
            .any(|(r, _)| r.plugin == self.name() && r.refusal.reasons.iter().any(|t| t == ELSEWHERE));
        let claims = if elsewhere { self.claims(pod, trial.nodes()).ok() } else { None };
        let idle = claims.into_iter().flat_map(|c| c.allocated).find(|c| is_idle(c, pod));
        match idle {
            Some(claim) => PostFilter::Request {
                requests: vec![deallocation(&claim)],
                message: "deallocation of ResourceClaim completed".to_owned(),
            },
            None => PostFilter::Nothing(String::new()),
        }
    }

    fn pre_score(&self, cx: CycleContext<'_>, _: &[NodeScore]) -> PreScore {
        let claims = cx.state::<Claims>();
        let any = claims.is_some_and(|c| c.pending.iter().any(|claim| has_alternatives(claim)));
        if any { PreScore::Continue(None) } else { PreScore::Skip }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let Some(claims) = cx.state::<Claims>() else { return 0 };
        self.allocate(claims, cx.nodes, node).map_or(0, |results| preference(&claims.pending, &results))
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, _: CycleContext<'_>, scores: &mut [NodeScore]) {
        normalize_by_max(scores, false);
    }

    fn reserve(&mut self, cx: CycleContext<'_>, node: NodeIndex) -> Result<(), Refusal> {
        if cx.pod.class.claims().is_empty() {
            return Ok(());
        }
        let claims = self.claims(cx.pod, cx.nodes)?;
        let results = self.allocate(&claims, cx.nodes, node)?;
        self.assumed = Some(cx.nodes.objects.devices.shared_assumptions());
        self.assumptions(|assumed| {
            for (claim, result) in claims.pending.iter().zip(results) {
                assumed.insert(key(claim), Assumed { result, pod: cx.pod.key.clone() });
            }
        });
        Ok(())
    }

    fn unreserve(&mut self, pod: &PodInfo, _: NodeIndex) {
        if pod.class.claims().is_empty() {
            return;
        }
        self.assumptions(|assumed| assumed.give_up(&pod.key));
    }

    fn pre_bind(&self, cx: CycleContext<'_>, _: NodeIndex) -> Result<Vec<ApiRequest>, Refusal> {
        let mut requests = Vec::new();
        for wanted in cx.pod.class.claims() {
            let claim = find(cx.pod, cx.nodes, wanted)?;
            let assumptions = cx.nodes.objects.devices.assumptions();
            let assumed = assumptions.of(&key(&claim)).filter(|a| a.pod == cx.pod.key);
            requests.extend(reserve_requests(&claim, cx.pod, assumed.map(|a| &a.result)));
        }
        Ok(requests)
    }

    /// Devices may say what has to come true before a pod is bound that uses them.
    fn is_prepared(&self, cx: CycleContext<'_>, _: NodeIndex) -> Result<bool, Refusal> {
        let mut ready = true;
        for wanted in cx.pod.class.claims() {
            let claim = find(cx.pod, cx.nodes, wanted)?;
            let assumptions = cx.nodes.objects.devices.assumptions();
            let assumed = assumptions.of(&key(&claim)).map(|a| &a.result);
            let Some(result) = allocation(&claim).or(assumed) else { continue };
            match readiness(&claim, result) {
                Readiness::Ready => {}
                Readiness::NotYet => ready = false,
                Readiness::Failed => {
                    let text = format!("claim {} binding condition failed", key(&claim).name);
                    return Err(Refusal::error(text));
                }
            }
        }
        Ok(ready)
    }

    /// Devices that did not become ready are given back, so that others can be tried.
    fn withdraw(&self, cx: CycleContext<'_>) -> Vec<ApiRequest> {
        let wanted = cx.pod.class.claims().iter();
        let claims = wanted.filter_map(|w| find(cx.pod, cx.nodes, w).ok());
        let unready = |c: &Arc<ResourceClaim>| {
            allocation(c).is_some_and(|a| readiness(c, a) != Readiness::Ready) && is_idle(c, cx.pod)
        };
        claims.filter(unready).map(|c| deallocation(&c)).collect()
    }

    fn observe(&mut self, change: TableChange<'_>, nodes: &NodeTable) {
        match change {
            TableChange::Object(ClusterObject::ResourceClaim(claim)) if allocation(claim).is_some() => {
                nodes.objects.devices.assumptions().settle(&key(claim));
            }
            TableChange::ObjectGone(ClusterObject::ResourceClaim(claim)) => {
                nodes.objects.devices.assumptions().settle(&key(claim));
            }
            _ => {}
        }
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        const KINDS: [&str; 3] = ["resourceclaims", "deviceclasses", "resourceslices"];
        let helps = match event {
            ClusterEvent::Node(_, change) => change.added || change.labels,
            ClusterEvent::Other(kind) => KINDS.contains(&kind.as_str()) && !pod.class.claims().is_empty(),
            ClusterEvent::PodGone(other, _) => !other.class.claims().is_empty(),
            ClusterEvent::PodChanged => true,
            ClusterEvent::NodeDeleted(_) | ClusterEvent::PodPlaced(_) => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}

/// Writes an allocation, where there is a new one, and that the pod uses the claim. The first write holds for this version of the claim
/// only, so that no two allocations are written over each other.
fn reserve_requests(claim: &ResourceClaim, pod: &PodInfo, new: Option<&AllocationResult>) -> Vec<ApiRequest> {
    let key = key(claim);
    let of_claim = || {
        let claims = GroupVersionResource::new("resource.k8s.io", "v1", "resourceclaims");
        ApiRequest::resource(Verb::Patch, claims, Some(&key.namespace), Some(&key.name))
    };
    let meta = &claim.metadata;
    let mut requests = Vec::new();
    let consumer = json!({"resource": "pods", "name": pod.key.name, "uid": pod.uid});
    let mut patch = json!({"metadata": {"uid": meta.uid}, "status": {"reservedFor": [consumer]}});
    match new {
        None if is_reserved(claim, pod) => return requests,
        None => {}
        Some(result) => {
            patch["status"]["allocation"] = json!(result);
            let mut finalizers = meta.finalizers.clone().unwrap_or_default();
            if finalizers.iter().any(|f| f == FINALIZER) {
                patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
            } else {
                finalizers.push(FINALIZER.to_owned());
                let first = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}});
                requests.push(of_claim().body(ContentType::MergePatch, first));
            }
        }
    }
    requests.push(of_claim().subresource("status").body(ContentType::StrategicMergePatch, patch));
    requests
}
