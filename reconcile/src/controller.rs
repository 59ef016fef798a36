//! A controller: which objects it looks after, what else wakes it, and the loop that runs its passes.

use crate::informer::{Change, Follows, Informer};
use crate::queue::{QueueMetrics, QueueOptions, Work, WorkQueue};
use crate::reconciler::{ErasedReconciler, Reconciler};
use crate::writes::{Writes, noting};
use crate::{Action, Backoff, Context, ObjectKey};
use futures::FutureExt;
use futures::future::BoxFuture;
use kubewright_core::{GroupVersionResource, Resource};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How long a pass waits for the informers to show the key's own writes before it is put off.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long running passes may finish at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Changes taken from a subscription at once.
const BATCH_CHANGES_MAX: usize = 256;

type Runner = Arc<dyn Fn(Context, CancellationToken, Arc<Counts>) -> BoxFuture<'static, ()> + Send + Sync>;
type Warmer = Arc<dyn Fn(&Context) + Send + Sync>;
type Filter<K> = Arc<dyn Fn(&K) -> bool + Send + Sync>;
type SourceFn = Arc<dyn Fn(&Context, &WorkQueue<ObjectKey>) -> Source + Send + Sync>;

/// Something that wakes keys: the informer it reads, and the future that feeds the queue.
struct Source {
    follows: Arc<dyn Follows>,
    feed: BoxFuture<'static, ()>,
}

#[derive(Debug, Default)]
struct Counts {
    passes: AtomicU64,
    errors: AtomicU64,
    panics: AtomicU64,
    /// The queue of the present run.
    queue: Mutex<Option<WorkQueue<ObjectKey>>>,
}

impl Counts {
    fn metrics(&self) -> ControllerMetrics {
        ControllerMetrics {
            passes: self.passes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            queue: self.queue.lock().as_ref().map(WorkQueue::metrics).unwrap_or_default(),
        }
    }
}

/// Reads what a controller counts.
#[derive(Clone, Debug)]
pub struct ControllerMeter {
    name: &'static str,
    counts: Arc<Counts>,
}

impl ControllerMeter {
    /// The name of the controller.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it did so far.
    pub fn metrics(&self) -> ControllerMetrics {
        self.counts.metrics()
    }
}

/// What a controller did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerMetrics {
    /// Passes run, failed ones included.
    pub passes: u64,
    /// Passes that gave an error.
    pub errors: u64,
    /// Passes that panicked.
    pub panics: u64,
    /// Its queue; all zero while it does not run.
    pub queue: QueueMetrics,
}

/// A controller that is ready to run. It may run several times, one after the other (as leadership comes and goes).
#[derive(Clone)]
pub struct Controller {
    name: &'static str,
    kinds: Vec<GroupVersionResource>,
    runner: Runner,
    warmer: Warmer,
    counts: Arc<Counts>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({})", self.name)
    }
}

impl Controller {
    /// Begins a controller of the objects of a kind. The name appears in logs and metrics and must be unique in a plane.
    pub fn for_kind<K: Resource>(name: &'static str) -> ControllerBuilder<K> {
        ControllerBuilder {
            name,
            kinds: vec![K::resource()],
            reporter: name,
            filters: Vec::new(),
            sources: Vec::new(),
            warmers: Vec::new(),
            concurrency: 4,
            queue: QueueOptions::default(),
            coalesce: Duration::ZERO,
            _kind: PhantomData,
        }
    }

    /// A controller of another shape: `run` is called at each start and ends when the token of its [`Context::cancel`] is cancelled.
    pub fn from_fn<F, Fut>(name: &'static str, run: F) -> Controller
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let run = Arc::new(run);
        let runner: Runner = Arc::new(move |cx, cancel, _| {
            let run = run.clone();
            Box::pin(async move { run(cx.named(name, cancel)).await })
        });
        Controller { name, kinds: Vec::new(), runner, warmer: Arc::new(|_| ()), counts: Arc::default() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The kinds that it follows, its own first; none for one of another shape.
    pub fn kinds(&self) -> &[GroupVersionResource] {
        &self.kinds
    }

    /// What it did so far.
    pub fn metrics(&self) -> ControllerMetrics {
        self.counts.metrics()
    }

    /// A handle on what it counts, which keeps nothing else of it alive.
    pub fn meter(&self) -> ControllerMeter {
        ControllerMeter { name: self.name, counts: self.counts.clone() }
    }

    /// Starts the informers that it will read, without any pass: a standby is then warm when it becomes the leader.
    pub fn warm(&self, cx: &Context) {
        (self.warmer)(cx);
    }

    /// Runs until cancelled; running passes get a few seconds to finish.
    ///
    /// # Cancel safety
    /// Dropping it stops all its tasks at once.
    pub async fn run(&self, cx: Context, cancel: CancellationToken) {
        tracing::debug!(controller = self.name, "starts");
        (self.runner)(cx, cancel, self.counts.clone()).await;
        tracing::debug!(controller = self.name, "ended");
    }
}

/// Collects what a controller looks at; [`ControllerBuilder::with`] makes it one.
pub struct ControllerBuilder<K> {
    name: &'static str,
    kinds: Vec<GroupVersionResource>,
    /// Whom its events come from.
    reporter: &'static str,
    filters: Vec<Filter<K>>,
    sources: Vec<SourceFn>,
    warmers: Vec<Warmer>,
    concurrency: usize,
    queue: QueueOptions,
    coalesce: Duration,
    _kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for ControllerBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControllerBuilder({}, {} sources)", self.name, self.sources.len())
    }
}

impl<K: Resource> ControllerBuilder<K> {
    /// Only objects that all filters let through wake the controller by themselves.
    #[must_use]
    pub fn filter(mut self, filter: impl Fn(&K) -> bool + Send + Sync + 'static) -> Self {
        self.filters.push(Arc::new(filter));
        self
    }

    /// A change of a `C` wakes the `K` that controls it by an owner reference.
    #[must_use]
    pub fn owns<C: Resource>(self) -> Self {
        self.watches::<C>(|child, _| crate::owner::controller_key::<K, C>(child).into_iter().collect())
    }

    /// A change of a `W` wakes the keys that `map` gives for it, for its state before and after.
    #[must_use]
    pub fn watches<W: Resource>(
        mut self,
        map: impl Fn(&W, &Context) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        let map = Arc::new(map);
        let wait = self.coalesce;
        self.kinds.push(W::resource());
        self.sources.push(Arc::new(move |cx, queue| {
            let (map, cx2) = (map.clone(), cx.clone());
            source(cx.informers().of::<W>(), queue, wait, move |w: &W| map(w, &cx2))
        }));
        self.warmers.push(Arc::new(|cx| drop(cx.informers().of::<W>())));
        self
    }

    /// Starts and waits for the informer of `R` before the first pass, though its changes wake nobody.
    #[must_use]
    pub fn reads<R: Resource>(self) -> Self {
        self.watches::<R>(|_, _| Vec::new())
    }

    /// Changes of the kinds named *after* this call wake their keys only after `wait`, so that many changes make one pass.
    #[must_use]
    pub fn coalesce(mut self, wait: Duration) -> Self {
        self.coalesce = wait;
        self
    }

    /// The name under which its events are told; the controller's own unless set.
    #[must_use]
    pub fn reports_as(mut self, name: &'static str) -> Self {
        self.reporter = name;
        self
    }

    /// How many passes may run at once, for different keys; 4 unless set.
    #[must_use]
    pub fn concurrency(mut self, passes_max: usize) -> Self {
        self.concurrency = passes_max.max(1);
        self
    }

    /// The delays after failures.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.queue.backoff = backoff;
        self
    }

    /// How the queue behaves.
    #[must_use]
    pub fn queue(mut self, options: QueueOptions) -> Self {
        self.queue = options;
        self
    }

    /// Completes the controller with the reconciler that does the work.
    pub fn with(self, reconciler: impl Reconciler<K>) -> Controller {
        let filters = self.filters;
        let mut sources = self.sources;
        sources.insert(
            0,
            Arc::new(move |cx: &Context, queue: &WorkQueue<ObjectKey>| {
                let filters = filters.clone();
                source(cx.informers().of::<K>(), queue, Duration::ZERO, move |k: &K| {
                    filters.iter().all(|f| f(k)).then(|| ObjectKey::of(k)).into_iter().collect()
                })
            }),
        );
        let spec = Arc::new(Spec::<K> {
            name: self.name,
            reporter: self.reporter,
            reconciler: Arc::new(reconciler),
            sources,
            concurrency: self.concurrency,
            queue: self.queue,
        });
        let warmers = self.warmers;
        Controller {
            name: self.name,
            kinds: self.kinds,
            runner: Arc::new(move |cx, cancel, counts| Box::pin(run(spec.clone(), cx, cancel, counts))),
            warmer: Arc::new(move |cx| {
                drop(cx.informers().of::<K>());
                warmers.iter().for_each(|w| w(cx));
            }),
            counts: Arc::default(),
        }
    }
}

fn source<W: Send + Sync + 'static>(
    informer: Informer<W>,
    queue: &WorkQueue<ObjectKey>,
    wait: Duration,
    map: impl Fn(&W) -> Vec<ObjectKey> + Send + Sync + 'static,
) -> Source {
    let queue = queue.clone();
    let follows: Arc<dyn Follows> = Arc::new(informer.clone());
    let feed = async move {
        let mut changes = informer.subscribe();
        loop {
            let batch = changes.batch(BATCH_CHANGES_MAX).await;
            if batch.is_empty() {
                return;
            }
            for change in batch {
                let mut keys = match &change {
                    Change::Applied { object, old } => {
                        let mut keys = map(object);
                        keys.extend(old.iter().flat_map(|o| map(o)));
                        keys
                    }
                    Change::Deleted(object) => map(object),
                };
                keys.sort_unstable();
                keys.dedup();
                for key in keys {
                    offer(&queue, key, wait).await;
                }
            }
        }
    };
    Source { follows, feed: Box::pin(feed) }
}

/// Puts a key into the queue, waiting for room: the subscription behind merges what comes meanwhile.
async fn offer(queue: &WorkQueue<ObjectKey>, key: ObjectKey, wait: Duration) {
    while queue.add_after(key.clone(), wait).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Spec<K> {
    name: &'static str,
    reporter: &'static str,
    reconciler: Arc<dyn ErasedReconciler<K>>,
    sources: Vec<SourceFn>,
    concurrency: usize,
    queue: QueueOptions,
}

/// What the passes of one run share.
struct Run<K> {
    spec: Arc<Spec<K>>,
    cx: Context,
    primary: Informer<K>,
    follows: Vec<Arc<dyn Follows>>,
    /// What each key's passes wrote and no informer was seen to show yet.
    writes: Mutex<FxHashMap<ObjectKey, Writes>>,
    counts: Arc<Counts>,
}

async fn run<K: Resource>(spec: Arc<Spec<K>>, cx: Context, cancel: CancellationToken, counts: Arc<Counts>) {
    let cx = cx.named(spec.reporter, cancel.clone());
    let queue = WorkQueue::new(spec.queue);
    *counts.queue.lock() = Some(queue.clone());
    let mut follows = Vec::new();
    let mut feeds = JoinSet::new();
    for source in &spec.sources {
        let Source { follows: informer, feed } = source(&cx, &queue);
        follows.push(informer);
        feeds.spawn(feed);
    }
    for informer in &follows {
        if cancel.run_until_cancelled(informer.synced()).await != Some(true) {
            return;
        }
    }
    let slots = Arc::new(Semaphore::new(spec.concurrency));
    let primary = cx.informers().of::<K>();
    let shared = Arc::new(Run { spec, cx, primary, follows, writes: Mutex::default(), counts });
    let mut passes = JoinSet::new();
    let dispatch = async {
        while let Ok(slot) = slots.clone().acquire_owned().await {
            let Some(work) = queue.get().await else {
                return;
            };
            let shared = shared.clone();
            passes.spawn(async move {
                shared.pass(work).await;
                drop(slot);
            });
            while passes.try_join_next().is_some() {}
        }
    };
    cancel.run_until_cancelled(dispatch).await;
    feeds.shutdown().await;
    queue.shut_down();
    let finish = async { while passes.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!(controller = shared.spec.name, "passes were cut off at shutdown");
    }
    passes.shutdown().await;
}

impl<K: Resource> Run<K> {
    async fn pass(&self, work: Work<ObjectKey>) {
        let key = work.key().clone();
        let earlier = self.writes.lock().remove(&key);
        if let Some(writes) = earlier
            && !writes.settle(&self.follows, SETTLE_TIMEOUT).await
        {
            tracing::warn!(controller = self.spec.name, %key, "the informers do not show the last writes yet");
            self.writes.lock().insert(key, writes);
            return work.fail();
        }
        let (client, writes) = noting(self.cx.client());
        let cx = self.cx.with_client(client);
        let span = tracing::debug_span!("pass", controller = self.spec.name, %key);
        let pass = self.spec.reconciler.pass(&key, self.primary.get_key(&key), &cx).instrument(span);
        let result = AssertUnwindSafe(pass).catch_unwind().await;
        let writes = std::mem::take(&mut *writes.lock());
        if !writes.is_empty() {
            self.writes.lock().insert(key, writes);
        }
        self.counts.passes.fetch_add(1, Ordering::Relaxed);
        self.conclude(work, result);
    }

    fn conclude(&self, work: Work<ObjectKey>, result: std::thread::Result<Result<Action, String>>) {
        let (controller, key) = (self.spec.name, work.key());
        match result {
            Ok(Ok(Action::Done)) => work.succeed(),
            Ok(Ok(Action::RequeueAfter(delay))) => work.again_after(delay),
            Ok(Err(error)) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                tracing::info!(controller, %key, error, "the pass failed");
                work.fail();
            }
            Err(panic) => {
                self.counts.panics.fetch_add(1, Ordering::Relaxed);
                let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                tracing::error!(controller, %key, text, "the pass panicked");
                work.fail();
            }
        }
    }
}
