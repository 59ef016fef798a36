//! The scheduling framework: upstream's extension points under their own names, as one trait of pure functions.
//!
//! A plugin never does I/O. Where upstream's plugin would write to the API (PreBind, Bind), ours gives back the request, and the
//! caller of the scheduler sends it.

use crate::cluster::ClusterObject;
use crate::diagnosis::{Diagnosis, NodeRefusal, Refusal};
use crate::events::{ClusterEvent, Hint};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{PodInfo, PodKey};
use crate::queue::QueuedPod;
use fixedbitset::FixedBitSet;
use kubewright_core::ApiRequest;
use std::any::Any;
use std::cmp::Ordering;
use std::ops::BitOr;
use std::sync::Arc;
use std::time::Duration;

/// The highest score of a node after normalizing.
pub const MAX_NODE_SCORE: i64 = 100;

/// A set of extension points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points(u16);

impl Points {
    /// Whether a pod may enter the active queue.
    pub const PRE_ENQUEUE: Points = Points(1);
    /// The order of the queue.
    pub const QUEUE_SORT: Points = Points(1 << 1);
    /// Once a cycle, before nodes are looked at.
    pub const PRE_FILTER: Points = Points(1 << 2);
    /// Whether a node will do.
    pub const FILTER: Points = Points(1 << 3);
    /// When no node will do.
    pub const POST_FILTER: Points = Points(1 << 4);
    /// Once a cycle, before nodes are scored.
    pub const PRE_SCORE: Points = Points(1 << 5);
    /// How good a node is.
    pub const SCORE: Points = Points(1 << 6);
    /// When a node was chosen.
    pub const RESERVE: Points = Points(1 << 7);
    /// Whether to go on at once, wait or give up.
    pub const PERMIT: Points = Points(1 << 8);
    /// What must be written before binding.
    pub const PRE_BIND: Points = Points(1 << 9);
    /// How to bind.
    pub const BIND: Points = Points(1 << 10);
    /// After binding.
    pub const POST_BIND: Points = Points(1 << 11);

    /// No point.
    pub const NONE: Points = Points(0);
    /// All points.
    pub const ALL: Points = Points((1 << 12) - 1);

    /// This set without another's points.
    #[must_use]
    pub fn without(self, other: Points) -> Points {
        Points(self.0 & !other.0)
    }

    /// The points that are in both.
    #[must_use]
    pub fn and(self, other: Points) -> Points {
        Points(self.0 & other.0)
    }

    /// Whether all points of `other` are in this set.
    pub fn contains(self, other: Points) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Points {
    type Output = Points;

    fn bitor(self, other: Points) -> Points {
        Points(self.0 | other.0)
    }
}

/// What a plugin's verdicts and scores of one node depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// On the pod's class and that node's row alone: verdicts and scores are kept until the row changes.
    Node,
    /// On other nodes too, but nodes with the same [`Plugin::cell`] are alike at any moment: asked anew in each cycle, once a cell.
    /// PreFilter makes the state when a class of pods is first seen, [`Plugin::refresh`] keeps it up to date row by row.
    Domain,
    /// On anything: PreFilter is called in each cycle, and each node is asked anew.
    Cluster,
}

/// Rows whose cell changed as a consequence of another row's change.
#[derive(Debug, Default)]
pub struct Touched {
    /// These rows.
    pub rows: Vec<NodeIndex>,
    /// Every row: the shape of the cells' keys changed.
    pub all: bool,
}

/// A node's score, or that of several nodes that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeScore {
    /// The node, or one of them.
    pub node: NodeIndex,
    /// How many nodes it stands for.
    pub nodes: u32,
    /// The score.
    pub score: i64,
}

/// What PreFilter and PreScore leave for the calls after them.
pub type State = Box<dyn Any + Send + Sync>;

/// What PreFilter says.
pub enum PreFilter {
    /// Go on; the state is handed to Filter and Score of the same plugin.
    Continue(Option<State>),
    /// Only these nodes can do.
    Restrict(FixedBitSet, Option<State>),
    /// Nothing to filter for this pod: Filter of this plugin is left out.
    Skip,
    /// No node will do.
    Refuse(Refusal),
}

/// What PreScore says.
pub enum PreScore {
    /// Go on; Score sees this state beside PreFilter's (of another type).
    Continue(Option<State>),
    /// Nothing to score for this pod: Score of this plugin is left out.
    Skip,
}

/// What Filter says of a node.
pub type Verdict = Result<(), Refusal>;

/// What PostFilter says.
#[derive(Clone, Debug)]
pub enum PostFilter {
    /// It can't help; what the message of the failed try shall end with.
    Nothing(String),
    /// These requests, sent in order, may make a later try succeed; the plugins after this one are asked as well.
    Request {
        /// The requests.
        requests: Vec<ApiRequest>,
        /// What the message of the failed try shall end with.
        message: String,
    },
    /// Once these pods are gone from this node, the pod will fit there.
    Nominate {
        /// The node.
        node: NodeIndex,
        /// The pods to evict.
        victims: Vec<PodKey>,
    },
}

/// What Permit says.
#[derive(Clone, Debug, PartialEq)]
pub enum Permit {
    /// Bind now.
    Allow,
    /// Hold the pod until it is allowed or refused by [`crate::Scheduler::allow`] / [`crate::Scheduler::refuse`], at most so long.
    Wait(Duration),
    /// Give up this try.
    Refuse(Refusal),
}

/// What a PostFilter plugin may do: look at what refused each node, and try what would be if pods were gone.
pub trait Trial {
    /// The nodes that changed after a count of changes, each with whether removing pods may lift what refuses it; and whether the list
    /// names all such nodes anew, so that what was known is void. 0 asks for all.
    fn resolvable_since(&self, generation: u64) -> (bool, Vec<(NodeIndex, bool)>);

    /// Whether verdicts of one node depend on that node alone, so that what was found out stays true until its row changes.
    fn is_local(&self) -> bool;

    /// All nodes, with what was tried in place.
    fn nodes(&self) -> &NodeTable;

    /// Takes a pod off a node, for the trial.
    fn remove(&mut self, pod: &Arc<PodInfo>, node: NodeIndex);

    /// Puts it back.
    fn add(&mut self, pod: &Arc<PodInfo>, node: NodeIndex);

    /// Whether all filters accept the node as it is now in the trial, with the pods nominated to it that come first.
    ///
    /// # Errors
    /// What refuses it.
    fn fits(&mut self, node: NodeIndex) -> Result<(), NodeRefusal>;

    /// How many of its candidates the plugin shall tell of in `Considered::candidates`, the best first; others have a say then.
    fn candidates_wanted(&self) -> usize;

    /// What the plugin keeps for this class of pods between tries.
    fn memory(&mut self) -> &mut Option<State>;
}

/// What a plugin sees in a cycle.
#[derive(Clone, Copy)]
pub struct CycleContext<'a> {
    /// The pod.
    pub pod: &'a PodInfo,
    /// All nodes, with what is placed on them.
    pub nodes: &'a NodeTable,
    /// What this plugin's PreFilter left.
    state: Option<&'a State>,
    /// What its PreScore left.
    score_state: Option<&'a State>,
}

impl<'a> CycleContext<'a> {
    pub(crate) fn new(pod: &'a PodInfo, nodes: &'a NodeTable, state: Option<&'a State>) -> Self {
        CycleContext { pod, nodes, state, score_state: None }
    }

    pub(crate) fn with_score_state(self, score_state: Option<&'a State>) -> Self {
        CycleContext { score_state, ..self }
    }

    /// The state of type `T` that this plugin's PreScore or PreFilter left.
    pub fn state<T: 'static>(&self) -> Option<&'a T> {
        let of = |state: Option<&'a State>| state.and_then(|s| s.downcast_ref());
        of(self.score_state).or_else(|| of(self.state))
    }
}

/// A change that plugins with an index of their own follow.
#[derive(Clone, Copy, Debug)]
pub enum TableChange<'a> {
    /// The row's node came, changed or went.
    Node(NodeIndex),
    /// The pod was placed on the node (assumed or seen).
    Placed(&'a Arc<PodInfo>, NodeIndex),
    /// The pod is off the node.
    Unplaced(&'a Arc<PodInfo>, NodeIndex),
    /// An object beyond nodes and pods came or changed.
    Object(&'a ClusterObject),
    /// It went.
    ObjectGone(&'a ClusterObject),
}

/// A scheduler plugin. It is called at the points that it names; the default bodies of the others are never called.
///
/// ```
/// use kubewright_sched::framework::{CycleContext, Plugin, Points};
/// use kubewright_sched::NodeIndex;
///
/// /// Prefers nodes with few pods.
/// struct FewPods;
///
/// impl Plugin for FewPods {
///     fn name(&self) -> &'static str {
///         "FewPods"
///     }
///     fn points(&self) -> Points {
///         Points::SCORE
///     }
///     fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
///         100 - cx.nodes.pod_count(node).min(100) as i64
///     }
/// }
/// ```
pub trait Plugin: Send + Sync + 'static {
    /// Its name, as it stands in messages and configuration.
    fn name(&self) -> &'static str;

    /// Where it wants to be called.
    fn points(&self) -> Points;

    /// What its Filter and Score depend on.
    fn locality(&self) -> Locality {
        Locality::Node
    }

    /// PreEnqueue: whether the pod may be tried at all; asked again when the pod changes.
    ///
    /// # Errors
    /// Why not; the pod is held without back-off.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Refusal> {
        let _ = pod;
        Ok(())
    }

    /// QueueSort: `Less` where `a` comes first. Exactly one plugin of a scheduler has this point.
    fn queue_sort(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        let _ = (a, b);
        Ordering::Equal
    }

    /// PreFilter.
    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        let _ = cx;
        PreFilter::Continue(None)
    }

    /// Filter.
    ///
    /// # Errors
    /// Why the node won't do.
    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let _ = (cx, node);
        Ok(())
    }

    /// For [`Locality::Domain`]: brings the state that PreFilter left up to date with a row that changed, came or went, and names the
    /// other rows whose cell changed by that.
    fn refresh(
        &self,
        pod: &PodInfo,
        nodes: &NodeTable,
        state: &mut State,
        node: NodeIndex,
        touched: &mut Touched,
    ) {
        let _ = (pod, nodes, state, node, touched);
    }

    /// For [`Locality::Domain`]: writes numbers that are the same for two nodes only if Filter and Score can't tell them apart.
    fn cell(&self, cx: CycleContext<'_>, node: NodeIndex, key: &mut Vec<u64>) {
        let _ = cx;
        key.push(u64::from(node.0));
    }

    /// For [`Locality::Domain`]: whether for this class Filter accepts every node as things are; asked again when every row was touched.
    fn accepts_all(&self, state: Option<&State>) -> bool {
        let _ = state;
        false
    }

    /// The objects beyond nodes and pods that its state for this pod is made from: when one changes, the state is made anew.
    fn watches(&self, pod: &PodInfo) -> Watched {
        let _ = pod;
        Watched::NOTHING
    }

    /// PostFilter.
    fn post_filter(&self, pod: &PodInfo, diagnosis: &mut Diagnosis, trial: &mut dyn Trial) -> PostFilter {
        let _ = (pod, diagnosis, trial);
        PostFilter::Nothing(String::new())
    }

    /// PreScore, with the nodes that passed (alike nodes as one entry; their scores are 0 yet).
    fn pre_score(&self, cx: CycleContext<'_>, feasible: &[NodeScore]) -> PreScore {
        let _ = (cx, feasible);
        PreScore::Continue(None)
    }

    /// Score: any number; 0 to [`MAX_NODE_SCORE`] where there is no NormalizeScore.
    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let _ = (cx, node);
        0
    }

    /// Whether it has a NormalizeScore.
    fn normalizes(&self) -> bool {
        false
    }

    /// NormalizeScore: brings the scores of the feasible nodes into 0 to [`MAX_NODE_SCORE`].
    fn normalize(&self, cx: CycleContext<'_>, scores: &mut [NodeScore]) {
        let _ = (cx, scores);
    }

    /// Reserve: the node was chosen.
    ///
    /// # Errors
    /// Why it can't be had; [`Plugin::unreserve`] is then called on all plugins.
    fn reserve(&mut self, cx: CycleContext<'_>, node: NodeIndex) -> Result<(), Refusal> {
        let _ = (cx, node);
        Ok(())
    }

    /// Unreserve: the try ended without a binding. Must be idempotent, and may come without a reserve.
    fn unreserve(&mut self, pod: &PodInfo, node: NodeIndex) {
        let _ = (pod, node);
    }

    /// Permit.
    fn permit(&self, cx: CycleContext<'_>, node: NodeIndex) -> Permit {
        let _ = (cx, node);
        Permit::Allow
    }

    /// Pods that Permit held and that may go on now; asked after a Reserve of this plugin.
    fn released(&mut self) -> Vec<PodKey> {
        Vec::new()
    }

    /// Pods that have a place and shall give it back; asked after an Unreserve of this plugin.
    fn abandoned(&mut self) -> Vec<PodKey> {
        Vec::new()
    }

    /// PreBind: requests to be sent, in order, before the binding.
    ///
    /// # Errors
    /// Why the pod can't be bound.
    fn pre_bind(&self, cx: CycleContext<'_>, node: NodeIndex) -> Result<Vec<ApiRequest>, Refusal> {
        let _ = (cx, node);
        Ok(Vec::new())
    }

    /// Whether what PreBind's requests asked others for has come, so that the pod can be bound. Asked when the requests were sent, and
    /// again when any object changes; a plugin that names [`Points::PRE_BIND`] alone is asked.
    ///
    /// # Errors
    /// Why it will never come: the pod gives its place back and is tried again.
    fn is_prepared(&self, cx: CycleContext<'_>, node: NodeIndex) -> Result<bool, Refusal> {
        let _ = (cx, node);
        Ok(true)
    }

    /// Requests that take back what PreBind's requests brought about, where [`Plugin::is_prepared`] failed or took too long: sent in
    /// order, nothing depends on their answers. A plugin that names [`Points::PRE_BIND`] alone is asked.
    fn withdraw(&self, cx: CycleContext<'_>) -> Vec<ApiRequest> {
        let _ = cx;
        Vec::new()
    }

    /// How long a pod that gave its place back waits at least before the next try, where its own back-off is shorter.
    fn back_off(&self, pod: &PodInfo) -> Option<Duration> {
        let _ = pod;
        None
    }

    /// Bind: the request that binds the pod; `None` leaves it to the next plugin.
    fn bind(&self, cx: CycleContext<'_>, node: NodeIndex) -> Option<ApiRequest> {
        let _ = (cx, node);
        None
    }

    /// PostBind: the pod is bound.
    fn post_bind(&mut self, pod: &PodInfo, node: &str) {
        let _ = (pod, node);
    }

    /// Queueing hint: whether this event may make a pod schedulable that this plugin refused.
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        let _ = (pod, event, nodes);
        Hint::Queue
    }

    /// Keeps the plugin's own index up to date.
    fn observe(&mut self, change: TableChange<'_>, nodes: &NodeTable) {
        let _ = (change, nodes);
    }
}

/// Brings scores into 0 to [`MAX_NODE_SCORE`] by their largest one; `reverse` makes the largest the worst.
pub fn normalize_by_max(scores: &mut [NodeScore], reverse: bool) {
    let max = scores.iter().map(|s| s.score).max().unwrap_or(0);
    for entry in scores {
        if max == 0 {
            if reverse {
                entry.score = MAX_NODE_SCORE;
            }
            continue;
        }
        let score = MAX_NODE_SCORE * entry.score / max;
        entry.score = if reverse { MAX_NODE_SCORE - score } else { score };
    }
}
