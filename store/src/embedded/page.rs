//! Reading one page of a range off an engine.

use super::volatile::{Between, Volatile};
use super::{Engine, Scan, Shared, decode};
use crate::mvcc::{Counts, Hub, Merge};
use crate::{Error, KeyValue, RangeRequest, RangeResponse, Reason, Revision};
use bytes::Bytes;
use std::ops::ControlFlow;

struct Page<'a> {
    request: &'a RangeRequest,
    hub: &'a Hub,
    counts: &'a Counts,
    merge: Option<Merge<'a>>,
}

impl Scan for Page<'_> {
    fn begin(&mut self, snapshot: Revision) -> Result<(), Error> {
        let RangeRequest { range, limit, revision } = self.request;
        let undone = match revision {
            Some(revision) => self.hub.undo(range, *revision, snapshot)?,
            None => Default::default(),
        };
        self.merge = Some(Merge::new(range, *limit, revision.unwrap_or(snapshot), undone, self.counts));
        Ok(())
    }

    fn visit(&mut self, key: &[u8], record: &[u8]) -> Result<ControlFlow<()>, Error> {
        match &mut self.merge {
            Some(merge) => merge.visit(key, || decode(Bytes::copy_from_slice(key), record)),
            None => Ok(ControlFlow::Break(())),
        }
    }
}

/// How often a read at the newest revision is begun anew because the history moved past it meanwhile.
const READ_TRIES_MAX: usize = 4;

/// A page of keys on disk and in memory. Both are read as they are, and what changed after the page's revision is undone.
struct MixedPage<'a, I: Iterator> {
    page: Page<'a>,
    volatile: &'a Volatile,
    between: Between<I>,
    /// How far the state in memory has come.
    in_memory: Revision,
}

impl<'a, I: Iterator<Item = &'a KeyValue>> MixedPage<'a, I> {
    fn take_before(&mut self, key: Option<&[u8]>) -> Result<ControlFlow<()>, Error> {
        let Some(merge) = &mut self.page.merge else { return Ok(ControlFlow::Break(())) };
        self.between.before(key, |item| merge.visit(&item.key, || Ok(item.clone())))
    }
}

impl<'a, I: Iterator<Item = &'a KeyValue>> Scan for MixedPage<'a, I> {
    fn begin(&mut self, snapshot: Revision) -> Result<(), Error> {
        // A revision that only the disk has reached by now was not acknowledged when the read began.
        let known = self.page.request.revision.is_none_or(|asked| asked <= self.in_memory);
        self.page.begin(if known { snapshot.max(self.in_memory) } else { self.in_memory })
    }

    fn visit(&mut self, key: &[u8], record: &[u8]) -> Result<ControlFlow<()>, Error> {
        if self.volatile.covers(key) {
            return Ok(ControlFlow::Continue(()));
        }
        match self.take_before(Some(key))? {
            ControlFlow::Continue(()) => self.page.visit(key, record),
            stop => Ok(stop),
        }
    }
}

impl<E: Engine> Shared<E> {
    /// A range while some keys are in memory only: everything as of one revision that was published before.
    fn read_mixed(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let mut tries = 1;
        loop {
            let revision = request.revision.unwrap_or_else(|| self.hub.published());
            let pinned = RangeRequest { revision: Some(revision), ..request.clone() };
            match self.read_mixed_at(&pinned) {
                Err(e)
                    if e.reason() == Reason::Compacted
                        && request.revision.is_none()
                        && tries < READ_TRIES_MAX =>
                {
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    fn read_mixed_at(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        // In this order: a state loaded afterwards holds at least what was published before.
        let published = self.hub.published();
        let held = self.volatile.held();
        let in_memory = held.revision.max(published);
        let page = Page { request, hub: &self.hub, counts: &self.counts, merge: None };
        let between = Between::new(held.range(&request.range));
        let mut mixed = MixedPage { page, volatile: &self.volatile, between, in_memory };
        let empty = request.range.end.as_ref().is_some_and(|end| *end <= request.range.start);
        if empty {
            mixed.begin(self.engine.revision()?)?;
        } else {
            self.engine.scan(&request.range, &mut mixed)?;
            // A page that is full already takes no more of them.
            let _ = mixed.take_before(None)?;
        }
        match mixed.page.merge {
            Some(merge) => Ok(merge.finish()),
            None => Err(Error::new(Reason::Failed, "the engine began no scan")),
        }
    }

    /// Whether a page before this one told how many keys there are, so that this one is as short as its limit.
    pub(super) fn knows_count(&self, request: &RangeRequest) -> bool {
        request.revision.is_some_and(|revision| self.counts.known(&request.range, revision).is_some())
    }

    pub(super) fn read_range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        if self.volatile.is_active() {
            return self.read_mixed(request);
        }
        let mut page = Page { request, hub: &self.hub, counts: &self.counts, merge: None };
        let empty = request.range.end.as_ref().is_some_and(|end| *end <= request.range.start);
        if empty {
            page.begin(self.engine.revision()?)?;
        } else {
            self.engine.scan(&request.range, &mut page)?;
        }
        match page.merge {
            Some(merge) => Ok(merge.finish()),
            None => Err(Error::new(Reason::Failed, "the engine began no scan")),
        }
    }
}
