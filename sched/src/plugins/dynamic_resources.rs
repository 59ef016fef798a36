//! DynamicResources: a pod goes where the devices are that its claims have or can get.
//!
//! Which devices a claim gets is decided when the node is chosen (Reserve) and written in PreBind.

use crate::cluster::ClusterObject;
use crate::devices::{Allocator, DeviceId, Outcome, PodClaim, selects, taken_by};
use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, TableChange, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, Verb};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::json;
use std::sync::Arc;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How many pods may share a claim.
const RESERVED_MAX: usize = 256;
const ELSEWHERE: &str = "resourceclaim not available on the node";
const NOT_ENOUGH: &str = "cannot allocate all claims";

/// Filters by devices and allocates them.
#[derive(Debug, Default)]
pub struct DynamicResources {
    /// What claims get that do not show it yet, by claim.
    assumed: FxHashMap<PodKey, Assumed>,
    /// The devices of those.
    devices: FxHashSet<DeviceId>,
}

/// An allocation on its way.
#[derive(Debug)]
struct Assumed {
    result: AllocationResult,
    /// For whom.
    pod: PodKey,
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
            } else if self.assumed.get(&key(&claim)).is_some_and(|a| a.pod != pod.key) {
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
        let assumed = |id: &DeviceId| self.devices.contains(id);
        let allocator = Allocator { objects: &nodes.objects.devices, nodes, node, assumed: &assumed };
        match allocator.allocate(&claims.pending) {
            Ok(Outcome::Allocated(results)) => Ok(results),
            Ok(Outcome::Impossible) => Err(Refusal::new(NOT_ENOUGH)),
            Err(text) => Err(Refusal::unresolvable(text)),
        }
    }

    /// What a claim shows, or one that is gone, need not be assumed any more.
    fn settle(&mut self, claim: &ResourceClaim) {
        if self.assumed.remove(&key(claim)).is_some() {
            self.count();
        }
    }

    fn count(&mut self) {
        self.devices = self.assumed.values().flat_map(|a| taken_by(&a.result)).collect();
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER | Points::RESERVE | Points::PRE_BIND
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

    fn reserve(&mut self, cx: CycleContext<'_>, node: NodeIndex) -> Result<(), Refusal> {
        if cx.pod.class.claims().is_empty() {
            return Ok(());
        }
        let claims = self.claims(cx.pod, cx.nodes)?;
        let results = self.allocate(&claims, cx.nodes, node)?;
        for (claim, result) in claims.pending.iter().zip(results) {
            self.devices.extend(taken_by(&result));
            let assumed = Assumed { result, pod: cx.pod.key.clone() };
            self.assumed.insert(key(claim), assumed);
        }
        Ok(())
    }

    fn unreserve(&mut self, pod: &PodInfo, _: NodeIndex) {
        if pod.class.claims().is_empty() {
            return;
        }
        self.assumed.retain(|_, a| a.pod != pod.key);
        self.count();
    }

    fn pre_bind(&self, cx: CycleContext<'_>, _: NodeIndex) -> Result<Vec<ApiRequest>, Refusal> {
        let mut requests = Vec::new();
        for wanted in cx.pod.class.claims() {
            let claim = find(cx.pod, cx.nodes, wanted)?;
            let assumed = self.assumed.get(&key(&claim)).filter(|a| a.pod == cx.pod.key);
            requests.extend(reserve_requests(&claim, cx.pod, assumed.map(|a| &a.result)));
        }
        Ok(requests)
    }

    fn observe(&mut self, change: TableChange<'_>, _: &NodeTable) {
        match change {
            TableChange::Object(ClusterObject::ResourceClaim(claim)) if allocation(claim).is_some() => {
                self.settle(claim);
            }
            TableChange::ObjectGone(ClusterObject::ResourceClaim(claim)) => self.settle(claim),
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
