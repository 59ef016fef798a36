//! What a server tidies up by itself: events whose time is over, and history that nobody asks for any more.
//!
//! It keeps one sample a minute of which revision was reached when, so that neither needs a note for each object.

use crate::keys::ResourceId;
use crate::server::Shared;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kubewright_core::{ApiError, GroupVersionResource};
use kubewright_store::{Commit, Compare, Op};
use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const TICK: Duration = Duration::from_secs(60);
/// Deletions at once, so that a store which groups commits flushes few times.
const DELETES_AT_ONCE: usize = 64;

/// What is kept for how long; a zero keeps everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Events after their last write.
    pub(crate) events: Duration,
    /// The history of the store. It is forgotten in steps of this length, so that up to twice as much is there.
    pub(crate) history: Duration,
}

impl Default for Keep {
    /// As upstream: events for an hour, history for five minutes.
    fn default() -> Self {
        Keep { events: Duration::from_secs(3600), history: Duration::from_secs(300) }
    }
}

/// Works until the server ends.
pub(crate) async fn run(shared: Weak<Shared>, keep: Keep, cancel: CancellationToken) {
    let mut janitor = Janitor { keep, samples: VecDeque::new(), compacted: None };
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let Some(server) = shared.upgrade() else { return };
        if let Err(e) = janitor.tick(&server, server.clock.now()).await {
            tracing::debug!(error = %e, "tidying up");
        }
    }
}

struct Janitor {
    keep: Keep,
    /// When which revision had been reached, oldest first; no longer than events are kept.
    samples: VecDeque<(Timestamp, u64)>,
    /// The last step of compaction: when, and the revision to forget in the next.
    compacted: Option<(Timestamp, u64)>,
}

impl Janitor {
    /// One look.
    ///
    /// # Errors
    /// The store's; the next look tries again.
    async fn tick(&mut self, server: &Shared, now: Timestamp) -> Result<(), ApiError> {
        let revision = server.cache.applied();
        self.samples.push_back((now, revision));
        self.compact(server, now, revision).await?;
        let Some(written_before) = self.expired(now) else { return Ok(()) };
        for (group, version) in [("", "v1"), ("events.k8s.io", "v1")] {
            let kind = server.kinds.get(&GroupVersionResource::new(group, version, "events"));
            // The kind of one group may be kept as that of the other.
            if let Some(kind) = kind.filter(|k| k.descriptor.stored_as.is_none()) {
                sweep(server, &kind.cache.id, written_before).await?;
            }
        }
        Ok(())
    }

    /// The revision up to which events are too old by now; samples that are not needed any more go.
    fn expired(&mut self, now: Timestamp) -> Option<u64> {
        if self.keep.events.is_zero() {
            self.samples.clear();
            return None;
        }
        let oldest = now - SignedDuration::try_from(self.keep.events).unwrap_or(SignedDuration::MAX);
        let mut last = None;
        while let Some((_, revision)) = self.samples.front().copied().filter(|(at, _)| *at <= oldest) {
            last = Some(revision);
            self.samples.pop_front();
        }
        last
    }

    async fn compact(&mut self, server: &Shared, now: Timestamp, revision: u64) -> Result<(), ApiError> {
        if self.keep.history.is_zero() {
            return Ok(());
        }
        let step = SignedDuration::try_from(self.keep.history).unwrap_or(SignedDuration::MAX);
        match self.compacted {
            None => self.compacted = Some((now, revision)),
            Some((before, forget)) if now.duration_since(before) >= step => {
                self.compacted = Some((now, revision));
                server.compact(forget).await?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// Deletes the events that were last written at a revision or before. One that is written meanwhile stays.
async fn sweep(server: &Shared, id: &ResourceId, written_before: u64) -> Result<(), ApiError> {
    let snapshot = server.cache.resource(id).snapshot();
    let prefix = id.prefix();
    let old = snapshot.range(b"", b"").filter_map(|(key, entry)| {
        let revision = entry.shape.object.resource_version();
        let whole = || [prefix.as_bytes(), key].concat();
        (revision <= written_before).then(|| (bytes::Bytes::from(whole()), revision))
    });
    let commits: Vec<Commit> = old
        .map(|(key, mod_revision)| Commit {
            compares: vec![Compare { key: key.clone(), mod_revision }],
            ops: vec![Op::Delete { key }],
        })
        .collect();
    let mut done = stream::iter(commits).map(|c| server.store.commit(c)).buffer_unordered(DELETES_AT_ONCE);
    while let Some(outcome) = done.next().await {
        outcome.map_err(|e| crate::errors::store(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticated;
    use crate::server::ApiServer;
    use kubewright_core::{ApiRequest, ContentType, Registry, Verb};
    use kubewright_store::{KeyRange, MemoryStore, RangeRequest, Store};
    use serde_json::{Value, json};
    use std::sync::Arc;
    use tower::ServiceExt;

    #[tokio::test]
    async fn events_end_an_hour_after_their_last_write_and_history_is_forgotten() {
        let mut registry = Registry::new();
        for kind in kubewright_core::api::builtin(&Default::default()) {
            registry.insert(kind).unwrap();
        }
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let server = ApiServer::builder(store.clone()).registry(registry).build().await.unwrap();
        let events = GroupVersionResource::new("", "v1", "events");
        let send = async |verb: Verb, name: Option<&str>, body: Value| {
            let mut request = ApiRequest::resource(verb, events.clone(), Some("default"), name);
            let how = if verb == Verb::Patch { ContentType::MergePatch } else { ContentType::Json };
            request = request.body(how, body);
            request.user = authenticated("root", &["system:masters"]).into();
            server.clone().oneshot(request).await.unwrap();
            server.reader().consistent().await.unwrap();
        };
        let event = |name: &str| {
            json!({"metadata": {"name": name}, "type": "Normal", "reason": "R", "message": "m",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"})
        };
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut janitor = Janitor { keep: Keep::default(), samples: VecDeque::new(), compacted: None };
        let shared = server.shared.clone();
        let mut minute = 0;
        let mut until = async |end: i64| {
            while minute < end {
                janitor.tick(&shared, start + SignedDuration::from_mins(minute)).await.unwrap();
                minute += 1;
            }
            janitor.samples.len()
        };
        let names = || {
            let found = server.reader().list(&events, "default").unwrap();
            found.iter().map(|o| o.header().name.to_string()).collect::<Vec<_>>()
        };
        send(Verb::Create, None, event("first")).await;
        send(Verb::Create, None, event("again")).await;
        until(30).await;
        send(Verb::Create, None, event("second")).await;
        send(Verb::Patch, Some("again"), json!({"count": 2})).await;
        let old = store.current_revision().await.unwrap();
        let samples = until(59).await;
        assert!(samples <= 61, "{samples} samples");
        assert_eq!(names(), ["again", "first", "second"]);
        until(65).await;
        server.reader().consistent().await.unwrap();
        assert_eq!(names(), ["again", "second"]);
        until(95).await;
        server.reader().consistent().await.unwrap();
        assert!(names().is_empty());
        let past = RangeRequest { range: KeyRange::prefix("/"), limit: 1, revision: Some(old - 1) };
        let gone = store.range(past).await.unwrap_err();
        assert_eq!(gone.reason(), kubewright_store::Reason::Compacted);
        server.shutdown().await;
    }
}
