//! The store over sled, for those who ask for it by name.

use crate::embedded::{Body, Embedded, Engine, HEADER_LEN, Scan, Txn, contained, decode, header};
use crate::{
    Capabilities, Commit, CommitOutcome, Error, Event, KeyRange, KeyValue, Limits, RangeRequest,
    RangeResponse, Reason, Revision, Store, WatchStream,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use sled::{Batch, Db, IVec};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What stands before the keys of values; the store's own numbers lie below it.
const VALUE: u8 = b'v';
const REVISION: &[u8] = b"m/revision";
/// Up to where revisions may have been given to writes in memory.
const RESERVED: &[u8] = b"m/reserved";
/// How often, and how far apart, a closed folder's lock is looked at.
const RELEASE_TRIES: u32 = 500;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// How a [`SledStore`] is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledOptions {
    /// Bounds of commits, history and watches.
    pub limits: Limits,
    /// How many bytes of the data sled keeps in memory.
    pub cache_bytes_max: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        SledOptions { limits: Limits::default(), cache_bytes_max: 16 << 20 }
    }
}

/// A store in a folder, on sled 0.34, opened by one process.
///
/// **sled's flush is `sync_file_range`, not `fsync`.** What was acknowledged survives the death of the process, by kill -9 too, but may be
/// lost with the machine's power, so the store does not call itself durable. Its files are not compacted. Readers wait while a
/// group of commits is written. Prefer [`RedbStore`](crate::RedbStore) unless you want sled.
pub struct SledStore(Embedded<SledEngine>);

impl SledStore {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// `Locked` where another process or store has it open, `Corrupt` where it is damaged, `NoSpace`, or `Failed` with the system's words.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        SledStore::open_with(path, SledOptions::default())
    }

    /// [`SledStore::open`] with options.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open_with(path: impl AsRef<Path>, options: SledOptions) -> Result<Self, Error> {
        let engine = contained(|| SledEngine::open(path.as_ref(), options))?;
        Ok(SledStore(Embedded::new(engine, options.limits)?))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.engine().path
    }
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SledStore({})", self.path().display())
    }
}

impl Store for SledStore {
    fn capabilities(&self) -> Capabilities {
        self.0.engine().capabilities()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(self.0.current_revision())
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(self.0.get(key))
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(self.0.range(request))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(self.0.commit(commit))
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(self.0.watch(range, from))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.compact(revision))
    }

    fn keep_in_memory(&self, prefix: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.keep_in_memory(prefix))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.close())
    }
}

struct SledEngine {
    path: PathBuf,
    options: SledOptions,
    /// Written while a group is: sled's iterators are no snapshots. `None` once closed, or not opened again after an error.
    db: RwLock<Option<Db>>,
}

impl SledEngine {
    fn open(path: &Path, options: SledOptions) -> Result<Self, Error> {
        let db = open_db(path, &options)?;
        Ok(SledEngine { path: path.to_owned(), options, db: RwLock::new(Some(db)) })
    }

    fn with<T>(&self, call: impl FnOnce(&Db) -> Result<T, Error>) -> Result<T, Error> {
        match self.db.read().as_ref() {
            Some(db) => contained(|| call(db)),
            None => Err(self.not_open()),
        }
    }

    /// sled's own threads hold the lock of the folder for a moment after its last handle is gone; whoever opens it next must not meet it.
    fn wait_for_release(&self) {
        let Ok(lock) = File::open(self.path.join("db")) else { return };
        for _ in 0..RELEASE_TRIES {
            if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
                return;
            }
            std::thread::sleep(RELEASE_PAUSE);
        }
    }

    fn not_open(&self) -> Error {
        Error::new(Reason::Unavailable, format!("{} is not open", self.path.display()))
    }
}

impl Engine for SledEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            replicated: false,
            shared: false,
            history: true,
            previous_values: true,
        }
    }

    fn revision(&self) -> Result<Revision, Error> {
        self.with(revision_of)
    }

    fn reserved(&self) -> Result<Revision, Error> {
        self.with(|db| number_of(db, RESERVED))
    }

    fn reserve(&self, revision: Revision) -> Result<(), Error> {
        self.with(|db| {
            db.insert(RESERVED, &revision.to_be_bytes()).map_err(failed)?;
            db.flush().map_err(failed).map(drop)
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        self.with(|db| {
            let found = db.get(on_disk(key)).map_err(failed)?;
            found.map(|record| decode(Bytes::copy_from_slice(key), &record)).transpose()
        })
    }

    fn scan(&self, range: &KeyRange, to: &mut dyn Scan) -> Result<(), Error> {
        self.with(|db| {
            to.begin(revision_of(db)?)?;
            let end = range.end.as_ref().map_or(vec![VALUE + 1], |end| on_disk(end));
            let bounds = (Bound::Included(on_disk(&range.start)), Bound::Excluded(end));
            for entry in db.range(bounds) {
                let (key, record) = entry.map_err(failed)?;
                if to.visit(&key[1..], &record)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, _: usize, body: &mut Body<'_>) -> Result<(), Error> {
        let db = self.db.write();
        let db = db.as_ref().ok_or_else(|| self.not_open())?;
        let mut txn = SledTxn { db, batch: Batch::default(), written: HashMap::new() };
        let Some(revision) = body(&mut txn)? else { return Ok(()) };
        let mut batch = txn.batch;
        batch.insert(REVISION, &revision.to_be_bytes());
        db.apply_batch(batch).map_err(failed)?;
        db.flush().map_err(failed)?;
        Ok(())
    }

    fn recover(&self) -> Result<Revision, Error> {
        let mut db = self.db.write();
        // sled may have taken the batch before the flush failed; what is on disk is known only once it is opened anew.
        drop(db.take());
        let opened = open_db(&self.path, &self.options)?;
        let revision = revision_of(&opened)?;
        *db = Some(opened);
        Ok(revision)
    }

    fn close(&self) -> Result<(), Error> {
        let Some(db) = self.db.write().take() else { return Err(self.not_open()) };
        let flushed = contained(|| db.flush().map(|_| ()).map_err(failed));
        drop(db);
        self.wait_for_release();
        flushed
    }
}

struct SledTxn<'d> {
    db: &'d Db,
    batch: Batch,
    /// What the batch holds so far, `None` for what it deletes.
    written: HashMap<Bytes, Option<KeyValue>>,
}

impl Txn for SledTxn<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        if let Some(written) = self.written.get(key) {
            return Ok(written.clone());
        }
        let found = self.db.get(on_disk(key)).map_err(failed)?;
        found.map(|record| decode(key.clone(), &record)).transpose()
    }

    fn apply(&mut self, event: &Event) -> Result<(), Error> {
        match event {
            Event::Put { item, .. } => {
                let mut record = Vec::with_capacity(HEADER_LEN + item.value.len());
                record.extend_from_slice(&header(item));
                record.extend_from_slice(&item.value);
                self.batch.insert(on_disk(&item.key), record);
                self.written.insert(item.key.clone(), Some(item.clone()));
            }
            Event::Delete { key, .. } => {
                self.batch.remove(on_disk(key));
                self.written.insert(key.clone(), None);
            }
        }
        Ok(())
    }
}

fn on_disk(key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(key.len() + 1);
    whole.push(VALUE);
    whole.extend_from_slice(key);
    whole
}

fn revision_of(db: &Db) -> Result<Revision, Error> {
    number_of(db, REVISION)
}

fn number_of(db: &Db, name: &[u8]) -> Result<u64, Error> {
    let number = |bytes: IVec| bytes.as_ref().try_into().map(u64::from_be_bytes);
    match db.get(name).map_err(failed)?.map(number) {
        None => Ok(0),
        Some(Ok(revision)) => Ok(revision),
        Some(Err(_)) => Err(Error::new(Reason::Corrupt, "a number of the store is cut short")),
    }
}

fn open_db(path: &Path, options: &SledOptions) -> Result<Db, Error> {
    let config = sled::Config::new().path(path).cache_capacity(options.cache_bytes_max).flush_every_ms(None);
    config.open().map_err(|error| {
        let error = failed(error);
        let words = match error.reason() {
            Reason::Locked => format!("{} is in use by another process", path.display()),
            Reason::Corrupt => format!("{} is damaged or no store: {error}", path.display()),
            _ => format!("{}: {error}", path.display()),
        };
        Error::new(error.reason(), words)
    })
}

fn failed(error: sled::Error) -> Error {
    let reason = match &error {
        sled::Error::Corruption { .. } => Reason::Corrupt,
        sled::Error::Io(io) if io.kind() == io::ErrorKind::StorageFull => Reason::NoSpace,
        sled::Error::Io(io) if io.kind() == io::ErrorKind::QuotaExceeded => Reason::NoSpace,
        // sled has no kind of its own for it.
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => Reason::Locked,
        sled::Error::Io(io) if io.kind() == io::ErrorKind::InvalidData => Reason::Corrupt,
        _ => Reason::Failed,
    };
    Error::new(reason, error.to_string()).with_source(error)
}
