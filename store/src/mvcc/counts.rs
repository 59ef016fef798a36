//! Remembers how many keys the rest of a paged list holds, so that only its first page walks the whole range.

use crate::{KeyRange, Revision};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// How many paged lists are remembered.
const PAGES_MAX: usize = 64;

#[derive(Debug)]
struct Rest {
    /// Where the next page is expected to begin.
    start: Bytes,
    end: Option<Bytes>,
    revision: Revision,
    count: u64,
}

/// The rests of the latest pages. Past states never change, so an entry is never wrong.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<VecDeque<Rest>>);

impl Counts {
    /// How many keys the range holds at the revision, where a page before it told.
    pub(crate) fn known(&self, range: &KeyRange, revision: Revision) -> Option<u64> {
        let rests = self.0.lock();
        let found =
            rests.iter().find(|r| r.revision == revision && r.start == range.start && r.end == range.end)?;
        Some(found.count)
    }

    /// Notes that after `last` the range holds `count` more keys at the revision.
    pub(crate) fn note(&self, last: &Bytes, end: &Option<Bytes>, revision: Revision, count: u64) {
        let mut start = Vec::with_capacity(last.len() + 1);
        start.extend_from_slice(last);
        start.push(0);
        let mut rests = self.0.lock();
        if rests.len() == PAGES_MAX {
            rests.pop_front();
        }
        rests.push_back(Rest { start: start.into(), end: end.clone(), revision, count });
    }
}
