//! What an agent knows of one pod beside the API object.

use crate::observed::Observed;
use crate::probe::ProbeStates;
use crate::status::Waits;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubewright_storage::PodVolumes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One pod of this node.
pub(crate) struct PodWorker {
    pub(crate) uid: SmolStr,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Short locks only, never across an await.
    state: Mutex<PodState>,
}

/// The changing part.
pub(crate) struct PodState {
    /// The newest object that the informer gave.
    pub(crate) pod: Arc<Pod>,
    /// The API has it no more.
    pub(crate) gone: bool,
    pub(crate) observed: Arc<Observed>,
    /// `observed` is what the runtime has, as far as anybody knows.
    pub(crate) fresh: bool,
    pub(crate) probes: ProbeStates,
    /// The running probes of each instance.
    pub(crate) watched: FxHashMap<String, Watched>,
    pub(crate) waits: Waits,
    pub(crate) volumes: Option<PodVolumes>,
    /// When volumes that follow objects were last brought up to date.
    pub(crate) volumes_at: Timestamp,
    /// How often mounting or sandbox creation failed in a row.
    pub(crate) failures: u32,
    pub(crate) admitted: bool,
    /// Why the node refused or ended the pod: reason and message.
    pub(crate) failed: Option<(String, String)>,
    /// Its containers are being ended, or have ended, for good.
    pub(crate) ending: bool,
    /// Nothing of it runs any more, and nothing will.
    pub(crate) ended: bool,
    /// Volumes and network are given back.
    pub(crate) cleaned: bool,
    /// The status that the API has, as far as this agent knows.
    pub(crate) reported: Option<PodStatus>,
    /// The version of the object that had that status.
    pub(crate) reported_version: u64,
}

/// The probes of one instance of a container.
pub(crate) struct Watched {
    /// Ends all its probes.
    pub(crate) cancel: CancellationToken,
    /// Ends its startup and liveness probes only.
    pub(crate) cancel_health: CancellationToken,
    /// Turns true when the startup probe succeeded.
    pub(crate) started: watch::Sender<bool>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl PodWorker {
    pub(crate) fn new(pod: Arc<Pod>, gone: bool) -> Self {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        PodWorker {
            uid: SmolStr::new(pod.metadata.uid.as_deref().unwrap_or("")),
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            state: Mutex::new(PodState {
                reported: pod.status.clone(),
                reported_version: crate::statuses::version(&pod),
                probes: probes_of_status(&pod),
                pod,
                gone,
                observed: Arc::default(),
                fresh: false,
                watched: FxHashMap::default(),
                waits: Waits::new(),
                volumes: None,
                volumes_at: Timestamp::UNIX_EPOCH,
                failures: 0,
                admitted: false,
                failed: None,
                ending: false,
                ended: false,
                cleaned: false,
            }),
        }
    }

    /// Reads or changes the state; nothing may be awaited inside.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut PodState) -> T) -> T {
        look(&mut self.state.lock())
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.with(|s| s.pod.clone())
    }

    pub(crate) fn observed(&self) -> Arc<Observed> {
        self.with(|s| s.observed.clone())
    }

    /// What the runtime has may differ from what is known.
    pub(crate) fn invalidate(&self) {
        self.with(|s| s.fresh = false);
    }
}

/// What the API says of containers that run already: an agent that restarts takes its predecessor's word for them until its
/// own probes have decided.
fn probes_of_status(pod: &Pod) -> ProbeStates {
    let mut probes = ProbeStates::default();
    let status = pod.status.as_ref();
    let all = status
        .into_iter()
        .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    for container in all {
        let id = container.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
        let Some(id) = id else { continue };
        let known = crate::probe::ContainerProbes {
            startup: container.started.filter(|s| *s),
            liveness: None,
            readiness: Some(container.ready).filter(|r| *r),
        };
        probes.set(id, known);
    }
    probes
}
