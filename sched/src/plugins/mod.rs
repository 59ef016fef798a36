//! The built-in plugins, one file each.

mod balanced_allocation;
mod default_binder;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;

pub use balanced_allocation::BalancedAllocation;
pub use default_binder::DefaultBinder;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_fit::{NodeResourcesFit, ScoringStrategy};
pub use node_unschedulable::NodeUnschedulable;
pub use priority_sort::PrioritySort;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;

use crate::Plugin;

/// The plugins of upstream's default profile that are here, in upstream's order, with upstream's weights.
pub fn defaults() -> Vec<(Box<dyn Plugin>, i64)> {
    vec![
        (Box::new(SchedulingGates), 1),
        (Box::new(PrioritySort), 1),
        (Box::new(NodeUnschedulable), 1),
        (Box::new(NodeName), 1),
        (Box::new(TaintToleration), 3),
        (Box::new(NodeAffinity), 2),
        (Box::new(NodePorts), 1),
        (Box::new(NodeResourcesFit::default()), 1),
        (Box::new(BalancedAllocation), 1),
        (Box::new(DefaultBinder), 1),
    ]
}
