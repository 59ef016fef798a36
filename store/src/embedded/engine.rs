//! What an engine on disk must be able to do.

use crate::{Capabilities, Error, Event, KeyRange, KeyValue, Reason, Revision};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a group of commits does inside one write transaction.
pub(crate) trait Txn {
    /// The newest state of a key, with what this transaction wrote before.
    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error>;

    /// Writes what the event says.
    fn apply(&mut self, event: &Event) -> Result<(), Error>;
}

/// Takes the keys of a range, in order and of one snapshot.
pub(crate) trait Scan {
    /// Called first, with the snapshot's revision.
    fn begin(&mut self, snapshot: Revision) -> Result<(), Error>;

    /// Called for each key with its record.
    fn visit(&mut self, key: &[u8], record: &[u8]) -> Result<ControlFlow<()>, Error>;
}

/// The body of a write transaction: gives the revision that it reaches, or `None` where it changed nothing.
pub(crate) type Body<'a> = dyn FnMut(&mut dyn Txn) -> Result<Option<Revision>, Error> + 'a;

/// A key-value engine on disk, with one writer at a time.
pub(crate) trait Engine: Send + Sync + 'static {
    /// What a store over it promises.
    fn capabilities(&self) -> Capabilities;

    /// The revision of the last write.
    fn revision(&self) -> Result<Revision, Error>;

    /// The revision up to which [`Engine::reserve`] was called; 0 where it never was.
    fn reserved(&self) -> Result<Revision, Error>;

    /// Notes, and returns when that is durable, that revisions up to this one may be given to writes that are not on disk.
    fn reserve(&self, revision: Revision) -> Result<(), Error>;

    /// One key.
    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error>;

    /// Walks a range that is not empty by its bounds.
    fn scan(&self, range: &KeyRange, to: &mut dyn Scan) -> Result<(), Error>;

    /// Does all of `body` or nothing, and returns when it is durable. After an error nobody knows which, until [`Engine::recover`].
    /// `commits` says how many were waiting for it.
    fn apply(&self, commits: usize, body: &mut Body<'_>) -> Result<(), Error>;

    /// After a failed write: makes the engine fit for use again, and tells the revision that is on disk.
    fn recover(&self) -> Result<Revision, Error>;

    /// Releases the files.
    fn close(&self) -> Result<(), Error>;
}

/// Runs a call into an engine's crate; a panic there, as damaged files may cause it, becomes an error.
pub(crate) fn contained<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::new(Reason::Corrupt, format!("the store's files seem to be damaged: {words}")))
    })
}
