//! Between the requests and a backend: a bounded queue and a task that hands batches on, so that no request waits for a disk or a
//! network, unless it is to.

use super::event::Event;
use super::{AuditSink, Delivery};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// An event on its way, with whoever waits for it.
type Waiting = (Arc<Event>, Option<oneshot::Sender<()>>);

/// A backend behind its queue.
pub(super) struct Backend {
    pub(super) name: &'static str,
    sender: parking_lot::RwLock<Option<mpsc::Sender<Waiting>>>,
    blocking: bool,
    pub(super) counts: Arc<Counts>,
}

/// What became of the events.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    /// Lost, because the queue was full or the backend gave up.
    pub(super) lost: AtomicU64,
}

impl Backend {
    /// The backend, and the work that its task does until the backend is closed.
    pub(super) fn new(
        sink: Arc<dyn AuditSink>,
        delivery: Delivery,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let counts = Arc::<Counts>::default();
        let (sender, receiver) = mpsc::channel(delivery.buffer_events_max.max(1));
        let backend = Backend {
            name: sink.name(),
            sender: parking_lot::RwLock::new(Some(sender)),
            blocking: delivery.blocking,
            counts: counts.clone(),
        };
        (backend, work(sink, delivery, receiver, counts))
    }

    /// Hands an event on; with a blocking backend it is written when this returns.
    ///
    /// # Cancel safety
    /// A dropped call leaves the event in the queue or out of it.
    pub(super) async fn emit(&self, event: &Arc<Event>) {
        if !self.blocking {
            return self.leave(event);
        }
        let sender = self.sender.read().clone();
        let Some(sender) = sender else { return };
        let (done, written) = oneshot::channel();
        if sender.send((event.clone(), Some(done))).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Leaves an event without waiting for anything.
    pub(super) fn leave(&self, event: &Arc<Event>) {
        let sent = self.sender.read().as_ref().is_some_and(|s| s.try_send((event.clone(), None)).is_ok());
        if !sent {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes nothing more; the task writes what is left and ends.
    pub(super) fn close(&self) {
        self.sender.write().take();
    }
}

async fn work(
    sink: Arc<dyn AuditSink>,
    delivery: Delivery,
    mut receiver: mpsc::Receiver<Waiting>,
    counts: Arc<Counts>,
) {
    let most = delivery.batch_events_max.max(1);
    let mut batch: Vec<Waiting> = Vec::new();
    while let Some(first) = receiver.recv().await {
        batch.push(first);
        fill(
            &mut batch,
            &mut receiver,
            most,
            if delivery.blocking { Duration::ZERO } else { delivery.wait_max },
        )
        .await;
        let events: Vec<Arc<Event>> = batch.iter().map(|(e, _)| e.clone()).collect();
        let count = events.len() as u64;
        match sink.write(events).await {
            Ok(()) => counts.written.fetch_add(count, Ordering::Relaxed),
            Err(why) => {
                tracing::warn!(backend = sink.name(), events = count, why, "audit events are lost");
                counts.lost.fetch_add(count, Ordering::Relaxed)
            }
        };
        for (_, done) in batch.drain(..) {
            let _ = done.map(|d| d.send(()));
        }
    }
}

/// Takes what is there, and what comes until the batch is full or the time is over.
async fn fill(batch: &mut Vec<Waiting>, receiver: &mut mpsc::Receiver<Waiting>, most: usize, wait: Duration) {
    let until = Instant::now() + wait;
    while batch.len() < most {
        if let Ok(next) = receiver.try_recv() {
            batch.push(next);
            continue;
        }
        match tokio::time::timeout_at(until, receiver.recv()).await {
            Ok(Some(next)) => batch.push(next),
            _ => return,
        }
    }
}
