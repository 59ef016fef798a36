//! How full a node would be of a resource: the part that NodeResourcesFit and NodeResourcesBalancedAllocation share.

use crate::framework::CycleContext;
use crate::node::NodeIndex;

/// A resource with its weight in a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedResource {
    /// Name.
    pub name: String,
    /// Weight.
    pub weight: i64,
}

impl WeightedResource {
    /// A resource.
    pub fn new(name: &str, weight: i64) -> Self {
        WeightedResource { name: name.to_owned(), weight }
    }
}

/// CPU and memory alike.
pub(super) fn defaults() -> Vec<WeightedResource> {
    vec![WeightedResource::new("cpu", 1), WeightedResource::new("memory", 1)]
}

/// What the pod asks for; without `exact`, upstream's assumptions stand for containers that ask for no CPU or memory.
pub(super) fn requested_by(cx: CycleContext<'_>, name: &str, exact: bool) -> i64 {
    let requests = cx.pod.requests();
    match (name, exact) {
        ("cpu", true) => requests.requests.milli_cpu,
        ("cpu", false) => requests.non_zero_milli_cpu,
        ("memory", true) => requests.requests.memory,
        ("memory", false) => requests.non_zero_memory,
        ("ephemeral-storage", _) => requests.requests.ephemeral_storage,
        (name, _) => cx.nodes.symbols().get(name).map_or(0, |s| requests.requests.scalar(s)),
    }
}

/// What the node has of a resource, and what would be used of it with the pod there; nothing of either for an extended resource that the
/// pod does not ask for.
pub(super) fn of(cx: CycleContext<'_>, node: NodeIndex, name: &str, exact: bool) -> (i64, i64) {
    let at = node.at();
    let (have, used) = (&cx.nodes.allocatable, &cx.nodes.requested);
    let wanted = requested_by(cx, name, exact);
    match (name, exact) {
        ("cpu", true) => (have.milli_cpu[at], used.milli_cpu[at] + wanted),
        ("cpu", false) => (have.milli_cpu[at], cx.nodes.non_zero_milli_cpu[at] + wanted),
        ("memory", true) => (have.memory[at], used.memory[at] + wanted),
        ("memory", false) => (have.memory[at], cx.nodes.non_zero_memory[at] + wanted),
        ("ephemeral-storage", _) => (have.ephemeral_storage[at], used.ephemeral_storage[at] + wanted),
        _ if wanted == 0 => (0, 0),
        (name, _) => {
            let symbol = cx.nodes.symbols().get(name);
            symbol.map_or((0, 0), |s| (have.scalar(s, node), used.scalar(s, node) + wanted))
        }
    }
}
