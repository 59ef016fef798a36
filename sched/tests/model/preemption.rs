//! Where room can be made for a pod, straight from the documentation: on each node every less important pod goes, and as many as can stay
//! come back, the most important first.

use crate::rules::World;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::cmp::Reverse;

/// A node on which room can be made.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    victims: Vec<Pod>,
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

fn started(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|t| t.0)
}

impl Candidate {
    /// What is lost, in the order in which it is weighed: the highest priority, the sum of priorities, how many, and how long the first of
    /// the most important has run.
    pub(crate) fn loss(&self) -> (i32, i64, usize, Reverse<Option<Timestamp>>) {
        let highest = self.victims.iter().map(priority).max().unwrap_or(0);
        let sum = self.victims.iter().map(|v| i64::from(priority(v)) + i64::from(i32::MAX) + 1).sum();
        let first = self.victims.iter().filter(|v| priority(v) == highest).map(started).min().flatten();
        (highest, sum, self.victims.len(), Reverse(first))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.victims.iter().map(|v| v.metadata.name.clone().unwrap_or_default()).collect();
        names.sort_unstable();
        names
    }
}

impl World {
    /// All nodes on which room can be made for a pod.
    pub(crate) fn candidates(&self, pod: &Pod) -> Vec<Candidate> {
        self.nodes.iter().filter_map(|node| self.candidate(pod, crate::rules::name(node))).collect()
    }

    fn candidate(&self, pod: &Pod, on: &str) -> Option<Candidate> {
        let goes = |(p, at): &(Pod, String)| at == on && priority(p) < priority(pod);
        let mut potential: Vec<Pod> =
            self.placed.iter().filter(|e| goes(e)).map(|(p, _)| p.clone()).collect();
        if potential.is_empty() {
            return None;
        }
        potential.sort_by_key(|p| (Reverse(priority(p)), started(p)));
        let mut world = self.clone();
        world.placed.retain(|e| !goes(e));
        let fits = |world: &World| world.node_of(on).is_some_and(|node| world.refused(pod, node).is_none());
        if !fits(&world) {
            return None;
        }
        let mut victims = Vec::new();
        for candidate in potential {
            world.placed.push((candidate.clone(), on.to_owned()));
            if !fits(&world) {
                world.placed.pop();
                victims.push(candidate);
            }
        }
        Some(Candidate { node: on.to_owned(), victims })
    }
}
