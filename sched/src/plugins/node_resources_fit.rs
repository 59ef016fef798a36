//! NodeResourcesFit: what a pod asks for must be free on its node; how full the node would be is scored by a strategy.

use super::allocation::{self, WeightedResource};
use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, MAX_NODE_SCORE, Plugin, Points, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;
use smol_str::SmolStr;

/// How the use of a resource is scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// The emptier the better (upstream's default).
    #[default]
    LeastAllocated,
    /// The fuller the better.
    MostAllocated,
    /// By a line through points of use (0 to 100 percent) and score (0 to 100), ordered by use.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Filters by free resources, scores by how full the node would be.
#[derive(Clone, Debug)]
pub struct NodeResourcesFit {
    /// How it scores.
    pub strategy: ScoringStrategy,
    /// What it scores.
    pub resources: Vec<WeightedResource>,
    /// Extended resources that the filter does not look at.
    pub ignored: Vec<String>,
    /// Groups of extended resources (`example.com` for `example.com/gpu`) that the filter does not look at.
    pub ignored_groups: Vec<String>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        NodeResourcesFit {
            strategy: ScoringStrategy::default(),
            resources: allocation::defaults(),
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
        }
    }
}

impl NodeResourcesFit {
    fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|n| n == name)
            || name.split_once('/').is_some_and(|(group, _)| self.ignored_groups.iter().any(|g| g == group))
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn points(&self) -> Points {
        Points::FILTER | Points::SCORE
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let mut short = Vec::new();
        let mut unresolvable = false;
        let at = node.at();
        if i64::try_from(cx.nodes.pod_count(node)).unwrap_or(i64::MAX) + 1 > cx.nodes.pods_allowed[at] {
            short.push(SmolStr::new_static("Too many pods"));
        }
        let wanted = &cx.pod.requests().requests;
        let (have, used) = (&cx.nodes.allocatable, &cx.nodes.requested);
        let mut look = |name: &dyn Fn() -> SmolStr, wanted: i64, have: i64, used: i64| {
            if wanted > 0 && wanted > have - used {
                short.push(name());
                unresolvable |= wanted > have;
            }
        };
        let fixed = |text: &'static str| move || SmolStr::new_static(text);
        look(&fixed("Insufficient cpu"), wanted.milli_cpu, have.milli_cpu[at], used.milli_cpu[at]);
        look(&fixed("Insufficient memory"), wanted.memory, have.memory[at], used.memory[at]);
        look(
            &fixed("Insufficient ephemeral-storage"),
            wanted.ephemeral_storage,
            have.ephemeral_storage[at],
            used.ephemeral_storage[at],
        );
        for (name, amount) in &wanted.scalars {
            if !(self.ignored.is_empty() && self.ignored_groups.is_empty())
                && self.ignores(cx.nodes.symbols().text(*name))
            {
                continue;
            }
            let text = || format!("Insufficient {}", cx.nodes.symbols().text(*name)).into();
            look(&text, *amount, have.scalar(*name, node), used.scalar(*name, node));
        }
        if short.is_empty() { Ok(()) } else { Err(Refusal { reasons: short, unresolvable, error: false }) }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for resource in &self.resources {
            let (have, used) = allocation::of(cx, node, &resource.name, false);
            if have == 0 {
                continue;
            }
            let score = self.strategy.score(used, have);
            // A use that scores nothing does not count in the ratio's mean.
            if score > 0 || !matches!(self.strategy, ScoringStrategy::RequestedToCapacityRatio(_)) {
                sum += score * resource.weight;
                weights += resource.weight;
            }
        }
        self.strategy.mean(sum, weights)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        let helps = match event {
            ClusterEvent::Node(name, change) if change.added || change.allocatable => {
                nodes.find(name).is_some_and(|n| offers(pod, nodes, n))
            }
            ClusterEvent::PodGone(..) | ClusterEvent::PodChanged => true,
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}

impl ScoringStrategy {
    fn score(&self, used: i64, have: i64) -> i64 {
        match self {
            ScoringStrategy::LeastAllocated if used > have => 0,
            ScoringStrategy::LeastAllocated => (have - used) * MAX_NODE_SCORE / have,
            ScoringStrategy::MostAllocated => used.min(have) * MAX_NODE_SCORE / have,
            ScoringStrategy::RequestedToCapacityRatio(shape) => {
                let percent = if used > have { 100 } else { used * 100 / have };
                broken_line(shape, percent)
            }
        }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "scores are small")]
    fn mean(&self, sum: i64, weights: i64) -> i64 {
        match self {
            _ if weights == 0 => 0,
            ScoringStrategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// The value at `x` of a line through points; flat before the first and after the last.
pub(super) fn broken_line(points: &[(i64, i64)], x: i64) -> i64 {
    for (n, (at, score)) in points.iter().enumerate() {
        if x <= *at {
            let Some((before, low)) = n.checked_sub(1).map(|n| points[n]) else { return *score };
            return low + (score - low) * (x - before) / (at - before).max(1);
        }
    }
    points.last().map_or(0, |(_, score)| *score)
}

/// Whether the pod would fit on the node if it were empty.
fn offers(pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) -> bool {
    let wanted = &pod.requests().requests;
    let (have, at) = (&nodes.allocatable, node.at());
    wanted.milli_cpu <= have.milli_cpu[at]
        && wanted.memory <= have.memory[at]
        && wanted.ephemeral_storage <= have.ephemeral_storage[at]
        && wanted.scalars.iter().all(|(name, n)| *n <= have.scalar(*name, node))
}
