//! The seats of all levels together: who lends to whom. Touched only when a level is full.
//!
//! Seats move the moment they are needed, where upstream adjusts the limits every ten seconds. A lender that needs its seats again
//! gets them at once; what runs on them then ends in its own time, so that for a while more may run than there are seats.

use super::level::Level;
use parking_lot::Mutex;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// All levels.
#[derive(Default)]
pub(super) struct Pool {
    /// Requests that wait, in all levels.
    pub(super) waiting: AtomicI64,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    levels: Vec<Arc<Level>>,
    /// Seats on loan, by borrower and lender.
    loans: BTreeMap<(SmolStr, SmolStr), i64>,
}

impl Pool {
    /// These are the levels from now on; what was lent is forgotten.
    pub(super) fn set(&self, levels: Vec<Arc<Level>>) {
        let mut ledger = self.ledger.lock();
        ledger.loans.clear();
        for level in &levels {
            level.seat(level.seating());
        }
        ledger.levels = levels;
    }

    /// Raises a level's limit so that `width` more seats fit, as far as others have some to lend; whether it has any more now.
    pub(super) fn borrow_for(&self, level: &Arc<Level>, width: i64) -> bool {
        self.ledger.lock().borrow(level, width)
    }

    /// A seat came free: whoever waits is served, first in the level whose seat it was.
    pub(super) fn serve_waiting(self: &Arc<Self>, first: &Arc<Level>) {
        first.dispatch(self);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let others: Vec<Arc<Level>> = {
            let ledger = self.ledger.lock();
            let waits = |l: &&Arc<Level>| l.waiting.load(Ordering::SeqCst) > 0 && !Arc::ptr_eq(l, first);
            ledger.levels.iter().filter(waits).cloned().collect()
        };
        for level in others {
            level.dispatch(self);
        }
    }
}

impl Ledger {
    fn borrow(&mut self, level: &Arc<Level>, width: i64) -> bool {
        let (limit, taken) = (level.limit.load(Ordering::SeqCst), level.taken.load(Ordering::SeqCst));
        let mut need = taken + width - limit;
        let before = need;
        if need <= 0 {
            return true;
        }
        need -= self.call_in(level, need);
        let room = level.seating().ceiling - level.limit.load(Ordering::SeqCst);
        let mut more = need.min(room);
        let lenders: Vec<Arc<Level>> = self.levels.clone();
        for lender in lenders.iter().filter(|l| !Arc::ptr_eq(l, level)) {
            if more <= 0 {
                break;
            }
            let got = self.lend(lender, level, more);
            more -= got;
            need -= got;
        }
        need < before
    }

    /// Takes back what the level has lent.
    fn call_in(&mut self, level: &Level, need: i64) -> i64 {
        let mut back = 0;
        let levels = &self.levels;
        for ((borrower, lender), seats) in &mut self.loans {
            let Some(borrower) = levels.iter().find(|l| l.name == *borrower && *lender == level.name) else {
                continue;
            };
            let moved = (*seats).min(need - back).max(0);
            *seats -= moved;
            back += moved;
            borrower.limit.fetch_sub(moved, Ordering::SeqCst);
            level.limit.fetch_add(moved, Ordering::SeqCst);
        }
        self.loans.retain(|_, seats| *seats > 0);
        back
    }

    /// Moves idle seats of `lender`, or idle ones that others borrowed of it, to `borrower`.
    fn lend(&mut self, lender: &Level, borrower: &Level, wanted: i64) -> i64 {
        let lent: i64 = self.loans.iter().filter(|((_, l), _)| *l == lender.name).map(|(_, n)| n).sum();
        let own = wanted.min(lender.seating().lendable - lent).min(lender.idle()).max(0);
        lender.limit.fetch_sub(own, Ordering::SeqCst);
        let mut moved = own;
        for ((by, of), seats) in &mut self.loans {
            if *of != lender.name || *by == borrower.name || moved == wanted {
                continue;
            }
            let Some(holder) = self.levels.iter().find(|l| l.name == *by) else { continue };
            let seats_back = (*seats).min(holder.idle()).min(wanted - moved).max(0);
            *seats -= seats_back;
            holder.limit.fetch_sub(seats_back, Ordering::SeqCst);
            moved += seats_back;
        }
        self.loans.retain(|_, seats| *seats > 0);
        if moved > 0 {
            borrower.limit.fetch_add(moved, Ordering::SeqCst);
            *self.loans.entry((borrower.name.clone(), lender.name.clone())).or_default() += moved;
        }
        moved
    }
}
