//! Gang: the pods of a group are bound all together or not at all. Not upstream's; off unless added to a profile.
//!
//! A pod belongs to a group by the label `scheduling.kubewright.dev/group`; the annotation `scheduling.kubewright.dev/group-size` says how
//! many must have a place before any is bound. Members that have one hold it until then. When time runs out for one, all give theirs back and
//! are left alone for a while, longer each time, so that another group can have the room meanwhile.

use crate::diagnosis::Refusal;
use crate::framework::{CycleContext, Permit, Plugin, Points, TableChange};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::{PodInfo, PodKey};
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;
use std::time::Duration;

/// The label that names a pod's group.
pub const GROUP_LABEL: &str = "scheduling.kubewright.dev/group";
/// The annotation that says how many members must have a place.
pub const SIZE_ANNOTATION: &str = "scheduling.kubewright.dev/group-size";

/// After the first time that a group gave its places back; doubled with each further one.
const BACK_OFF: Duration = Duration::from_secs(10);
/// At most.
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Groups that gave up and have no member any more are forgotten when there are more than this.
const GROUPS_MAX: usize = 4096;

/// A group of a namespace.
type GroupKey = (SmolStr, SmolStr);

#[derive(Debug, Default)]
struct Group {
    /// Members that have a place and are not bound yet.
    holding: FxHashSet<PodKey>,
    /// Members that are bound.
    bound: FxHashSet<PodKey>,
    /// How often in a row it gave its places back.
    failures: u32,
}

impl Group {
    fn is_idle(&self) -> bool {
        self.holding.is_empty() && self.bound.is_empty()
    }
}

/// Holds the members of a group until enough have a place.
#[derive(Debug)]
pub struct Gang {
    /// How long a member holds its place at most.
    pub timeout: Duration,
    groups: FxHashMap<GroupKey, Group>,
    released: Vec<PodKey>,
    abandoned: Vec<PodKey>,
}

impl Default for Gang {
    fn default() -> Self {
        Gang::new(Duration::from_secs(60))
    }
}

impl Gang {
    /// Members hold their place for this long at most.
    pub fn new(timeout: Duration) -> Self {
        Gang { timeout, groups: FxHashMap::default(), released: Vec::new(), abandoned: Vec::new() }
    }
}

/// The pod's group with its size; `None` for a pod on its own.
fn group_of(pod: &PodInfo) -> Option<(GroupKey, usize)> {
    let meta = &pod.pod.as_ref()?.metadata;
    let name = meta.labels.as_ref()?.get(GROUP_LABEL)?;
    let size = meta.annotations.as_ref()?.get(SIZE_ANNOTATION)?.parse().ok()?;
    Some(((pod.key.namespace.clone(), name.into()), size))
}

impl Plugin for Gang {
    fn name(&self) -> &'static str {
        "Gang"
    }

    fn points(&self) -> Points {
        Points::RESERVE | Points::PERMIT | Points::POST_BIND
    }

    fn reserve(&mut self, cx: CycleContext<'_>, _: NodeIndex) -> Result<(), Refusal> {
        let Some((key, size)) = group_of(cx.pod) else { return Ok(()) };
        let group = self.groups.entry(key).or_default();
        group.holding.insert(cx.pod.key.clone());
        if group.holding.len() + group.bound.len() >= size {
            let mut others: Vec<PodKey> =
                group.holding.iter().filter(|k| **k != cx.pod.key).cloned().collect();
            others.sort_unstable();
            self.released.extend(others);
        }
        Ok(())
    }

    fn unreserve(&mut self, pod: &PodInfo, _: NodeIndex) {
        let Some((key, size)) = group_of(pod) else { return };
        let Some(group) = self.groups.get_mut(&key) else { return };
        // Giving up a member that was about to be bound does not undo the others.
        if group.holding.remove(&pod.key) && group.holding.len() + group.bound.len() + 1 < size {
            let mut others: Vec<PodKey> = group.holding.drain().collect();
            others.sort_unstable();
            self.abandoned.extend(others);
            group.failures += 1;
        }
        if group.is_idle() && (group.failures == 0 || self.groups.len() > GROUPS_MAX) {
            self.groups.remove(&key);
        }
    }

    fn permit(&self, cx: CycleContext<'_>, _: NodeIndex) -> Permit {
        let Some((key, size)) = group_of(cx.pod) else { return Permit::Allow };
        let enough = self.groups.get(&key).is_some_and(|g| g.holding.len() + g.bound.len() >= size);
        if enough { Permit::Allow } else { Permit::Wait(self.timeout) }
    }

    fn post_bind(&mut self, pod: &PodInfo, _: &str) {
        if let Some((key, _)) = group_of(pod)
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.holding.remove(&pod.key);
            group.bound.insert(pod.key.clone());
            group.failures = 0;
        }
    }

    fn back_off(&self, pod: &PodInfo) -> Option<Duration> {
        let (key, _) = group_of(pod)?;
        let failures = self.groups.get(&key).map(|g| g.failures).filter(|n| *n > 0)?;
        Some(BACK_OFF.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(BACK_OFF_MAX))
    }

    /// A member that is gone from its node counts no more.
    fn observe(&mut self, change: TableChange<'_>, _: &NodeTable) {
        match change {
            TableChange::Placed(pod, _) if pod.node_name().is_some() => {
                if let Some((key, _)) = group_of(pod) {
                    self.groups.entry(key).or_default().bound.insert(pod.key.clone());
                }
            }
            TableChange::Unplaced(pod, _) => {
                if let Some((key, _)) = group_of(pod)
                    && let Some(group) = self.groups.get_mut(&key)
                    && group.bound.remove(&pod.key)
                    && group.is_idle()
                {
                    self.groups.remove(&key);
                }
            }
            _ => {}
        }
    }

    fn released(&mut self) -> Vec<PodKey> {
        std::mem::take(&mut self.released)
    }

    fn abandoned(&mut self) -> Vec<PodKey> {
        std::mem::take(&mut self.abandoned)
    }
}
