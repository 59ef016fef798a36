//! What the stores on this machine's disk share: one writer thread that flushes whole groups of commits, and reads beside it.
//!
//! On disk are the newest values and the revision counter. The history lives in memory, bounded, and begins anew when the store is opened:
//! a watch from an older revision answers `Compacted` then.

mod engine;
mod page;
mod record;
mod volatile;
mod writer;

pub(crate) use engine::{Body, Engine, Scan, Txn, contained};
pub(crate) use record::{HEADER_LEN, decode, header};

use crate::mvcc::{Counts, Hub, Limits, check_commit, watch};
use crate::{
    Commit, CommitOutcome, Error, KeyRange, KeyValue, RangeRequest, RangeResponse, Reason, Revision,
    WatchStream,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use volatile::Volatile;
use writer::{Message, Waiting, Writer};

/// How many commits wait for the writer before callers wait to hand theirs over.
const WAITING_COMMITS_MAX: usize = 4096;

/// Pages up to this many items are read in place; longer ones by a thread that may block.
const READ_IN_PLACE_ITEMS_MAX: usize = 100;

/// A store over an engine. Dropping it closes it.
pub(crate) struct Embedded<E: Engine> {
    shared: Arc<Shared<E>>,
    /// `None` once closed.
    to_writer: Mutex<Option<mpsc::Sender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the writer thread hold together.
struct Shared<E> {
    engine: E,
    hub: Arc<Hub>,
    counts: Counts,
    volatile: Volatile,
    closed: AtomicBool,
}

impl<E: Engine> Shared<E> {
    fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

fn closed() -> Error {
    Error::new(Reason::Closed, "the store was closed")
}

impl<E: Engine> Embedded<E> {
    /// Takes an engine that is open already.
    pub(crate) fn new(engine: E, limits: Limits) -> Result<Self, Error> {
        let (written, reserved) = (engine.revision()?, engine.reserved()?);
        if reserved > written {
            // Revisions up to there may have been given to writes that were in memory only.
            engine.apply(1, &mut |_| Ok(Some(reserved)))?;
        }
        let hub = Arc::new(Hub::new(limits, reserved.max(written)));
        let (counts, volatile, closed) = (Counts::default(), Volatile::new(), AtomicBool::new(false));
        let shared = Arc::new(Shared { engine, hub, counts, volatile, closed });
        let (to_writer, inbox) = mpsc::channel(WAITING_COMMITS_MAX);
        let writer = Writer::new(shared.clone(), inbox);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| {
            Error::new(Reason::Failed, format!("the writer thread did not start: {error}")).with_source(error)
        })?;
        Ok(Embedded { shared, to_writer: Mutex::new(Some(to_writer)), thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn engine(&self) -> &E {
        &self.shared.engine
    }

    pub(crate) async fn current_revision(&self) -> Result<Revision, Error> {
        self.shared.open()?;
        let on_disk = self.shared.engine.revision()?;
        // Those of writes in memory are never on disk.
        Ok(if self.shared.volatile.is_active() { on_disk.max(self.shared.hub.published()) } else { on_disk })
    }

    pub(crate) async fn get(&self, key: Bytes) -> Result<Option<KeyValue>, Error> {
        self.shared.open()?;
        if self.shared.volatile.covers(&key) {
            return Ok(self.shared.volatile.held().get(&key).cloned());
        }
        self.shared.engine.get(&key)
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.shared.open()?;
        if request.limit != 0 && request.limit <= READ_IN_PLACE_ITEMS_MAX && self.shared.knows_count(&request)
        {
            return self.shared.read_range(&request);
        }
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || shared.read_range(&request)).await;
        read.map_err(|error| Error::new(Reason::Failed, format!("the read ended early: {error}")))?
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<CommitOutcome, Error> {
        check_commit(&commit, self.shared.hub.limits())?;
        let to_writer = self.to_writer.lock().clone().ok_or_else(closed)?;
        let (reply, outcome) = oneshot::channel();
        to_writer.send(Message::Commit(Waiting { commit, reply })).await.map_err(|_| closed())?;
        drop(to_writer);
        let gone = |_| Error::new(Reason::Closed, "the store's writer ended").indeterminate();
        outcome.await.map_err(gone)?
    }

    pub(crate) async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, Error> {
        self.shared.open()?;
        watch(&self.shared.hub, range, from)
    }

    pub(crate) async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.open()?;
        self.shared.hub.compact(revision)
    }

    /// Keeps the keys with this prefix in memory only from now on.
    pub(crate) async fn keep_in_memory(&self, prefix: Bytes) -> Result<(), Error> {
        self.shared.open()?;
        let to_writer = self.to_writer.lock().clone().ok_or_else(closed)?;
        let (reply, done) = oneshot::channel();
        to_writer.send(Message::KeepInMemory(prefix, reply)).await.map_err(|_| closed())?;
        done.await.map_err(|_| closed())?
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.shared.closed.store(true, Ordering::Release);
        let Some(to_writer) = self.to_writer.lock().take() else { return Ok(()) };
        let (reply, done) = oneshot::channel();
        to_writer.send(Message::Close(reply)).await.map_err(|_| closed())?;
        let result = done.await.map_err(|_| closed())?;
        self.shared.hub.close();
        result
    }
}

impl<E: Engine> Drop for Embedded<E> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.to_writer.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            // The writer contains its panics; there is nothing to tell.
            let _ = thread.join();
        }
        self.shared.hub.close();
    }
}
