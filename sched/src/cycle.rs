//! One scheduling cycle: filter, score, choose; pods of one class share what was found out about the rows that did not change.

use crate::diagnosis::{Diagnosis, NodeRefusal, Refusal};
use crate::framework::{CycleContext, Locality, Plugin, Points, PreFilter, PreScore, State};
use crate::node::{NodeIndex, NodeTable};
use crate::pod::{PodClass, PodInfo};
use crate::profile::Profile;
use fixedbitset::FixedBitSet;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// How many classes are remembered; the least recently used is forgotten first.
const CLASSES_MAX: usize = 64;

/// What is known about one plugin for one class.
#[derive(Default)]
struct PluginCache {
    state: Option<State>,
    score_state: Option<State>,
    skip_filter: bool,
    skip_score: bool,
    /// Raw scores by row, for plugins that score.
    scores: Vec<i64>,
}

/// What is known about a class of pods.
struct ClassCache {
    class: Arc<PodClass>,
    /// Verdicts and scores hold for rows not changed since this generation of the table.
    generation: u64,
    plugins: Vec<PluginCache>,
    /// Rows that every node-local filter accepts.
    feasible: FixedBitSet,
    /// What refused the others.
    refusals: Vec<Option<NodeRefusal>>,
    /// Rows outside a PreFilter's restriction, with the plugin.
    restricted: Option<(FixedBitSet, &'static str)>,
    /// A PreFilter that refused the class as a whole.
    refused: Option<NodeRefusal>,
    /// For forgetting.
    used: u64,
}

/// The memory of a profile between cycles.
#[derive(Default)]
pub(crate) struct CycleCache {
    classes: FxHashMap<u64, ClassCache>,
    clock: u64,
    /// Scratch space, kept to save allocations.
    totals: Vec<i64>,
    normalized: Vec<i64>,
}

/// How a cycle chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) node: NodeIndex,
}

impl CycleCache {
    /// Finds the best node for a pod. `tie` picks among equals.
    pub(crate) fn run(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        tie: u64,
    ) -> Result<Choice, Box<Diagnosis>> {
        self.clock += 1;
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        let result = self.choose(&mut cache, profile, pod, nodes, tie);
        cache.used = self.clock;
        self.put(pod.class_hash, cache);
        result
    }

    fn take(&mut self, pod: &PodInfo) -> ClassCache {
        match self.classes.remove(&pod.class_hash) {
            Some(cache) if Arc::ptr_eq(&cache.class, &pod.class) || cache.class == pod.class => cache,
            _ => ClassCache::new(pod.class.clone()),
        }
    }

    fn put(&mut self, hash: u64, cache: ClassCache) {
        if self.classes.len() >= CLASSES_MAX
            && let Some(oldest) = self.classes.iter().min_by_key(|(_, c)| c.used).map(|(h, _)| *h)
        {
            self.classes.remove(&oldest);
        }
        self.classes.insert(hash, cache);
    }

    fn choose(
        &mut self,
        cache: &mut ClassCache,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        tie: u64,
    ) -> Result<Choice, Box<Diagnosis>> {
        let diagnosis = || Diagnosis { nodes: nodes.len(), ..Diagnosis::default() };
        if let Some(refused) = &cache.refused {
            return Err(Box::new(Diagnosis { pod: Some(refused.clone()), ..diagnosis() }));
        }
        let mut feasible = cache.feasible.clone();
        let mut further = Vec::new();
        for (at, plugin) in profile.cluster_plugins() {
            if let Err(refused) = cache.filter_cluster(at, plugin, pod, nodes, &mut feasible, &mut further) {
                return Err(Box::new(Diagnosis { pod: Some(refused), ..diagnosis() }));
            }
        }
        match feasible.count_ones(..) {
            0 => Err(Box::new(cache.diagnose(nodes, further))),
            1 => Ok(Choice { node: row(feasible.minimum().unwrap_or(0)) }),
            _ => Ok(self.best(cache, profile, pod, nodes, &feasible, tie)),
        }
    }

    /// The node with the highest sum of weighted, normalized scores.
    fn best(
        &mut self,
        cache: &mut ClassCache,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        feasible: &FixedBitSet,
        tie: u64,
    ) -> Choice {
        self.totals.clear();
        self.totals.resize(nodes.rows(), 0);
        for (at, (plugin, weight)) in profile.plugins().enumerate() {
            if !plugin.points().contains(Points::SCORE) || cache.plugins[at].skip_score {
                continue;
            }
            if plugin.locality() == Locality::Cluster {
                cache.score_cluster(at, plugin, pod, nodes, feasible);
            }
            let known = &cache.plugins[at];
            self.normalized.clone_from(&known.scores);
            let state = known.score_state.as_ref().or(known.state.as_ref());
            plugin.normalize(CycleContext::new(pod, nodes, state), &mut self.normalized, feasible);
            for node in feasible.ones() {
                self.totals[node] += weight * self.normalized[node];
            }
        }
        let best = feasible.ones().map(|n| self.totals[n]).max().unwrap_or(0);
        let equals = feasible.ones().filter(|n| self.totals[*n] == best).count().max(1);
        let pick = usize::try_from(tie % equals as u64).unwrap_or(0);
        let node = feasible.ones().filter(|n| self.totals[*n] == best).nth(pick);
        Choice { node: row(node.unwrap_or(0)) }
    }
}

fn row(at: usize) -> NodeIndex {
    NodeIndex(u32::try_from(at).unwrap_or(u32::MAX))
}

impl ClassCache {
    fn new(class: Arc<PodClass>) -> Self {
        ClassCache {
            class,
            generation: 0,
            plugins: Vec::new(),
            feasible: FixedBitSet::new(),
            refusals: Vec::new(),
            restricted: None,
            refused: None,
            used: 0,
        }
    }

    /// Brings verdicts and scores up to date with the rows that changed.
    fn refresh(&mut self, profile: &Profile, pod: &PodInfo, nodes: &NodeTable) {
        let fresh = self.plugins.is_empty();
        // A restriction names rows, which come and go: it is asked for again when any row did.
        if fresh || (self.restricted.is_some() && self.generation != nodes.generation()) {
            self.pre_filter(profile, pod, nodes);
        }
        if self.refused.is_some() {
            return;
        }
        let rows = nodes.rows();
        self.feasible.grow(rows);
        self.refusals.resize(rows, None);
        for plugin in &mut self.plugins {
            plugin.scores.resize(rows, 0);
        }
        for at in 0..rows {
            if fresh || nodes.row_generation(at) > self.generation {
                self.refresh_row(profile, pod, nodes, at);
            }
        }
        self.generation = nodes.generation();
    }

    /// Runs PreFilter and PreScore of the node-local plugins.
    fn pre_filter(&mut self, profile: &Profile, pod: &PodInfo, nodes: &NodeTable) {
        self.restricted = None;
        self.refused = None;
        self.generation = 0;
        self.plugins.clear();
        for (plugin, _) in profile.plugins() {
            let mut known = PluginCache::default();
            if plugin.locality() == Locality::Node {
                if let Err(refused) = self.pre_filter_one(&mut known, plugin, pod, nodes) {
                    self.refused = Some(refused);
                }
                known.pre_score(plugin, pod, nodes);
            }
            self.plugins.push(known);
        }
    }

    fn pre_filter_one(
        &mut self,
        known: &mut PluginCache,
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &NodeTable,
    ) -> Result<(), NodeRefusal> {
        if !plugin.points().contains(Points::PRE_FILTER) {
            return Ok(());
        }
        match plugin.pre_filter(CycleContext::new(pod, nodes, None)) {
            PreFilter::Continue(state) => known.state = state,
            PreFilter::Skip => known.skip_filter = true,
            PreFilter::Refuse(refusal) => return Err(NodeRefusal { plugin: plugin.name(), refusal }),
            PreFilter::Restrict(mut set, state) => {
                known.state = state;
                set.grow(nodes.rows());
                if let Some((before, _)) = &self.restricted {
                    set.intersect_with(before);
                }
                self.restricted = Some((set, plugin.name()));
            }
        }
        Ok(())
    }

    fn refresh_row(&mut self, profile: &Profile, pod: &PodInfo, nodes: &NodeTable, at: usize) {
        let outside = self.restricted.as_ref().is_some_and(|(set, _)| !set.contains(at));
        if !nodes.present().contains(at) || outside {
            self.feasible.set(at, false);
            self.refusals[at] = None;
            return;
        }
        let verdict = self.filter_row(profile, pod, nodes, row(at));
        self.feasible.set(at, verdict.is_none());
        let accepted = verdict.is_none();
        self.refusals[at] = verdict;
        if accepted {
            self.score_row(profile, pod, nodes, row(at));
        }
    }

    fn filter_row(
        &self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        node: NodeIndex,
    ) -> Option<NodeRefusal> {
        for (at, (plugin, _)) in profile.plugins().enumerate() {
            let known = &self.plugins[at];
            if plugin.locality() != Locality::Node
                || !plugin.points().contains(Points::FILTER)
                || known.skip_filter
            {
                continue;
            }
            let cx = CycleContext::new(pod, nodes, known.state.as_ref());
            if let Err(refusal) = plugin.filter(cx, node) {
                return Some(NodeRefusal { plugin: plugin.name(), refusal });
            }
        }
        None
    }

    fn score_row(&mut self, profile: &Profile, pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) {
        for (at, (plugin, _)) in profile.plugins().enumerate() {
            let known = &mut self.plugins[at];
            if plugin.locality() == Locality::Node
                && plugin.points().contains(Points::SCORE)
                && !known.skip_score
            {
                let state = known.score_state.as_ref().or(known.state.as_ref());
                known.scores[node.at()] = plugin.score(CycleContext::new(pod, nodes, state), node);
            }
        }
    }

    /// Asks a plugin that looks beyond one node, and takes the nodes out that it refuses.
    fn filter_cluster(
        &mut self,
        at: usize,
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &NodeTable,
        feasible: &mut FixedBitSet,
        refused: &mut Vec<(NodeIndex, NodeRefusal)>,
    ) -> Result<(), NodeRefusal> {
        let mut known =
            PluginCache { scores: std::mem::take(&mut self.plugins[at].scores), ..PluginCache::default() };
        if plugin.points().contains(Points::PRE_FILTER) {
            match plugin.pre_filter(CycleContext::new(pod, nodes, None)) {
                PreFilter::Continue(state) => known.state = state,
                PreFilter::Skip => known.skip_filter = true,
                PreFilter::Refuse(refusal) => return Err(NodeRefusal { plugin: plugin.name(), refusal }),
                PreFilter::Restrict(mut set, state) => {
                    known.state = state;
                    set.grow(nodes.rows());
                    feasible.intersect_with(&set);
                }
            }
        }
        if plugin.points().contains(Points::FILTER) && !known.skip_filter {
            let cx = CycleContext::new(pod, nodes, known.state.as_ref());
            let rows: Vec<usize> = feasible.ones().collect();
            for at in rows {
                if let Err(refusal) = plugin.filter(cx, row(at)) {
                    feasible.set(at, false);
                    refused.push((row(at), NodeRefusal { plugin: plugin.name(), refusal }));
                }
            }
        }
        known.pre_score(plugin, pod, nodes);
        self.plugins[at] = known;
        Ok(())
    }

    fn score_cluster(
        &mut self,
        at: usize,
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &NodeTable,
        feasible: &FixedBitSet,
    ) {
        let known = &mut self.plugins[at];
        known.scores.resize(nodes.rows(), 0);
        let state = known.score_state.as_ref().or(known.state.as_ref());
        for node in feasible.ones() {
            known.scores[node] = plugin.score(CycleContext::new(pod, nodes, state), row(node));
        }
    }

    fn diagnose(&self, nodes: &NodeTable, further: Vec<(NodeIndex, NodeRefusal)>) -> Diagnosis {
        let mut refused: Vec<_> =
            nodes.present().ones().filter_map(|at| self.refusals[at].clone().map(|r| (row(at), r))).collect();
        refused.extend(further);
        refused.sort_by_key(|(node, _)| *node);
        let restricted = self
            .restricted
            .as_ref()
            .map(|(set, plugin)| (nodes.present().ones().filter(|at| !set.contains(*at)).count(), *plugin));
        Diagnosis { nodes: nodes.len(), refused, restricted, ..Diagnosis::default() }
    }
}

impl PluginCache {
    fn pre_score(&mut self, plugin: &dyn Plugin, pod: &PodInfo, nodes: &NodeTable) {
        if !plugin.points().contains(Points::PRE_SCORE) {
            return;
        }
        match plugin.pre_score(CycleContext::new(pod, nodes, self.state.as_ref())) {
            PreScore::Continue(state) => self.score_state = state,
            PreScore::Skip => self.skip_score = true,
        }
    }
}

/// The refusal of a try for a reason that names no node.
pub(crate) fn refused_try(nodes: &NodeTable, plugin: &'static str, refusal: Refusal) -> Diagnosis {
    Diagnosis { nodes: nodes.len(), pod: Some(NodeRefusal { plugin, refusal }), ..Diagnosis::default() }
}
