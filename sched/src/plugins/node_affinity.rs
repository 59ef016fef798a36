//! NodeAffinity: `nodeSelector` and node affinity, demanded and preferred, of the pod and of the profile.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{
    CycleContext, NodeScore, Plugin, Points, PreFilter, PreScore, State, Verdict, normalize_by_max,
};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;
use crate::selection::TextTerm;
use fixedbitset::FixedBitSet;
use k8s_openapi::api::core::v1::NodeAffinity as Written;

const POD_REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const ADDED_REASON: &str = "node(s) didn't match scheduler-enforced node affinity";

/// Filters by what a pod demands of its node, scores by what it prefers.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    /// Terms of which every pod's node must match one; `None` where nothing is added.
    demanded: Option<Vec<TextTerm>>,
    /// What every pod prefers, with weights.
    preferred: Vec<(i64, TextTerm)>,
}

impl NodeAffinity {
    /// The plugin with `addedAffinity`: what it demands and prefers holds for every pod of the profile besides the pod's own.
    pub fn with_added(added: &Written) -> Self {
        let demanded = added.required_during_scheduling_ignored_during_execution.as_ref();
        let preferred = added.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        NodeAffinity {
            demanded: demanded.map(|s| s.node_selector_terms.iter().map(TextTerm::new).collect()),
            preferred: preferred.map(|p| (i64::from(p.weight), TextTerm::new(&p.preference))).collect(),
        }
    }

    fn allows(&self, nodes: &NodeTable, node: NodeIndex) -> bool {
        self.demanded.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(nodes, node)))
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER | Points::PRE_SCORE | Points::SCORE
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if cx.pod.demand().is_empty() && self.demanded.is_none() {
            return PreFilter::Skip;
        }
        let Some(pinned) = cx.pod.demand().pinned() else { return PreFilter::Continue(None) };
        let mut set = FixedBitSet::with_capacity(cx.nodes.rows());
        for name in pinned {
            if let Some(node) = cx.nodes.find(cx.nodes.symbols().text(name)) {
                set.insert(node.at());
            }
        }
        PreFilter::Restrict(set, None::<State>)
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        if !self.allows(cx.nodes, node) {
            return Err(Refusal::unresolvable(ADDED_REASON));
        }
        if cx.pod.demand().matches(cx.nodes, node) {
            return Ok(());
        }
        Err(Refusal::unresolvable(POD_REASON))
    }

    fn pre_score(&self, cx: CycleContext<'_>, _: &[NodeScore]) -> PreScore {
        let nothing = cx.pod.preferred().is_empty() && self.preferred.is_empty();
        if nothing { PreScore::Skip } else { PreScore::Continue(None) }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let own = cx.pod.preferred().iter().filter(|(_, term)| term.matches(cx.nodes, node));
        let added = self.preferred.iter().filter(|(_, term)| term.matches(cx.nodes, node));
        own.map(|(weight, _)| weight).sum::<i64>() + added.map(|(weight, _)| weight).sum::<i64>()
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, _: CycleContext<'_>, scores: &mut [NodeScore]) {
        normalize_by_max(scores, false);
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        match event {
            ClusterEvent::Node(name, change) if change.added || change.labels => {
                let fits = |n| self.allows(nodes, n) && pod.demand().matches(nodes, n);
                if nodes.find(name).is_some_and(fits) { Hint::Queue } else { Hint::Skip }
            }
            ClusterEvent::PodChanged => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}
