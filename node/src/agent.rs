//! The agent of one node: builder, shared parts, and the loop that drives its pods.

use crate::backoff::Backoff;
use crate::builder::NodeAgentBuilder;
use crate::dirty::Dirty;
use crate::events::{EventWriter, Events};
use crate::hub::NodeHub;
use crate::images::Images;
use crate::settings::Settings;
use crate::statuses::Statuses;
use crate::sync::STATUS_DELAY;
use crate::worker::PodWorker;
use crate::{policy, status};
use k8s_openapi::api::core::v1::Pod;
use kubewright_core::{Entropy, SharedClock};
use kubewright_net::Network;
use kubewright_reconcile::CancellationToken;
use kubewright_reconcile::client::Client;
use kubewright_runtime::ContainerRuntime;
use kubewright_storage::{NodeFacts, Volumes};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// What all parts of one agent share.
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) hub: Arc<NodeHub>,
    /// Writes as this node.
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) images: Images,
    pub(crate) network: Option<Arc<dyn Network>>,
    pub(crate) volumes: Arc<dyn Volumes>,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) settings: Settings,
    pub(crate) events: Events,
    pub(crate) statuses: Statuses,
    pub(crate) backoff: Mutex<Backoff<(SmolStr, String, String)>>,
    pub(crate) workers: Mutex<FxHashMap<SmolStr, Arc<PodWorker>>>,
    /// The pods that want a pass.
    pub(crate) dirty: Dirty,
    /// Probes.
    pub(crate) tasks: TaskTracker,
    /// The runtime's name, the scheme of container ids.
    pub(crate) runtime_name: OnceLock<String>,
    pub(crate) version: OnceLock<kubewright_runtime::port::Version>,
}

/// The agent of one node. Cloning shares it.
///
/// ```no_run
/// use kubewright_node::{NodeAgent, NodeHub};
/// use std::sync::Arc;
///
/// async fn node<R>(hub: Arc<NodeHub>, runtime: Arc<R>)
/// where
///     R: kubewright_runtime::ContainerRuntime + kubewright_runtime::ImageService,
/// {
///     let agent = NodeAgent::builder("node-1", hub).runtime(runtime.clone()).images(runtime).build().unwrap();
///     agent.run(Default::default()).await;
/// }
/// ```
#[derive(Clone)]
pub struct NodeAgent {
    pub(crate) inner: Arc<Inner>,
    writer: Arc<Mutex<Option<EventWriter>>>,
}

impl std::fmt::Debug for NodeAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeAgent({}, {} pods)", self.inner.name, self.inner.workers.lock().len())
    }
}

impl NodeAgent {
    /// Begins an agent for the node of this name.
    pub fn builder(name: &str, hub: Arc<NodeHub>) -> NodeAgentBuilder {
        NodeAgentBuilder::new(name, hub)
    }

    pub(crate) fn from_parts(inner: Inner, writer: EventWriter) -> Self {
        NodeAgent { inner: Arc::new(inner), writer: Arc::new(Mutex::new(Some(writer))) }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Registers the node and runs its pods until `cancel`. Containers go on when the agent ends; the next agent takes them
    /// over. A second call of the same agent comes back at once.
    ///
    /// # Cancel safety
    /// Dropping the future ends the agent as `cancel` does.
    pub async fn run(&self, cancel: CancellationToken) {
        let Some(writer) = self.writer.lock().take() else { return };
        let a = &self.inner;
        let work = async {
            crate::register::register(a).await;
            let pods = crate::driver::drive(a);
            let heartbeat = crate::heartbeat::run(a);
            let housekeeping = crate::gc::run(a);
            tokio::join!(pods, heartbeat, housekeeping, a.statuses.run(a), writer.run());
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
        for worker in a.workers.lock().values() {
            worker.with(|s| s.watched.clear());
        }
        a.tasks.close();
        a.tasks.wait().await;
    }
}

impl Inner {
    /// Computes a pod's status and queues it where it differs from what the API has.
    pub(crate) fn report(&self, w: &Arc<PodWorker>, may_wait: bool) {
        let runtime = self.runtime_name.get().map_or("unknown", String::as_str);
        let new = w.with(|s| {
            let failed = s.failed.clone();
            let input = status::StatusInput {
                observed: &s.observed,
                probes: &s.probes,
                waits: &s.waits,
                runtime,
                host_ips: &self.settings.host_ips,
                ending: s.ending,
                ended: s.ended,
                failed: failed.as_ref().map(|(r, m)| (r.as_str(), m.as_str())),
                now: self.clock.now(),
            };
            // The API's last word is what times and lost containers are taken from.
            let mut pod = (*s.pod).clone();
            if s.reported.is_some() {
                pod.status.clone_from(&s.reported);
            }
            let new = status::compute(&pod, &input);
            (s.reported.as_ref() != Some(&new)).then_some(new)
        });
        match new {
            Some(status) => {
                self.statuses.set(w, status, if may_wait { STATUS_DELAY } else { Duration::ZERO });
            }
            None => self.statuses.withdraw(&w.uid),
        }
    }

    /// The values of downward fields for a pod with these addresses.
    pub(crate) fn facts(&self, pod_ips: Vec<String>) -> NodeFacts {
        NodeFacts {
            host_ips: self.settings.host_ips.clone(),
            pod_ips,
            allocatable: self.settings.allocatable(),
        }
    }

    /// The handler of a pod's RuntimeClass: by convention of this agent the class's own name.
    pub(crate) fn runtime_handler(&self, pod: &Pod) -> String {
        pod.spec.as_ref().and_then(|s| s.runtime_class_name.clone()).unwrap_or_default()
    }

    /// Where the logs of a pod's containers go; empty in a simulation.
    pub(crate) fn log_dir(&self, pod: &Pod) -> String {
        if self.settings.simulated {
            return String::new();
        }
        let dir = self.settings.root_dir.join("log/pods").join(crate::cri::log_dir_name(pod));
        dir.to_string_lossy().into_owned()
    }

    /// The pods that use resources of this node, without the one with this uid.
    pub(crate) fn active_pods(&self, but: &str) -> Vec<Arc<Pod>> {
        let workers = self.workers.lock();
        let active = workers.values().filter(|w| w.uid != but);
        active
            .filter_map(|w| {
                w.with(|s| (s.admitted && !s.ended && !policy::is_terminal(&s.pod)).then(|| s.pod.clone()))
            })
            .collect()
    }

    pub(crate) fn worker(&self, uid: &str) -> Option<Arc<PodWorker>> {
        self.workers.lock().get(uid).cloned()
    }
}
