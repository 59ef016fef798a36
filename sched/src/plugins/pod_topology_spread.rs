//! PodTopologySpread: pods of a kind spread evenly over zones, nodes or whatever a label tells apart.
//!
//! The matching pods of each domain are counted once, when a class of pods is first seen, and then by the rows that change.

use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{
    CycleContext, Locality, MAX_NODE_SCORE, NodeScore, Plugin, Points, PreFilter, PreScore, State, Touched,
    Verdict,
};
use crate::intern::Symbol;
use crate::labels::Selector;
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::{Effect, PodInfo};
use crate::terms::SpreadConstraint;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// How many classes of placed pods are remembered.
const KNOWN_MAX: usize = 8192;
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const SKEWED: &str = "node(s) didn't match pod topology spread constraints";

/// A constraint for pods that have none of their own; which pods are counted follows from the services and controllers of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultConstraint {
    /// How far apart the counts of two domains may be.
    pub max_skew: i64,
    /// The topology key.
    pub key: String,
    /// Whether it filters or scores.
    pub hard: bool,
}

/// Where constraints come from for pods that have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Defaulting {
    /// Upstream's: over nodes by 3 and zones by 5, scored only, and zones may be missing.
    #[default]
    System,
    /// These.
    List(Vec<DefaultConstraint>),
}

/// Filters and scores by how evenly pods are spread.
#[derive(Clone, Debug, Default)]
pub struct PodTopologySpread {
    /// What pods without constraints get.
    pub defaulting: Defaulting,
}

/// The pods of one domain.
#[derive(Debug, Default)]
struct Domain {
    matching: i64,
    /// How many nodes of it are counted.
    nodes: u32,
    /// Its rows, where cells are made by count.
    rows: Vec<NodeIndex>,
}

/// What one row brings in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    value: Option<Symbol>,
    counted: bool,
    matching: i64,
}

/// A constraint with its counts.
#[derive(Debug)]
struct Tracked {
    constraint: SpreadConstraint,
    /// Whether the selector matches the pod itself.
    matches_self: bool,
    /// Whether nodes are told apart by the count of their domain instead of by domain.
    by_count: bool,
    /// Score counts the pods of the node, not of the domain, for host names.
    per_node: bool,
    domains: FxHashMap<Symbol, Domain>,
    /// How many domains have each count, and how many there are.
    counts: BTreeMap<i64, u32>,
    eligible: usize,
    shares: Vec<Share>,
    /// Which classes of placed pods match.
    known: FxHashMap<u32, bool>,
}

/// The state of a class.
#[derive(Debug)]
struct Spread {
    hard: Vec<Tracked>,
    soft: Vec<Tracked>,
    /// Whether nodes must have the labels of all soft constraints to be scored.
    require_all: bool,
    /// What a missing label counts as.
    none: Option<Symbol>,
}

/// What PreScore finds.
#[derive(Debug)]
struct Weights(Vec<f64>);

impl Tracked {
    fn new(constraint: SpreadConstraint, pod: &PodInfo, nodes: &NodeTable) -> Self {
        let per_node = !constraint.hard && nodes.symbols().text(constraint.key) == HOSTNAME;
        Tracked {
            matches_self: constraint.selector.matches(pod.class.labels()),
            by_count: per_node || (constraint.hard && nodes.is_fine(constraint.key)),
            per_node,
            domains: FxHashMap::default(),
            counts: BTreeMap::new(),
            eligible: 0,
            shares: Vec::new(),
            known: FxHashMap::default(),
            constraint,
        }
    }

    /// How many pods of the node match.
    fn matching_on(&mut self, pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) -> i64 {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        let mut matching = 0;
        for group in nodes.groups_on(node) {
            if group.terminating || group.class.namespace() != pod.class.namespace() {
                continue;
            }
            let selector = &self.constraint.selector;
            let known = self.known.entry(group.class.id);
            if *known.or_insert_with(|| selector.matches(group.class.labels())) {
                matching += i64::from(group.count);
            }
        }
        matching
    }

    fn counts_node(&self, pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) -> bool {
        (!self.constraint.honor_affinity || pod.demand().matches(nodes, node))
            && (!self.constraint.honor_taints || tolerates(pod, nodes, node))
    }

    fn refresh(
        &mut self,
        pod: &PodInfo,
        nodes: &NodeTable,
        node: NodeIndex,
        new: Share,
        touched: &mut Touched,
    ) {
        if self.shares.len() <= node.at() {
            self.shares.resize(nodes.rows().max(node.at() + 1), Share::default());
        }
        let mut new = new;
        if new.value.is_some() {
            new.matching = self.matching_on(pod, nodes, node);
        }
        let old = std::mem::replace(&mut self.shares[node.at()], new);
        if old == new {
            return;
        }
        self.account(node, old, -1, touched);
        self.account(node, new, 1, touched);
    }

    /// Takes a row's share in or out of its domain.
    fn account(&mut self, node: NodeIndex, share: Share, sign: i64, touched: &mut Touched) {
        let Some(value) = share.value else { return };
        let domain = self.domains.entry(value).or_default();
        let before = (domain.nodes, domain.matching);
        if self.by_count && !self.per_node {
            if sign > 0 {
                domain.rows.push(node);
            } else {
                domain.rows.retain(|row| *row != node);
            }
        }
        if share.counted {
            domain.matching += sign * share.matching;
            domain.nodes = domain.nodes.saturating_add_signed(if sign > 0 { 1 } else { -1 });
        }
        let after = (domain.nodes, domain.matching);
        if self.by_count && !self.per_node && before.1 != after.1 {
            touched.rows.extend(domain.rows.iter().filter(|row| **row != node));
        }
        if domain.nodes == 0 && domain.rows.is_empty() {
            self.domains.remove(&value);
        }
        if before.0 > 0 {
            self.eligible -= 1;
            drop_count(&mut self.counts, before.1);
        }
        if after.0 > 0 {
            self.eligible += 1;
            *self.counts.entry(after.1).or_default() += 1;
        }
    }

    fn matching(&self, value: Symbol) -> i64 {
        self.domains.get(&value).map_or(0, |d| d.matching)
    }

    /// The smallest count of a domain; 0 while there are too few domains.
    fn smallest(&self) -> i64 {
        if self.eligible < self.constraint.min_domains {
            return 0;
        }
        self.counts.first_key_value().map_or(i64::from(i32::MAX), |(count, _)| *count)
    }
}

fn drop_count(counts: &mut BTreeMap<i64, u32>, count: i64) {
    if let Some(n) = counts.get_mut(&count) {
        *n -= 1;
        if *n == 0 {
            counts.remove(&count);
        }
    }
}

fn tolerates(pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) -> bool {
    nodes.taints(node).iter().all(|taint| {
        taint.effect == Effect::PreferNoSchedule || pod.tolerances().iter().any(|t| t.tolerates(taint))
    })
}

/// The pods that a pod's services and controller select, as upstream finds them out; `None` where there is nothing to go by.
fn default_selector(pod: &PodInfo, nodes: &NodeTable) -> Option<Selector> {
    let class = &pod.class;
    let mut selector = Selector::default();
    for service in nodes.objects.services(class.namespace()) {
        if service.iter().all(|pair| class.labels().contains(pair)) {
            service.iter().for_each(|(key, value)| selector.require(*key, *value, true));
        }
    }
    let owner = class.owner();
    if let Some(other) = nodes.objects.controller(&owner.kind, class.namespace(), &owner.name) {
        selector.require_all(other);
    }
    (!selector.is_empty()).then_some(selector)
}

impl PodTopologySpread {
    fn constraints(&self, pod: &PodInfo, nodes: &NodeTable) -> Vec<SpreadConstraint> {
        if !pod.class.spread().is_empty() {
            return pod.class.spread().to_vec();
        }
        let system = [(3, HOSTNAME), (5, ZONE)];
        let list: Vec<(i64, &str, bool)> = match &self.defaulting {
            Defaulting::System => system.iter().map(|(skew, key)| (*skew, *key, false)).collect(),
            Defaulting::List(list) => list.iter().map(|c| (c.max_skew, c.key.as_str(), c.hard)).collect(),
        };
        let Some(selector) = default_selector(pod, nodes) else { return Vec::new() };
        let symbols = nodes.symbols();
        // A key that no node has is not interned, and then no node has the label.
        let constraints = list.iter().filter_map(|(max_skew, key, hard)| {
            Some(SpreadConstraint {
                max_skew: *max_skew,
                key: symbols.get(key)?,
                hard: *hard,
                selector: selector.clone(),
                min_domains: 1,
                honor_affinity: true,
                honor_taints: false,
            })
        });
        constraints.collect()
    }
}

impl Spread {
    fn refresh(&mut self, pod: &PodInfo, nodes: &NodeTable, node: NodeIndex, touched: &mut Touched) {
        let present = nodes.present().contains(node.at());
        let all = |list: &[Tracked]| list.iter().all(|t| nodes.label(node, t.constraint.key).is_some());
        let (hard_all, soft_all) = (all(&self.hard), !self.require_all || all(&self.soft));
        let none = self.none;
        for (tracked, whole, none) in self
            .hard
            .iter_mut()
            .map(|t| (t, hard_all, None))
            .chain(self.soft.iter_mut().map(|t| (t, soft_all, none)))
        {
            let value = nodes.label(node, tracked.constraint.key).or(none).filter(|_| present);
            let counted = value.is_some() && whole && tracked.counts_node(pod, nodes, node);
            tracked.refresh(pod, nodes, node, Share { value, counted, matching: 0 }, touched);
        }
    }

    /// Whether the node has no label for some soft constraint and is therefore not scored.
    fn is_ignored(&self, nodes: &NodeTable, node: NodeIndex) -> bool {
        self.require_all && self.soft.iter().any(|t| nodes.label(node, t.constraint.key).is_none())
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER | Points::PRE_SCORE | Points::SCORE
    }

    fn locality(&self) -> Locality {
        Locality::Domain
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        let constraints = self.constraints(cx.pod, cx.nodes);
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        let require_all = !cx.pod.class.spread().is_empty() || self.defaulting != Defaulting::System;
        let none = if require_all { None } else { cx.nodes.symbols().get("") };
        let mut state = Spread { hard: Vec::new(), soft: Vec::new(), require_all, none };
        for constraint in constraints {
            let tracked = Tracked::new(constraint, cx.pod, cx.nodes);
            if tracked.constraint.hard { &mut state.hard } else { &mut state.soft }.push(tracked);
        }
        PreFilter::Continue(Some(Box::new(state)))
    }

    fn refresh(
        &self,
        pod: &PodInfo,
        nodes: &NodeTable,
        state: &mut State,
        node: NodeIndex,
        touched: &mut Touched,
    ) {
        if let Some(spread) = state.downcast_mut::<Spread>() {
            spread.refresh(pod, nodes, node, touched);
        }
    }

    fn cell(&self, cx: CycleContext<'_>, node: NodeIndex, key: &mut Vec<u64>) {
        let Some(spread) = cx.state::<Spread>() else { return };
        for tracked in spread.hard.iter().chain(&spread.soft) {
            let share = tracked.shares.get(node.at()).copied().unwrap_or_default();
            let has = cx.nodes.label(node, tracked.constraint.key);
            key.push(match (has, tracked.per_node, tracked.by_count) {
                (None, ..) => u64::MAX,
                (Some(_), true, _) => share.matching.cast_unsigned(),
                (Some(value), false, true) => tracked.matching(value).cast_unsigned(),
                (Some(value), false, false) => u64::from(value.number()),
            });
        }
    }

    fn accepts_all(&self, state: Option<&State>) -> bool {
        state.and_then(|s| s.downcast_ref::<Spread>()).is_none_or(|s| s.hard.is_empty())
    }

    fn watches(&self, pod: &PodInfo) -> Watched {
        match &self.defaulting {
            _ if !pod.class.spread().is_empty() => Watched::NOTHING,
            Defaulting::System => Watched::SELECTORS,
            // A node may bring the first label of a key.
            Defaulting::List(_) => Watched::SELECTORS | Watched::NODES,
        }
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let Some(spread) = cx.state::<Spread>() else { return Ok(()) };
        for tracked in &spread.hard {
            let Some(value) = cx.nodes.label(node, tracked.constraint.key) else {
                return Err(Refusal::unresolvable(MISSING_LABEL));
            };
            let skew = tracked.matching(value) + i64::from(tracked.matches_self) - tracked.smallest();
            if skew > tracked.constraint.max_skew {
                return Err(Refusal::new(SKEWED));
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of nodes are small")]
    fn pre_score(&self, cx: CycleContext<'_>, feasible: &[NodeScore]) -> PreScore {
        let Some(spread) = cx.state::<Spread>().filter(|s| !s.soft.is_empty()) else { return PreScore::Skip };
        let scored: Vec<&NodeScore> =
            feasible.iter().filter(|s| !spread.is_ignored(cx.nodes, s.node)).collect();
        let nodes: u64 = scored.iter().map(|s| u64::from(s.nodes)).sum();
        let size = |tracked: &Tracked| -> u64 {
            if tracked.per_node {
                return nodes;
            }
            let values = scored.iter().map(|s| cx.nodes.label(s.node, tracked.constraint.key));
            values.collect::<FxHashSet<_>>().len() as u64
        };
        let weights = spread.soft.iter().map(|t| ((size(t) + 2) as f64).ln()).collect();
        PreScore::Continue(Some(Box::new(Weights(weights))))
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts of pods are small"
    )]
    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let (Some(spread), Some(Weights(weights))) = (cx.state::<Spread>(), cx.state::<Weights>()) else {
            return 0;
        };
        if spread.is_ignored(cx.nodes, node) {
            return 0;
        }
        let mut score = 0.0;
        for (tracked, weight) in spread.soft.iter().zip(weights) {
            let Some(value) = cx.nodes.label(node, tracked.constraint.key) else { continue };
            let on_node = || tracked.shares.get(node.at()).map_or(0, |share| share.matching);
            let matching = if tracked.per_node { on_node() } else { tracked.matching(value) };
            score += matching as f64 * weight + (tracked.constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, cx: CycleContext<'_>, scores: &mut [NodeScore]) {
        let Some(spread) = cx.state::<Spread>() else { return };
        let scored = || scores.iter().filter(|s| !spread.is_ignored(cx.nodes, s.node)).map(|s| s.score);
        let (min, max) = (scored().min().unwrap_or(0), scored().max().unwrap_or(0).max(0));
        for entry in scores {
            entry.score = if spread.is_ignored(cx.nodes, entry.node) {
                0
            } else if max == 0 {
                MAX_NODE_SCORE
            } else {
                MAX_NODE_SCORE * (max + min - entry.score) / max
            };
        }
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        let counted = |other: &PodInfo| {
            other.class.namespace() == pod.class.namespace()
                && self.constraints(pod, nodes).iter().any(|c| c.selector.matches(other.class.labels()))
        };
        let helps = match event {
            ClusterEvent::Node(_, change) => change.added || change.labels || change.taints,
            ClusterEvent::NodeDeleted(_) | ClusterEvent::PodChanged => true,
            ClusterEvent::PodPlaced(other) | ClusterEvent::PodGone(other, _) => counted(other),
            ClusterEvent::Other(_) => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
