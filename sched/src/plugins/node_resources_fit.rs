//! NodeResourcesFit: what a pod asks for must be free on its node; emptier nodes are liked more.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, MAX_NODE_SCORE, Plugin, Points, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;
use smol_str::SmolStr;

/// How free room is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// The emptier the better (upstream's default).
    #[default]
    LeastAllocated,
    /// The fuller the better.
    MostAllocated,
}

/// Filters by free resources, scores by CPU and memory with equal weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeResourcesFit {
    /// How it scores.
    pub strategy: ScoringStrategy,
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
            let text = || format!("Insufficient {}", cx.nodes.symbols().text(*name)).into();
            look(&text, *amount, have.scalar(*name, node), used.scalar(*name, node));
        }
        if short.is_empty() { Ok(()) } else { Err(Refusal { reasons: short, unresolvable }) }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let at = node.at();
        let requests = cx.pod.requests();
        let cpu = (
            cx.nodes.allocatable.milli_cpu[at],
            cx.nodes.non_zero_milli_cpu[at] + requests.non_zero_milli_cpu,
        );
        let memory =
            (cx.nodes.allocatable.memory[at], cx.nodes.non_zero_memory[at] + requests.non_zero_memory);
        let parts = [cpu, memory].into_iter().filter(|(have, _)| *have > 0);
        let (sum, count) =
            parts.fold((0, 0), |(sum, n), (have, used)| (sum + score_part(self.strategy, have, used), n + 1));
        if count == 0 { 0 } else { sum / count }
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

fn score_part(strategy: ScoringStrategy, have: i64, used: i64) -> i64 {
    match strategy {
        _ if used > have => match strategy {
            ScoringStrategy::LeastAllocated => 0,
            ScoringStrategy::MostAllocated => MAX_NODE_SCORE,
        },
        ScoringStrategy::LeastAllocated => (have - used) * MAX_NODE_SCORE / have,
        ScoringStrategy::MostAllocated => used * MAX_NODE_SCORE / have,
    }
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
