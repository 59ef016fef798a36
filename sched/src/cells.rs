//! Nodes that a cycle can't tell apart share a cell: filters and scores that look beyond one node are asked once a cell, and inside a
//! cell the nodes stand ordered by what they score on their own. So the best node is found without looking at all of them.

use crate::node::NodeIndex;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

const NONE: u32 = u32::MAX;

/// Where a row stands.
#[derive(Clone, Copy, Debug)]
struct Spot {
    cell: u32,
    at: u32,
    total: i64,
}

const NOWHERE: Spot = Spot { cell: NONE, at: 0, total: 0 };

#[derive(Debug, Default)]
struct Cell {
    key: Box<[u64]>,
    /// Its place among the cells in use.
    at: u32,
    rows: u32,
    /// Rows by total.
    totals: BTreeMap<i64, Vec<u32>>,
}

/// The cells of one class of pods.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    by_key: FxHashMap<Box<[u64]>, u32>,
    cells: Vec<Cell>,
    free: Vec<u32>,
    used: Vec<u32>,
    spots: Vec<Spot>,
    /// Emptied lists, kept to save allocations.
    spare: Vec<Vec<u32>>,
}

/// A cell in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellId(u32);

impl Cells {
    pub(crate) fn grow(&mut self, rows: usize) {
        self.spots.resize(rows, NOWHERE);
    }

    /// Puts a row into the cell of a key, wherever it was.
    pub(crate) fn put(&mut self, node: NodeIndex, key: &[u64], total: i64) {
        let spot = self.spots[node.at()];
        if spot.cell != NONE && spot.total == total && *self.cells[spot.cell as usize].key == *key {
            return;
        }
        self.take(node);
        let id = match self.by_key.get(key) {
            Some(id) => *id,
            None => self.open(key),
        };
        let cell = &mut self.cells[id as usize];
        cell.rows += 1;
        let spare = &mut self.spare;
        let list = cell.totals.entry(total).or_insert_with(|| spare.pop().unwrap_or_default());
        list.push(node.0);
        let at = u32::try_from(list.len() - 1).unwrap_or(u32::MAX);
        self.spots[node.at()] = Spot { cell: id, at, total };
    }

    /// Takes a row out.
    pub(crate) fn take(&mut self, node: NodeIndex) {
        let Some(spot) = self.spots.get(node.at()).copied().filter(|s| s.cell != NONE) else { return };
        self.spots[node.at()] = NOWHERE;
        let cell = &mut self.cells[spot.cell as usize];
        cell.rows -= 1;
        let Some(list) = cell.totals.get_mut(&spot.total) else { return };
        list.swap_remove(spot.at as usize);
        if let Some(moved) = list.get(spot.at as usize) {
            self.spots[*moved as usize].at = spot.at;
        }
        if list.is_empty() {
            if let Some(list) = cell.totals.remove(&spot.total) {
                self.spare.push(list);
            }
            if cell.rows == 0 {
                self.close(spot.cell);
            }
        }
    }

    /// The cell of a row.
    pub(crate) fn cell_of(&self, node: NodeIndex) -> Option<CellId> {
        self.spots.get(node.at()).filter(|s| s.cell != NONE).map(|s| CellId(s.cell))
    }

    /// The cells in use, each with one of its rows and how many it has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CellId, NodeIndex, u32)> + '_ {
        self.used.iter().map(|id| {
            let cell = &self.cells[*id as usize];
            let row = cell.totals.last_key_value().and_then(|(_, rows)| rows.first()).copied();
            (CellId(*id), NodeIndex(row.unwrap_or(NONE)), cell.rows)
        })
    }

    /// The highest total of a cell with the rows that have it.
    pub(crate) fn best(&self, cell: CellId) -> Option<(i64, &[u32])> {
        self.cells[cell.0 as usize].totals.last_key_value().map(|(total, rows)| (*total, rows.as_slice()))
    }

    /// The rows of a cell, the highest total first.
    pub(crate) fn rows(&self, cell: CellId) -> impl Iterator<Item = (NodeIndex, i64)> + '_ {
        let totals = self.cells[cell.0 as usize].totals.iter().rev();
        totals.flat_map(|(total, rows)| rows.iter().map(|row| (NodeIndex(*row), *total)))
    }

    fn open(&mut self, key: &[u64]) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.cells.push(Cell::default());
            u32::try_from(self.cells.len() - 1).unwrap_or(NONE)
        });
        let key: Box<[u64]> = key.into();
        self.by_key.insert(key.clone(), id);
        let cell = &mut self.cells[id as usize];
        cell.key = key;
        cell.at = u32::try_from(self.used.len()).unwrap_or(NONE);
        self.used.push(id);
        id
    }

    fn close(&mut self, id: u32) {
        let (key, at) = {
            let cell = &mut self.cells[id as usize];
            (std::mem::take(&mut cell.key), cell.at as usize)
        };
        self.by_key.remove(&key);
        self.used.swap_remove(at);
        if let Some(moved) = self.used.get(at) {
            self.cells[*moved as usize].at = u32::try_from(at).unwrap_or(NONE);
        }
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_between_cells_and_the_best_comes_first() {
        let mut cells = Cells::default();
        cells.grow(4);
        for (row, key, total) in [(0, 1, 5), (1, 1, 9), (2, 2, 7), (3, 1, 9)] {
            cells.put(NodeIndex(row), &[key], total);
        }
        let mut of: Vec<_> = cells.iter().map(|(id, _, n)| (n, cells.best(id).unwrap().0)).collect();
        of.sort_unstable();
        assert_eq!(of, [(1, 7), (3, 9)]);
        cells.put(NodeIndex(1), &[2], 1);
        cells.take(NodeIndex(3));
        cells.take(NodeIndex(3));
        let (one, two) = (cells.cell_of(NodeIndex(0)).unwrap(), cells.cell_of(NodeIndex(1)).unwrap());
        assert_eq!(cells.best(one), Some((5, &[0][..])));
        assert_eq!(cells.rows(two).collect::<Vec<_>>(), [(NodeIndex(2), 7), (NodeIndex(1), 1)]);
        cells.take(NodeIndex(0));
        assert_eq!(cells.iter().count(), 1, "an empty cell is closed");
        assert!(cells.cell_of(NodeIndex(0)).is_none());
    }
}
