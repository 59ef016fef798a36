//! NodeUnschedulable: cordoned nodes take no new pods, but for those that tolerate it.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Plugin, Points, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::{Effect, PodInfo, Taint};

/// The taint that stands for `spec.unschedulable`.
const TAINT: &str = "node.kubernetes.io/unschedulable";

/// Filters by `spec.unschedulable` of the node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn points(&self) -> Points {
        Points::FILTER
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        if !cx.nodes.is_unschedulable(node) || tolerates(cx.pod, cx.nodes) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) were unschedulable"))
    }

    fn hint(&self, _: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        match event {
            ClusterEvent::Node(name, change) if change.added || change.taints => {
                let open = nodes.find(name).is_some_and(|n| !nodes.is_unschedulable(n));
                if open { Hint::Queue } else { Hint::Skip }
            }
            ClusterEvent::PodChanged => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}

/// Whether the pod tolerates the taint that cordoning stands for.
fn tolerates(pod: &PodInfo, nodes: &NodeTable) -> bool {
    let symbols = nodes.symbols();
    let (Some(key), Some(value)) = (symbols.get(TAINT), symbols.get("")) else {
        // Nobody ever named the key: only a toleration of everything will do.
        return pod.tolerances().iter().any(|t| t.tolerates_everything(Effect::NoSchedule));
    };
    pod.tolerances().iter().any(|t| t.tolerates(&Taint { key, value, effect: Effect::NoSchedule }))
}
