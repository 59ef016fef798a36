//! ImageLocality: nodes that have the pod's images are liked more, the more so the more nodes have them.

use crate::framework::{CycleContext, Locality, MAX_NODE_SCORE, NodeScore, Plugin, Points, PreScore};
use crate::node::NodeIndex;

const MB: i64 = 1024 * 1024;
/// Less than this is not worth anything, in bytes.
const SIZE_MIN: i64 = 23 * MB;
/// More than this for each container is worth no more, in bytes.
const SIZE_MAX: i64 = 1000 * MB;

/// Scores by the images that a node has.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn points(&self) -> Points {
        Points::PRE_SCORE | Points::SCORE
    }

    /// How many nodes have an image matters as well.
    fn locality(&self) -> Locality {
        Locality::Domain
    }

    fn cell(&self, cx: CycleContext<'_>, node: NodeIndex, key: &mut Vec<u64>) {
        key.extend(cx.pod.class.images().iter().map(|i| cx.nodes.image_size(node, *i).cast_unsigned()));
    }

    /// Images that no node has tell no nodes apart.
    fn pre_score(&self, cx: CycleContext<'_>, _: &[NodeScore]) -> PreScore {
        let known = cx.pod.class.images().iter().any(|i| cx.nodes.image_nodes(*i) > 0);
        if known { PreScore::Continue(None) } else { PreScore::Skip }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "sizes of images are far below 2^53, and upstream counts in doubles"
    )]
    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let images = cx.pod.class.images();
        let nodes = cx.nodes.len() as f64;
        let sizes = images.iter().map(|image| {
            let spread = f64::from(cx.nodes.image_nodes(*image)) / nodes;
            (cx.nodes.image_size(node, *image) as f64 * spread) as i64
        });
        let most = SIZE_MAX * i64::try_from(images.len().max(1)).unwrap_or(1);
        let sum = sizes.sum::<i64>().clamp(SIZE_MIN, most);
        MAX_NODE_SCORE * (sum - SIZE_MIN) / (most - SIZE_MIN)
    }
}
