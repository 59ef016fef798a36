//! One scheduling cycle: bring what is known about the pod's class up to date, ask the filters and scores that look beyond one node once a
//! cell, and take the best node of the best cell.

use crate::cells::CellId;
use crate::class_cache::ClassCache;
use crate::diagnosis::{Diagnosis, NodeRefusal, Refusal};
use crate::explain::Scored;
use crate::framework::{
    CycleContext, Locality, NodeScore, Plugin, Points, PostFilter, PreFilter, PreScore, State, Trial,
};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::PodInfo;
use crate::profile::Profile;
use kubewright_core::ApiRequest;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// How many classes are remembered; the least recently used is forgotten first.
const CLASSES_MAX: usize = 64;
/// How many nodes are tried for a pod's volumes before all of them are.
const TRIES_MAX: usize = 64;

/// The memory of a profile between cycles.
#[derive(Default)]
pub(crate) struct CycleCache {
    classes: FxHashMap<u32, ClassCache>,
    clock: u64,
    /// Whether all feasible nodes must be known, not only the best: extenders are asked about them.
    pub(crate) all_wanted: bool,
    /// How many candidates a preemption shall tell of.
    pub(crate) candidates_wanted: usize,
    /// The class that the last cycle was about.
    last: u32,
    /// Scratch space, kept to save allocations: the cells that passed, their scores by one plugin, and their totals.
    feasible: Vec<(CellId, NodeScore)>,
    scores: Vec<NodeScore>,
    totals: Vec<i64>,
}

/// How a cycle chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) node: NodeIndex,
    /// How many nodes were feasible.
    pub(crate) feasible: usize,
}

impl CycleCache {
    /// Finds the best node for a pod. `tie` picks among equals.
    pub(crate) fn run(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        tie: u64,
    ) -> Result<Choice, Box<Diagnosis>> {
        if !self.all_wanted
            && let Some(bare) = pod.without_claims()
            && let Some(choice) = self.run_with_claims(profile, pod, &bare, nodes, tie)
        {
            return Ok(choice);
        }
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        let result = self.choose(&mut cache, profile, pod, nodes, tie);
        self.put(cache);
        result
    }

    /// Most often a pod's volumes and devices are reached from the best node for its class without them. Where all nodes are scored alike but for what
    /// they are themselves, the first that they accept, the best coming first, is the best of all that they accept. `None` where
    /// that can't be said, or no node is found soon.
    fn run_with_claims(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        bare: &PodInfo,
        nodes: &mut NodeTable,
        tie: u64,
    ) -> Option<Choice> {
        let mut asked = Vec::new();
        let apart = Watched::VOLUMES | Watched::DEVICES;
        for (plugin, _) in profile.plugins().filter(|(p, _)| p.watches(pod).has(apart)) {
            match plugin.pre_filter(CycleContext::new(pod, nodes, None)) {
                PreFilter::Skip => {}
                // What is scored by volumes or devices needs a look at all nodes.
                PreFilter::Continue(state) if scores(plugin, pod, nodes, state.as_ref()) => return None,
                PreFilter::Continue(state) => asked.push((plugin, state)),
                PreFilter::Refuse(_) | PreFilter::Restrict(..) => return None,
            }
        }
        let mut cache = self.take(bare);
        cache.refresh(profile, bare, nodes);
        let found = self.choose(&mut cache, profile, bare, nodes, tie);
        let choice = found.ok().filter(|_| self.feasible.len() == 1).and_then(|choice| {
            let rows = cache.cells.rows(self.feasible[0].0).map(|(node, _)| node).take(TRIES_MAX);
            let accepts = |node: &NodeIndex| {
                asked.iter().all(|(plugin, state)| {
                    plugin.filter(CycleContext::new(pod, nodes, state.as_ref()), *node).is_ok()
                })
            };
            let node = std::iter::once(choice.node).chain(rows).find(accepts)?;
            Some(Choice { node, ..choice })
        });
        self.put(cache);
        choice
    }

    /// Whether the node that was made room on for this pod will do now.
    pub(crate) fn accepts(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        node: NodeIndex,
    ) -> bool {
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        let cluster = profile.plugins().any(|(p, _)| p.locality() == Locality::Cluster);
        // Plugins that look at anything are asked by a whole cycle only.
        let accepts = !cluster && cache.fits(profile, pod, nodes, node).is_ok();
        cache.settle(profile, pod, nodes, node);
        self.put(cache);
        accepts
    }

    /// The nodes that the last cycle found feasible.
    pub(crate) fn feasible_rows(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        let cache = self.classes.get(&self.last);
        let cells = self.feasible.iter().map(|(cell, _)| *cell);
        cells
            .flat_map(move |cell| cache.into_iter().flat_map(move |c| c.cells.rows(cell)))
            .map(|(node, _)| node)
    }

    /// The best of the nodes that the last cycle found feasible, among those named, with what is added to their
    /// scores.
    pub(crate) fn best_among(&self, extra: &FxHashMap<NodeIndex, i64>, tie: u64) -> Option<Choice> {
        let cache = self.classes.get(&self.last)?;
        let cells = self.feasible.iter().zip(&self.totals);
        let mut rows: Vec<(i64, NodeIndex)> = cells
            .flat_map(|((cell, _), shared)| {
                cache.cells.rows(*cell).map(move |(node, local)| (shared + local, node))
            })
            .filter_map(|(total, node)| Some((total + extra.get(&node)?, node)))
            .collect();
        rows.sort_unstable();
        let highest = rows.last()?.0;
        let equals = &rows[rows.partition_point(|(total, _)| *total < highest)..];
        let pick = usize::try_from(tie % equals.len() as u64).unwrap_or(0);
        Some(Choice { node: equals[pick].1, feasible: rows.len() })
    }

    /// The nodes that removing pods may clear for a pod.
    pub(crate) fn clearable(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
    ) -> Vec<NodeIndex> {
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        self.filter(&mut cache, profile, pod, nodes);
        let trial =
            TrialRun { cache: &mut cache, profile, pod, nodes, at: 0, tried: None, candidates_wanted: 0 };
        let rows = trial.resolvable_since(0).1.into_iter().map(|(node, _)| node).collect();
        self.put(cache);
        rows
    }

    /// Whether a node would do for a pod if another pod were not there.
    pub(crate) fn fits_without(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        node: NodeIndex,
        gone: &Arc<PodInfo>,
    ) -> bool {
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        nodes.shift(gone, node, -1);
        let fits = cache.fits(profile, pod, nodes, node).is_ok();
        nodes.shift(gone, node, 1);
        cache.settle(profile, pod, nodes, node);
        self.put(cache);
        fits
    }

    /// A node other than `except` that would do for a pod.
    pub(crate) fn elsewhere(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        except: NodeIndex,
    ) -> Option<NodeIndex> {
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        self.filter(&mut cache, profile, pod, nodes);
        let rows = self.feasible.iter().flat_map(|(cell, _)| cache.cells.rows(*cell).take(2));
        let found = rows
            .filter(|(node, _)| *node != except)
            .max_by_key(|(node, total)| (*total, std::cmp::Reverse(*node)));
        let found = found.map(|(node, _)| node);
        self.put(cache);
        found
    }

    /// Asks the PostFilter plugins, in order, until one helps.
    pub(crate) fn post_filter(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        diagnosis: &mut Diagnosis,
    ) -> (PostFilter, Vec<ApiRequest>) {
        let mut cache = self.take(pod);
        cache.refresh(profile, pod, nodes);
        let (mut texts, mut all) = (Vec::new(), Vec::new());
        let mut result = None;
        for (at, (plugin, _)) in profile.plugins().enumerate() {
            if !plugin.points().contains(Points::POST_FILTER) {
                continue;
            }
            let mut trial = TrialRun {
                cache: &mut cache,
                profile,
                pod,
                nodes,
                at,
                tried: None,
                candidates_wanted: self.candidates_wanted,
            };
            let answer = plugin.post_filter(pod, diagnosis, &mut trial);
            if let Some(last) = trial.tried {
                cache.settle(profile, pod, nodes, last);
            }
            match answer {
                PostFilter::Nothing(text) => texts.extend((!text.is_empty()).then_some(text)),
                PostFilter::Request { requests, message } => {
                    texts.push(message);
                    all.extend(requests);
                }
                nominate => {
                    result = Some(nominate);
                    break;
                }
            }
        }
        self.put(cache);
        (result.unwrap_or_else(|| PostFilter::Nothing(texts.join(", "))), all)
    }

    /// The scores of a node and of those that come next to it, by plugin.
    pub(crate) fn explain(
        &self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        chosen: NodeIndex,
        most: usize,
    ) -> Vec<Scored> {
        let Some(cache) = self.classes.get(&self.last) else { return Vec::new() };
        let mut by_cell: Vec<(usize, i64)> =
            self.totals.iter().copied().enumerate().filter(|(at, _)| *at < self.feasible.len()).collect();
        let best = |at: usize| cache.cells.best(self.feasible[at].0).map_or(0, |(total, _)| total);
        by_cell.sort_by_key(|(at, total)| std::cmp::Reverse(total + best(*at)));
        let mut rows: Vec<(NodeIndex, usize, i64)> = Vec::new();
        for (at, total) in by_cell.iter().take(most) {
            let of_cell = cache.cells.rows(self.feasible[*at].0).take(most);
            rows.extend(of_cell.map(|(node, local)| (node, *at, total + local)));
        }
        rows.sort_by_key(|(node, _, total)| (*node != chosen, std::cmp::Reverse(*total)));
        rows.truncate(most);
        let scored = rows.into_iter().map(|(node, at, total)| {
            let plugins = self.scores_of(cache, profile, pod, nodes, at, node);
            Scored { node: nodes.name(node).clone(), total, plugins }
        });
        scored.collect()
    }

    /// What each plugin's weighted score of a node is.
    fn scores_of(
        &self,
        cache: &ClassCache,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        cell: usize,
        node: NodeIndex,
    ) -> Vec<(&'static str, i64)> {
        let mut scores = Vec::new();
        for ((plugin, weight), known) in profile.plugins().zip(&cache.plugins) {
            if !plugin.points().contains(Points::SCORE) || known.skip_score {
                continue;
            }
            let cx = known.score_context(pod, nodes);
            if plugin.locality() == Locality::Node && !plugin.normalizes() {
                scores.push((plugin.name(), weight * plugin.score(cx, node)));
                continue;
            }
            let mut all: Vec<NodeScore> = self.feasible.iter().map(|(_, s)| *s).collect();
            all.iter_mut().for_each(|s| s.score = plugin.score(cx, s.node));
            plugin.normalize(cx, &mut all);
            scores.push((plugin.name(), weight * all[cell].score));
        }
        scores
    }

    fn take(&mut self, pod: &PodInfo) -> ClassCache {
        self.clock += 1;
        let mut cache =
            self.classes.remove(&pod.class.id).unwrap_or_else(|| ClassCache::new(pod.class.clone()));
        cache.used = self.clock;
        self.last = pod.class.id;
        cache
    }

    fn put(&mut self, cache: ClassCache) {
        if self.classes.len() >= CLASSES_MAX
            && let Some(oldest) = self.classes.iter().min_by_key(|(_, c)| c.used).map(|(id, _)| *id)
        {
            self.classes.remove(&oldest);
        }
        self.classes.insert(cache.class.id, cache);
    }

    fn choose(
        &mut self,
        cache: &mut ClassCache,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        tie: u64,
    ) -> Result<Choice, Box<Diagnosis>> {
        let refuse = |refused: NodeRefusal| {
            Box::new(Diagnosis { nodes: nodes.len(), pod: Some(refused), ..Diagnosis::default() })
        };
        if let Some(refused) = &cache.refused {
            return Err(refuse(refused.clone()));
        }
        for (at, plugin) in profile.cluster_plugins() {
            if let Err(refused) = pre_filter_cluster(cache, at, plugin, pod, nodes) {
                return Err(refuse(refused));
            }
        }
        self.filter(cache, profile, pod, nodes);
        let feasible = self.feasible.iter().map(|(_, s)| s.nodes as usize).sum();
        match self.feasible.as_slice() {
            [] => Err(Box::new(cache.diagnose(nodes))),
            [(_, only)] if only.nodes == 1 => {
                self.totals.clear();
                self.totals.push(0);
                Ok(Choice { node: only.node, feasible })
            }
            _ => {
                self.score(cache, profile, pod, nodes);
                Ok(Choice { node: self.best(cache, tie), feasible })
            }
        }
    }

    /// Leaves the cells that the filters accept that look beyond one node.
    fn filter(&mut self, cache: &mut ClassCache, profile: &Profile, pod: &PodInfo, nodes: &mut NodeTable) {
        self.feasible.clear();
        cache.refused_cells.clear();
        if cache.local {
            let cells = cache.cells.iter();
            self.feasible.extend(cells.map(|(id, node, n)| (id, NodeScore { node, nodes: n, score: 0 })));
            return;
        }
        let cells: Vec<_> = cache.cells.iter().collect();
        for (id, node, n) in cells {
            let verdict = if nodes.nominated_on(node).is_empty() {
                filter_cell(cache, profile, pod, nodes, node)
            } else {
                let verdict = cache.fits(profile, pod, nodes, node);
                cache.settle(profile, pod, nodes, node);
                verdict
            };
            match verdict {
                Ok(()) => self.feasible.push((id, NodeScore { node, nodes: n, score: 0 })),
                Err(refusal) => cache.refused_cells.push((id, refusal, n)),
            }
        }
    }

    /// Sums the weighted, normalized scores that all nodes of a cell share.
    fn score(&mut self, cache: &mut ClassCache, profile: &Profile, pod: &PodInfo, nodes: &NodeTable) {
        self.totals.clear();
        self.totals.resize(self.feasible.len(), 0);
        for (at, (plugin, weight)) in profile.plugins().enumerate() {
            let shared = plugin.locality() != Locality::Node || plugin.normalizes();
            if !shared || !plugin.points().contains(Points::SCORE) {
                continue;
            }
            self.scores.clear();
            self.scores.extend(self.feasible.iter().map(|(_, s)| *s));
            let known = &mut cache.plugins[at];
            if plugin.locality() != Locality::Node {
                known.pre_score(plugin, pod, nodes, &self.scores);
            }
            if known.skip_score {
                continue;
            }
            let cx = known.score_context(pod, nodes);
            for entry in &mut self.scores {
                entry.score = plugin.score(cx, entry.node);
            }
            plugin.normalize(cx, &mut self.scores);
            for (total, entry) in self.totals.iter_mut().zip(&self.scores) {
                *total += weight * entry.score;
            }
        }
    }

    /// The node with the highest total.
    fn best(&self, cache: &ClassCache, tie: u64) -> NodeIndex {
        let totals = || {
            let cells = self.feasible.iter().zip(&self.totals);
            cells.filter_map(|((id, _), shared)| {
                cache.cells.best(*id).map(|(local, rows)| (shared + local, rows))
            })
        };
        let highest = totals().map(|(total, _)| total).max().unwrap_or(0);
        let equals: usize = totals().filter(|(t, _)| *t == highest).map(|(_, rows)| rows.len()).sum();
        let mut pick = usize::try_from(tie % equals.max(1) as u64).unwrap_or(0);
        for (_, rows) in totals().filter(|(t, _)| *t == highest) {
            match rows.get(pick) {
                Some(row) => return NodeIndex(*row),
                None => pick -= rows.len(),
            }
        }
        self.feasible[0].1.node
    }
}

/// Whether a plugin scores nodes for a pod.
fn scores(plugin: &dyn Plugin, pod: &PodInfo, nodes: &NodeTable, state: Option<&State>) -> bool {
    let points = plugin.points();
    points.contains(Points::SCORE)
        && !(points.contains(Points::PRE_SCORE)
            && matches!(plugin.pre_score(CycleContext::new(pod, nodes, state), &[]), PreScore::Skip))
}

/// The filters that look beyond one node, for a cell.
fn filter_cell(
    cache: &ClassCache,
    profile: &Profile,
    pod: &PodInfo,
    nodes: &NodeTable,
    node: NodeIndex,
) -> Result<(), NodeRefusal> {
    for ((plugin, _), known) in profile.plugins().zip(&cache.plugins) {
        if plugin.locality() != Locality::Node
            && plugin.points().contains(Points::FILTER)
            && !known.skip_filter
        {
            plugin
                .filter(known.context(pod, nodes), node)
                .map_err(|refusal| NodeRefusal { plugin: plugin.name(), refusal })?;
        }
    }
    Ok(())
}

/// PreFilter of a plugin that looks at anything; a restriction is kept for its own Filter.
fn pre_filter_cluster(
    cache: &mut ClassCache,
    at: usize,
    plugin: &dyn Plugin,
    pod: &PodInfo,
    nodes: &NodeTable,
) -> Result<(), NodeRefusal> {
    let known = &mut cache.plugins[at];
    (known.state, known.skip_filter) = (None, false);
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
            let outside: Vec<_> =
                cache.cells.iter().map(|(_, node, _)| node).filter(|n| !set.contains(n.at())).collect();
            outside.into_iter().for_each(|node| cache.cells.take(node));
            cache.restricted = Some((set, plugin.name()));
            // The next cycle starts from all rows again.
            cache.generation = None;
        }
    }
    Ok(())
}

/// A trial over the cycle's table.
struct TrialRun<'a> {
    cache: &'a mut ClassCache,
    profile: &'a Profile,
    pod: &'a PodInfo,
    nodes: &'a mut NodeTable,
    at: usize,
    /// The node tried last, where plugins keep counts over several nodes.
    tried: Option<NodeIndex>,
    candidates_wanted: usize,
}

impl TrialRun<'_> {
    /// Whether removing pods may lift what refuses a node.
    fn is_resolvable(&self, node: NodeIndex) -> bool {
        let refusal = self.cache.refusals.get(node).or_else(|| {
            let cell = self.cache.cells.cell_of(node)?;
            self.cache.refused_cells.iter().find(|(id, ..)| *id == cell).map(|(_, refusal, _)| refusal)
        });
        refusal.is_some_and(|r| !r.refusal.unresolvable && !r.refusal.error)
    }
}

impl Trial for TrialRun<'_> {
    fn candidates_wanted(&self) -> usize {
        self.candidates_wanted
    }

    fn resolvable_since(&self, generation: u64) -> (bool, Vec<(NodeIndex, bool)>) {
        let changed = if generation == 0 { None } else { self.nodes.changed_since(generation) };
        match changed {
            Some(rows) => (false, rows.map(|n| (n, self.is_resolvable(n))).collect()),
            None => {
                let rows = self.nodes.present().ones().map(NodeIndex::from_at);
                (true, rows.filter(|n| self.is_resolvable(*n)).map(|n| (n, true)).collect())
            }
        }
    }

    fn is_local(&self) -> bool {
        self.cache.local
    }

    fn nodes(&self) -> &NodeTable {
        self.nodes
    }

    fn remove(&mut self, pod: &Arc<PodInfo>, node: NodeIndex) {
        self.nodes.shift(pod, node, -1);
    }

    fn add(&mut self, pod: &Arc<PodInfo>, node: NodeIndex) {
        self.nodes.shift(pod, node, 1);
    }

    fn fits(&mut self, node: NodeIndex) -> Result<(), NodeRefusal> {
        if !self.cache.local && self.tried != Some(node) {
            // The pods of the node tried before are back: plugins that count over several nodes must see them there.
            if let Some(before) = self.tried.replace(node) {
                self.cache.settle(self.profile, self.pod, self.nodes, before);
            }
        }
        self.cache.fits(self.profile, self.pod, self.nodes, node)
    }

    fn memory(&mut self) -> &mut Option<State> {
        &mut self.cache.plugins[self.at].memory
    }
}

/// The refusal of a try for a reason that names no node.
pub(crate) fn refused_try(nodes: &NodeTable, plugin: &'static str, refusal: Refusal) -> Diagnosis {
    Diagnosis { nodes: nodes.len(), pod: Some(NodeRefusal { plugin, refusal }), ..Diagnosis::default() }
}
