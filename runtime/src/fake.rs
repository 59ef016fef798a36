//! A runtime without processes, for simulations and tests: thousands of pods that start, log and end as they are told.
//!
//! Nothing runs for a pod: what a container does is decided when it starts, and its state is worked out from the clock when
//! somebody asks. Ids and addresses come from a seed, so that one seed and one clock give one history.

mod behaviour;
mod images;
mod services;
mod state;
mod streams;

pub use behaviour::{Behaviour, ExecCall, ExecHandler, FakeConfig};

use crate::{Error, Reason};
use kubewright_core::{Entropy, SharedClock};
use parking_lot::Mutex;
use state::State;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Decides whether a call fails, by the name of its method in the specification (`StartContainer`).
pub type FaultHandler = Arc<dyn Fn(&str) -> Option<Error> + Send + Sync>;

/// A runtime without processes. A clone is another handle of the same runtime.
#[derive(Clone)]
pub struct FakeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    config: FakeConfig,
    clock: SharedClock,
    entropy: Entropy,
    state: Mutex<State>,
    /// Counts the changes of state, for [`crate::ContainerRuntime::changes`].
    changed: watch::Sender<u64>,
    faults: Mutex<Option<FaultHandler>>,
    /// The tasks of exec, attach and port-forward sessions.
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl FakeRuntime {
    /// A runtime with no pods, that tells the time by `clock` and takes ids from `seed`.
    pub fn new(config: FakeConfig, clock: SharedClock, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let state = State::new(&config);
        FakeRuntime {
            inner: Arc::new(Inner {
                config,
                clock,
                entropy: Entropy::from_seed(seed),
                state: Mutex::new(state),
                changed: watch::channel(0).0,
                faults: Mutex::new(None),
                tasks: TaskTracker::new(),
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
            }),
        }
    }

    /// Lets `handler` decide about every call from now on; `None` ends it.
    pub fn set_faults(&self, handler: Option<FaultHandler>) {
        *self.inner.faults.lock() = handler;
    }

    /// Ends a running container as if its program had ended.
    ///
    /// # Errors
    /// `NotFound`, or `FailedPrecondition` where it does not run.
    pub fn end_container(&self, id: &str, exit_code: i32, reason: &str) -> Result<(), Error> {
        let now = self.inner.now();
        let mut state = self.inner.state.lock();
        let container = state.container_mut(id)?;
        if !container.runs(now) {
            return Err(Error::new(Reason::FailedPrecondition, format!("container {id} is not running")));
        }
        container.end(now, exit_code, reason);
        drop(state);
        self.inner.announce();
        Ok(())
    }

    /// How many sandboxes and containers there are.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.inner.state.lock();
        (state.sandboxes.len(), state.containers.len())
    }
}

impl std::fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sandboxes, containers) = self.counts();
        write!(f, "FakeRuntime({sandboxes} sandboxes, {containers} containers)")
    }
}

impl Inner {
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn check_faults(&self, method: &str) -> Result<(), Error> {
        let handler = self.faults.lock().clone();
        handler.and_then(|handler| handler(method)).map_or(Ok(()), Err)
    }

    fn new_id(&self) -> String {
        (0..4).map(|_| format!("{:016x}", self.entropy.next_u64())).collect()
    }

    async fn wait(&self, latency: Duration) {
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }
}

#[cfg(test)]
mod tests;
