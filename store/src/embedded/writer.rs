//! The one writer: takes all the commits that wait, gives each its revision, and flushes them together.

use super::engine::contained;
use super::{Engine, Shared, Txn, closed};
use crate::mvcc::{Committed, Verdict, evaluate};
use crate::{Commit, CommitOutcome, Error, Revision};
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
    Close(oneshot::Sender<Result<(), Error>>),
}

pub(super) struct Writer<E: Engine> {
    shared: Arc<Shared<E>>,
    inbox: mpsc::Receiver<Message>,
    /// A write failed, and whether it is on disk could not be read since; what was staged is undecided.
    undecided: bool,
}

/// What became of the commits of a group, while its transaction runs.
#[derive(Default)]
struct Judged {
    outcomes: Vec<Result<CommitOutcome, Error>>,
    changed: Vec<Arc<Committed>>,
}

impl<E: Engine> Writer<E> {
    pub(super) fn new(shared: Arc<Shared<E>>, inbox: mpsc::Receiver<Message>) -> Self {
        Writer { shared, inbox, undecided: false }
    }

    /// Works until the store is closed or dropped.
    pub(super) fn run(mut self) {
        let mut group = Vec::new();
        loop {
            let close = self.gather(&mut group);
            if !group.is_empty() {
                self.commit_group(&mut group);
            }
            if let Some(reply) = close {
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

    /// Waits for a commit and takes those behind it. `Some` means that the store is to be closed after them.
    fn gather(&mut self, group: &mut Vec<Waiting>) -> Option<Option<oneshot::Sender<Result<(), Error>>>> {
        let mut next = if self.undecided { self.next_or_recovered() } else { self.inbox.blocking_recv() };
        let mut bytes = 0;
        loop {
            match next {
                None => return Some(None),
                Some(Message::Close(reply)) => return Some(Some(reply)),
                Some(Message::Commit(waiting)) => {
                    bytes += weight(&waiting.commit);
                    group.push(waiting);
                }
            }
            if group.len() >= GROUP_COMMITS_MAX || bytes >= GROUP_BYTES_MAX {
                return None;
            }
            next = match self.inbox.try_recv() {
                Ok(message) => Some(message),
                Err(mpsc::error::TryRecvError::Empty) => return None,
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
            self.shared.hub.publish();
        } else {
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
        let result = contained(|| {
            self.shared.engine.apply(count, &mut |txn| {
                // An engine runs the body once.
                let commits = commits.take().ok_or_else(closed)?;
                judge(commits, txn, self.shared.hub.published(), &mut judged)?;
                let reached = judged.changed.last().map(|c| c.revision);
                self.shared.hub.stage(std::mem::take(&mut judged.changed));
                Ok(reached)
            })
        });
        match result {
            Ok(()) => self.shared.hub.publish(),
            Err(error) => return self.failed(error, judged, replies),
        }
        for (reply, outcome) in replies.into_iter().zip(judged.outcomes) {
            // Nobody waits where the caller was dropped.
            let _ = reply.send(outcome);
        }
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
