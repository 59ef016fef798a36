//! NodePorts: two pods of one node can't have the same host port.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, PreFilter, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;

/// Filters by free host ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        if cx.pod.ports().is_empty() { PreFilter::Skip } else { PreFilter::Continue(None) }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let used = cx.nodes.ports(node);
        if cx.pod.ports().iter().any(|port| used.iter().any(|other| port.conflicts(other))) {
            return Err(Refusal::new("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        let helps = match event {
            ClusterEvent::Node(_, change) => change.added,
            ClusterEvent::PodGone(gone, _) => {
                pod.ports().iter().any(|p| gone.ports().iter().any(|o| p.conflicts(o)))
            }
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
