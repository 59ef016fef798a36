//! NodeResourcesBalancedAllocation: nodes whose resources fill up evenly are liked more.

use super::allocation::{self, WeightedResource};
use crate::framework::{CycleContext, MAX_NODE_SCORE, NodeScore, Plugin, Points, PreScore};
use crate::node::NodeIndex;

/// Scores by how alike the used fractions of the resources would be.
#[derive(Clone, Debug)]
pub struct BalancedAllocation {
    /// The resources; their weights do not count.
    pub resources: Vec<WeightedResource>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        BalancedAllocation { resources: allocation::defaults() }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn points(&self) -> Points {
        Points::PRE_SCORE | Points::SCORE
    }

    /// A pod that asks for none of the resources balances nothing.
    fn pre_score(&self, cx: CycleContext<'_>, _: &[NodeScore]) -> PreScore {
        let asks = self.resources.iter().any(|r| allocation::requested_by(cx, &r.name, true) != 0);
        if asks { PreScore::Continue(None) } else { PreScore::Skip }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "fractions of 0 to 1 are scored in whole hundredths"
    )]
    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let amounts = self.resources.iter().map(|r| allocation::of(cx, node, &r.name, true));
        let mut fractions = [0.0; 8];
        let mut count = 0;
        for (have, used) in amounts.filter(|(have, _)| *have != 0).take(fractions.len()) {
            fractions[count] = (used as f64 / have as f64).min(1.0);
            count += 1;
        }
        let fractions = &fractions[..count];
        let deviation = match fractions {
            [a, b] => ((a - b) / 2.0).abs(),
            [_, _, _, ..] => {
                let mean = fractions.iter().sum::<f64>() / count as f64;
                let squares: f64 = fractions.iter().map(|f| (f - mean) * (f - mean)).sum();
                (squares / count as f64).sqrt()
            }
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}
