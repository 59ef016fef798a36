//! A plugin with some of its extension points switched off.

use crate::diagnosis::{Diagnosis, Refusal};
use crate::events::{ClusterEvent, Hint};
use crate::framework::{
    CycleContext, Locality, NodeScore, Permit, Plugin, Points, PostFilter, PreFilter, PreScore, State,
    TableChange, Touched, Trial, Verdict,
};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::queue::QueuedPod;
use kubewright_core::ApiRequest;
use std::cmp::Ordering;
use std::time::Duration;

/// Shows only some points of a plugin.
pub(crate) struct Masked {
    plugin: Box<dyn Plugin>,
    points: Points,
}

impl Masked {
    /// The plugin with these points at most; itself where none is missing.
    pub(crate) fn wrap(plugin: Box<dyn Plugin>, points: Points) -> Box<dyn Plugin> {
        if points.contains(plugin.points()) { plugin } else { Box::new(Masked { plugin, points }) }
    }
}

impl Plugin for Masked {
    fn name(&self) -> &'static str {
        self.plugin.name()
    }
    fn points(&self) -> Points {
        self.plugin.points().and(self.points)
    }
    fn locality(&self) -> Locality {
        self.plugin.locality()
    }
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Refusal> {
        self.plugin.pre_enqueue(pod)
    }
    fn queue_sort(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        self.plugin.queue_sort(a, b)
    }
    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        self.plugin.pre_filter(cx)
    }
    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        self.plugin.filter(cx, node)
    }
    fn refresh(
        &self,
        pod: &PodInfo,
        nodes: &NodeTable,
        state: &mut State,
        node: NodeIndex,
        touched: &mut Touched,
    ) {
        self.plugin.refresh(pod, nodes, state, node, touched);
    }
    fn cell(&self, cx: CycleContext<'_>, node: NodeIndex, key: &mut Vec<u64>) {
        self.plugin.cell(cx, node, key);
    }
    fn accepts_all(&self, state: Option<&State>) -> bool {
        self.plugin.accepts_all(state)
    }
    fn watches(&self, pod: &PodInfo) -> Watched {
        self.plugin.watches(pod)
    }
    fn post_filter(&self, pod: &PodInfo, diagnosis: &mut Diagnosis, trial: &mut dyn Trial) -> PostFilter {
        self.plugin.post_filter(pod, diagnosis, trial)
    }
    fn pre_score(&self, cx: CycleContext<'_>, feasible: &[NodeScore]) -> PreScore {
        self.plugin.pre_score(cx, feasible)
    }
    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        self.plugin.score(cx, node)
    }
    fn normalizes(&self) -> bool {
        self.plugin.normalizes()
    }
    fn normalize(&self, cx: CycleContext<'_>, scores: &mut [NodeScore]) {
        self.plugin.normalize(cx, scores);
    }
    fn reserve(&mut self, cx: CycleContext<'_>, node: NodeIndex) -> Result<(), Refusal> {
        self.plugin.reserve(cx, node)
    }
    fn unreserve(&mut self, pod: &PodInfo, node: NodeIndex) {
        self.plugin.unreserve(pod, node);
    }
    fn permit(&self, cx: CycleContext<'_>, node: NodeIndex) -> Permit {
        self.plugin.permit(cx, node)
    }
    fn released(&mut self) -> Vec<PodKey> {
        self.plugin.released()
    }
    fn abandoned(&mut self) -> Vec<PodKey> {
        self.plugin.abandoned()
    }
    fn pre_bind(&self, cx: CycleContext<'_>, node: NodeIndex) -> Result<Vec<ApiRequest>, Refusal> {
        self.plugin.pre_bind(cx, node)
    }
    fn is_prepared(&self, cx: CycleContext<'_>, node: NodeIndex) -> Result<bool, Refusal> {
        self.plugin.is_prepared(cx, node)
    }
    fn withdraw(&self, cx: CycleContext<'_>) -> Vec<ApiRequest> {
        self.plugin.withdraw(cx)
    }
    fn back_off(&self, pod: &PodInfo) -> Option<Duration> {
        self.plugin.back_off(pod)
    }
    fn bind(&self, cx: CycleContext<'_>, node: NodeIndex) -> Option<ApiRequest> {
        self.plugin.bind(cx, node)
    }
    fn post_bind(&mut self, pod: &PodInfo, node: &str) {
        self.plugin.post_bind(pod, node);
    }
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        self.plugin.hint(pod, event, nodes)
    }
    fn observe(&mut self, change: TableChange<'_>, nodes: &NodeTable) {
        self.plugin.observe(change, nodes);
    }
}
