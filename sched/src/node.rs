//! The nodes by column: each resource is one array over all nodes, labels and taints are symbols, sets of nodes are bits.
//!
//! Every change of a row gives it a new generation, so that whoever derived something from the table brings only the changed rows up to date.

use crate::intern::{Interner, Symbol};
use crate::pod::{Effect, HostPort, PodInfo, PodKey, Taint};
use crate::resources::{Resources, whole};
use fixedbitset::FixedBitSet;
use k8s_openapi::api::core::v1::Node;
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;
use std::sync::Arc;

/// A row of the [`NodeTable`]. Rows of deleted nodes are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// As an index into a column.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// Amounts of every resource, one array each.
#[derive(Debug, Default)]
pub struct ResourceColumns {
    /// Millicores.
    pub milli_cpu: Vec<i64>,
    /// Bytes.
    pub memory: Vec<i64>,
    /// Bytes.
    pub ephemeral_storage: Vec<i64>,
    /// Whole units by resource.
    pub scalars: FxHashMap<Symbol, Vec<i64>>,
}

impl ResourceColumns {
    fn grow(&mut self, rows: usize) {
        self.milli_cpu.resize(rows, 0);
        self.memory.resize(rows, 0);
        self.ephemeral_storage.resize(rows, 0);
        for column in self.scalars.values_mut() {
            column.resize(rows, 0);
        }
    }

    /// A scalar resource of a node; 0 where nobody has it.
    pub fn scalar(&self, name: Symbol, node: NodeIndex) -> i64 {
        self.scalars.get(&name).map_or(0, |column| column[node.at()])
    }

    fn set(&mut self, node: NodeIndex, amounts: &Resources) {
        let rows = self.milli_cpu.len();
        self.milli_cpu[node.at()] = amounts.milli_cpu;
        self.memory[node.at()] = amounts.memory;
        self.ephemeral_storage[node.at()] = amounts.ephemeral_storage;
        for column in self.scalars.values_mut() {
            column[node.at()] = 0;
        }
        for (name, amount) in &amounts.scalars {
            self.scalars.entry(*name).or_insert_with(|| vec![0; rows])[node.at()] = *amount;
        }
    }

    fn add(&mut self, node: NodeIndex, amounts: &Resources, sign: i64) {
        let rows = self.milli_cpu.len();
        self.milli_cpu[node.at()] += sign * amounts.milli_cpu;
        self.memory[node.at()] += sign * amounts.memory;
        self.ephemeral_storage[node.at()] += sign * amounts.ephemeral_storage;
        for (name, amount) in &amounts.scalars {
            self.scalars.entry(*name).or_insert_with(|| vec![0; rows])[node.at()] += sign * amount;
        }
    }
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
    pods: FxHashSet<PodKey>,
    ports: Vec<HostPort>,
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
}

impl NodeChange {
    /// Whether anything that scheduling looks at changed.
    pub fn any(self) -> bool {
        self.added || self.allocatable || self.labels || self.taints
    }
}

/// All nodes and the pods placed on them.
#[derive(Debug, Default)]
pub struct NodeTable {
    symbols: Interner,
    by_name: FxHashMap<SmolStr, NodeIndex>,
    rows: Vec<Row>,
    free: Vec<NodeIndex>,
    /// Rows whose node exists.
    present: FixedBitSet,
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
    /// When each row last changed, on the table's own count.
    generations: Vec<u64>,
    generation: u64,
    placed: FxHashMap<PodKey, Placed>,
}

impl NodeTable {
    /// The strings behind the symbols.
    pub fn symbols(&self) -> &Interner {
        &self.symbols
    }

    /// The interner, to compile pods against this table.
    pub fn symbols_mut(&mut self) -> &mut Interner {
        &mut self.symbols
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
        self.present.count_ones(..)
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.present.is_clear()
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
        let labels = &self.rows[node.at()].labels;
        labels.binary_search_by_key(&key, |(k, _)| *k).ok().map(|at| labels[at].1)
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

    /// The pods placed on a node.
    pub fn pods_on(&self, node: NodeIndex) -> impl Iterator<Item = &Placed> {
        self.rows[node.at()].pods.iter().filter_map(|key| self.placed.get(key))
    }

    /// How many pods are placed on a node.
    pub fn pod_count(&self, node: NodeIndex) -> usize {
        self.rows[node.at()].pods.len()
    }

    /// Where a pod is placed.
    pub fn placed(&self, pod: &PodKey) -> Option<&Placed> {
        self.placed.get(pod)
    }

    /// The present count of changes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When a row last changed, on the same count.
    pub fn row_generation(&self, node: usize) -> u64 {
        self.generations[node]
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
        };
        self.present.insert(at);
        self.rows[at].node = Some(node);
        if change.any() {
            self.unschedulable.set(at, unschedulable);
            self.rows[at].labels = labels;
            self.rows[at].taints = taints;
            self.allocatable.set(index, &allocatable);
            self.pods_allowed[at] = pods;
            self.touch(index);
        }
        change
    }

    /// Takes a node out; pods that are still placed on it stay counted until they go.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(index) = self.find(name) else { return false };
        self.present.set(index.at(), false);
        self.rows[index.at()].node = None;
        self.touch(index);
        self.release_row(index);
        true
    }

    /// Places a pod on a node by name; it may be a node that is not known yet.
    pub fn place(&mut self, info: Arc<PodInfo>, node: &str) {
        self.unplace(&info.key);
        let index = self.row_of(node);
        self.count(&info, index, 1);
        let row = &mut self.rows[index.at()];
        row.pods.insert(info.key.clone());
        row.ports.extend(info.ports().iter().cloned());
        self.placed.insert(info.key.clone(), Placed { info, node: index });
        self.touch(index);
    }

    /// Takes a pod off its node; gives what was placed.
    pub fn unplace(&mut self, pod: &PodKey) -> Option<Placed> {
        let placed = self.placed.remove(pod)?;
        let index = placed.node;
        self.count(&placed.info, index, -1);
        let row = &mut self.rows[index.at()];
        row.pods.remove(pod);
        for port in placed.info.ports() {
            if let Some(at) = row.ports.iter().position(|p| p == port) {
                row.ports.swap_remove(at);
            }
        }
        self.touch(index);
        self.release_row(index);
        Some(placed)
    }

    fn count(&mut self, info: &PodInfo, node: NodeIndex, sign: i64) {
        let requests = info.requests();
        self.requested.add(node, &requests.requests, sign);
        self.non_zero_milli_cpu[node.at()] += sign * requests.non_zero_milli_cpu;
        self.non_zero_memory[node.at()] += sign * requests.non_zero_memory;
    }

    fn touch(&mut self, node: NodeIndex) {
        self.generation += 1;
        self.generations[node.at()] = self.generation;
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
        if self.present.contains(at) || !self.rows[at].pods.is_empty() {
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
