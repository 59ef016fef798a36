//! Reading one page of a range off an engine.

use super::{Engine, Scan, Shared, decode};
use crate::mvcc::{Counts, Hub, Merge};
use crate::{Error, RangeRequest, RangeResponse, Revision};
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

impl<E: Engine> Shared<E> {
    /// Whether a page before this one told how many keys there are, so that this one is as short as its limit.
    pub(super) fn knows_count(&self, request: &RangeRequest) -> bool {
        request.revision.is_some_and(|revision| self.counts.known(&request.range, revision).is_some())
    }

    pub(super) fn read_range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let mut page = Page { request, hub: &self.hub, counts: &self.counts, merge: None };
        let empty = request.range.end.as_ref().is_some_and(|end| *end <= request.range.start);
        if empty {
            page.begin(self.engine.revision()?)?;
        } else {
            self.engine.scan(&request.range, &mut page)?;
        }
        match page.merge {
            Some(merge) => Ok(merge.finish()),
            None => Err(Error::new(crate::Reason::Failed, "the engine began no scan")),
        }
    }
}
