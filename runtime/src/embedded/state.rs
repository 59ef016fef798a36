//! Sandboxes and containers as the runtime holds them, and how a new runtime takes over those of one that died.

use super::network::{Dialer, Egress, Forwarder, host_ports};
use super::spec::{
    CONTAINER_FILE, ContainerRecord, EXITED_FILE, Exited, SANDBOX_FILE, SOCKET_FILE, STARTED_FILE,
    SandboxRecord, Started, read_json,
};
use super::{Inner, client, failed};
use crate::port::{Container, ContainerState, NamespaceMode, PodSandbox, PodSandboxState};
use crate::{Error, Reason};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A sandbox.
pub(super) struct SandboxEntry {
    pub(super) record: Mutex<SandboxRecord>,
    pub(super) dir: PathBuf,
    /// Ends its relays.
    pub(super) stop: CancellationToken,
    /// Held while it is stopped or removed.
    pub(super) busy: tokio::sync::Mutex<()>,
}

/// A container.
pub(super) struct ContainerEntry {
    pub(super) record: ContainerRecord,
    pub(super) dir: PathBuf,
    pub(super) phase: watch::Sender<Phase>,
    /// Held while it is started or removed.
    pub(super) busy: tokio::sync::Mutex<()>,
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running(Started),
    Exited(Exited),
}

impl SandboxEntry {
    pub(super) fn view(&self, node_ip: &str) -> PodSandbox {
        let record = self.record.lock();
        let host = record.config.security.namespaces.network == NamespaceMode::Node;
        let ready = record.pause.is_some_and(|pause| pause.is_alive());
        PodSandbox {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: if ready { PodSandboxState::Ready } else { PodSandboxState::NotReady },
            created_at: record.created_at,
            ips: match record.ip {
                _ if host => vec![node_ip.to_owned()],
                ip => ip.iter().map(ToString::to_string).collect(),
            },
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            namespaces: record.config.security.namespaces,
            runtime_handler: record.handler.clone(),
        }
    }
}

impl ContainerEntry {
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET_FILE)
    }

    pub(super) fn running(&self) -> Result<Started, Error> {
        match &*self.phase.borrow() {
            Phase::Running(started) => Ok(*started),
            _ => {
                let words = format!("container {} is not running", self.record.id);
                Err(Error::new(Reason::FailedPrecondition, words))
            }
        }
    }

    pub(super) fn view(&self) -> Container {
        let record = &self.record;
        let phase = self.phase.borrow().clone();
        let exited = match &phase {
            Phase::Exited(exited) => Some(exited.clone()),
            _ => None,
        };
        let image = match record.config.user_specified_image.as_str() {
            "" => &record.config.image,
            name => name,
        };
        Container {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            metadata: record.config.metadata.clone(),
            state: match &phase {
                Phase::Created => ContainerState::Created,
                Phase::Running(_) => ContainerState::Running,
                Phase::Exited(_) => ContainerState::Exited,
            },
            created_at: record.created_at,
            started_at: match &phase {
                Phase::Created => 0,
                Phase::Running(started) => started.started_at,
                Phase::Exited(exited) => exited.started_at,
            },
            finished_at: exited.as_ref().map_or(0, |exited| exited.finished_at),
            exit_code: exited.as_ref().map_or(0, |exited| exited.exit_code),
            image: image.to_owned(),
            image_ref: record.image_ref.clone(),
            reason: exited.as_ref().map(|exited| exited.reason.clone()).unwrap_or_default(),
            message: exited.map(|exited| exited.message).unwrap_or_default(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            log_path: record.log_path.clone(),
        }
    }
}

impl Inner {
    pub(super) fn sandbox(&self, id: &str) -> Result<Arc<SandboxEntry>, Error> {
        let found = self.sandboxes.lock().get(id).cloned();
        found.ok_or_else(|| Error::new(Reason::NotFound, format!("sandbox {id:?} not found")))
    }

    pub(super) fn container(&self, id: &str) -> Result<Arc<ContainerEntry>, Error> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| Error::new(Reason::NotFound, format!("container {id:?} not found")))
    }

    /// The containers of a sandbox.
    pub(super) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<ContainerEntry>> {
        let all = self.containers.lock();
        all.values().filter(|container| container.record.sandbox_id == sandbox_id).cloned().collect()
    }

    /// Reads the state directory. What was half made when its owner died is cleaned away.
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<(), Error> {
        for dir in subdirectories(&self.config.root.join("sandboxes"))? {
            match read_json::<SandboxRecord>(&dir.join(SANDBOX_FILE)) {
                Ok(record) => self.adopt_sandbox(record, dir).await,
                Err(_) => self.discard(&dir),
            }
        }
        for dir in subdirectories(&self.config.root.join("containers"))? {
            match read_json::<ContainerRecord>(&dir.join(CONTAINER_FILE)) {
                Ok(record) if self.sandbox(&record.sandbox_id).is_ok() => {
                    self.adopt_container(record, dir).await
                }
                _ => self.discard(&dir),
            }
        }
        Ok(())
    }

    fn discard(&self, dir: &Path) {
        if let Err(error) = super::rootfs::remove_tree(dir) {
            tracing::warn!(dir = %dir.display(), %error, "what a runtime left half made can't be removed");
        }
    }

    async fn adopt_sandbox(self: &Arc<Self>, record: SandboxRecord, dir: PathBuf) {
        let id = record.id.clone();
        let entry = Arc::new(SandboxEntry::new(record, dir));
        if let Err(error) = self.serve_sandbox(&entry).await {
            tracing::warn!(sandbox = id, %error, "a port of an adopted sandbox can't be served");
        }
        self.sandboxes.lock().insert(id, entry);
    }

    async fn adopt_container(self: &Arc<Self>, record: ContainerRecord, dir: PathBuf) {
        let exited = read_json::<Exited>(&dir.join(EXITED_FILE)).ok();
        let started = read_json::<Started>(&dir.join(STARTED_FILE)).ok();
        let phase = match (exited, started) {
            (Some(exited), _) => Phase::Exited(exited),
            (None, Some(started)) => Phase::Running(started),
            (None, None) if dir.join(SOCKET_FILE).exists() => Phase::Exited(self.lost(0)),
            (None, None) => Phase::Created,
        };
        let running = matches!(phase, Phase::Running(_));
        let id = record.id.clone();
        let entry = Arc::new(ContainerEntry::new(record, dir, phase));
        if running {
            self.watch_container(Arc::clone(&entry));
        }
        self.containers.lock().insert(id, entry);
    }

    /// What is said of a container whose supervisor vanished without a word.
    pub(super) fn lost(&self, started_at: i64) -> Exited {
        let (reason, message) = ("Error".to_owned(), "the container's supervisor is gone".to_owned());
        Exited { started_at, finished_at: self.now(), exit_code: 137, reason, message }
    }

    /// Follows a running container to its end.
    pub(super) fn watch_container(self: &Arc<Self>, entry: Arc<ContainerEntry>) {
        let inner = Arc::clone(self);
        self.spawn(async move {
            let waited = client::wait(&entry.socket()).await;
            let exited = read_json::<Exited>(&entry.dir.join(EXITED_FILE)).unwrap_or_else(|error| {
                tracing::warn!(container = entry.record.id, ?waited, %error, "a container ended without a word");
                let started_at = entry.running().map_or(0, |started| started.started_at);
                let lost = inner.lost(started_at);
                // Said once, so that a later runtime tells the same times.
                let _ = super::spec::write_json(&entry.dir.join(EXITED_FILE), &lost);
                lost
            });
            entry.phase.send_replace(Phase::Exited(exited));
            inner.announce();
        });
    }

    /// Starts what a sandbox needs of this process: relays of its ports.
    pub(super) async fn serve_sandbox(self: &Arc<Self>, entry: &SandboxEntry) -> Result<(), Error> {
        let (ip, own_network, alive, mappings) = {
            let record = entry.record.lock();
            let alive = record.pause.is_some_and(|pause| pause.is_alive());
            (record.ip, record.namespaces.net, alive, record.config.port_mappings.clone())
        };
        if !own_network || !alive {
            return Ok(());
        }
        let Some(ip) = ip else { return Ok(()) };
        let socket = entry.dir.join(SOCKET_FILE);
        let work = host_ports(&mappings, &Dialer::Pause(socket.clone())).await?;
        for relay in work {
            let stop = entry.stop.clone();
            self.spawn(async move { stop.run_until_cancelled(relay).await.unwrap_or_default() });
        }
        let egress = Egress { ip, socket: socket.clone(), runtime: Arc::downgrade(self) };
        let stop = entry.stop.clone();
        self.spawn(async move { stop.run_until_cancelled(egress.run()).await.unwrap_or_default() });
        let (stop, forwarder) = (entry.stop.clone(), Forwarder { ip, socket });
        self.spawn(async move { stop.run_until_cancelled(forwarder.run()).await.unwrap_or_default() });
        Ok(())
    }
}

impl SandboxEntry {
    pub(super) fn new(record: SandboxRecord, dir: PathBuf) -> Self {
        let (record, stop) = (Mutex::new(record), CancellationToken::new());
        SandboxEntry { record, dir, stop, busy: tokio::sync::Mutex::new(()) }
    }
}

impl ContainerEntry {
    pub(super) fn new(record: ContainerRecord, dir: PathBuf, phase: Phase) -> Self {
        ContainerEntry { record, dir, phase: watch::channel(phase).0, busy: tokio::sync::Mutex::new(()) }
    }
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let said = |e: std::io::Error| failed(&dir.display().to_string(), &e);
    std::fs::read_dir(dir).map_err(said)?.map(|entry| entry.map(|entry| entry.path()).map_err(said)).collect()
}
