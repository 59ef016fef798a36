//! NodeName: a pod that names a node goes nowhere else.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;

/// Filters by `spec.nodeName`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if cx.pod.node_name().is_some() { PreFilter::Continue(None) } else { PreFilter::Skip }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        match cx.pod.node_name() {
            Some(name) if name != cx.nodes.name(node) => {
                Err(Refusal::unresolvable("node(s) didn't match the requested node name"))
            }
            _ => Ok(()),
        }
    }

    fn hint(&self, _: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        if matches!(event, ClusterEvent::Node(_, change) if change.added) { Hint::Queue } else { Hint::Skip }
    }
}
