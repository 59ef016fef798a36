//! The port: what every store is, in etcd's terms, and nothing about kinds or JSON.

use crate::Error;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::time::Duration;

/// The one counter of a store: every commit takes the next value. 0 is before the first commit.
pub type Revision = u64;

/// A key with its value, as of some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created this life of the key.
    pub create_revision: Revision,
    /// The revision that last wrote it.
    pub mod_revision: Revision,
}

/// A half-open interval of keys, `start..end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key after the interval; `None` means no upper bound.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = successor(&start);
        KeyRange { start, end }
    }

    /// Whether the interval holds the key.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }
}

/// The smallest key that is greater than every key with this prefix; `None` where there is none.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|b| *b != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

/// What a range read asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many items; 0 for all.
    pub limit: usize,
    /// As of this revision; `None` for the newest.
    pub revision: Option<Revision>,
}

/// What a range read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResponse {
    /// The items in key order.
    pub items: Vec<KeyValue>,
    /// Whether the limit left keys out; go on after the last key, at [`RangeResponse::revision`].
    pub more: bool,
    /// How many keys the whole range holds, those left out included.
    pub count: u64,
    /// The revision at which the items are true.
    pub revision: Revision,
}

/// A condition of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Of this key,
    pub key: Bytes,
    /// the last write is this revision; 0 means that the key does not exist.
    pub mod_revision: Revision,
}

/// One write of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes a key; one that does not exist is no error, and makes no event.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Op {
    /// The key written.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }

    /// How many bytes the value written holds; none for a delete.
    pub fn value_len(&self) -> usize {
        match self {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } => 0,
        }
    }
}

/// Several writes that happen together or not at all. A key may be written once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// All are done, at one new revision.
    pub ops: Vec<Op>,
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Done, and durable as far as the store's capabilities say.
    Committed {
        /// The commit's revision. Where every op was a delete of a missing key, the present revision.
        revision: Revision,
    },
    /// A condition did not hold; nothing was done.
    Refused {
        /// For each condition, what its key holds now, in the order given.
        current: Vec<Option<KeyValue>>,
    },
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was set.
    Put {
        /// Its new state.
        item: KeyValue,
        /// Its state before, where the store still knows it; `None` for a key that did not exist.
        previous: Option<KeyValue>,
    },
    /// The key was removed.
    Delete {
        /// Its last state, where the store still knows it.
        key: Bytes,
        /// Its state before.
        previous: Option<KeyValue>,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put { item, .. } => &item.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { item, .. } => item.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// What a watch yields: the events of whole revisions, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The events, oldest first; those of one revision are never split over two batches. Empty for a progress mark.
    pub events: Vec<Event>,
    /// Every event of the watched range up to this revision has been yielded.
    pub revision: Revision,
}

/// The events of a range. An `Err` is the last item.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, Error>>;

/// What a store promises, so that callers and the conformance suite know what to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// An acknowledged commit survives a crash of the process and of the machine.
    pub durable: bool,
    /// An acknowledged commit survives the loss of one machine.
    pub replicated: bool,
    /// Several processes may open it at once.
    pub shared: bool,
    /// Reads at past revisions work back to the last compaction; without it they work only at the newest revision.
    pub history: bool,
    /// [`Event`]s carry the previous value wherever it was not compacted.
    pub previous_values: bool,
}

/// A flat ordered map of keys to bytes under one revision counter.
///
/// Implementations are cheap to call from many tasks at once; writes that wait together should be flushed together.
/// A store is used as `Arc<dyn Store>`, and wrappers hold another one.
pub trait Store: Send + Sync + 'static {
    /// What this store promises.
    fn capabilities(&self) -> Capabilities;

    /// The revision of the last commit, linearizable: every commit acknowledged before the call is counted.
    ///
    /// # Errors
    /// Where the store is not reachable.
    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>>;

    /// Reads one key, linearizable.
    ///
    /// # Errors
    /// Where the store is not reachable or damaged.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>>;

    /// Reads a range, linearizable at the newest revision, repeatable at a past one.
    ///
    /// # Errors
    /// `Compacted` or `FutureRevision` where the revision is out of the history kept.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>>;

    /// Does the writes if every condition holds.
    ///
    /// Acknowledged means durable as far as [`Capabilities::durable`] says. Watchers see a commit only once it is durable.
    ///
    /// # Errors
    /// Where it was not done (`is_indeterminate` false), or where it may or may not have been (`is_indeterminate` true).
    ///
    /// # Cancel safety
    /// A dropped call may or may not have committed; it never commits half.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>>;

    /// Follows a range from the events of revision `from` on (the first possible one is 1); a `from` in the future waits for it.
    ///
    /// No event is lost or repeated. Progress marks come from time to time while nothing happens. A watcher that falls too far
    /// behind is cut off with `Lagged` instead of being waited for.
    ///
    /// # Errors
    /// `Compacted` where `from` is older than the history kept, at once or as the stream's last item.
    ///
    /// # Cancel safety
    /// Dropping the stream ends the watch.
    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>>;

    /// Forgets the history before `revision`: reads and watches below it answer `Compacted`. The newest values stay.
    ///
    /// # Errors
    /// `FutureRevision` where `revision` is above the current one. One that is compacted already is no error.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>>;

    /// Keeps the keys with this prefix in memory only, from now until the store is closed; what is stored of them already moves there. Their
    /// commits flush nothing, are gone with the process, and share the revisions of all others: none is ever given twice, a restart included.
    ///
    /// To be called before others use these keys. A store that is in memory as a whole has nothing to do.
    ///
    /// # Errors
    /// `Unsupported` where the store can't: it is shared with other processes, or its author did not provide for it.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have taken effect.
    fn keep_in_memory(&self, prefix: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        let words = format!("this store can't keep the keys under {prefix:?} in memory only");
        Box::pin(async move { Err(Error::new(crate::Reason::Unsupported, words)) })
    }

    /// Asks that the store itself deletes keys with this prefix about so long after their last write, also while no server runs. False
    /// where it does not do such things; whoever wants the keys gone then deletes them.
    fn expire(&self, prefix: Bytes, after: Duration) -> bool {
        let _ = (prefix, after);
        false
    }

    /// Ends the store: waits for the writes under way, ends watches, releases files. Later calls answer `Closed`.
    ///
    /// # Errors
    /// Where the last flush fails.
    fn close(&self) -> BoxFuture<'_, Result<(), Error>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        let r = KeyRange::prefix("a/");
        assert!(r.contains(b"a/") && r.contains(b"a/\xff\xff") && !r.contains(b"a0") && !r.contains(b"a"));
        assert_eq!(KeyRange::prefix(vec![1, 255]).end.as_deref(), Some(&[2u8][..]));
        assert_eq!(KeyRange::prefix(vec![255]).end, None);
        assert!(KeyRange::prefix("").contains(b"anything"));
    }
}
