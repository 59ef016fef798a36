//! The one writer: takes all the commits that wait, gives each its revision, and flushes them together.

use super::engine::contained;
use super::volatile::{Held, RESERVED_REVISIONS, Volatile};
use super::{Engine, Scan, Shared, Txn, closed, decode};
use crate::mvcc::{Committed, Verdict, evaluate};
use crate::{Commit, CommitOutcome, Error, Event, KeyRange, KeyValue, Op, Reason, Revision};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many commits share a flush.
const GROUP_COMMITS_MAX: usize = 1024;

/// How many bytes of values share a flush.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// How long the writer waits before it looks again whether the medium works.
const RECOVER_PAUSE: Duration = Duration::from_millis(200);

type Reply = oneshot::Sender<Result<CommitOutcome, Error>>;

/// A commit and who waits for it.
pub(super) struct Waiting {
    pub(super) commit: Commit,
    pub(super) reply: Reply,
}

/// What the writer is sent.
pub(super) enum Message {
    Commit(Waiting),
    KeepInMemory(Bytes, oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<Result<(), Error>>),
}

pub(super) struct Writer<E: Engine> {
    shared: Arc<Shared<E>>,
    inbox: mpsc::Receiver<Message>,
    /// A write failed, and whether it is on disk could not be read since; what was staged is undecided.
    undecided: bool,
    /// What the staged revisions make of the keys in memory.
    staged: Option<Held>,
    /// Revisions up to this one may be given to writes that are not on disk.
    reserved: Revision,
}

/// What [`Writer::gather`] met besides commits.
enum Aside {
    Nothing,
    KeepInMemory(Bytes, oneshot::Sender<Result<(), Error>>),
    Close(Option<oneshot::Sender<Result<(), Error>>>),
}

/// What became of the commits of a group, while its transaction runs.
#[derive(Default)]
struct Judged {
    outcomes: Vec<Result<CommitOutcome, Error>>,
    changed: Vec<Arc<Committed>>,
}

impl<E: Engine> Writer<E> {
    pub(super) fn new(shared: Arc<Shared<E>>, inbox: mpsc::Receiver<Message>) -> Self {
        Writer { shared, inbox, undecided: false, staged: None, reserved: 0 }
    }

    /// Works until the store is closed or dropped.
    pub(super) fn run(mut self) {
        let mut group = Vec::new();
        loop {
            let aside = self.gather(&mut group);
            if !group.is_empty() {
                self.commit_group(&mut group);
            }
            match aside {
                Aside::Nothing => {}
                Aside::KeepInMemory(prefix, reply) => {
                    // Nobody waits where the caller was dropped.
                    let _ = reply.send(self.keep_in_memory(prefix));
                }
                Aside::Close(reply) => {
                    self.inbox.close();
                    let result = self.shared.engine.close();
                    if let Some(reply) = reply {
                        // Nobody waits where the caller went away.
                        let _ = reply.send(result);
                    }
                    return;
                }
            }
        }
    }

    /// Waits for a commit and takes those behind it, up to what is to be done after them.
    fn gather(&mut self, group: &mut Vec<Waiting>) -> Aside {
        let mut next = if self.undecided { self.next_or_recovered() } else { self.inbox.blocking_recv() };
        let mut bytes = 0;
        loop {
            match next {
                None => return Aside::Close(None),
                Some(Message::Close(reply)) => return Aside::Close(Some(reply)),
                Some(Message::KeepInMemory(prefix, reply)) => return Aside::KeepInMemory(prefix, reply),
                Some(Message::Commit(waiting)) => {
                    bytes += weight(&waiting.commit);
                    group.push(waiting);
                }
            }
            if group.len() >= GROUP_COMMITS_MAX || bytes >= GROUP_BYTES_MAX {
                return Aside::Nothing;
            }
            next = match self.inbox.try_recv() {
                Ok(message) => Some(message),
                Err(mpsc::error::TryRecvError::Empty) => return Aside::Nothing,
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
        }
    }

    /// Waits for a message; meanwhile looks again and again whether the medium works.
    fn next_or_recovered(&mut self) -> Option<Message> {
        loop {
            match self.inbox.try_recv() {
                Ok(message) => return Some(message),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) if self.settle().is_ok() => {
                    return self.inbox.blocking_recv();
                }
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(RECOVER_PAUSE),
            }
        }
    }

    /// Finds out whether the staged revisions are on disk, and publishes or forgets them. Gives the revision on disk.
    fn settle(&mut self) -> Result<Revision, Error> {
        let on_disk = contained(|| self.shared.engine.recover())?;
        if on_disk > self.shared.hub.published() {
            self.publish();
        } else {
            self.staged = None;
            self.shared.hub.unstage();
        }
        self.undecided = false;
        Ok(on_disk)
    }

    fn commit_group(&mut self, group: &mut Vec<Waiting>) {
        if self.undecided
            && let Err(error) = self.settle()
        {
            for waiting in group.drain(..) {
                // Nobody waits where the caller was dropped.
                let _ = waiting.reply.send(Err(repeat(&error)));
            }
            return;
        }
        let (replies, commits): (Vec<_>, Vec<_>) = group.drain(..).map(|w| (w.reply, w.commit)).unzip();
        let mut judged = Judged::default();
        let mut commits = Some(commits);
        let count = replies.len();
        let volatile = self.shared.volatile.is_active();
        let only_in_memory =
            volatile && commits.as_ref().is_some_and(|all| all.iter().all(|c| self.in_memory(c)));
        let mut held = volatile.then(|| Held::clone(&self.shared.volatile.held()));
        let (shared, published) = (self.shared.clone(), self.shared.hub.published());
        let mut body = |txn: &mut dyn Txn| {
            // An engine runs the body once.
            let commits = commits.take().ok_or_else(closed)?;
            match &mut held {
                None => judge(commits, txn, published, &mut judged)?,
                Some(held) => {
                    let mut mixed = MixedTxn { volatile: &shared.volatile, held, txn };
                    judge(commits, &mut mixed, published, &mut judged)?;
                }
            }
            let reached = judged.changed.last().map(|c| c.revision);
            shared.hub.stage(std::mem::take(&mut judged.changed));
            Ok(reached)
        };
        let result = if only_in_memory {
            body(&mut NothingOnDisk).and_then(|reached| self.reserve(reached))
        } else {
            contained(|| self.shared.engine.apply(count, &mut body))
        };
        self.staged = held;
        match result {
            Ok(()) => self.publish(),
            Err(error) => return self.failed(error, judged, replies),
        }
        for (reply, outcome) in replies.into_iter().zip(judged.outcomes) {
            // Nobody waits where the caller was dropped.
            let _ = reply.send(outcome);
        }
    }

    /// The staged revisions happened.
    fn publish(&mut self) {
        if let Some(held) = self.staged.take() {
            self.shared.volatile.show(held);
        }
        self.shared.hub.publish();
    }

    /// Whether a commit neither reads nor writes anything on disk.
    fn in_memory(&self, commit: &Commit) -> bool {
        let mut keys = commit.ops.iter().map(Op::key).chain(commit.compares.iter().map(|c| &c.key));
        keys.all(|key| self.shared.volatile.covers(key))
    }

    /// Makes sure that a revision which is not written to disk is not given again after a restart.
    fn reserve(&mut self, reached: Option<Revision>) -> Result<(), Error> {
        let Some(reached) = reached.filter(|reached| *reached > self.reserved) else { return Ok(()) };
        let upto = reached + RESERVED_REVISIONS;
        contained(|| self.shared.engine.reserve(upto))?;
        self.reserved = upto;
        Ok(())
    }

    /// From now on the keys with this prefix are in memory; what the disk holds of them moves there.
    fn keep_in_memory(&mut self, prefix: Bytes) -> Result<(), Error> {
        if self.undecided {
            self.settle()?;
        }
        let mut held = Held::clone(&self.shared.volatile.held());
        let mut found = Found(Vec::new());
        contained(|| self.shared.engine.scan(&KeyRange::prefix(prefix.clone()), &mut found))?;
        let published = self.shared.hub.published();
        let gone =
            |item: &KeyValue| Event::Delete { key: item.key.clone(), previous: None, revision: published };
        held.revision = held.revision.max(published);
        found.0.iter().for_each(|item| held.put(item.clone()));
        self.shared.volatile.add(prefix, held);
        if found.0.is_empty() {
            return Ok(());
        }
        let moved = contained(|| {
            self.shared.engine.apply(1, &mut |txn| {
                found.0.iter().try_for_each(|item| txn.apply(&gone(item)))?;
                Ok(Some(published))
            })
        });
        // What stays on disk after an error is hidden by what is in memory.
        moved.inspect_err(|_| self.undecided = true)
    }

    /// A group's write failed: answers with what is on disk, where that can be read, else that nobody knows.
    fn failed(&mut self, error: Error, judged: Judged, replies: Vec<Reply>) {
        tracing::warn!(%error, "a write failed");
        self.undecided = true;
        let before = self.shared.hub.published();
        let settled = self.settle();
        let done = settled.as_ref().is_ok_and(|on_disk| *on_disk > before);
        let mut outcomes = judged.outcomes.into_iter();
        for reply in replies {
            let outcome = match (outcomes.next(), &settled) {
                (Some(outcome), Ok(_)) if done => outcome,
                (_, Ok(_)) => Err(repeat(&error)),
                (_, Err(_)) => Err(repeat(&error).indeterminate()),
            };
            // Nobody waits where the caller was dropped.
            let _ = reply.send(outcome);
        }
    }
}

/// A transaction of keys on disk and in memory.
struct MixedTxn<'a> {
    volatile: &'a Volatile,
    held: &'a mut Held,
    txn: &'a mut dyn Txn,
}

impl Txn for MixedTxn<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        if self.volatile.covers(key) { Ok(self.held.get(key).cloned()) } else { self.txn.get(key) }
    }

    fn apply(&mut self, event: &Event) -> Result<(), Error> {
        if !self.volatile.covers(event.key()) {
            return self.txn.apply(event);
        }
        self.held.apply(event);
        Ok(())
    }
}

/// The disk's side of a group that does not touch it.
struct NothingOnDisk;

impl NothingOnDisk {
    fn refuse<T>(key: &Bytes) -> Result<T, Error> {
        Err(Error::new(Reason::Failed, format!("key {key:?} is not in memory")))
    }
}

impl Txn for NothingOnDisk {
    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Error> {
        NothingOnDisk::refuse(key)
    }

    fn apply(&mut self, event: &Event) -> Result<(), Error> {
        NothingOnDisk::refuse(event.key())
    }
}

/// Takes whole items off the disk.
struct Found(Vec<KeyValue>);

impl Scan for Found {
    fn begin(&mut self, _: Revision) -> Result<(), Error> {
        Ok(())
    }

    fn visit(&mut self, key: &[u8], record: &[u8]) -> Result<ControlFlow<()>, Error> {
        self.0.push(decode(Bytes::copy_from_slice(key), record)?);
        Ok(ControlFlow::Continue(()))
    }
}

/// Judges commits in their order, each seeing those before it.
fn judge(
    commits: Vec<Commit>,
    txn: &mut dyn Txn,
    published: Revision,
    judged: &mut Judged,
) -> Result<(), Error> {
    let mut last = published;
    for commit in commits {
        let outcome = match evaluate(commit, last + 1, |key| txn.get(key))? {
            Verdict::Unchanged(outcome) => outcome,
            Verdict::Changed(committed) => {
                for event in &committed.events {
                    txn.apply(event)?;
                }
                last = committed.revision;
                judged.changed.push(Arc::new(committed));
                CommitOutcome::Committed { revision: last }
            }
        };
        judged.outcomes.push(Ok(outcome));
    }
    Ok(())
}

/// The same error for one more waiter.
fn repeat(error: &Error) -> Error {
    Error::new(error.reason(), error.to_string())
}

fn weight(commit: &Commit) -> usize {
    commit.ops.iter().map(|op| op.key().len() + op.value_len()).sum()
}
