//! InterPodAffinity: pods that must or should be near others, or away from them.
//!
//! What the pods of each node bring in is counted by topology value, once when a class of pods is first seen, and then by the rows
//! that change. Pods of one class bring in the same.

use crate::class::PodClass;
use crate::diagnosis::Refusal;
use crate::events::{ClusterEvent, Hint};
use crate::framework::{
    CycleContext, Locality, MAX_NODE_SCORE, NodeScore, Plugin, Points, PreFilter, PreScore, State, Touched,
    Verdict,
};
use crate::intern::Symbol;
use crate::node::{NodeIndex, NodeTable};
use crate::objects::{Objects, Watched};
use crate::pod::PodInfo;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// How many classes of placed pods are remembered.
const KNOWN_MAX: usize = 8192;
const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const TOO_NEAR: &str = "node(s) didn't match pod anti-affinity rules";
const OTHERS_TOO_NEAR: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Filters and scores by the pods that are there.
#[derive(Clone, Copy, Debug)]
pub struct InterPodAffinity {
    /// How much a pod that is there and demands pods like the new one near adds to a node's score.
    pub hard_pod_affinity_weight: i64,
    /// Whether what pods that are there prefer is left out for pods that prefer nothing.
    pub ignore_preferred_of_existing: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        InterPodAffinity { hard_pod_affinity_weight: 1, ignore_preferred_of_existing: false }
    }
}

/// What a count is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Pods that match all required terms.
    Required,
    /// Pods that match a forbidden term.
    Forbidden,
    /// Pods whose own forbidden terms match the new pod.
    Opposed,
    /// Sums of weights.
    Liked,
}

/// Counts by the values of one topology key.
#[derive(Debug)]
struct Tally {
    used: Use,
    key: Symbol,
    /// Whether nodes are told apart by the count of their domain instead of by domain.
    by_count: bool,
    domains: FxHashMap<Symbol, i64>,
    /// The rows of each domain, where cells are made by count.
    rows: FxHashMap<Symbol, Vec<NodeIndex>>,
}

/// What the pods of a row bring in: the tally, the topology value, how much.
type Share = Vec<(u32, Symbol, i64)>;

/// The state of a class.
#[derive(Debug, Default)]
struct Affinity {
    tallies: Vec<Tally>,
    /// The tallies of the required terms, in their order.
    required: Vec<u32>,
    /// Whether the pod matches its own required terms.
    matches_self: bool,
    /// The sum over all domains of the required terms' tallies.
    required_sum: i64,
    /// What one pod of a class brings in.
    known: FxHashMap<u32, Arc<[(u32, i64)]>>,
    shares: Vec<Share>,
}

impl Affinity {
    /// The tally of a use and key, made where there is none.
    fn tally(&mut self, used: Use, key: Symbol, nodes: &NodeTable, touched: &mut Touched) -> u32 {
        let found = self.tallies.iter().position(|t| t.used == used && t.key == key);
        let at = found.unwrap_or_else(|| {
            touched.all = true;
            let mut tally = Tally {
                used,
                key,
                by_count: nodes.is_fine(key),
                domains: FxHashMap::default(),
                rows: FxHashMap::default(),
            };
            if tally.by_count {
                for row in nodes.present().ones().map(NodeIndex::from_at) {
                    if let Some(value) = nodes.label(row, key) {
                        tally.rows.entry(value).or_default().push(row);
                    }
                }
            }
            self.tallies.push(tally);
            self.tallies.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn has(&self, used: Use) -> bool {
        self.tallies.iter().any(|t| t.used == used)
    }

    /// What one pod of a class that is there brings in.
    fn brought_by(
        &mut self,
        plugin: &InterPodAffinity,
        pod: &PodClass,
        there: &Arc<PodClass>,
        nodes: &NodeTable,
        touched: &mut Touched,
    ) -> Arc<[(u32, i64)]> {
        if let Some(known) = self.known.get(&there.id) {
            return known.clone();
        }
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        let mut brings: Vec<(Use, Symbol, i64)> = Vec::new();
        plugin.compare(pod, there, &nodes.objects, &mut brings);
        let tallies =
            brings.into_iter().map(|(used, key, n)| (self.tally(used, key, nodes, touched), n)).collect();
        self.known.entry(there.id).or_insert(tallies).clone()
    }

    fn refresh(
        &mut self,
        plugin: &InterPodAffinity,
        pod: &PodInfo,
        nodes: &NodeTable,
        node: NodeIndex,
        touched: &mut Touched,
    ) {
        if self.shares.len() <= node.at() {
            self.shares.resize(nodes.rows().max(node.at() + 1), Share::new());
        }
        self.follow_rows(nodes, node);
        let mut share = Share::new();
        if nodes.present().contains(node.at()) {
            for group in nodes.groups_on(node) {
                let brings = self.brought_by(plugin, &pod.class, &group.class, nodes, touched);
                for (tally, amount) in brings.iter() {
                    if let Some(value) = nodes.label(node, self.tallies[*tally as usize].key) {
                        add(&mut share, *tally, value, amount * i64::from(group.count));
                    }
                }
            }
        }
        if self.shares[node.at()] == share {
            return;
        }
        let old = std::mem::replace(&mut self.shares[node.at()], share.clone());
        let mut changes = share;
        old.into_iter().for_each(|(tally, value, n)| add(&mut changes, tally, value, -n));
        for (tally, value, change) in changes.into_iter().filter(|(.., n)| *n != 0) {
            self.change(tally, value, change, node, touched);
        }
    }

    fn change(&mut self, tally: u32, value: Symbol, change: i64, node: NodeIndex, touched: &mut Touched) {
        let tally = &mut self.tallies[tally as usize];
        if tally.used == Use::Required {
            self.required_sum += change;
        }
        let count = tally.domains.entry(value).or_default();
        *count += change;
        if *count == 0 {
            tally.domains.remove(&value);
        }
        if tally.by_count
            && let Some(rows) = tally.rows.get(&value)
        {
            touched.rows.extend(rows.iter().filter(|row| **row != node));
        }
    }

    /// Keeps the rows of domains where a node came, went or was labelled anew.
    fn follow_rows(&mut self, nodes: &NodeTable, node: NodeIndex) {
        for tally in self.tallies.iter_mut().filter(|t| t.by_count) {
            let value = nodes.label(node, tally.key).filter(|_| nodes.present().contains(node.at()));
            if value.is_some_and(|v| tally.rows.get(&v).is_some_and(|rows| rows.contains(&node))) {
                continue;
            }
            for rows in tally.rows.values_mut() {
                rows.retain(|row| *row != node);
            }
            if let Some(value) = value {
                tally.rows.entry(value).or_default().push(node);
            }
        }
    }

    /// The count of the node's domain; `None` where it lacks the label.
    fn count(&self, tally: &Tally, nodes: &NodeTable, node: NodeIndex) -> Option<i64> {
        let value = nodes.label(node, tally.key)?;
        Some(tally.domains.get(&value).copied().unwrap_or(0))
    }

    fn any(&self, used: Use, nodes: &NodeTable, node: NodeIndex) -> bool {
        let tallies = self.tallies.iter().filter(|t| t.used == used);
        tallies.into_iter().any(|t| self.count(t, nodes, node).is_some_and(|n| n > 0))
    }

    fn is_near_enough(&self, nodes: &NodeTable, node: NodeIndex) -> bool {
        let mut all_there = true;
        for tally in &self.required {
            match self.count(&self.tallies[*tally as usize], nodes, node) {
                None => return false,
                Some(n) => all_there &= n > 0,
            }
        }
        // The first pod of a series that wants its own kind near may go anywhere.
        all_there || (self.required_sum == 0 && self.matches_self)
    }
}

fn add(share: &mut Share, tally: u32, value: Symbol, amount: i64) {
    match share.iter_mut().find(|(t, v, _)| *t == tally && *v == value) {
        Some((.., n)) => *n += amount,
        None => share.push((tally, value, amount)),
    }
}

impl InterPodAffinity {
    /// What a pod of a class that is there means to a new one.
    fn compare(
        &self,
        pod: &PodClass,
        there: &PodClass,
        objects: &Objects,
        brings: &mut Vec<(Use, Symbol, i64)>,
    ) {
        let (mine, theirs) = (pod.affinity(), there.affinity());
        if !mine.required.is_empty() && mine.required.iter().all(|t| t.matches(there, objects)) {
            brings.extend(mine.required.iter().map(|t| (Use::Required, t.key, 1)));
        }
        let mut matching = |used: Use, term: &crate::terms::AffinityTerm, of: &PodClass, amount: i64| {
            if term.matches(of, objects) {
                brings.push((used, term.key, amount));
            }
        };
        mine.forbidden.iter().for_each(|t| matching(Use::Forbidden, t, there, 1));
        theirs.forbidden.iter().for_each(|t| matching(Use::Opposed, t, pod, 1));
        mine.preferred.iter().for_each(|(weight, t)| matching(Use::Liked, t, there, *weight));
        if self.ignore_preferred_of_existing && mine.preferred.is_empty() {
            return;
        }
        if self.hard_pod_affinity_weight > 0 {
            theirs.required.iter().for_each(|t| matching(Use::Liked, t, pod, self.hard_pod_affinity_weight));
        }
        theirs.preferred.iter().for_each(|(weight, t)| matching(Use::Liked, t, pod, *weight));
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER | Points::FILTER | Points::PRE_SCORE | Points::SCORE
    }

    fn locality(&self) -> Locality {
        Locality::Domain
    }

    fn pre_filter(&self, cx: CycleContext<'_>) -> PreFilter {
        let mut state = Affinity::default();
        let (class, objects) = (&cx.pod.class, &cx.nodes.objects);
        let terms = class.affinity();
        state.matches_self = terms.required.iter().all(|t| t.matches(class, objects));
        for term in &terms.required {
            let tally = state.tally(Use::Required, term.key, cx.nodes, &mut Touched::default());
            state.required.push(tally);
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
        if let Some(affinity) = state.downcast_mut::<Affinity>() {
            affinity.refresh(self, pod, nodes, node, touched);
        }
    }

    fn cell(&self, cx: CycleContext<'_>, node: NodeIndex, key: &mut Vec<u64>) {
        let Some(affinity) = cx.state::<Affinity>() else { return };
        for tally in &affinity.tallies {
            key.push(match cx.nodes.label(node, tally.key) {
                None => u64::MAX,
                Some(value) if tally.by_count => {
                    tally.domains.get(&value).copied().unwrap_or(0).cast_unsigned()
                }
                Some(value) => u64::from(value.number()),
            });
        }
    }

    fn accepts_all(&self, state: Option<&State>) -> bool {
        let affinity = state.and_then(|s| s.downcast_ref::<Affinity>());
        affinity.is_none_or(|a| a.tallies.iter().all(|t| t.used == Use::Liked))
    }

    /// Another namespace's labels may matter to pods that are there as well.
    fn watches(&self, _: &PodInfo) -> Watched {
        Watched::NAMESPACES
    }

    fn filter(&self, cx: CycleContext<'_>, node: NodeIndex) -> Verdict {
        let Some(affinity) = cx.state::<Affinity>() else { return Ok(()) };
        if !affinity.is_near_enough(cx.nodes, node) {
            return Err(Refusal::unresolvable(NOT_NEAR));
        }
        if affinity.any(Use::Forbidden, cx.nodes, node) {
            return Err(Refusal::new(TOO_NEAR));
        }
        if affinity.any(Use::Opposed, cx.nodes, node) {
            return Err(Refusal::new(OTHERS_TOO_NEAR));
        }
        Ok(())
    }

    fn pre_score(&self, cx: CycleContext<'_>, _: &[NodeScore]) -> PreScore {
        match cx.state::<Affinity>() {
            Some(affinity) if affinity.has(Use::Liked) => PreScore::Continue(None),
            _ => PreScore::Skip,
        }
    }

    fn score(&self, cx: CycleContext<'_>, node: NodeIndex) -> i64 {
        let Some(affinity) = cx.state::<Affinity>() else { return 0 };
        let tallies = affinity.tallies.iter().filter(|t| t.used == Use::Liked);
        tallies.filter_map(|t| affinity.count(t, cx.nodes, node)).sum()
    }

    fn normalizes(&self) -> bool {
        true
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream counts in doubles"
    )]
    fn normalize(&self, _: CycleContext<'_>, scores: &mut [NodeScore]) {
        let min = scores.iter().map(|s| s.score).min().unwrap_or(0);
        let span = scores.iter().map(|s| s.score).max().unwrap_or(0) - min;
        for entry in scores {
            let part = if span > 0 { (entry.score - min) as f64 / span as f64 } else { 0.0 };
            entry.score = (MAX_NODE_SCORE as f64 * part) as i64;
        }
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent, nodes: &NodeTable) -> Hint {
        let objects = &nodes.objects;
        let terms = pod.class.affinity();
        let helps = match event {
            ClusterEvent::PodPlaced(other) => terms.required.iter().any(|t| t.matches(&other.class, objects)),
            ClusterEvent::PodGone(other, _) => {
                terms.required.iter().chain(&terms.forbidden).any(|t| t.matches(&other.class, objects))
                    || other.class.affinity().forbidden.iter().any(|t| t.matches(&pod.class, objects))
            }
            ClusterEvent::Node(_, change) => change.added || change.labels,
            ClusterEvent::NodeDeleted(_) => false,
            ClusterEvent::PodChanged => true,
            ClusterEvent::Other(kind) => kind == "namespaces",
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
