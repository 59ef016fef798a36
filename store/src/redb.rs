//! The default store on disk: redb, with a flush for every group of commits.

use crate::embedded::{Body, Embedded, Engine, HEADER_LEN, Scan, Txn, contained, decode, header};
use crate::{
    Capabilities, Commit, CommitOutcome, Error, Event, KeyRange, KeyValue, Limits, RangeRequest,
    RangeResponse, Reason, Revision, Store, WatchStream,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

type Values = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Each key with its record.
const VALUES: Values = TableDefinition::new("values");
/// Numbers of the store itself.
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// Up to where revisions may have been given to writes in memory.
const RESERVED: &str = "reserved";
const FORMAT: &str = "format";
/// How the tables are laid out; another number is another program's file.
const FORMAT_NOW: u64 = 1;

/// From so many commits in a group on the store is busy, and leaves out what only makes the file open at once after a crash: a second flush and
/// the map of the free pages. A burst ends with small groups, which bring both again.
const BUSY_COMMITS_MIN: usize = 4;

/// How a [`RedbStore`] is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    /// Bounds of commits, history and watches.
    pub limits: Limits,
    /// How many bytes of the file redb keeps in memory.
    pub cache_bytes_max: usize,
    /// A file up to this many bytes is read whole when it is opened, to check it. Damage of a larger one is found when it is met.
    pub check_bytes_max: u64,
}

impl Default for RedbOptions {
    fn default() -> Self {
        RedbOptions { limits: Limits::default(), cache_bytes_max: 16 << 20, check_bytes_max: 32 << 20 }
    }
}

/// A durable store in one file, opened by one process.
///
/// All the commits that wait are written and flushed (fsync) together, each at its own revision; none is acknowledged, and no watcher sees
/// it, before that. After a crash the file opens at once, but for one in the middle of many writes: then it is read through (about 0.4 s for
/// 200 MB). Values in the past, and the events that watches replay, are kept
/// in memory within [`Limits`]: after opening, the past before that moment answers `Compacted`.
///
/// A full disk gives `NoSpace`: nothing acknowledged is lost, nothing of the refused commit stays, and writes go on once there is room.
///
/// ```no_run
/// # async fn f() -> Result<(), kubewright_store::Error> {
/// use kubewright_store::{RedbStore, Store};
/// let store = RedbStore::open("/var/lib/plane/store.redb")?;
/// println!("at revision {}", store.current_revision().await?);
/// # Ok(()) }
/// ```
pub struct RedbStore(Embedded<RedbEngine>);

impl RedbStore {
    /// Opens the file, or makes it and its folder, readable by its owner only.
    ///
    /// # Errors
    /// `Locked` where another process or store has it open, `Corrupt` where it is no store or damaged, `NoSpace`, or `Failed` with the
    /// system's words.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        RedbStore::open_with(path, RedbOptions::default())
    }

    /// [`RedbStore::open`] with options.
    ///
    /// # Errors
    /// As [`RedbStore::open`].
    pub fn open_with(path: impl AsRef<Path>, options: RedbOptions) -> Result<Self, Error> {
        let engine = RedbEngine::open(path.as_ref(), options)?;
        Ok(RedbStore(Embedded::new(engine, options.limits)?))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.engine().path
    }
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedbStore({})", self.path().display())
    }
}

impl Store for RedbStore {
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

struct RedbEngine {
    path: PathBuf,
    options: RedbOptions,
    /// `None` while it could not be opened again after an error, and once closed.
    database: RwLock<Option<Database>>,
}

impl RedbEngine {
    fn open(path: &Path, options: RedbOptions) -> Result<Self, Error> {
        let database = open_database(path, &options)?;
        Ok(RedbEngine { path: path.to_owned(), options, database: RwLock::new(Some(database)) })
    }

    fn with<T>(&self, call: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        let database = self.database.read();
        match database.as_ref() {
            Some(database) => contained(|| call(database)),
            None => Err(self.not_open()),
        }
    }

    fn not_open(&self) -> Error {
        Error::new(Reason::Unavailable, format!("{} is not open", self.path.display()))
    }
}

impl Engine for RedbEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, replicated: false, shared: false, history: true, previous_values: true }
    }

    fn revision(&self) -> Result<Revision, Error> {
        self.with(|database| revision_of(&database.begin_read().map_err(failed)?))
    }

    fn reserved(&self) -> Result<Revision, Error> {
        self.with(|database| number_of(&database.begin_read().map_err(failed)?, RESERVED))
    }

    fn reserve(&self, revision: Revision) -> Result<(), Error> {
        self.with(|database| {
            let write = database.begin_write().map_err(failed)?;
            write.open_table(META).map_err(failed)?.insert(RESERVED, revision).map_err(failed)?;
            write.commit().map_err(failed)
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        self.with(|database| {
            let values = database.begin_read().map_err(failed)?.open_table(VALUES).map_err(failed)?;
            let found = values.get(key).map_err(failed)?;
            found.map(|record| decode(Bytes::copy_from_slice(key), record.value())).transpose()
        })
    }

    fn scan(&self, range: &KeyRange, to: &mut dyn Scan) -> Result<(), Error> {
        self.with(|database| {
            let read = database.begin_read().map_err(failed)?;
            to.begin(revision_of(&read)?)?;
            let values = read.open_table(VALUES).map_err(failed)?;
            let start = Bound::Included(range.start.as_ref());
            let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_ref()));
            for entry in values.range::<&[u8]>((start, end)).map_err(failed)? {
                let (key, record) = entry.map_err(failed)?;
                if to.visit(key.value(), record.value())?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, commits: usize, body: &mut Body<'_>) -> Result<(), Error> {
        self.with(|database| {
            let mut write = database.begin_write().map_err(failed)?;
            write.set_quick_repair(commits < BUSY_COMMITS_MIN);
            let reached = {
                let values = write.open_table(VALUES).map_err(failed)?;
                body(&mut RedbTxn { values })?
            };
            let Some(revision) = reached else { return write.abort().map_err(failed) };
            write.open_table(META).map_err(failed)?.insert(REVISION, revision).map_err(failed)?;
            write.commit().map_err(failed)
        })
    }

    fn recover(&self) -> Result<Revision, Error> {
        let mut database = self.database.write();
        // redb refuses everything after an I/O error until its file is opened anew. The old one must be gone: it holds the lock.
        drop(database.take());
        let opened = open_database(&self.path, &self.options)?;
        let revision = revision_of(&opened.begin_read().map_err(failed)?)?;
        *database = Some(opened);
        Ok(revision)
    }

    fn close(&self) -> Result<(), Error> {
        match self.database.write().take() {
            Some(database) => contained(|| database.close().map_err(failed)),
            None => Err(self.not_open()),
        }
    }
}

struct RedbTxn<'t> {
    values: redb::Table<'t, &'static [u8], &'static [u8]>,
}

impl Txn for RedbTxn<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        let found = self.values.get(key.as_ref()).map_err(failed)?;
        found.map(|record| decode(key.clone(), record.value())).transpose()
    }

    fn apply(&mut self, event: &Event) -> Result<(), Error> {
        match event {
            Event::Put { item, .. } => {
                let len = HEADER_LEN + item.value.len();
                let mut room = self.values.insert_reserve(item.key.as_ref(), len).map_err(failed)?;
                let room = room.as_mut();
                room[..HEADER_LEN].copy_from_slice(&header(item));
                room[HEADER_LEN..].copy_from_slice(&item.value);
            }
            Event::Delete { key, .. } => {
                self.values.remove(key.as_ref()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn revision_of(read: &redb::ReadTransaction) -> Result<Revision, Error> {
    number_of(read, REVISION)
}

fn number_of(read: &redb::ReadTransaction, name: &str) -> Result<u64, Error> {
    let meta = read.open_table(META).map_err(failed)?;
    let number = meta.get(name).map_err(failed)?;
    Ok(number.map_or(0, |number| number.value()))
}

fn open_database(path: &Path, options: &RedbOptions) -> Result<Database, Error> {
    let file = open_file(path).map_err(|error| told(path, io_failed(&error)).with_source(error))?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes_max);
    builder.set_check_integrity_on_open(length <= options.check_bytes_max);
    let open = || {
        let database =
            builder.create_with_backend(FileBackend::new(file).map_err(failed)?).map_err(failed)?;
        prepare(&database)?;
        Ok(database)
    };
    contained(open).map_err(|error| told(path, error))
}

/// Opens the file as its owner's alone; a new one is flushed together with its folder's entry.
fn open_file(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).truncate(false);
    if path.exists() {
        return open.open(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    let file = open.create(true).open(path)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Makes the tables of a new file, and looks whether an old one is ours.
fn prepare(database: &Database) -> Result<(), Error> {
    let write = database.begin_write().map_err(failed)?;
    let format = {
        let mut meta = write.open_table(META).map_err(failed)?;
        write.open_table(VALUES).map_err(failed)?;
        let format = meta.get(FORMAT).map_err(failed)?.map(|format| format.value());
        if format.is_none() {
            meta.insert(FORMAT, FORMAT_NOW).map_err(failed)?;
        }
        format
    };
    match format {
        None => write.commit().map_err(failed),
        Some(FORMAT_NOW) => write.abort().map_err(failed),
        Some(other) => {
            Err(Error::new(Reason::Unsupported, format!("its format {other} is not known to this version")))
        }
    }
}

fn told(path: &Path, error: Error) -> Error {
    let words = match error.reason() {
        Reason::Locked => format!("{} is in use by another process", path.display()),
        Reason::Corrupt => format!("{} is damaged or no store: {error}", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    Error::new(error.reason(), words)
}

fn io_failed(error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Reason::NoSpace
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Reason::Corrupt,
        _ => Reason::Failed,
    };
    Error::new(reason, error.to_string())
}

fn failed(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let plain = match &error {
        redb::Error::DatabaseAlreadyOpen => Error::new(Reason::Locked, "another process has it open"),
        redb::Error::Io(io) => io_failed(io),
        redb::Error::Corrupted(words) => Error::new(Reason::Corrupt, words.clone()),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            Error::new(Reason::Unavailable, error.to_string())
        }
        redb::Error::ValueTooLarge(_) => Error::new(Reason::TooLarge, error.to_string()),
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::UpgradeRequired(_) => Error::new(Reason::Corrupt, error.to_string()),
        _ => Error::new(Reason::Failed, error.to_string()),
    };
    plain.with_source(error)
}
