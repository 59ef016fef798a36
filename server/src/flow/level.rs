//! One priority level: its seats, counted without locks as long as there are enough, and the requests that wait for them.

use super::pool::Pool;
use super::queues::{Place, Queues, Shape};
use kubewright_core::ApiError;
use parking_lot::Mutex;
use smol_str::SmolStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a level does with what has no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// There is no limit.
    Exempt,
    /// Refuses it.
    Reject,
    /// Lets it wait in one of these queues.
    Queue(Shape),
}

/// Why a request was refused, under upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

impl Refusal {
    pub(super) const ALL: [Refusal; 3] = [Refusal::QueueFull, Refusal::ConcurrencyLimit, Refusal::TimeOut];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue-full",
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::TimeOut => "time-out",
        }
    }
}

/// The seats that a level has by configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seating {
    /// Its own.
    pub(super) nominal: i64,
    /// How many of these others may borrow.
    pub(super) lendable: i64,
    /// How many it may have at most, borrowed ones included.
    pub(super) ceiling: i64,
}

/// A priority level.
pub(super) struct Level {
    pub(super) name: SmolStr,
    pub(super) uid: SmolStr,
    pub(super) overflow: Overflow,
    seating: Mutex<Seating>,
    /// The largest width of a request here.
    width_max: AtomicI64,
    /// Seats that it has now: its own, less those lent, and those borrowed.
    pub(super) limit: AtomicI64,
    /// Seats taken.
    pub(super) taken: AtomicI64,
    /// Requests that run.
    pub(super) running: AtomicI64,
    /// Requests that wait. Raised before the last look at the seats, so that whoever gives one back sees it.
    pub(super) waiting: AtomicI64,
    pub(super) refused: [AtomicU64; Refusal::ALL.len()],
    queues: Mutex<Queues<oneshot::Sender<Seats>>>,
}

impl Level {
    pub(super) fn new(name: &str, uid: &str, overflow: Overflow) -> Self {
        let shape = match overflow {
            Overflow::Queue(shape) => shape,
            _ => Shape { queues: 1, hand: 1, length: 0 },
        };
        Level {
            name: name.into(),
            uid: uid.into(),
            overflow,
            seating: Mutex::default(),
            width_max: AtomicI64::new(1),
            limit: AtomicI64::new(0),
            taken: AtomicI64::new(0),
            running: AtomicI64::new(0),
            waiting: AtomicI64::new(0),
            refused: Default::default(),
            queues: Mutex::new(Queues::new(shape)),
        }
    }

    pub(super) fn seating(&self) -> Seating {
        *self.seating.lock()
    }

    /// Gives the level its seats anew; all loans are forgotten.
    pub(super) fn seat(&self, seating: Seating) {
        *self.seating.lock() = seating;
        // Upstream's bound: no request takes more than a part of its level.
        let part = (seating.nominal as f64 * 0.15).ceil() as i64;
        self.width_max.store(part.clamp(1, super::work::WIDTH_MAX), Ordering::Relaxed);
        self.limit.store(seating.nominal, Ordering::SeqCst);
    }

    pub(super) fn width_max(&self) -> i64 {
        self.width_max.load(Ordering::Relaxed)
    }

    pub(super) fn is_exempt(&self) -> bool {
        self.overflow == Overflow::Exempt
    }

    /// Takes seats where so many are free. A request that is wider than the level runs alone.
    pub(super) fn take(&self, width: i64) -> bool {
        let fits = |taken: i64| {
            let limit = self.limit.load(Ordering::SeqCst);
            (taken + width <= limit || (taken == 0 && limit > 0)).then_some(taken + width)
        };
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Seats that nobody uses or waits for.
    pub(super) fn idle(&self) -> i64 {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return 0;
        }
        (self.limit.load(Ordering::SeqCst) - self.taken.load(Ordering::SeqCst)).max(0)
    }

    /// Seats for a request, at once or after waiting for at most `patience`.
    ///
    /// # Errors
    /// 429 where the level is full, or nothing became free in time.
    ///
    /// # Cancel safety
    /// A dropped call gives up its place.
    pub(super) async fn enter(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        flow: u64,
        width: i64,
        patience: Duration,
    ) -> Result<Seats, ApiError> {
        let now = |queue| Seats { level: self.clone(), pool: pool.clone(), width, queue };
        if self.is_exempt() {
            self.taken.fetch_add(width, Ordering::Relaxed);
            self.running.fetch_add(1, Ordering::Relaxed);
            return Ok(now(None));
        }
        if self.waiting.load(Ordering::SeqCst) == 0 && self.take(width) {
            self.running.fetch_add(1, Ordering::Relaxed);
            return Ok(now(None));
        }
        match self.queue_up(pool, flow, width) {
            Ok(None) => Ok(now(None)),
            Ok(Some(mut waiter)) => match tokio::time::timeout(patience, &mut waiter.seats).await {
                Ok(Ok(seats)) => Ok(seats),
                _ => Err(self.refuse(Refusal::TimeOut)),
            },
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    /// Takes seats after all (`None`), or a place in a queue.
    fn queue_up(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        flow: u64,
        width: i64,
    ) -> Result<Option<Waiter>, Refusal> {
        let mut queues = self.queues.lock();
        self.add_waiting(pool, 1);
        let first = queues.is_empty();
        if first && (self.take(width) || (pool.borrow_for(self, width) && self.take(width))) {
            self.add_waiting(pool, -1);
            self.running.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        let (sender, seats) = oneshot::channel();
        let pushed = match self.overflow {
            Overflow::Queue(_) => queues.push(flow, width, sender).map_err(|_| Refusal::QueueFull),
            _ => Err(Refusal::ConcurrencyLimit),
        };
        match pushed {
            Ok(place) => {
                let (level, pool) = (self.clone(), pool.clone());
                Ok(Some(Waiter { level, pool, place, seats }))
            }
            Err(refusal) => {
                self.add_waiting(pool, -1);
                Err(refusal)
            }
        }
    }

    fn add_waiting(&self, pool: &Pool, count: i64) {
        self.waiting.fetch_add(count, Ordering::SeqCst);
        pool.waiting.fetch_add(count, Ordering::SeqCst);
    }

    /// Gives seats to those who wait, as far as there are any.
    pub(super) fn dispatch(self: &Arc<Self>, pool: &Arc<Pool>) {
        // Seats of someone who gave up in the same moment come back when this is dropped, after the lock.
        let mut unwanted = Vec::new();
        let mut queues = self.queues.lock();
        while let Some((number, width)) = queues.next() {
            if !(self.take(width) || (pool.borrow_for(self, width) && self.take(width))) {
                break;
            }
            let Some(request) = queues.dispatch(number) else { break };
            self.running.fetch_add(1, Ordering::Relaxed);
            self.add_waiting(pool, -1);
            let queue = Some((number, Instant::now()));
            let seats = Seats { level: self.clone(), pool: pool.clone(), width, queue };
            if let Err(seats) = request.payload.send(seats) {
                unwanted.push(seats);
            }
        }
        drop(queues);
    }

    fn refuse(&self, why: Refusal) -> ApiError {
        if let Some(at) = Refusal::ALL.iter().position(|r| *r == why) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
        super::too_many_requests()
    }
}

/// A place in a queue; dropping it leaves the queue.
struct Waiter {
    level: Arc<Level>,
    pool: Arc<Pool>,
    place: Place,
    seats: oneshot::Receiver<Seats>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.level.queues.lock().remove(self.place) {
            self.level.add_waiting(&self.pool, -1);
        }
    }
}

/// Seats of a running request; dropping them gives them to the next.
pub(super) struct Seats {
    level: Arc<Level>,
    pool: Arc<Pool>,
    width: i64,
    /// From which queue it came and when; none for what never waited.
    queue: Option<(u32, Instant)>,
}

impl Drop for Seats {
    fn drop(&mut self) {
        self.level.running.fetch_sub(1, Ordering::Relaxed);
        self.level.taken.fetch_sub(self.width, Ordering::SeqCst);
        if let Some((number, since)) = self.queue {
            let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.level.queues.lock().ended(number, self.width, took);
        }
        if self.pool.waiting.load(Ordering::SeqCst) > 0 {
            self.pool.serve_waiting(&self.level);
        }
    }
}
