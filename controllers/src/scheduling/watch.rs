//! Looks after plugins of others that may never come back: a scheduler that has some runs on a thread of its own, and one that is stuck in a
//! call is left behind with its thread. A new one takes over, which lets the pod alone that the call was about.

use super::{Loop, report};
use k8s_openapi::api::core::v1::Node;
use kubewright_reconcile::Context;
use kubewright_sched::{Diagnosis, NodeRefusal, PodInfo, Refusal, Scheduler};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Threads that are stuck at once; no scheduler is started while there are so many.
const STUCK_THREADS_MAX: usize = 4;

/// Whether a scheduler's calls come back.
#[derive(Default)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the call began that is under way.
    since: Option<Instant>,
    /// Nobody waits for it any more.
    abandoned: bool,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins now, the one before came back; whether that was in time.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        state.since = Some(Instant::now());
        !state.abandoned
    }

    /// The calls came back; whether that was in time.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        state.since = None;
        !state.abandoned
    }

    /// Comes back when a call lasts for longer than `limit`; its end does not count any more then.
    async fn stuck(&self, limit: Duration) {
        loop {
            tokio::time::sleep(limit / 4).await;
            let mut state = self.state();
            if state.since.is_some_and(|since| since.elapsed() > limit) {
                state.abandoned = true;
                return;
            }
        }
    }
}

/// Runs schedulers one after the other until the controller ends: the next one where a plugin did not come back within `limit`.
pub(super) async fn run(cx: Context, make: impl Fn() -> Scheduler, limit: Duration) {
    let stuck = Arc::new(AtomicUsize::new(0));
    let mut held: Vec<Arc<PodInfo>> = Vec::new();
    loop {
        let scheduler = make();
        if !scheduler.has_foreign_plugins() {
            return Loop::new(cx, scheduler, None, held).run().await;
        }
        let trying = scheduler.trying();
        let watch = Arc::new(Watch::default());
        let work = Loop::new(cx.clone(), scheduler, Some(watch.clone()), held.clone());
        let (mut ended, end) = tokio::sync::oneshot::channel();
        let (runtime, count) = (tokio::runtime::Handle::current(), stuck.clone());
        let thread = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    // Nobody waits any more: another one took over, or the whole controller is gone.
                    () = ended.closed() => {}
                    () = work.run() => {}
                }
            });
            if ended.send(()).is_err() {
                // It came back after all.
                count.fetch_sub(1, Ordering::Relaxed);
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "the scheduler's thread can't be started");
            return;
        }
        tokio::select! {
            _ = end => return,
            () = watch.stuck(limit) => {}
        }
        stuck.fetch_add(1, Ordering::Relaxed);
        let pod = trying.lock().unwrap_or_else(PoisonError::into_inner).clone();
        held.extend(pod.clone());
        tell(&cx, pod.as_deref(), limit).await;
        while stuck.load(Ordering::Relaxed) >= STUCK_THREADS_MAX {
            tracing::error!("too many calls of plugins never came back: nothing is scheduled until one does");
            if cx.cancel().run_until_cancelled(tokio::time::sleep(limit)).await.is_none() {
                return;
            }
        }
    }
}

/// Says what happened, in the pod's status where the call was about one.
async fn tell(cx: &Context, pod: Option<&PodInfo>, limit: Duration) {
    let text = format!("a plugin did not come back within {} s", limit.as_secs_f64());
    let Some(pod) = pod else {
        tracing::error!("{text}; a new scheduler takes over");
        return;
    };
    tracing::error!(pod = %pod.key, "{text}; a new scheduler takes over, without the pod");
    let refusal = Refusal::error(format!("{text}; the pod is left alone until it changes"));
    let refused = NodeRefusal { plugin: "Scheduler", refusal };
    let nodes = cx.informers().of::<Node>().len();
    let diagnosis = Diagnosis { nodes, pod: Some(refused), ..Diagnosis::default() };
    report::unschedulable(cx, pod, &diagnosis, None).await;
}
