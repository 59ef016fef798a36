//! VolumeBinding: a pod goes where its volumes are, can be bound or can be made.
//!
//! What is to be bound and made is decided when the node is chosen (Reserve), asked for in PreBind as requests, and the pod waits until its
//! claims are bound.

use super::node_resources_fit::broken_line;
use super::volume_match::{self, Wish};
use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, NodeScore, Plugin, Points, PreFilter, PreScore, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::volumes::{PodVolume, capacity, claimed, class_of_claim};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, Verb};
use rustc_hash::FxHashMap;
use serde_json::json;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

const UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";
const GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const ELSEWHERE: &str = "node(s) had volume node affinity conflict";
const NOTHING_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// Filters by volumes, binds and provisions them.
#[derive(Debug, Default)]
pub struct VolumeBinding {
    /// Volumes that chosen pods' claims take, until the volumes say so themselves.
    taken: FxHashMap<SmolStr, PodKey>,
    /// What is to be done for each chosen pod.
    plans: FxHashMap<PodKey, Plan>,
    /// How nodes are scored by how much of their volumes or storage the claims take: points of use in percent and score, by use.
    shape: Vec<(i64, i64)>,
}

/// What a pod's claims need on a node.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Volumes with the claims that get them.
    bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Claims for which a volume is to be made.
    provision: Vec<Arc<PersistentVolumeClaim>>,
}

/// The claims of a pod.
#[derive(Debug, Default)]
struct Claims {
    bound: Vec<Arc<PersistentVolumeClaim>>,
    /// To be bound when the node is known, the smallest first.
    later: Vec<Arc<PersistentVolumeClaim>>,
}

fn key(claim: &PersistentVolumeClaim) -> PodKey {
    let meta = &claim.metadata;
    PodKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|n| !n.is_empty())
}

/// Whether both sides of the binding are made.
fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    volume_name(claim).is_some() && annotation(claim, BIND_COMPLETED).is_some()
}

/// A claim of the pod that exists and can be used.
fn find(
    pod: &PodInfo,
    nodes: &NodeTable,
    name: &str,
    ephemeral: bool,
) -> Result<Arc<PersistentVolumeClaim>, Refusal> {
    let refuse = |text: String| Err(Refusal::unresolvable(text));
    let Some(claim) = nodes.objects.volumes.claim(&PodKey::new(&pod.key.namespace, name)) else {
        return refuse(if ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
        } else {
            format!("persistentvolumeclaim \"{name}\" not found")
        });
    };
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    if phase == Some("Lost") {
        let volume = volume_name(claim).unwrap_or("");
        return refuse(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return refuse(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let owners = claim.metadata.owner_references.iter().flatten();
    if ephemeral && !owners.into_iter().any(|o| o.controller == Some(true) && o.uid == pod.uid.as_str()) {
        let namespace = &pod.key.namespace;
        return refuse(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
            pod.key.name
        ));
    }
    Ok(claim.clone())
}

fn claims(pod: &PodInfo, nodes: &NodeTable) -> Result<Claims, Refusal> {
    let mut claims = Claims::default();
    let mut immediate = false;
    for volume in pod.class.volumes() {
        let PodVolume::Claim { name, ephemeral } = volume else { continue };
        let claim = find(pod, nodes, name, *ephemeral)?;
        let class = nodes.objects.volumes.class(class_of_claim(&claim));
        let waits = class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
        if is_bound(&claim) {
            claims.bound.push(claim);
        } else if waits && volume_name(&claim).is_none() {
            claims.later.push(claim);
        } else {
            immediate = true;
        }
    }
    if immediate {
        return Err(Refusal::unresolvable(UNBOUND));
    }
    claims.later.sort_by_key(|c| crate::volumes::claimed(c));
    Ok(claims)
}

impl VolumeBinding {
    /// Scores nodes by how much of their volumes or storage the claims take: points of use in percent (rising) and score (0 to 100), with
    /// lines between them. Without points nodes are not scored.
    pub fn scored_by(shape: Vec<(i64, i64)>) -> Self {
        VolumeBinding { shape, ..VolumeBinding::default() }
    }

    /// The mean over the classes of what the shape gives for what is used of each.
    fn score_of(&self, plan: &Plan, nodes: &NodeTable, node: NodeIndex) -> i64 {
        let mut classes: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        let mut add = |class, asked: i64, have: i64| {
            let (wanted, all) = classes.entry(class).or_default();
            (*wanted, *all) = (wanted.saturating_add(asked), all.saturating_add(have));
        };
        for (volume, claim) in &plan.bind {
            add(class_of_claim(claim), claimed(claim), capacity(volume));
        }
        for claim in plan.provision.iter().filter(|_| plan.bind.is_empty()) {
            if let Some(left) = volume_match::capacity_for(claim, nodes, node) {
                add(class_of_claim(claim), claimed(claim), left);
            }
        }
        let score = |(asked, have): &(i64, i64)| {
            let used = if *have == 0 || asked > have { 100 } else { asked.saturating_mul(100) / have };
            broken_line(&self.shape, used)
        };
        let n = i64::try_from(classes.len()).unwrap_or(1).max(1);
        let sum: i64 = classes.values().map(score).sum();
        // Halves are rounded up.
        (2 * sum + n) / (2 * n)
    }

    /// What the claims need on a node.
    fn plan(&self, claims: &Claims, nodes: &NodeTable, node: NodeIndex) -> Result<Plan, Refusal> {
        let objects = &nodes.objects.volumes;
        for claim in &claims.bound {
            let Some(volume) = volume_name(claim).and_then(|n| objects.volume(n)) else {
                return Err(Refusal::unresolvable(GONE));
            };
            if !volume_match::reaches(volume, nodes, node) {
                return Err(Refusal::unresolvable(ELSEWHERE));
            }
        }
        let mut plan = Plan::default();
        for claim in &claims.later {
            match annotation(claim, SELECTED_NODE) {
                Some(selected) if selected == nodes.name(node) => plan.provision.push(claim.clone()),
                Some(_) => return Err(Refusal::unresolvable(NOTHING_TO_BIND)),
                None => {
                    let taken = |name: &str| {
                        self.taken.get(name).is_some_and(|by| *by != key(claim))
                            || plan.bind.iter().any(|(v, _)| v.metadata.name.as_deref() == Some(name))
                    };
                    match volume_match::find(&Wish { claim, node, nodes, taken: &taken }) {
                        Some(volume) => plan.bind.push((volume, claim.clone())),
                        None => plan.provision.push(claim.clone()),
                    }
                }
            }
        }
        for claim in &plan.provision {
            match volume_match::can_be_made(claim, nodes, node) {
                volume_match::Making::Possible => {}
                volume_match::Making::Impossible => return Err(Refusal::unresolvable(NOTHING_TO_BIND)),
                volume_match::Making::NoSpace => return Err(Refusal::unresolvable(NO_SPACE)),
            }
        }
        Ok(plan)
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn points(&self) -> Points {
        let always =
            Points::PRE_FILTER | Points::FILTER | Points::RESERVE | Points::PRE_BIND | Points::POST_BIND;
        if self.shape.is_empty() { always } else { always | Points::PRE_SCORE | Points::SCORE }
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if !cx.pod.class.volumes().iter().any(|v| matches!(v, PodVolume::Claim { .. })) {
            return PreFilter::Skip;
        }
        match claims(cx.pod, cx.nodes) {
            Ok(claims) => PreFilter::Continue(Some(Box::new(claims))),
            Err(refusal) => PreFilter::Refuse(refusal),
        }
    }

    fn watches(&self, pod: &PodInfo) -> Watched {
        if pod.class.volumes().is_empty() { Watched::NOTHING } else { Watched::VOLUMES }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let Some(claims) = cx.state::<Claims>() else { return Ok(()) };
        self.plan(claims, cx.nodes, node).map(drop)
    }

    fn pre_score(&self, cx: CycleContext<'_>, _: &[NodeScore]) -> PreScore {
        let waits = cx.state::<Claims>().is_some_and(|c| !c.later.is_empty());
        if waits { PreScore::Continue(None) } else { PreScore::Skip }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let Some(claims) = cx.state::<Claims>() else { return 0 };
        self.plan(claims, cx.nodes, node).map_or(0, |plan| self.score_of(&plan, cx.nodes, node))
    }

    fn reserve(&mut self, cx: CycleContext<'_>, node: NodeIndex) -> Result<(), Refusal> {
        if cx.pod.class.volumes().is_empty() {
            return Ok(());
        }
        let plan = self.plan(&claims(cx.pod, cx.nodes)?, cx.nodes, node)?;
        for (volume, claim) in &plan.bind {
            self.taken.insert(volume.metadata.name.as_deref().unwrap_or("").into(), key(claim));
        }
        self.plans.insert(cx.pod.key.clone(), plan);
        Ok(())
    }

    fn unreserve(&mut self, pod: &PodInfo, _: NodeIndex) {
        if let Some(plan) = self.plans.remove(&pod.key) {
            for (volume, _) in plan.bind {
                self.taken.remove(volume.metadata.name.as_deref().unwrap_or(""));
            }
        }
    }

    fn post_bind(&mut self, pod: &PodInfo, _: &str) {
        // The volumes say by now themselves whose they are.
        if let Some(plan) = self.plans.remove(&pod.key) {
            for (volume, _) in plan.bind {
                self.taken.remove(volume.metadata.name.as_deref().unwrap_or(""));
            }
        }
    }

    fn pre_bind(&self, cx: CycleContext<'_>, node: NodeIndex) -> Result<Vec<ApiRequest>, Refusal> {
        let Some(plan) = self.plans.get(&cx.pod.key) else { return Ok(Vec::new()) };
        let mut requests = Vec::new();
        for (volume, claim) in &plan.bind {
            requests.push(bind_request(volume, claim));
        }
        for claim in &plan.provision {
            let key = key(claim);
            let claims = GroupVersionResource::new("", "v1", "persistentvolumeclaims");
            let request = ApiRequest::resource(Verb::Patch, claims, Some(&key.namespace), Some(&key.name));
            let patch = json!({"metadata": {
                "resourceVersion": claim.metadata.resource_version,
                "annotations": {SELECTED_NODE: cx.nodes.name(node)},
            }});
            requests.push(request.body(ContentType::MergePatch, patch));
        }
        Ok(requests)
    }

    fn is_prepared(&self, cx: CycleContext<'_>, node: NodeIndex) -> Result<bool, Refusal> {
        let Some(plan) = self.plans.get(&cx.pod.key) else { return Ok(true) };
        let claims = plan.bind.iter().map(|(_, c)| c).chain(&plan.provision);
        for claim in claims {
            let Some(now) = cx.nodes.objects.volumes.claim(&key(claim)) else {
                return Err(Refusal::error(format!(
                    "persistentvolumeclaim \"{}\" not found",
                    key(claim).name
                )));
            };
            if is_bound(now) {
                continue;
            }
            let provisioned = plan.provision.iter().any(|c| key(c) == key(claim));
            let selected = annotation(now, SELECTED_NODE);
            // The provisioner takes the annotation away where it can't make the volume; the patch itself may not be seen yet.
            if provisioned
                && selected.is_none()
                && now.metadata.resource_version != claim.metadata.resource_version
                && annotation(claim, SELECTED_NODE).is_some()
            {
                return Err(Refusal::error("the volume could not be made for the selected node"));
            }
            let _ = node;
            return Ok(false);
        }
        Ok(true)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        const KINDS: [&str; 6] = [
            "persistentvolumeclaims",
            "persistentvolumes",
            "storageclasses",
            "csinodes",
            "csidrivers",
            "csistoragecapacities",
        ];
        let helps = match event {
            ClusterEvent::Node(_, change) => change.added || change.labels,
            ClusterEvent::Other(kind) => KINDS.contains(&kind.as_str()) && !pod.class.volumes().is_empty(),
            ClusterEvent::PodChanged => true,
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}

/// Says to a volume whose it is.
fn bind_request(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> ApiRequest {
    let volumes = GroupVersionResource::new("", "v1", "persistentvolumes");
    let request = ApiRequest::resource(Verb::Patch, volumes, None, volume.metadata.name.as_deref());
    let patch = json!({
        "metadata": {
            "resourceVersion": volume.metadata.resource_version,
            "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
        },
        "spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        }},
    });
    request.body(ContentType::MergePatch, patch)
}
