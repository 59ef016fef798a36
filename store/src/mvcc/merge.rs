//! A range read as of a revision: the newest state, walked in key order, with later changes undone on the way.

use super::Counts;
use crate::{Error, KeyRange, KeyValue, RangeResponse, Revision};
use bytes::Bytes;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::ControlFlow;

/// Takes the newest keys of a range one after another and gives the page asked for.
pub(crate) struct Merge<'a> {
    /// What changed keys were before the change; `None` for those that did not exist.
    undone: Peekable<btree_map::IntoIter<Bytes, Option<KeyValue>>>,
    range: &'a KeyRange,
    limit: usize,
    revision: Revision,
    items: Vec<KeyValue>,
    count: u64,
    /// The number of keys of the whole range, where a page before it told.
    known: Option<u64>,
    counts: &'a Counts,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(
        range: &'a KeyRange,
        limit: usize,
        revision: Revision,
        undone: BTreeMap<Bytes, Option<KeyValue>>,
        counts: &'a Counts,
    ) -> Self {
        let known = if limit == 0 { None } else { counts.known(range, revision) };
        let undone = undone.into_iter().peekable();
        Merge { undone, range, limit, revision, items: Vec::new(), count: 0, known, counts }
    }

    /// Takes the next key of the newest state; `make` is called only where the item is part of the page.
    pub(crate) fn visit(
        &mut self,
        key: &[u8],
        make: impl FnOnce() -> Result<KeyValue, Error>,
    ) -> Result<ControlFlow<()>, Error> {
        while let Some((_, before)) = self.undone.next_if(|(undone, _)| undone.as_ref() < key) {
            self.take_undone(before);
        }
        match self.undone.next_if(|(undone, _)| undone.as_ref() == key) {
            Some((_, before)) => self.take_undone(before),
            None => {
                self.count += 1;
                if self.wants() {
                    self.items.push(make()?);
                }
            }
        }
        let full = self.limit != 0 && self.items.len() == self.limit;
        Ok(if full && self.known.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn wants(&self) -> bool {
        self.limit == 0 || self.items.len() < self.limit
    }

    fn take_undone(&mut self, before: Option<KeyValue>) {
        let Some(item) = before else { return };
        self.count += 1;
        if self.wants() {
            self.items.push(item);
        }
    }

    /// The page.
    pub(crate) fn finish(mut self) -> RangeResponse {
        while let Some((_, before)) = self.undone.next() {
            self.take_undone(before);
        }
        let count = self.known.unwrap_or(self.count);
        let rest = count - self.items.len() as u64;
        if let (true, Some(last)) = (rest > 0, self.items.last()) {
            self.counts.note(&last.key, &self.range.end, self.revision, rest);
        }
        RangeResponse { items: self.items, more: rest > 0, count, revision: self.revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, revision: Revision) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::new(),
            create_revision: revision,
            mod_revision: revision,
        }
    }

    fn check(now: &[&str], undone: &[(&str, bool)], limit: usize, want: &[&str], count: u64) {
        let undone = undone
            .iter()
            .map(|(k, lived)| (Bytes::copy_from_slice(k.as_bytes()), lived.then(|| item(k, 1))))
            .collect();
        let (range, counts) = (KeyRange::prefix(""), Counts::default());
        let mut merge = Merge::new(&range, limit, 5, undone, &counts);
        for key in now {
            assert!(merge.visit(key.as_bytes(), || Ok(item(key, 9))).is_ok());
        }
        let page = merge.finish();
        let got: Vec<_> = page.items.iter().map(|i| std::str::from_utf8(&i.key).unwrap_or("?")).collect();
        assert_eq!((got.as_slice(), page.count), (want, count), "{now:?}");
        assert_eq!(page.more, count > want.len() as u64);
    }

    #[test]
    fn later_changes_are_undone() {
        check(&["a", "b"], &[], 0, &["a", "b"], 2);
        check(&["a", "b"], &[("b", false)], 0, &["a"], 1);
        check(&["b"], &[("a", true), ("c", true)], 0, &["a", "b", "c"], 3);
        check(&["b"], &[("a", true), ("b", true), ("c", true)], 2, &["a", "b"], 3);
        check(&[], &[("a", false)], 1, &[], 0);
    }

    #[test]
    fn the_second_page_does_not_walk_on() {
        let counts = Counts::default();
        let all = KeyRange::prefix("");
        let mut first = Merge::new(&all, 1, 5, BTreeMap::new(), &counts);
        for key in ["a", "b", "c"] {
            assert!(first.visit(key.as_bytes(), || Ok(item(key, 1))).is_ok_and(|flow| flow.is_continue()));
        }
        assert_eq!(first.finish().count, 3);
        let rest = KeyRange { start: Bytes::from_static(b"a\0"), end: None };
        let mut second = Merge::new(&rest, 1, 5, BTreeMap::new(), &counts);
        assert!(second.visit(b"b", || Ok(item("b", 1))).is_ok_and(|flow| flow.is_break()));
        assert_eq!(second.finish().count, 2);
    }
}
