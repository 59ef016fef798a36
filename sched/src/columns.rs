//! Amounts of resources by column: one array over all nodes for each resource.

use crate::intern::Symbol;
use crate::node::NodeIndex;
use crate::resources::Resources;
use rustc_hash::FxHashMap;

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
    pub(crate) fn grow(&mut self, rows: usize) {
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

    pub(crate) fn set(&mut self, node: NodeIndex, amounts: &Resources) {
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

    pub(crate) fn add(&mut self, node: NodeIndex, amounts: &Resources, sign: i64) {
        let rows = self.milli_cpu.len();
        self.milli_cpu[node.at()] += sign * amounts.milli_cpu;
        self.memory[node.at()] += sign * amounts.memory;
        self.ephemeral_storage[node.at()] += sign * amounts.ephemeral_storage;
        for (name, amount) in &amounts.scalars {
            self.scalars.entry(*name).or_insert_with(|| vec![0; rows])[node.at()] += sign * amount;
        }
    }
}
