//! The stream of one watch.

use super::Start;
use crate::cache::{CacheEvent, Entry, ObjectCache, Registration, ShapeRef};
use crate::conversion::Converter;
use crate::handlers::Call;
use crate::kinds::Served;
use crate::present;
use crate::selection::Selection;
use futures::StreamExt;
use futures::stream;
use kubewright_core::{ApiError, ApiObject, Representation, WatchEvent, WatchEventType, WatchStream};
use serde_json::json;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch with a timeout gets its last bookmark so long before.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// What one watch holds.
pub(super) struct WatchState {
    kind: Arc<Served>,
    cache: Arc<ObjectCache>,
    converter: Arc<Converter>,
    selection: Selection,
    /// Objects that the watch starts with.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// Sent once `initial` is through: the end of the initial events at this revision.
    initial_end: Option<u64>,
    backlog: VecDeque<Arc<CacheEvent>>,
    registration: Registration,
    /// Events up to here are not wanted.
    after: u64,
    ends_at: Instant,
    /// `None` for a watch without bookmarks.
    bookmark_at: Option<Instant>,
    shape: present::EventShape,
    /// Of the next bookmark or the end; kept, as registering one for every event costs more than the event.
    timer: Pin<Box<Sleep>>,
    /// Done when the server ends.
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl WatchState {
    pub(super) fn new(
        call: Call,
        selection: Selection,
        start: Start,
        mut registration: Registration,
        lasts: Duration,
    ) -> Result<Self, ApiError> {
        let mut initial = Vec::new();
        let mut after = registration.snapshot.revision;
        let mut initial_end = None;
        match start {
            Start::After(revision) => after = revision,
            Start::State => {
                // Read before the snapshot was taken, or the snapshot's own: nothing between them concerns this resource.
                let revision = registration.snapshot.revision.max(registration.applied);
                initial_end = Some(revision).filter(|_| {
                    call.options.send_initial_events == Some(true) && call.options.allow_watch_bookmarks
                });
                let snapshot = registration.snapshot.clone();
                selection.each(&snapshot, b"", |_, entry| {
                    if selection.matches(&*entry.shape(&call.kind)?) {
                        initial.push(entry.clone());
                    }
                    Ok(true)
                })?;
            }
        }
        let now = Instant::now();
        let ends_at = now + lasts;
        let bookmark_at = call.options.allow_watch_bookmarks.then(|| next_bookmark(now, ends_at));
        Ok(WatchState {
            backlog: std::mem::take(&mut registration.backlog).into(),
            cache: call.server.cache.clone(),
            converter: call.server.converter.clone(),
            timer: Box::pin(sleep_until(bookmark_at.unwrap_or(ends_at))),
            cancelled: Box::pin(call.server.cancel.clone().cancelled_owned()),
            shape: present::EventShape::of(&call)?,
            kind: call.kind,
            selection,
            initial: initial.into_iter(),
            initial_end,
            registration,
            after,
            ends_at,
            bookmark_at,
            over: false,
        })
    }

    pub(super) fn into_stream(self) -> WatchStream {
        stream::unfold(self, |mut state| async move {
            let item = state.next().await?;
            state.over |= item.is_err();
            Some((item, state))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        if self.over {
            return None;
        }
        if let Some(entry) = self.initial.next() {
            return Some(self.present(WatchEventType::Added, &entry));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(self.bookmark(revision, true));
        }
        loop {
            if let Some(event) = self.backlog.pop_front() {
                if let Some(item) = self.concerning(&event).await {
                    return Some(item);
                }
                continue;
            }
            let due = self.bookmark_at.map_or(self.ends_at, |b| b.min(self.ends_at));
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                event = self.registration.receiver.recv() => match event {
                    // Cut off, or the server ends: the client starts again from what it has.
                    None => return None,
                    Some(event) => {
                        if let Some(item) = self.concerning(&event).await {
                            return Some(item);
                        }
                    }
                },
                () = &mut self.cancelled => return None,
                () = &mut self.timer => {
                    if Instant::now() >= self.ends_at {
                        return None;
                    }
                    if let Some(item) = self.timed_bookmark() {
                        return Some(item);
                    }
                }
            }
        }
    }

    /// A bookmark at what is applied, unless events that came before it are still to be sent.
    fn timed_bookmark(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        let applied = self.cache.applied();
        while let Ok(event) = self.registration.receiver.try_recv() {
            self.backlog.push_back(event);
        }
        if !self.backlog.is_empty() {
            return None;
        }
        self.bookmark_at = Some(next_bookmark(Instant::now(), self.ends_at));
        Some(self.bookmark(applied.max(self.after), false))
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Result<WatchEvent, ApiError> {
        self.after = self.after.max(revision);
        let mut metadata = json!({"creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let kind = &self.kind.descriptor;
        let value = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata});
        let object = Arc::new(crate::encode::object(&value, revision)?);
        self.shape.event(&self.kind, WatchEventType::Bookmark, object)
    }

    /// What an event means for this watch: entering or leaving the selection are `ADDED` and `DELETED`.
    async fn concerning(&mut self, event: &Arc<CacheEvent>) -> Option<Result<WatchEvent, ApiError>> {
        if event.revision <= self.after || !self.selection.covers(&event.key) {
            return None;
        }
        self.after = event.revision;
        if self.kind.descriptor.conversion.is_some()
            && let Err(e) = self.convert(event).await
        {
            return Some(Err(e));
        }
        match self.meaning(event) {
            Ok(None) => None,
            Ok(Some((kind, entry))) => Some(self.present(kind, &entry)),
            Err(e) => Some(Err(e)),
        }
    }

    /// Has the states of an event converted: both, and the last one under the event's revision where the object is no longer selected.
    async fn convert(&self, event: &Arc<CacheEvent>) -> Result<(), ApiError> {
        self.converter.prepare(&self.kind, event.before.iter().chain(&event.after)).await?;
        if !self.selected(event.before.as_ref())? || self.selected(event.after.as_ref())? {
            return Ok(());
        }
        self.converter.prepare(&self.kind, event.last_state()?).await
    }

    fn selected(&self, entry: Option<&Arc<Entry>>) -> Result<bool, ApiError> {
        match entry {
            None => Ok(false),
            Some(entry) => Ok(self.selection.matches(&*entry.shape(&self.kind)?)),
        }
    }

    fn meaning(&self, event: &Arc<CacheEvent>) -> Result<Option<(WatchEventType, Arc<Entry>)>, ApiError> {
        let (before, after) = (self.selected(event.before.as_ref())?, self.selected(event.after.as_ref())?);
        Ok(match (before, after, &event.after) {
            (false, true, Some(after)) => Some((WatchEventType::Added, after.clone())),
            (true, true, Some(after)) => Some((WatchEventType::Modified, after.clone())),
            (true, false, _) => event.last_state()?.map(|last| (WatchEventType::Deleted, last.clone())),
            _ => None,
        })
    }

    fn present(&mut self, event: WatchEventType, entry: &Arc<Entry>) -> Result<WatchEvent, ApiError> {
        let object: Arc<ApiObject> = {
            let shape: ShapeRef<'_> = entry.shape(&self.kind)?;
            shape.object.clone()
        };
        if self.shape.representation == Representation::Object {
            return Ok(WatchEvent { event, object });
        }
        self.shape.event(&self.kind, event, object)
    }
}

fn next_bookmark(now: Instant, ends_at: Instant) -> Instant {
    let regular = now + BOOKMARK_EVERY;
    let last = ends_at.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(ends_at);
    if last > now { regular.min(last) } else { regular }
}
