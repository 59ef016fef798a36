//! Tasks that end together: a plane is a few stages, ended in the reverse of their start.

use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long each stage of the shutdown may take before the next one begins.
const STAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Tasks that are ended together.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(crate) async fn end(&self, what: &str) {
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(STAGE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("{what} did not end in time");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
