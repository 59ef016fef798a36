//! What can happen in a cluster that makes an unschedulable pod worth another try.

use crate::node::NodeChange;
use crate::pod::PodInfo;
use smol_str::SmolStr;
use std::sync::Arc;

/// A change of the cluster.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// A node came or changed; its name and what changed.
    Node(SmolStr, NodeChange),
    /// A node went.
    NodeDeleted(SmolStr),
    /// A pod was bound or changed while bound.
    PodPlaced(Arc<PodInfo>),
    /// A bound pod went or ended: what it held on this node is free.
    PodGone(Arc<PodInfo>, SmolStr),
    /// The waiting pod itself changed.
    PodChanged,
    /// An object of another kind changed (`persistentvolumeclaims`, `resourceclaims`, ...), for plugins that look at those.
    Other(SmolStr),
}

/// Whether an event is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It may help.
    Queue,
    /// It can't help.
    Skip,
}
