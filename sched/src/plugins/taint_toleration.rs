//! TaintToleration: nodes with taints that a pod does not tolerate are refused, or liked less.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, NodeScore, Plugin, Points, Verdict, normalize_by_max};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::{Effect, PodInfo};

/// Filters by `NoSchedule` and `NoExecute` taints, scores by `PreferNoSchedule` ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn points(&self) -> Points {
        Points::FILTER | Points::SCORE
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let untolerated = cx.nodes.taints(node).iter().find(|taint| {
            taint.effect != Effect::PreferNoSchedule
                && !cx.pod.tolerances().iter().any(|t| t.tolerates(taint))
        });
        match untolerated {
            None => Ok(()),
            Some(taint) => {
                let symbols = cx.nodes.symbols();
                let (key, value) = (symbols.text(taint.key), symbols.text(taint.value));
                let reason = format!("node(s) had untolerated taint {{{key}: {value}}}");
                Err(Refusal::unresolvable(reason))
            }
        }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let tolerances = || cx.pod.tolerances().iter().filter(|t| t.concerns_preference());
        let disliked = cx.nodes.taints(node).iter().filter(|taint| {
            taint.effect == Effect::PreferNoSchedule && !tolerances().any(|t| t.tolerates(taint))
        });
        i64::try_from(disliked.count()).unwrap_or(i64::MAX)
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, _: CycleContext<'_>, scores: &mut [NodeScore]) {
        normalize_by_max(scores, true);
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        match event {
            ClusterEvent::Node(name, change) if change.added || change.taints => {
                let Some(node) = nodes.find(name) else { return Hint::Skip };
                match self.filter(CycleContext::new(pod, nodes, None), node) {
                    Ok(()) => Hint::Queue,
                    Err(_) => Hint::Skip,
                }
            }
            ClusterEvent::PodChanged => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}
