//! ElasticQuota: each namespace is sure of its minimum and may borrow what others leave unused, up to its maximum. Not upstream's; off unless
//! added to a profile.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{CycleContext, Locality, Plugin, Points, TableChange, Verdict};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::PodInfo;
use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};

/// Amounts of CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Millicores.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
}

impl Amounts {
    fn of(pod: &PodInfo) -> Self {
        let requests = &pod.requests().requests;
        Amounts { milli_cpu: requests.milli_cpu, memory: requests.memory }
    }

    fn plus(self, other: Amounts, sign: i64) -> Self {
        Amounts {
            milli_cpu: self.milli_cpu + sign * other.milli_cpu,
            memory: self.memory + sign * other.memory,
        }
    }

    fn within(self, limit: Amounts) -> bool {
        self.milli_cpu <= limit.milli_cpu && self.memory <= limit.memory
    }
}

/// What a namespace gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Sure to be had.
    pub min: Amounts,
    /// Never exceeded.
    pub max: Amounts,
}

/// Refuses pods over their namespace's quota. Namespaces without one are free.
#[derive(Debug, Default)]
pub struct ElasticQuota {
    quotas: FxHashMap<SmolStr, Quota>,
    used: FxHashMap<SmolStr, Amounts>,
}

impl ElasticQuota {
    /// Quotas by namespace.
    pub fn new(quotas: impl IntoIterator<Item = (SmolStr, Quota)>) -> Self {
        ElasticQuota { quotas: quotas.into_iter().collect(), used: FxHashMap::default() }
    }

    /// What the pods of a namespace use now.
    pub fn used(&self, namespace: &str) -> Amounts {
        self.used.get(namespace).copied().unwrap_or_default()
    }

    fn judge(&self, pod: &PodInfo) -> Verdict {
        let namespace = &pod.key.namespace;
        let Some(quota) = self.quotas.get(namespace) else { return Ok(()) };
        let wanted = self.used(namespace).plus(Amounts::of(pod), 1);
        if !wanted.within(quota.max) {
            return Err(Refusal::unresolvable(format_smolstr!(
                "namespace {namespace} would exceed its maximum quota"
            )));
        }
        if wanted.within(quota.min) {
            return Ok(());
        }
        // Borrowing: what all use may not exceed what all are sure of.
        let (mut used, mut sure) = (Amounts::of(pod), Amounts::default());
        for (name, quota) in &self.quotas {
            used = used.plus(self.used(name), 1);
            sure = sure.plus(quota.min, 1);
        }
        if used.within(sure) {
            return Ok(());
        }
        Err(Refusal::unresolvable(format_smolstr!(
            "namespace {namespace} can't borrow more quota from others"
        )))
    }
}

impl Plugin for ElasticQuota {
    fn name(&self) -> &'static str {
        "ElasticQuota"
    }

    fn points(&self) -> Points {
        Points::FILTER
    }

    /// All nodes are alike, but what is used changes with every pod.
    fn locality(&self) -> Locality {
        Locality::Domain
    }

    fn cell(&self, _: CycleContext<'_>, _: NodeIndex, _: &mut Vec<u64>) {}

    fn filter(&self, cx: CycleContext<'_>, _: NodeIndex) -> Verdict {
        self.judge(cx.pod)
    }

    fn hint(&self, _: &PodInfo, event: &ClusterEvent, _: &NodeTable) -> Hint {
        if matches!(event, ClusterEvent::PodGone(..) | ClusterEvent::PodChanged) {
            Hint::Queue
        } else {
            Hint::Skip
        }
    }

    fn observe(&mut self, change: TableChange<'_>, _: &NodeTable) {
        let (pod, sign) = match change {
            TableChange::Placed(pod, _) => (pod, 1),
            TableChange::Unplaced(pod, _) => (pod, -1),
            TableChange::Node(_) | TableChange::Object(_) | TableChange::ObjectGone(_) => return,
        };
        let used = self.used.entry(pod.key.namespace.clone()).or_default();
        *used = used.plus(Amounts::of(pod), sign);
    }
}
