//! What is known about a class of pods: verdicts and scores of every node, brought up to date with the rows that changed.

use crate::cells::{CellId, Cells};
use crate::class::PodClass;
use crate::diagnosis::{Diagnosis, NodeRefusal};
use crate::framework::{
    CycleContext, Locality, NodeScore, Plugin, Points, PreFilter, PreScore, State, Touched,
};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::Watched;
use crate::pod::PodInfo;
use crate::profile::Profile;
use fixedbitset::FixedBitSet;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What is known about one plugin for one class.
#[derive(Default)]
pub(crate) struct PluginCache {
    pub(crate) state: Option<State>,
    pub(crate) score_state: Option<State>,
    pub(crate) skip_filter: bool,
    pub(crate) skip_score: bool,
    /// What PostFilter keeps.
    pub(crate) memory: Option<State>,
}

impl PluginCache {
    pub(crate) fn context<'a>(&'a self, pod: &'a PodInfo, nodes: &'a NodeTable) -> CycleContext<'a> {
        CycleContext::new(pod, nodes, self.state.as_ref())
    }

    /// The same for the points after PreScore.
    pub(crate) fn score_context<'a>(&'a self, pod: &'a PodInfo, nodes: &'a NodeTable) -> CycleContext<'a> {
        self.context(pod, nodes).with_score_state(self.score_state.as_ref())
    }

    pub(crate) fn pre_score(
        &mut self,
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &NodeTable,
        feasible: &[NodeScore],
    ) {
        self.skip_score = false;
        self.score_state = None;
        if !plugin.points().contains(Points::PRE_SCORE) {
            return;
        }
        match plugin.pre_score(self.context(pod, nodes), feasible) {
            PreScore::Continue(state) => self.score_state = state,
            PreScore::Skip => self.skip_score = true,
        }
    }
}

/// Refusals by row, each kind kept once.
#[derive(Default)]
pub(crate) struct Refusals {
    ids: FxHashMap<NodeRefusal, u32>,
    /// Each kind with how many rows it stands for.
    kinds: Vec<(NodeRefusal, usize)>,
    /// The kind of each row, counted from 1; 0 where it is not refused.
    of: Vec<u32>,
}

impl Refusals {
    fn set(&mut self, node: NodeIndex, refusal: Option<NodeRefusal>) {
        let before = std::mem::take(&mut self.of[node.at()]);
        if before != 0 {
            self.kinds[before as usize - 1].1 -= 1;
        }
        let Some(refusal) = refusal else { return };
        let id = match self.ids.get(&refusal) {
            Some(id) => *id,
            None => {
                self.kinds.push((refusal.clone(), 0));
                let id = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
                self.ids.insert(refusal, id);
                id
            }
        };
        self.kinds[id as usize - 1].1 += 1;
        self.of[node.at()] = id;
    }

    pub(crate) fn get(&self, node: NodeIndex) -> Option<&NodeRefusal> {
        let id = self.of.get(node.at()).copied().filter(|id| *id != 0)?;
        Some(&self.kinds[id as usize - 1].0)
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = &(NodeRefusal, usize)> {
        self.kinds.iter().filter(|(_, n)| *n > 0)
    }
}

/// What is known about a class of pods.
pub(crate) struct ClassCache {
    pub(crate) class: Arc<PodClass>,
    /// It holds for rows not changed since this generation of the table; `None` before the first pass.
    pub(crate) generation: Option<u64>,
    watched: Watched,
    watched_changes: u64,
    built_rows: usize,
    pub(crate) plugins: Vec<PluginCache>,
    /// The rows that every node-local filter accepts.
    pub(crate) cells: Cells,
    /// What refused the others.
    pub(crate) refusals: Refusals,
    /// What refused cells in the last cycle, with the number of nodes.
    pub(crate) refused_cells: Vec<(CellId, NodeRefusal, u32)>,
    /// Rows inside a PreFilter's restriction, with the plugin.
    pub(crate) restricted: Option<(FixedBitSet, &'static str)>,
    /// A PreFilter that refused the class as a whole.
    pub(crate) refused: Option<NodeRefusal>,
    /// Whether all filters look at one node only.
    pub(crate) local: bool,
    /// For forgetting.
    pub(crate) used: u64,
    key: Vec<u64>,
    touched: Touched,
    /// The shape of the cells' keys changed in a trial: the next pass makes all of them anew.
    reshaped: bool,
}

impl ClassCache {
    pub(crate) fn new(class: Arc<PodClass>) -> Self {
        ClassCache {
            class,
            generation: None,
            watched: Watched::NOTHING,
            watched_changes: 0,
            built_rows: 0,
            plugins: Vec::new(),
            cells: Cells::default(),
            refusals: Refusals::default(),
            refused_cells: Vec::new(),
            restricted: None,
            refused: None,
            local: true,
            used: 0,
            key: Vec::new(),
            touched: Touched::default(),
            reshaped: false,
        }
    }

    /// Brings verdicts and scores up to date.
    pub(crate) fn refresh(&mut self, profile: &Profile, pod: &PodInfo, nodes: &mut NodeTable) {
        let stale = nodes.objects.changes(self.watched) != self.watched_changes
            || nodes.rows() > 2 * self.built_rows + 16
            || self.refusals.kinds.len() > 4096;
        let since = self.generation.filter(|_| !stale);
        let changed: Option<Vec<NodeIndex>> = since.and_then(|g| {
            let changed = nodes.changed_since(g)?;
            Some(changed.collect())
        });
        match changed {
            None => self.rebuild(profile, pod, nodes),
            Some(_) if self.refused.is_some() => {}
            Some(changed) => self.update(profile, pod, nodes, &changed),
        }
        self.generation = Some(nodes.generation());
    }

    fn rebuild(&mut self, profile: &Profile, pod: &PodInfo, nodes: &mut NodeTable) {
        *self = ClassCache { used: self.used, ..ClassCache::new(self.class.clone()) };
        self.built_rows = nodes.rows();
        for (plugin, _) in profile.plugins() {
            self.watched = self.watched | plugin.watches(pod);
            self.plugins.push(PluginCache::default());
        }
        for (at, (plugin, _)) in profile.plugins().enumerate() {
            if plugin.locality() != Locality::Cluster {
                self.pre_filter(at, plugin, pod, nodes);
            }
        }
        if self.restricted.is_some() {
            // A restriction names rows, which come and go.
            self.watched = self.watched | Watched::NODES;
        }
        self.watched_changes = nodes.objects.changes(self.watched);
        if self.refused.is_some() {
            return;
        }
        self.grow(nodes.rows());
        let rows: Vec<NodeIndex> = (0..nodes.rows()).map(NodeIndex::from_at).collect();
        self.refresh_states(profile, pod, nodes, &rows);
        self.local = profile.plugins().enumerate().all(|(at, (plugin, _))| self.filters_locally(at, plugin));
        rows.iter().for_each(|row| self.update_row(profile, pod, nodes, *row));
    }

    fn filters_locally(&self, at: usize, plugin: &dyn Plugin) -> bool {
        let known = &self.plugins[at];
        !plugin.points().contains(Points::FILTER)
            || known.skip_filter
            || match plugin.locality() {
                Locality::Node => true,
                Locality::Domain => plugin.accepts_all(known.state.as_ref()),
                Locality::Cluster => false,
            }
    }

    fn grow(&mut self, rows: usize) {
        self.cells.grow(rows);
        self.refusals.of.resize(rows, 0);
    }

    fn update(&mut self, profile: &Profile, pod: &PodInfo, nodes: &mut NodeTable, changed: &[NodeIndex]) {
        if changed.is_empty() {
            return;
        }
        self.grow(nodes.rows());
        let touched = self.refresh_states(profile, pod, nodes, changed);
        if touched.all || std::mem::take(&mut self.reshaped) {
            self.local = profile.plugins().enumerate().all(|(at, (p, _))| self.filters_locally(at, p));
            (0..nodes.rows()).for_each(|row| self.update_row(profile, pod, nodes, NodeIndex::from_at(row)));
        } else {
            changed.iter().for_each(|row| self.update_row(profile, pod, nodes, *row));
            touched.rows.iter().for_each(|row| self.update_row(profile, pod, nodes, *row));
        }
        self.touched = touched;
    }

    /// Lets the plugins that look beyond one node follow the rows that changed.
    fn refresh_states(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        rows: &[NodeIndex],
    ) -> Touched {
        let mut touched = std::mem::take(&mut self.touched);
        touched.rows.clear();
        touched.all = false;
        for (at, (plugin, _)) in profile.plugins().enumerate() {
            if plugin.locality() != Locality::Domain {
                continue;
            }
            if let Some(state) = &mut self.plugins[at].state {
                rows.iter().for_each(|row| plugin.refresh(pod, nodes, state, *row, &mut touched));
            }
        }
        touched
    }

    /// Runs PreFilter of a plugin whose state is kept, and PreScore of one that looks at one node only.
    fn pre_filter(&mut self, at: usize, plugin: &dyn Plugin, pod: &PodInfo, nodes: &NodeTable) {
        if plugin.points().contains(Points::PRE_FILTER) {
            let known = &mut self.plugins[at];
            match plugin.pre_filter(CycleContext::new(pod, nodes, None)) {
                PreFilter::Continue(state) => known.state = state,
                PreFilter::Skip => known.skip_filter = true,
                PreFilter::Refuse(refusal) => {
                    if self.refused.is_none() {
                        self.refused = Some(NodeRefusal { plugin: plugin.name(), refusal });
                    }
                }
                PreFilter::Restrict(mut set, state) => {
                    known.state = state;
                    set.grow(nodes.rows());
                    if let Some((before, _)) = &self.restricted {
                        set.intersect_with(before);
                    }
                    self.restricted = Some((set, plugin.name()));
                }
            }
        }
        if plugin.locality() == Locality::Node {
            self.plugins[at].pre_score(plugin, pod, nodes, &[]);
        }
    }

    /// Judges a row anew.
    fn update_row(&mut self, profile: &Profile, pod: &PodInfo, nodes: &mut NodeTable, node: NodeIndex) {
        let outside = self.restricted.as_ref().is_some_and(|(set, _)| !set.contains(node.at()));
        if outside || !nodes.present().contains(node.at()) {
            self.refusals.set(node, None);
            self.cells.take(node);
            return;
        }
        let verdict = self.filter_with_nominated(profile, pod, nodes, node, false);
        if verdict.is_err() {
            self.refusals.set(node, verdict.err());
            self.cells.take(node);
            return;
        }
        self.refusals.set(node, None);
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        let total = self.score_row(profile, pod, nodes, node, &mut key);
        if !self.local && nodes.nominated_on(node).iter().any(|p| comes_first(p, pod)) {
            // Filters that look beyond this node are asked for it alone, with the pods nominated to it.
            key.push(u64::MAX - u64::from(node.0));
        }
        self.cells.put(node, &key, total);
        self.key = key;
    }

    /// The sum of what node-local plugins score without normalizing; what else tells the node apart goes into the key.
    fn score_row(
        &self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        node: NodeIndex,
        key: &mut Vec<u64>,
    ) -> i64 {
        let mut total = 0;
        for ((plugin, weight), known) in profile.plugins().zip(&self.plugins) {
            match plugin.locality() {
                Locality::Node => {
                    if !plugin.points().contains(Points::SCORE) || known.skip_score {
                        continue;
                    }
                    let score = plugin.score(known.score_context(pod, nodes), node);
                    if plugin.normalizes() {
                        key.push(score.cast_unsigned());
                    } else {
                        total += weight * score;
                    }
                }
                Locality::Domain => plugin.cell(known.context(pod, nodes), node, key),
                Locality::Cluster => key.push(u64::from(node.0)),
            }
        }
        total
    }

    /// Runs the node-local filters twice where pods are nominated to the node that come before this one: with and without them.
    fn filter_with_nominated(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        node: NodeIndex,
        domains: bool,
    ) -> Result<(), NodeRefusal> {
        let nominated = nodes.nominated_on(node).iter();
        let first: Vec<_> = nominated.filter(|p| comes_first(p, pod) && p.key != pod.key).cloned().collect();
        if !first.is_empty() {
            first.iter().for_each(|p| nodes.shift(p, node, 1));
            let verdict = self.filter_row(profile, pod, nodes, node, domains);
            first.iter().for_each(|p| nodes.shift(p, node, -1));
            if verdict.is_err() {
                if domains {
                    self.settle(profile, pod, nodes, node);
                }
                return verdict;
            }
        }
        self.filter_row(profile, pod, nodes, node, domains)
    }

    /// The node-local filters, and with `domains` those that look further, on the node as it is now.
    fn filter_row(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &NodeTable,
        node: NodeIndex,
        domains: bool,
    ) -> Result<(), NodeRefusal> {
        if domains {
            self.settle(profile, pod, nodes, node);
        }
        for ((plugin, _), known) in profile.plugins().zip(&self.plugins) {
            let asked = plugin.locality() == Locality::Node || domains;
            if asked && plugin.points().contains(Points::FILTER) && !known.skip_filter {
                plugin
                    .filter(known.context(pod, nodes), node)
                    .map_err(|refusal| NodeRefusal { plugin: plugin.name(), refusal })?;
            }
        }
        Ok(())
    }

    /// Whether all filters accept the node as it stands in the table now, which may be in a trial.
    pub(crate) fn fits(
        &mut self,
        profile: &Profile,
        pod: &PodInfo,
        nodes: &mut NodeTable,
        node: NodeIndex,
    ) -> Result<(), NodeRefusal> {
        let outside = self.restricted.as_ref().is_some_and(|(set, _)| !set.contains(node.at()));
        if outside || self.refused.is_some() || !nodes.present().contains(node.at()) {
            return Err(self.refused.clone().unwrap_or_else(|| NodeRefusal {
                plugin: self.restricted.as_ref().map_or("", |(_, plugin)| plugin),
                refusal: crate::Refusal::unresolvable("node(s) were ruled out"),
            }));
        }
        let domains = !self.local;
        self.filter_with_nominated(profile, pod, nodes, node, domains)
    }

    /// Brings the plugins' states up to date with a node as it stands in the table now, in a trial or after it.
    pub(crate) fn settle(&mut self, profile: &Profile, pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) {
        let touched = self.refresh_states(profile, pod, nodes, &[node]);
        self.reshaped |= touched.all;
        self.touched = touched;
    }

    /// Why no node would do.
    pub(crate) fn diagnose(&self, nodes: &NodeTable) -> Diagnosis {
        let mut refused: Vec<(NodeRefusal, usize)> = self.refusals.counts().cloned().collect();
        for (_, refusal, n) in &self.refused_cells {
            match refused.iter_mut().find(|(r, _)| r == refusal) {
                Some((_, count)) => *count += *n as usize,
                None => refused.push((refusal.clone(), *n as usize)),
            }
        }
        let restricted = self.restricted.as_ref().map(|(set, plugin)| {
            let inside = nodes.present().intersection(set).count();
            (nodes.len() - inside, *plugin)
        });
        Diagnosis { nodes: nodes.len(), refused, restricted, ..Diagnosis::default() }
    }
}

/// Whether a nominated pod's claim to the node stands before another pod's wish.
fn comes_first(nominated: &PodInfo, pod: &PodInfo) -> bool {
    nominated.priority() >= pod.priority()
}
