//! PrioritySort: the higher priority first, then the one that waits longer.

use crate::framework::{Plugin, Points};
use crate::queue::QueuedPod;
use std::cmp::Ordering;

/// Orders the queue by `spec.priority`, then by arrival.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn points(&self) -> Points {
        Points::QUEUE_SORT
    }

    fn queue_sort(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        b.info.priority().cmp(&a.info.priority()).then(a.added.cmp(&b.added))
    }
}
