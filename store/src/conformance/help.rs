//! What the cases share: short calls that turn every error into a sentence.

use super::{Factory, Why};
use crate::{
    Commit, CommitOutcome, Compare, Error, Event, KeyRange, KeyValue, Op, RangeRequest, RangeResponse,
    Reason, Revision, Store, WatchStream,
};
use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;

/// How long an event may take to arrive.
pub(super) const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The store under test, with a part of its keys for one case.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    pub(super) prefix: String,
    pub(super) factory: Factory,
}

pub(super) fn why(what: &str) -> impl Fn(Error) -> Why + '_ {
    move |error| format!("{what}: {error} ({:?})", error.reason())
}

impl Bench {
    pub(super) fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.prefix))
    }

    pub(super) fn all(&self) -> KeyRange {
        KeyRange::prefix(self.prefix.clone())
    }

    pub(super) fn put_op(&self, name: &str, value: &str) -> Op {
        Op::Put { key: self.key(name), value: Bytes::copy_from_slice(value.as_bytes()) }
    }

    pub(super) fn delete_op(&self, name: &str) -> Op {
        Op::Delete { key: self.key(name) }
    }

    pub(super) fn compare(&self, name: &str, mod_revision: Revision) -> Compare {
        Compare { key: self.key(name), mod_revision }
    }

    /// Does the ops without a condition.
    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<Revision, Why> {
        let commit = Commit { compares: Vec::new(), ops };
        match self.store.commit(commit).await.map_err(why("commit"))? {
            CommitOutcome::Committed { revision } => Ok(revision),
            CommitOutcome::Refused { .. } => Err("a commit without conditions was refused".into()),
        }
    }

    pub(super) async fn put(&self, name: &str, value: &str) -> Result<Revision, Why> {
        self.write(vec![self.put_op(name, value)]).await
    }

    pub(super) async fn delete(&self, name: &str) -> Result<Revision, Why> {
        self.write(vec![self.delete_op(name)]).await
    }

    pub(super) async fn commit(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<CommitOutcome, Why> {
        self.store.commit(Commit { compares, ops }).await.map_err(why("commit"))
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<KeyValue>, Why> {
        self.store.get(self.key(name)).await.map_err(why("get"))
    }

    pub(super) async fn value(&self, name: &str) -> Result<Option<String>, Why> {
        Ok(self.get(name).await?.map(|kv| text(&kv.value)))
    }

    pub(super) async fn revision(&self) -> Result<Revision, Why> {
        self.store.current_revision().await.map_err(why("current_revision"))
    }

    pub(super) async fn range(
        &self,
        range: KeyRange,
        limit: usize,
        revision: Option<Revision>,
    ) -> Result<RangeResponse, Why> {
        self.store.range(RangeRequest { range, limit, revision }).await.map_err(why("range"))
    }

    /// `name=value` of every key of the case, as of a revision.
    pub(super) async fn listed(&self, revision: Option<Revision>) -> Result<Vec<String>, Why> {
        let page = self.range(self.all(), 0, revision).await?;
        Ok(page.items.iter().map(|kv| self.shown(kv)).collect())
    }

    /// Why a range at this revision can't be read.
    pub(super) async fn range_error(&self, revision: Revision) -> Result<Reason, Why> {
        let request = RangeRequest { range: self.all(), limit: 0, revision: Some(revision) };
        match self.store.range(request).await {
            Ok(_) => Err(format!("revision {revision} could be read")),
            Err(error) => Ok(error.reason()),
        }
    }

    pub(super) fn shown(&self, kv: &KeyValue) -> String {
        format!("{}={}", self.short(&kv.key), text(&kv.value))
    }

    pub(super) fn short(&self, key: &[u8]) -> String {
        text(key.strip_prefix(self.prefix.as_bytes()).unwrap_or(key))
    }

    pub(super) async fn watch(&self, from: Revision) -> Result<Follower, Why> {
        self.watch_range(self.all(), from).await
    }

    pub(super) async fn watch_range(&self, range: KeyRange, from: Revision) -> Result<Follower, Why> {
        let stream = self.store.watch(range, from).await.map_err(why("watch"))?;
        Ok(Follower { stream, revision: 0, from })
    }

    /// The reason with which a watch from this revision ends, or why it does not.
    pub(super) async fn watch_error(&self, from: Revision) -> Result<Reason, Why> {
        let mut stream = match self.store.watch(self.all(), from).await {
            Ok(stream) => stream,
            Err(error) => return Ok(error.reason()),
        };
        match tokio::time::timeout(EVENT_TIMEOUT, stream.next()).await {
            Ok(Some(Err(error))) => Ok(error.reason()),
            Ok(Some(Ok(batch))) => Err(format!("the watch yielded {batch:?}")),
            Ok(None) => Err("the watch ended without an error".into()),
            Err(_) => Err("the watch did not end".into()),
        }
    }

    /// Opens the store once more; the one before must be closed, or the store shared.
    pub(super) async fn reopen(&self) -> Result<Bench, Why> {
        let store = (self.factory)().await.map_err(why("open again"))?;
        Ok(Bench { store, ..self.clone() })
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A watch whose rules are checked with every batch.
pub(super) struct Follower {
    stream: WatchStream,
    /// Up to where the watch said that it is complete.
    revision: Revision,
    from: Revision,
}

impl Follower {
    /// The next batch's events; none for a progress mark.
    pub(super) async fn batch(&mut self) -> Result<Vec<Event>, Why> {
        match tokio::time::timeout(EVENT_TIMEOUT, self.stream.next()).await {
            Err(_) => Err(format!("the watch yielded nothing after revision {}", self.revision)),
            Ok(None) => Err("the watch ended".into()),
            Ok(Some(Err(error))) => Err(format!("the watch ended: {error} ({:?})", error.reason())),
            Ok(Some(Ok(batch))) => {
                self.judge(&batch.events, batch.revision)?;
                Ok(batch.events)
            }
        }
    }

    fn judge(&mut self, events: &[Event], upto: Revision) -> Result<(), Why> {
        let mut last = self.revision;
        for (at, event) in events.iter().enumerate() {
            let revision = event.revision();
            let again = if at == 0 { revision <= last } else { revision < last };
            if again || revision < self.from {
                return Err(format!(
                    "the event of revision {revision} came after {last}, watched from {}",
                    self.from
                ));
            }
            last = revision;
        }
        if upto < last {
            return Err(format!("a batch up to revision {upto} came after {last}"));
        }
        self.revision = upto;
        Ok(())
    }

    /// Up to where the watch said that it is complete.
    pub(super) fn upto(&self) -> Revision {
        self.revision
    }

    /// The next `count` events.
    pub(super) async fn events(&mut self, count: usize) -> Result<Vec<Event>, Why> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(
                self.batch().await.map_err(|why| format!("after {} of {count} events: {why}", all.len()))?,
            );
        }
        if all.len() > count {
            return Err(format!("{} events came instead of {count}: {all:?}", all.len()));
        }
        Ok(all)
    }

    /// How the watch ends, whatever it yields before.
    pub(super) async fn end(&mut self) -> Result<Reason, Why> {
        loop {
            match tokio::time::timeout(EVENT_TIMEOUT, self.stream.next()).await {
                Err(_) => return Err("the watch did not end".into()),
                Ok(None) => return Err("the watch ended without an error".into()),
                Ok(Some(Err(error))) => return Ok(error.reason()),
                Ok(Some(Ok(_))) => {}
            }
        }
    }
}
