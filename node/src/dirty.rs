//! The set of pods that want a pass: marking one twice is marking it once.

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use smol_str::SmolStr;
use tokio::sync::Notify;

/// Uids, bounded by the number of pods.
#[derive(Default)]
pub(crate) struct Dirty {
    set: Mutex<FxHashSet<SmolStr>>,
    notify: Notify,
}

impl Dirty {
    /// Asks for a pass.
    pub(crate) fn mark(&self, uid: &SmolStr) {
        if self.set.lock().insert(uid.clone()) {
            self.notify.notify_one();
        }
    }

    /// All that asked.
    pub(crate) fn take(&self) -> FxHashSet<SmolStr> {
        std::mem::take(&mut *self.set.lock())
    }

    /// Waits until somebody asks.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}
