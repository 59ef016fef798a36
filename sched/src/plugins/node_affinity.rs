//! NodeAffinity: `nodeSelector` and node affinity, demanded and preferred.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, PreScore, Verdict, normalize_by_max};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;
use fixedbitset::FixedBitSet;

/// Filters by what a pod demands of its node, scores by what it prefers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER | Points::PRE_SCORE | Points::SCORE
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if cx.pod.demand().is_empty() {
            return PreFilter::Skip;
        }
        let Some(pinned) = cx.pod.demand().pinned() else { return PreFilter::Continue(None) };
        let mut set = FixedBitSet::with_capacity(cx.nodes.rows());
        for name in pinned {
            if let Some(node) = cx.nodes.find(cx.nodes.symbols().text(name)) {
                set.insert(node.at());
            }
        }
        PreFilter::Restrict(set, None)
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        if cx.pod.demand().matches(cx.nodes, node) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn pre_score(&self, cx: CycleContext<'_>) -> PreScore {
        if cx.pod.preferred().is_empty() { PreScore::Skip } else { PreScore::Continue(None) }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let matching = cx.pod.preferred().iter().filter(|(_, term)| term.matches(cx.nodes, node));
        matching.map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, _: CycleContext<'_>, scores: &mut [i64], feasible: &FixedBitSet) {
        normalize_by_max(scores, feasible, false);
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        match event {
            ClusterEvent::Node(name, change) if change.added || change.labels => {
                let fits = nodes.find(name).is_some_and(|n| pod.demand().matches(nodes, n));
                if fits { Hint::Queue } else { Hint::Skip }
            }
            ClusterEvent::PodChanged => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}
