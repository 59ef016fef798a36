//! Rescheduling advice: which pod to move where, so that a pod that fits nowhere has room and nobody is evicted for good.

use crate::node::NodeIndex;
use crate::pod::{PodInfo, PodKey};
use crate::scheduler::Scheduler;
use smol_str::SmolStr;
use std::sync::Arc;

/// A node that has room once a pod is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Where the waiting pod will fit.
    pub node: SmolStr,
    /// The pod to move.
    pub moves: PodKey,
    /// A node that will do for it.
    pub to: SmolStr,
}

/// How many nodes are looked at for one advice.
const NODES_MAX: usize = 256;

impl Scheduler {
    /// Says how to make room for a waiting pod by moving one other pod of any priority; the least important that helps. `None` where
    /// no such move is found, or the pod does not wait.
    pub fn advise(&mut self, pod: &PodKey) -> Option<Advice> {
        let waiting = self.queue.get(pod)?.info.clone();
        let at = self.profiles.iter().position(|(p, _)| p.name() == waiting.scheduler_name())?;
        let (profile, cache) = &mut self.profiles[at];
        let rows = cache.clearable(profile, &waiting, &mut self.nodes);
        for node in rows.into_iter().take(NODES_MAX) {
            if let Some((moves, to)) = self.move_from(at, &waiting, node) {
                let name = |n: NodeIndex| self.nodes.name(n).clone();
                return Some(Advice { node: name(node), moves, to: name(to) });
            }
        }
        None
    }

    fn move_from(
        &mut self,
        profile: usize,
        waiting: &PodInfo,
        node: NodeIndex,
    ) -> Option<(PodKey, NodeIndex)> {
        let mut there: Vec<Arc<PodInfo>> = self.nodes.pods_on(node).to_vec();
        there.sort_by(|a, b| (a.priority(), &a.key).cmp(&(b.priority(), &b.key)));
        let (profile, cache) = &mut self.profiles[profile];
        there.into_iter().find_map(|other| {
            if !cache.fits_without(profile, waiting, &mut self.nodes, node, &other) {
                return None;
            }
            let to = cache.elsewhere(profile, &other.unbound(), &mut self.nodes, node)?;
            Some((other.key.clone(), to))
        })
    }
}
