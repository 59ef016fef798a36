//! The nodes by column: each resource is one array over all nodes, labels and taints are symbols, sets of nodes are bits.
//!
//! Every change of a row is written into a log, so that whoever derived something from the table brings only the changed rows up to date.

use crate::class::{Classes, PodClass};
use crate::columns::ResourceColumns;
use crate::intern::{Interner, Symbol};
use crate::labels::value_of;
use crate::objects::{Objects, Watched};
use crate::pod::{Effect, HostPort, PodInfo, PodKey, Taint};
use crate::resources::{Resources, whole};
use fixedbitset::FixedBitSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::sync::Arc;

/// The log of changes is cut when it is longer than this and than four times the number of rows.
const LOG_MIN: usize = 1 << 14;

/// A row of the [`NodeTable`]. Rows of deleted nodes are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// As an index into a column.
    pub fn at(self) -> usize {
        self.0 as usize
    }

    /// From an index into a column.
    pub fn from_at(at: usize) -> Self {
        NodeIndex(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// Pods of one class on one node.
#[derive(Clone, Debug)]
pub struct Group {
    /// The class.
    pub class: Arc<PodClass>,
    /// Whether these are being deleted.
    pub terminating: bool,
    /// How many.
    pub count: u32,
}

/// The parts of a node that are read whole.
#[derive(Debug, Default)]
struct Row {
    name: Option<Symbol>,
    /// `None` while only pods name the node.
    node: Option<Arc<Node>>,
    /// Sorted by key.
    labels: Vec<(Symbol, Symbol)>,
    taints: Vec<Taint>,
    pods: Vec<Arc<PodInfo>>,
    groups: Vec<Group>,
    ports: Vec<HostPort>,
    /// Names of images with their sizes in bytes.
    images: Vec<(Symbol, i64)>,
    /// Pods that shall come here once others are gone.
    nominated: Vec<Arc<PodInfo>>,
}

/// A pod that holds a place on a node.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// Its node.
    pub node: NodeIndex,
}

/// What changed about a node, for queueing hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// It was not there before.
    pub added: bool,
    /// More or other resources.
    pub allocatable: bool,
    /// Labels.
    pub labels: bool,
    /// Taints or `spec.unschedulable`.
    pub taints: bool,
    /// `status.declaredFeatures`.
    pub features: bool,
}

impl NodeChange {
    /// Whether anything that a pod may wait for changed.
    pub fn any(self) -> bool {
        self.added || self.allocatable || self.labels || self.taints || self.features
    }
}

/// What a node declares of itself.
fn features(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|s| s.declared_features.as_deref()).unwrap_or_default()
}

/// All nodes and the pods placed on them.
#[derive(Debug, Default)]
pub struct NodeTable {
    symbols: Interner,
    classes: Classes,
    /// What is known beyond nodes and pods.
    pub objects: Objects,
    by_name: FxHashMap<SmolStr, NodeIndex>,
    rows: Vec<Row>,
    free: Vec<NodeIndex>,
    /// Rows whose node exists.
    present: FixedBitSet,
    nodes: usize,
    /// Rows with `spec.unschedulable`.
    unschedulable: FixedBitSet,
    /// What each node offers to pods.
    pub allocatable: ResourceColumns,
    /// What its pods ask for.
    pub requested: ResourceColumns,
    /// The same with upstream's assumptions, millicores.
    pub non_zero_milli_cpu: Vec<i64>,
    /// The same with upstream's assumptions, bytes.
    pub non_zero_memory: Vec<i64>,
    /// How many pods each node takes.
    pub pods_allowed: Vec<i64>,
    /// How many nodes have each value of each label.
    values: FxHashMap<Symbol, FxHashMap<Symbol, u32>>,
    /// How many nodes have each image.
    images: FxHashMap<Symbol, u32>,
    /// When each row last changed, on the table's own count.
    generations: Vec<u64>,
    /// The rows that changed, in order; entry `n` is change number `log_start + n + 1`.
    log: Vec<u32>,
    log_start: u64,
    placed: FxHashMap<PodKey, Placed>,
    nominated: FxHashMap<PodKey, NodeIndex>,
}

impl NodeTable {
    /// The strings behind the symbols.
    pub fn symbols(&self) -> &Interner {
        &self.symbols
    }

    /// The interner, for plugins and tests that compile something against this table.
    pub fn symbols_mut(&mut self) -> &mut Interner {
        &mut self.symbols
    }

    /// Changes what is known beyond nodes and pods.
    pub(crate) fn objects_mut(&mut self) -> (&mut Objects, &mut Interner) {
        (&mut self.objects, &mut self.symbols)
    }

    /// Compiles a pod against this table.
    pub fn compile(&mut self, pod: Arc<Pod>) -> PodInfo {
        let class = self.classes.of(&pod, &mut self.symbols);
        PodInfo::new(pod, class)
    }

    /// How many classes of pods are known.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// How many rows there are, free ones included.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows whose node exists.
    pub fn present(&self) -> &FixedBitSet {
        &self.present
    }

    /// How many nodes exist.
    pub fn len(&self) -> usize {
        self.nodes
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// The row of an existing node.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied().filter(|n| self.present.contains(n.at()))
    }

    /// A node's name.
    pub fn name(&self, node: NodeIndex) -> &SmolStr {
        self.symbols.text(self.name_symbol(node))
    }

    /// A node's name as a symbol.
    pub fn name_symbol(&self, node: NodeIndex) -> Symbol {
        self.rows[node.at()].name.expect("a row in use has a name")
    }

    /// The node's object, while it exists.
    pub fn node(&self, node: NodeIndex) -> Option<&Arc<Node>> {
        self.rows[node.at()].node.as_ref()
    }

    /// The value of a label.
    pub fn label(&self, node: NodeIndex, key: Symbol) -> Option<Symbol> {
        value_of(&self.rows[node.at()].labels, key)
    }

    /// The node's labels, ordered by key.
    pub fn labels(&self, node: NodeIndex) -> &[(Symbol, Symbol)] {
        &self.rows[node.at()].labels
    }

    /// How many nodes have each value of a label.
    pub fn values(&self, key: Symbol) -> Option<&FxHashMap<Symbol, u32>> {
        self.values.get(&key)
    }

    /// Whether a label has so many values that nodes are better grouped by what was counted than by value.
    pub fn is_fine(&self, key: Symbol) -> bool {
        self.values.get(&key).is_some_and(|values| values.len() > 64 && values.len() * 4 > self.nodes)
    }

    /// The node's taints.
    pub fn taints(&self, node: NodeIndex) -> &[Taint] {
        &self.rows[node.at()].taints
    }

    /// Whether `spec.unschedulable` is set.
    pub fn is_unschedulable(&self, node: NodeIndex) -> bool {
        self.unschedulable.contains(node.at())
    }

    /// The node ports that its pods take.
    pub fn ports(&self, node: NodeIndex) -> &[HostPort] {
        &self.rows[node.at()].ports
    }

    /// The size of an image on a node, in bytes; 0 where it is not there.
    pub fn image_size(&self, node: NodeIndex, image: Symbol) -> i64 {
        let images = &self.rows[node.at()].images;
        images.binary_search_by_key(&image, |(name, _)| *name).map_or(0, |at| images[at].1)
    }

    /// How many nodes have an image.
    pub fn image_nodes(&self, image: Symbol) -> u32 {
        self.images.get(&image).copied().unwrap_or(0)
    }

    /// The pods placed on a node.
    pub fn pods_on(&self, node: NodeIndex) -> &[Arc<PodInfo>] {
        &self.rows[node.at()].pods
    }

    /// The same by class.
    pub fn groups_on(&self, node: NodeIndex) -> &[Group] {
        &self.rows[node.at()].groups
    }

    /// How many pods are placed on a node.
    pub fn pod_count(&self, node: NodeIndex) -> usize {
        self.rows[node.at()].pods.len()
    }

    /// Where a pod is placed.
    pub fn placed(&self, pod: &PodKey) -> Option<&Placed> {
        self.placed.get(pod)
    }

    /// How many pods are placed.
    pub fn placed_count(&self) -> usize {
        self.placed.len()
    }

    /// The pods that shall come to a node once others are gone.
    pub fn nominated_on(&self, node: NodeIndex) -> &[Arc<PodInfo>] {
        &self.rows[node.at()].nominated
    }

    /// Where a pod shall come to.
    pub fn nomination(&self, pod: &PodKey) -> Option<NodeIndex> {
        self.nominated.get(pod).copied()
    }

    /// The present count of changes.
    pub fn generation(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// When a row last changed, on the same count.
    pub fn row_generation(&self, node: NodeIndex) -> u64 {
        self.generations[node.at()]
    }

    /// The rows that changed after that count, each once; `None` where the log does not reach back so far.
    pub fn changed_since(&self, generation: u64) -> Option<impl Iterator<Item = NodeIndex> + '_> {
        let from = usize::try_from(generation.checked_sub(self.log_start)?).ok()?;
        let entries = self.log.get(from..)?.iter().enumerate();
        Some(entries.filter_map(move |(n, row)| {
            let number = generation + n as u64 + 1;
            (self.generations[*row as usize] == number).then_some(NodeIndex(*row))
        }))
    }
    /// Adds or updates a node.
    pub fn apply(&mut self, node: Arc<Node>) -> NodeChange {
        let name = node.metadata.name.clone().unwrap_or_default();
        let index = self.row_of(&name);
        let labels = self.read_labels(&node);
        let taints = self.read_taints(&node);
        let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let allocatable = list.map(|l| Resources::read(l, &mut self.symbols)).unwrap_or_default();
        let pods = list.and_then(|l| l.get("pods")).map_or(0, whole);
        let at = index.at();
        let change = NodeChange {
            added: !self.present.contains(at),
            allocatable: self.pods_allowed[at] != pods || !self.offers(index, &allocatable),
            labels: self.rows[at].labels != labels,
            taints: self.rows[at].taints != taints || self.unschedulable.contains(at) != unschedulable,
            features: self.rows[at].node.as_deref().map_or(&[][..], features) != features(&node),
        };
        let images = self.read_images(&node);
        let images_changed = self.rows[at].images != images;
        self.rows[at].node = Some(node);
        if change.any() || images_changed {
            self.count_values(index, -1);
            self.nodes += usize::from(change.added);
            self.present.insert(at);
            self.unschedulable.set(at, unschedulable);
            self.rows[at].labels = labels;
            self.rows[at].taints = taints;
            self.rows[at].images = images;
            self.allocatable.set(index, &allocatable);
            self.pods_allowed[at] = pods;
            self.count_values(index, 1);
            self.touch(index);
        }
        if change.added {
            self.objects.changed(Watched::NODES);
        }
        change
    }

    /// The features that a node declares.
    pub fn features(&self, node: NodeIndex) -> &[String] {
        self.node(node).map_or(&[], |n| features(n))
    }

    /// Counts the labels and images of a present row in or out.
    fn count_values(&mut self, index: NodeIndex, sign: i32) {
        if !self.present.contains(index.at()) {
            return;
        }
        let row = &self.rows[index.at()];
        for (key, value) in &row.labels {
            let values = self.values.entry(*key).or_default();
            bump(values, *value, sign);
        }
        for (image, _) in &row.images {
            bump(&mut self.images, *image, sign);
        }
    }

    fn read_images(&mut self, node: &Node) -> Vec<(Symbol, i64)> {
        let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
        let mut read = Vec::new();
        for image in images {
            for name in image.names.iter().flatten() {
                read.push((self.symbols.intern(name), image.size_bytes.unwrap_or(0)));
            }
        }
        read.sort_unstable();
        read.dedup_by_key(|(name, _)| *name);
        read
    }

    /// Takes a node out; pods that are still placed on it stay counted until they go.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(index) = self.find(name) else { return false };
        self.count_values(index, -1);
        self.present.set(index.at(), false);
        self.nodes -= 1;
        self.rows[index.at()].node = None;
        self.objects.changed(Watched::NODES);
        self.touch(index);
        self.release_row(index);
        true
    }

    /// Places a pod on a node by name; it may be a node that is not known yet.
    pub fn place(&mut self, info: Arc<PodInfo>, node: &str) {
        self.unplace(&info.key);
        let index = self.row_of(node);
        self.shift(&info, index, 1);
        self.placed.insert(info.key.clone(), Placed { info, node: index });
        self.touch(index);
    }

    /// Replaces a placed pod by a version of it that differs in nothing that is counted.
    pub(crate) fn replace(&mut self, info: Arc<PodInfo>) {
        let Some(placed) = self.placed.get_mut(&info.key) else { return };
        let pods = &mut self.rows[placed.node.at()].pods;
        if let Some(at) = pods.iter().position(|p| Arc::ptr_eq(p, &placed.info)) {
            pods[at] = info.clone();
        }
        placed.info = info;
    }

    /// Takes a pod off its node; gives what was placed.
    pub fn unplace(&mut self, pod: &PodKey) -> Option<Placed> {
        let placed = self.placed.remove(pod)?;
        let index = placed.node;
        self.shift(&placed.info, index, -1);
        self.touch(index);
        self.release_row(index);
        Some(placed)
    }

    /// Notes that a pod shall come to a node.
    pub(crate) fn nominate(&mut self, info: Arc<PodInfo>, node: NodeIndex) {
        self.unnominate(&info.key);
        self.nominated.insert(info.key.clone(), node);
        self.rows[node.at()].nominated.push(info);
        self.touch(node);
    }

    /// Forgets where a pod shall come to.
    pub(crate) fn unnominate(&mut self, pod: &PodKey) -> Option<NodeIndex> {
        let node = self.nominated.remove(pod)?;
        self.rows[node.at()].nominated.retain(|p| p.key != *pod);
        self.touch(node);
        self.release_row(node);
        Some(node)
    }

    /// Counts a pod in (1) or out (-1) without noting a change: for trying something that is taken back.
    pub(crate) fn shift(&mut self, info: &Arc<PodInfo>, node: NodeIndex, sign: i64) {
        let requests = info.requests();
        self.requested.add(node, &requests.requests, sign);
        self.non_zero_milli_cpu[node.at()] += sign * requests.non_zero_milli_cpu;
        self.non_zero_memory[node.at()] += sign * requests.non_zero_memory;
        if !info.class.volumes().is_empty() {
            let sign = if sign > 0 { 1 } else { -1 };
            self.objects.volumes.count_user(&info.key.namespace, info.class.volumes(), sign);
        }
        let row = &mut self.rows[node.at()];
        if sign > 0 {
            row.count_in(info);
        } else {
            row.count_out(info);
        }
    }

    fn touch(&mut self, node: NodeIndex) {
        if self.log.len() > LOG_MIN.max(4 * self.rows.len()) {
            let cut = self.log.len() / 2;
            self.log.drain(..cut);
            self.log_start += cut as u64;
        }
        self.log.push(node.0);
        self.generations[node.at()] = self.generation();
    }

    fn offers(&self, node: NodeIndex, amounts: &Resources) -> bool {
        let at = node.at();
        let scalars = self.allocatable.scalars.iter();
        self.allocatable.milli_cpu[at] == amounts.milli_cpu
            && self.allocatable.memory[at] == amounts.memory
            && self.allocatable.ephemeral_storage[at] == amounts.ephemeral_storage
            && amounts.scalars.iter().all(|(name, n)| self.allocatable.scalar(*name, node) == *n)
            && scalars.into_iter().all(|(name, column)| column[at] == amounts.scalar(*name))
    }

    fn read_labels(&mut self, node: &Node) -> Vec<(Symbol, Symbol)> {
        let labels = node.metadata.labels.iter().flatten();
        let mut labels: Vec<_> =
            labels.map(|(k, v)| (self.symbols.intern(k), self.symbols.intern(v))).collect();
        labels.sort_unstable();
        labels
    }

    fn read_taints(&mut self, node: &Node) -> Vec<Taint> {
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        taints
            .filter_map(|t| {
                Some(Taint {
                    key: self.symbols.intern(&t.key),
                    value: self.symbols.intern(t.value.as_deref().unwrap_or("")),
                    effect: Effect::parse(&t.effect)?,
                })
            })
            .collect()
    }

    fn row_of(&mut self, name: &str) -> NodeIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.grow();
            NodeIndex(u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX))
        });
        self.rows[index.at()].name = Some(self.symbols.intern(name));
        self.by_name.insert(name.into(), index);
        index
    }

    fn grow(&mut self) {
        self.rows.push(Row::default());
        let rows = self.rows.len();
        self.present.grow(rows);
        self.unschedulable.grow(rows);
        self.allocatable.grow(rows);
        self.requested.grow(rows);
        self.non_zero_milli_cpu.resize(rows, 0);
        self.non_zero_memory.resize(rows, 0);
        self.pods_allowed.resize(rows, 0);
        self.generations.resize(rows, 0);
    }

    /// Frees a row that has neither a node nor pods.
    fn release_row(&mut self, index: NodeIndex) {
        let at = index.at();
        let row = &self.rows[at];
        if self.present.contains(at)
            || !row.pods.is_empty()
            || !row.nominated.is_empty()
            || row.name.is_none()
        {
            return;
        }
        if let Some(name) = self.rows[at].name {
            let name = self.symbols.text(name).clone();
            self.by_name.remove(&name);
        }
        self.rows[at] = Row::default();
        self.unschedulable.set(at, false);
        self.allocatable.set(index, &Resources::default());
        self.pods_allowed[at] = 0;
        self.free.push(index);
    }
}

impl Row {
    fn count_in(&mut self, info: &Arc<PodInfo>) {
        self.pods.push(info.clone());
        self.ports.extend(info.ports().iter().cloned());
        let terminating = info.is_terminating();
        let same = |g: &&mut Group| g.class.id == info.class.id && g.terminating == terminating;
        match self.groups.iter_mut().find(same) {
            Some(group) => group.count += 1,
            None => self.groups.push(Group { class: info.class.clone(), terminating, count: 1 }),
        }
    }

    fn count_out(&mut self, info: &Arc<PodInfo>) {
        if let Some(at) = self.pods.iter().position(|p| Arc::ptr_eq(p, info)) {
            self.pods.swap_remove(at);
        }
        for port in info.ports() {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        let terminating = info.is_terminating();
        let same = |g: &Group| g.class.id == info.class.id && g.terminating == terminating;
        if let Some(at) = self.groups.iter().position(same) {
            self.groups[at].count -= 1;
            if self.groups[at].count == 0 {
                self.groups.swap_remove(at);
            }
        }
    }
}

fn bump(counts: &mut FxHashMap<Symbol, u32>, key: Symbol, sign: i32) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add_signed(sign);
    if *count == 0 {
        counts.remove(&key);
    }
}
