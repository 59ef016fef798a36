//! NodeResourcesBalancedAllocation: nodes whose CPU and memory fill up evenly are liked more.

use crate::framework::{CycleContext, MAX_NODE_SCORE, Plugin, Points, PreScore};
use crate::node::NodeIndex;

/// Scores by how alike the used fractions of CPU and memory would be.
#[derive(Clone, Copy, Debug, Default)]
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn points(&self) -> Points {
        Points::PRE_SCORE | Points::SCORE
    }

    /// A pod that asks for nothing balances nothing.
    fn pre_score(&self, cx: CycleContext<'_>) -> PreScore {
        let requests = &cx.pod.requests().requests;
        if requests.milli_cpu == 0 && requests.memory == 0 {
            PreScore::Skip
        } else {
            PreScore::Continue(None)
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "fractions of 0 to 1 are scored in whole hundredths"
    )]
    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let at = node.at();
        let requests = &cx.pod.requests().requests;
        let fraction = |have: i64, used: i64| (used as f64 / have as f64).min(1.0);
        let (cpu, memory) = (cx.nodes.allocatable.milli_cpu[at], cx.nodes.allocatable.memory[at]);
        if cpu <= 0 || memory <= 0 {
            return MAX_NODE_SCORE;
        }
        let cpu = fraction(cpu, cx.nodes.requested.milli_cpu[at] + requests.milli_cpu);
        let memory = fraction(memory, cx.nodes.requested.memory[at] + requests.memory);
        let deviation = ((cpu - memory) / 2.0).abs();
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}
