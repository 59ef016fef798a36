//! The built-in plugins, one file each.

mod allocation;
mod balanced_allocation;
mod default_binder;
mod default_preemption;
mod dynamic_resources;
mod elastic_quota;
mod gang;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
mod volume_binding;
mod volume_match;
mod volume_restrictions;
mod volume_zone;

pub use allocation::WeightedResource;
pub use balanced_allocation::BalancedAllocation;
pub use default_binder::DefaultBinder;
pub use default_preemption::DefaultPreemption;
pub use dynamic_resources::DynamicResources;
pub use elastic_quota::{Amounts, ElasticQuota, Quota};
pub use gang::{GROUP_LABEL, Gang, SIZE_ANNOTATION};
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_declared_features::NodeDeclaredFeatures;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_fit::{NodeResourcesFit, ScoringStrategy};
pub use node_unschedulable::NodeUnschedulable;
pub use node_volume_limits::NodeVolumeLimits;
pub use pod_topology_spread::{DefaultConstraint, Defaulting, PodTopologySpread};
pub use priority_sort::PrioritySort;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;
pub use volume_binding::VolumeBinding;
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

use crate::Plugin;

/// The plugins of upstream's default profile that are here, in upstream's order, with upstream's weights.
pub fn defaults() -> Vec<(Box<dyn Plugin>, i64)> {
    vec![
        (Box::new(SchedulingGates), 1),
        (Box::new(PrioritySort), 1),
        (Box::new(NodeUnschedulable), 1),
        (Box::new(NodeName), 1),
        (Box::new(TaintToleration), 3),
        (Box::new(NodeAffinity::default()), 2),
        (Box::new(NodePorts), 1),
        (Box::new(NodeResourcesFit::default()), 1),
        (Box::new(VolumeRestrictions), 1),
        (Box::new(NodeVolumeLimits), 1),
        (Box::new(VolumeBinding::default()), 1),
        (Box::new(VolumeZone), 1),
        (Box::new(PodTopologySpread::default()), 2),
        (Box::new(InterPodAffinity::default()), 2),
        (Box::new(DynamicResources::default()), 1),
        (Box::new(NodeDeclaredFeatures), 1),
        (Box::new(DefaultPreemption::default()), 1),
        (Box::new(BalancedAllocation::default()), 1),
        (Box::new(ImageLocality), 1),
        (Box::new(DefaultBinder), 1),
    ]
}
