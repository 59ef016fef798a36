//! Judging a commit: what it may look like, whether its conditions hold, and which events it makes.

use super::Limits;
use crate::{Commit, CommitOutcome, Error, Event, KeyValue, Op, Reason, Revision};
use bytes::Bytes;
use std::collections::HashSet;

/// The events of one revision, as the history and the watchers share them.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The revision.
    pub(crate) revision: Revision,
    /// Its events, in the order of the ops; never empty.
    pub(crate) events: Vec<Event>,
    /// The bytes of keys and values that it keeps alive.
    pub(crate) bytes: usize,
}

/// How a commit was judged.
pub(crate) enum Verdict {
    /// Its conditions hold and it changes something, at the revision given to [`evaluate`].
    Changed(Committed),
    /// It is answered without any change.
    Unchanged(CommitOutcome),
}

/// Whether a commit makes sense and keeps to the limits.
pub(crate) fn check_commit(commit: &Commit, limits: &Limits) -> Result<(), Error> {
    let mut size = 0usize;
    for op in &commit.ops {
        size = size.saturating_add(op.key().len()).saturating_add(op.value_len());
    }
    check_keys(commit)?;
    if size > limits.commit_bytes_max {
        let max = limits.commit_bytes_max;
        return Err(Error::new(
            Reason::TooLarge,
            format!("the commit holds {size} bytes, more than the {max} that the store takes"),
        ));
    }
    Ok(())
}

/// No key is empty, and none is written twice.
pub(crate) fn check_keys(commit: &Commit) -> Result<(), Error> {
    let keys = commit.ops.iter().map(Op::key).chain(commit.compares.iter().map(|c| &c.key));
    if keys.clone().any(|k| k.is_empty()) {
        return Err(Error::new(Reason::Invalid, "a key is empty"));
    }
    let mut seen = HashSet::new();
    if commit.ops.len() > 1 && !commit.ops.iter().all(|op| seen.insert(op.key())) {
        return Err(Error::new(Reason::Invalid, "a key is written twice in one commit"));
    }
    Ok(())
}

/// Judges a commit whose revision would be `next`; `lookup` reads the newest state of a key.
pub(crate) fn evaluate(
    commit: Commit,
    next: Revision,
    mut lookup: impl FnMut(&Bytes) -> Result<Option<KeyValue>, Error>,
) -> Result<Verdict, Error> {
    let mut current = Vec::with_capacity(commit.compares.len());
    let mut holds = true;
    for compare in &commit.compares {
        let found = lookup(&compare.key)?;
        holds &= found.as_ref().map_or(0, |kv| kv.mod_revision) == compare.mod_revision;
        current.push(found);
    }
    if !holds {
        return Ok(Verdict::Unchanged(CommitOutcome::Refused { current }));
    }
    let mut events = Vec::with_capacity(commit.ops.len());
    let mut bytes = 0;
    for op in commit.ops {
        let known = commit.compares.iter().position(|c| c.key == op.key());
        let previous = match known {
            Some(index) => current[index].take(),
            None => lookup(op.key())?,
        };
        bytes += op.key().len() + previous.as_ref().map_or(0, |p| p.value.len());
        match op {
            Op::Put { key, value } => {
                bytes += value.len();
                let create_revision = previous.as_ref().map_or(next, |p| p.create_revision);
                let item = KeyValue { key, value, create_revision, mod_revision: next };
                events.push(Event::Put { item, previous });
            }
            Op::Delete { key } if previous.is_some() => {
                events.push(Event::Delete { key, previous, revision: next });
            }
            Op::Delete { .. } => {}
        }
    }
    if events.is_empty() {
        return Ok(Verdict::Unchanged(CommitOutcome::Committed { revision: next - 1 }));
    }
    Ok(Verdict::Changed(Committed { revision: next, events, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compare;

    fn put(key: &'static str) -> Op {
        Op::Put { key: key.into(), value: Bytes::from_static(b"v") }
    }

    fn check(ops: Vec<Op>, compare: Option<(&'static str, Revision)>, want: Option<Reason>) {
        let compares = compare
            .map(|(key, mod_revision)| Compare { key: key.into(), mod_revision })
            .into_iter()
            .collect();
        let commit = Commit { compares, ops };
        let limits = Limits { commit_bytes_max: 8, ..Limits::default() };
        assert_eq!(check_commit(&commit, &limits).err().map(|e| e.reason()), want, "{commit:?}");
    }

    #[test]
    fn bad_commits_are_refused() {
        check(vec![put("a"), put("b")], None, None);
        check(vec![put("")], None, Some(Reason::Invalid));
        check(vec![put("a"), Op::Delete { key: "a".into() }], None, Some(Reason::Invalid));
        check(vec![put("a")], Some(("", 0)), Some(Reason::Invalid));
        check(vec![put("123456789")], None, Some(Reason::TooLarge));
        check(vec![], None, None);
    }

    #[test]
    fn a_delete_of_nothing_takes_no_revision() {
        let commit = Commit { compares: vec![], ops: vec![Op::Delete { key: "a".into() }] };
        match evaluate(commit, 8, |_| Ok(None)) {
            Ok(Verdict::Unchanged(CommitOutcome::Committed { revision })) => assert_eq!(revision, 7),
            _ => panic!("the commit changed something"),
        }
    }
}
