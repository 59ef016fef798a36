//! Events: what a controller tells people about an object, in events.k8s.io/v1.
//!
//! Telling never blocks and never fails a pass. What repeats becomes one Event with a series, as upstream has it; a source that
//! shouts about one object is cut off for a while.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kubewright_client::{Api, Client};
use kubewright_core::{ApiError, ContentType, Resource, SharedClock};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Events waiting to be sent.
const WAITING_EVENTS_MAX: usize = 1024;
/// Series remembered at once.
const SERIES_MAX: usize = 4096;
/// A repetition later than this begins a new Event.
const SERIES_WINDOW: Duration = Duration::from_secs(6 * 60);
/// A series is written at most this often.
const SERIES_WRITE_MIN: Duration = Duration::from_secs(10);
/// New Events about one object: at once, and seconds for each further one.
const BURST: f64 = 25.0;
const SECONDS_PER_EVENT: f64 = 300.0;
/// Upstream's bound of the note, in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something needs a look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

struct Told {
    regarding: ObjectReference,
    kind: EventType,
    reason: String,
    action: String,
    note: String,
    controller: Arc<str>,
}

/// Sends events in the background. Cloning shares the sender; the last clone dropped ends it.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Told>,
    controller: Arc<str>,
    dropped: Arc<AtomicU64>,
    _guard: Arc<DropGuard>,
}

impl fmt::Debug for EventRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventRecorder({})", self.controller)
    }
}

impl EventRecorder {
    /// A recorder that reports as `controller`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(client: Client, clock: SharedClock, controller: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS_MAX);
        let cancel = CancellationToken::new();
        let guard = Arc::new(cancel.clone().drop_guard());
        let writer =
            Writer { client, clock, series: FxHashMap::default(), buckets: FxHashMap::default(), stamp: 0 };
        tokio::spawn(cancel.run_until_cancelled_owned(writer.run(receiver)));
        EventRecorder { sender, controller: Arc::from(controller), dropped: Arc::default(), _guard: guard }
    }

    /// The same sender, reporting as another controller.
    #[must_use]
    pub fn named(&self, controller: &str) -> Self {
        EventRecorder { controller: Arc::from(controller), ..self.clone() }
    }

    /// Tells something about an object. `reason` and `action` are CamelCase words for machines, `note` is the sentence for people.
    pub fn event<K: Resource>(&self, object: &K, kind: EventType, reason: &str, action: &str, note: &str) {
        let regarding = ObjectReference {
            api_version: Some(K::API_VERSION.to_owned()),
            kind: Some(K::KIND.to_owned()),
            name: Some(object.name().to_owned()),
            namespace: object.namespace().map(str::to_owned),
            uid: Some(object.uid().to_owned()),
            resource_version: object.metadata().resource_version.clone(),
            field_path: None,
        };
        self.event_about(regarding, kind, reason, action, note);
    }

    /// Tells something about whatever a reference names.
    pub fn event_about(
        &self,
        regarding: ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let note = match note.char_indices().find(|(at, c)| at + c.len_utf8() > NOTE_BYTES_MAX) {
            Some((end, _)) => note[..end].to_owned(),
            None => note.to_owned(),
        };
        let told = Told {
            regarding,
            kind,
            reason: reason.to_owned(),
            action: action.to_owned(),
            note,
            controller: self.controller.clone(),
        };
        if self.sender.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What makes two tellings the same: the object, and all that is told of it.
type SeriesKey = (String, EventType, String, String, Arc<str>, String);

struct Series {
    namespace: String,
    name: String,
    count: i32,
    last: jiff::Timestamp,
    written: jiff::Timestamp,
}

struct Writer {
    client: Client,
    clock: SharedClock,
    series: FxHashMap<SeriesKey, Series>,
    /// By object: tokens left, and when they were counted.
    buckets: FxHashMap<String, (f64, jiff::Timestamp)>,
    /// The nanoseconds in the last event's name; no two events of one moment share a name.
    stamp: i128,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Told>) {
        while let Some(told) = receiver.recv().await {
            if let Err(e) = self.write(told).await {
                tracing::debug!(error = %e, "an event was not recorded");
            }
        }
    }

    async fn write(&mut self, told: Told) -> Result<(), ApiError> {
        let now = self.clock.now();
        let subject = told.regarding.uid.clone().unwrap_or_default()
            + told.regarding.name.as_deref().unwrap_or("")
            + told.regarding.field_path.as_deref().unwrap_or("");
        let (reason, action) = (told.reason.clone(), told.action.clone());
        let key: SeriesKey =
            (subject.clone(), told.kind, reason, action, told.controller.clone(), told.note.clone());
        self.forget_old(now);
        if let Some(series) = self.series.get_mut(&key) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            if series.count > 2 && elapsed(series.written, now) < SERIES_WRITE_MIN {
                return Ok(());
            }
            series.written = now;
            let (namespace, name, count) = (series.namespace.clone(), series.name.clone(), series.count);
            let patch = json!({"series": EventSeries { count, last_observed_time: MicroTime(now) }});
            let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
            match api.patch(&name, ContentType::MergePatch, patch).await {
                Err(e) if e.is_not_found() => drop(self.series.remove(&key)),
                other => return other.map(drop),
            }
        }
        if !self.take_token(&subject, now) {
            return Ok(());
        }
        self.stamp = now.as_nanosecond().max(self.stamp + 1);
        let event = new_event(&told, now, self.stamp);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        Api::<Event>::namespaced(self.client.clone(), &namespace).create(&event).await?;
        self.series.insert(key, Series { namespace, name, count: 1, last: now, written: now });
        Ok(())
    }

    fn forget_old(&mut self, now: jiff::Timestamp) {
        if self.series.len() >= SERIES_MAX || self.buckets.len() >= SERIES_MAX {
            self.buckets.clear();
            self.series.clear();
        }
        self.series.retain(|_, s| elapsed(s.last, now) < SERIES_WINDOW);
    }

    fn take_token(&mut self, subject: &str, now: jiff::Timestamp) -> bool {
        let (tokens, at) = self.buckets.entry(subject.to_owned()).or_insert((BURST, now));
        *tokens = (*tokens + elapsed(*at, now).as_secs_f64() / SECONDS_PER_EVENT).min(BURST);
        *at = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }
}

fn elapsed(from: jiff::Timestamp, to: jiff::Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn new_event(told: &Told, now: jiff::Timestamp, stamp: i128) -> Event {
    let name = told.regarding.name.as_deref().unwrap_or("unknown");
    let mut event = Event {
        action: Some(told.action.clone()),
        event_time: Some(MicroTime(now)),
        note: Some(told.note.clone()),
        reason: Some(told.reason.clone()),
        regarding: Some(told.regarding.clone()),
        reporting_controller: Some(told.controller.to_string()),
        reporting_instance: Some(told.controller.to_string()),
        type_: Some(told.kind.as_str().to_owned()),
        ..Event::default()
    };
    event.metadata.name = Some(format!("{name}.{stamp:x}"));
    event.metadata.namespace = Some(told.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned()));
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;
    use k8s_openapi::api::core::v1::Pod;

    #[tokio::test]
    async fn what_repeats_becomes_a_series() {
        let server = FakeApi::new();
        let recorder = EventRecorder::new(server.client(), server.clock(), "tester");
        let mut pod = Pod::default();
        pod.metadata.name = Some("a".to_owned());
        pod.metadata.namespace = Some("n".to_owned());
        let long = "é".repeat(2000);
        for note in ["first", "second", "first", "first"] {
            recorder.event(&pod, EventType::Warning, "Failed", "Testing", note);
        }
        recorder.event(&pod, EventType::Normal, "Worked", "Testing", &long);
        let api = Api::<Event>::all(server.client());
        let events = loop {
            let list = api.list(Default::default()).await.unwrap().items;
            let noted = |e: &&Arc<Event>| e.series.is_some();
            if list.len() == 3 && list.iter().any(|e| noted(&e)) {
                break list;
            }
            tokio::task::yield_now().await;
        };
        let failed = events.iter().find(|e| e.note.as_deref() == Some("first")).unwrap();
        assert_eq!(failed.series.as_ref().unwrap().count, 2, "the third waits for its turn to be written");
        let worked = events.iter().find(|e| e.reason.as_deref() == Some("Worked")).unwrap();
        assert_eq!(worked.note.as_ref().unwrap().len(), NOTE_BYTES_MAX);
        assert_eq!(recorder.dropped(), 0);
    }
}
