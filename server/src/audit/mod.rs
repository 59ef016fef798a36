//! Audit: what is told of each request to a log, a webhook or a host's own sink, by a policy.
//!
//! A tower layer around flow control and authorization, so that refusals are told too. A request that the policy does not tell of
//! costs the match of its rules; what is told is put into words by the backends' tasks, not by the request.

mod event;
mod log;
mod policy;
mod queue;
#[cfg(test)]
mod tests;
mod webhook;

pub use event::Event;
pub use log::{LogSink, Rotation};
pub use policy::{Level, Policy, PolicyError, Stage};
pub use webhook::WebhookSink;

use crate::auth::Attributes;
use crate::ports::MetricSource;
use crate::server::ApiServer;
use event::{Outcome, Payload, Record};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, Entropy, Notes, Origin, ResponseBody, SharedClock, Verb,
};
use parking_lot::Mutex;
use queue::Backend;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tower::{Layer, Service};

/// Where audit events go.
pub trait AuditSink: Send + Sync + 'static {
    /// Its name in metrics.
    fn name(&self) -> &'static str;

    /// Takes events. One call at a time is made.
    ///
    /// # Errors
    /// Why they are lost; retries are the sink's own.
    ///
    /// # Cancel safety
    /// A dropped call leaves open how many were taken.
    fn write(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, Result<(), String>>;

    /// Told once, when the server that it hears of has started.
    fn started(&self, server: &ApiServer) {
        let _ = server;
    }
}

/// How events reach a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whether a request waits until its events are written.
    pub blocking: bool,
    /// Events that wait; what comes while so many do is lost, and counted.
    pub buffer_events_max: usize,
    /// Events handed on at once.
    pub batch_events_max: usize,
    /// How long a batch is waited for.
    pub wait_max: Duration,
}

impl Delivery {
    /// Upstream's default for logs: requests wait for the disk.
    pub fn blocking() -> Self {
        Delivery {
            blocking: true,
            buffer_events_max: 10_000,
            batch_events_max: 100,
            wait_max: Duration::ZERO,
        }
    }

    /// Upstream's default for webhooks: 400 events at once, or what came within 30 s.
    pub fn batches() -> Self {
        let wait_max = Duration::from_secs(30);
        Delivery { blocking: false, buffer_events_max: 10_000, batch_events_max: 400, wait_max }
    }
}

/// Audit of one server. Cloning shares it; its tasks end with the last clone.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    policy: Policy,
    clock: SharedClock,
    entropy: Entropy,
    sinks: Vec<(Arc<dyn AuditSink>, Delivery)>,
    backends: arc_swap::ArcSwap<Vec<Backend>>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl Audit {
    /// Audit by this policy, without any sink yet.
    pub fn new(policy: Policy, clock: SharedClock) -> Self {
        Audit(Arc::new(Shared {
            policy,
            clock,
            entropy: Entropy::from_system(),
            sinks: Vec::new(),
            backends: arc_swap::ArcSwap::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Tells this sink too.
    #[must_use]
    pub fn sink(self, sink: impl AuditSink, delivery: Delivery) -> Self {
        let shared = &self.0;
        let mut sinks = shared.sinks.clone();
        sinks.push((Arc::new(sink), delivery));
        Audit(Arc::new(Shared {
            policy: shared.policy.clone(),
            clock: shared.clock.clone(),
            entropy: Entropy::from_system(),
            sinks,
            backends: arc_swap::ArcSwap::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Starts the tasks behind the sinks. What happens before is not told.
    pub fn start(&self, server: &ApiServer) {
        let mut tasks = self.0.tasks.lock();
        if !tasks.is_empty() {
            return;
        }
        let mut backends = Vec::new();
        for (sink, delivery) in &self.0.sinks {
            sink.started(server);
            let (backend, work) = Backend::new(sink.clone(), *delivery);
            tasks.push(AbortOnDropHandle::new(tokio::spawn(work)));
            backends.push(backend);
        }
        self.0.backends.store(Arc::new(backends));
        server.add_metrics(self.0.clone());
    }

    /// Lets the sinks write what is left.
    ///
    /// # Cancel safety
    /// A dropped call has closed the queues.
    pub async fn shutdown(&self) {
        for backend in self.0.backends.load().iter() {
            backend.close();
        }
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Tells of a request that was refused before the API saw it: one whose sender is not known.
    pub(crate) fn refused(&self, request: &ApiRequest, error: &ApiError) {
        let verdict = self.0.policy.verdict(&Attributes::of(request));
        if verdict.level == Level::None || !verdict.tells(Stage::ResponseStarted) {
            return;
        }
        let record = Arc::new(Record::new(request, verdict, self.0.clock.now()));
        let outcome =
            Outcome { code: error.code(), failure: Some(error.clone()), made: None, response: None };
        self.0.leave(Event {
            record,
            stage: Stage::ResponseStarted,
            at: self.0.clock.now(),
            outcome: Some(outcome),
            request: None,
            annotations: request.notes.annotations(),
        });
    }
}

impl Shared {
    async fn tell(&self, event: Event) {
        if !event.record.verdict.tells(event.stage) {
            return;
        }
        let event = Arc::new(event);
        let backends = self.backends.load_full();
        for backend in backends.iter() {
            backend.emit(&event).await;
        }
    }

    fn leave(&self, event: Event) {
        if !event.record.verdict.tells(event.stage) {
            return;
        }
        let event = Arc::new(event);
        for backend in self.backends.load().iter() {
            backend.leave(&event);
        }
    }
}

impl MetricSource for Shared {
    fn write(&self, out: &mut String) {
        let backends = self.backends.load();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "# HELP apiserver_audit_event_total Audit events written.\n# TYPE apiserver_audit_event_total counter"
        );
        let total: u64 = backends.iter().map(|b| b.counts.written.load(Ordering::Relaxed)).sum();
        let _ = writeln!(out, "apiserver_audit_event_total {total}");
        let _ = writeln!(
            out,
            "# HELP apiserver_audit_error_total Audit events lost.\n# TYPE apiserver_audit_error_total counter"
        );
        for backend in backends.iter() {
            let (name, lost) = (backend.name, backend.counts.lost.load(Ordering::Relaxed));
            let _ = writeln!(out, "apiserver_audit_error_total{{plugin=\"{name}\"}} {lost}");
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Audit({} sinks)", self.0.sinks.len())
    }
}

impl<S> Layer<S> for Audit {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Audited<S> {
        Audited { inner, audit: self.clone() }
    }
}

/// A service whose requests are told of.
#[derive(Clone, Debug)]
pub struct Audited<S> {
    inner: S,
    audit: Audit,
}

impl<S> Service<ApiRequest> for Audited<S>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<ApiResponse, ApiError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        let shared = self.audit.0.clone();
        let verdict = shared.policy.verdict(&Attributes::of(&request));
        if verdict.level == Level::None {
            return Box::pin(self.inner.call(request));
        }
        // The clone was not polled ready, the present one was.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            if request.notes.origin().is_none() {
                request.notes.set_origin(Origin { audit_id: shared.entropy.uid(), ..Origin::default() });
            }
            let told = Told::new(shared, &request, verdict);
            told.received().await;
            let answer = inner.call(request).await;
            told.answered(answer).await
        })
    }
}

/// A request that is being told of.
struct Told {
    shared: Arc<Shared>,
    record: Arc<Record>,
    verb: Verb,
    notes: Notes,
    request: Option<Payload>,
}

impl Told {
    fn new(shared: Arc<Shared>, request: &ApiRequest, verdict: policy::Verdict) -> Self {
        let record = Arc::new(Record::new(request, verdict, shared.clock.now()));
        let body = (verdict.level >= Level::Request).then(|| Payload::of_request(&request.body)).flatten();
        Told { shared, record, verb: request.verb, notes: request.notes.clone(), request: body }
    }

    fn event(&self, stage: Stage, outcome: Option<Outcome>) -> Event {
        Event {
            record: self.record.clone(),
            stage,
            at: self.shared.clock.now(),
            request: self.request.clone().filter(|_| outcome.is_some()),
            outcome,
            annotations: self.notes.annotations(),
        }
    }

    async fn received(&self) {
        self.shared.tell(self.event(Stage::RequestReceived, None)).await;
    }

    async fn answered(self, answer: Result<ApiResponse, ApiError>) -> Result<ApiResponse, ApiError> {
        let outcome = Outcome::of(&answer, self.verb, self.record.verdict.level);
        let mut answer = match answer {
            Ok(answer) if is_stream(&answer.body) => answer,
            other => {
                self.shared.tell(self.event(Stage::ResponseComplete, Some(outcome))).await;
                return other;
            }
        };
        self.shared.tell(self.event(Stage::ResponseStarted, Some(outcome.clone()))).await;
        let ending = Ending(self, Some(outcome));
        answer.body = match answer.body {
            ResponseBody::Watch(events) => ResponseBody::Watch(Guarded { events, _ending: ending }.boxed()),
            ResponseBody::Text(chunks) => {
                ResponseBody::Text(Guarded { events: chunks, _ending: ending }.boxed())
            }
            // What a session does is not followed: it ends for the log when it begins.
            other => other,
        };
        Ok(answer)
    }
}

fn is_stream(body: &ResponseBody) -> bool {
    matches!(
        body,
        ResponseBody::Watch(_) | ResponseBody::Text(_) | ResponseBody::Exec(_) | ResponseBody::PortForward(_)
    )
}

/// Tells of the end of a stream when it is dropped.
struct Ending(Told, Option<Outcome>);

impl Drop for Ending {
    fn drop(&mut self) {
        let outcome = self.1.take();
        self.0.shared.leave(self.0.event(Stage::ResponseComplete, outcome));
    }
}

struct Guarded<S> {
    events: S,
    _ending: Ending,
}

impl<S: Stream + Unpin> Stream for Guarded<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.events.poll_next_unpin(cx)
    }
}
