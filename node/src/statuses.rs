//! Sends pod statuses to the API: only changes, the newest one only, again after a failure.

use crate::agent::Inner;
use crate::status::status_patch;
use crate::worker::PodWorker;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubewright_core::{ApiError, ContentType};
use kubewright_reconcile::client::Api;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many statuses are sent at once.
const SENDS_MAX: usize = 16;
const RETRY: Duration = Duration::from_secs(1);

struct Pending {
    worker: Arc<PodWorker>,
    status: PodStatus,
    due: Instant,
}

/// The statuses that wait to be sent; at most one a pod.
#[derive(Default)]
pub(crate) struct Statuses {
    pending: Mutex<FxHashMap<SmolStr, Pending>>,
    notify: Notify,
}

impl Statuses {
    /// Queues a status in place of an older one.
    pub(crate) fn set(&self, worker: &Arc<PodWorker>, status: PodStatus, delay: Duration) {
        let due = Instant::now() + delay;
        let pending = Pending { worker: worker.clone(), status, due };
        self.pending.lock().insert(worker.uid.clone(), pending);
        self.notify.notify_one();
    }

    /// Takes a queued status back.
    pub(crate) fn withdraw(&self, uid: &str) {
        self.pending.lock().remove(uid);
    }

    fn take_due(&self) -> (Vec<Pending>, Option<Instant>) {
        let now = Instant::now();
        let mut pending = self.pending.lock();
        let due: Vec<SmolStr> =
            pending.iter().filter(|(_, p)| p.due <= now).map(|(k, _)| k.clone()).collect();
        let taken = due.iter().filter_map(|k| pending.remove(k)).collect();
        (taken, pending.values().map(|p| p.due).min())
    }

    /// Sends what is queued, for ever. Dropping the future loses what is being sent.
    pub(crate) async fn run(&self, a: &Inner) {
        loop {
            let (due, later) = self.take_due();
            if !due.is_empty() {
                futures::stream::iter(due).for_each_concurrent(SENDS_MAX, |p| self.send(a, p)).await;
                continue;
            }
            match later {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.notify.notified()).await;
                }
                None => self.notify.notified().await,
            }
        }
    }

    async fn send(&self, a: &Inner, p: Pending) {
        if let Err(e) = send(a, &p.worker, &p.status).await {
            tracing::debug!(pod = p.worker.name, error = %e, "the status is sent again later");
            let mut pending = self.pending.lock();
            let again = Pending { due: Instant::now() + RETRY, ..p };
            pending.entry(again.worker.uid.clone()).or_insert(again);
        }
    }

    /// Sends a pod's queued status now.
    ///
    /// # Errors
    /// The API server's; the status stays queued.
    pub(crate) async fn flush(&self, a: &Inner, worker: &Arc<PodWorker>) -> Result<(), ApiError> {
        let Some(p) = self.pending.lock().remove(&worker.uid) else { return Ok(()) };
        let sent = send(a, worker, &p.status).await;
        if sent.is_err() {
            self.pending.lock().entry(worker.uid.clone()).or_insert(p);
        }
        sent
    }
}

async fn send(a: &Inner, w: &Arc<PodWorker>, status: &PodStatus) -> Result<(), ApiError> {
    let Some(patch) = w.with(|s| {
        if s.gone {
            return None;
        }
        status_patch(&w.uid, s.reported.as_ref().unwrap_or(&PodStatus::default()), status)
    }) else {
        return Ok(());
    };
    let api = Api::<Pod>::namespaced(a.client.clone(), &w.namespace);
    let call = api.patch_subresource(&w.name, "status", ContentType::StrategicMergePatch, patch);
    let answer = tokio::time::timeout(Duration::from_secs(30), call).await;
    match answer.unwrap_or_else(|_| Err(ApiError::unavailable("the API server did not answer in time"))) {
        Ok(pod) => {
            w.with(|s| {
                s.reported = pod.status.clone();
                s.reported_version = version(&pod);
            });
            Ok(())
        }
        // The pod is gone, or another one has its name: nobody wants this status.
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
        Err(e) if e.reason() == kubewright_core::Reason::Invalid => {
            tracing::warn!(pod = w.name, error = %e, "the API server refuses a status");
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// The version of an object as a number; 0 where it is none.
pub(crate) fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
