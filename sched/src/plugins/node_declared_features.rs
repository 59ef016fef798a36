//! NodeDeclaredFeatures: a pod that needs a feature of the node goes to nodes that declare it.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;

/// Filters by `status.declaredFeatures`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if cx.pod.class.features().is_empty() { PreFilter::Skip } else { PreFilter::Continue(None) }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let declared = cx.nodes.features(node);
        let wanted = cx.pod.class.features();
        let missing: Vec<&str> =
            wanted.iter().copied().filter(|f| !declared.iter().any(|d| d == f)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let text = "node declared features check failed - unsatisfied requirements: ";
        Err(Refusal::unresolvable(format!("{text}{}", missing.join(", "))))
    }

    fn hint(&self, _: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        let helps = match event {
            ClusterEvent::Node(_, change) => change.added || change.features,
            ClusterEvent::PodChanged => true,
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
