//! A runtime of real processes that needs no daemon and no root.
//!
//! A sandbox is a directory and a `pause` process that holds its namespaces; a container is a directory and a supervisor
//! (`shim`) that owns its pipes and writes its log. Both are the host program's own executable run again, see [`init`]; they
//! outlive the host program, and a later [`EmbeddedRuntime`] on the same directory takes them over.
//!
//! How much containers are set apart depends on the machine and is found out at the start, see [`Isolation`]. A pod's address
//! is a loopback address of this machine, so that everything on it can be reached without root.

mod cgroups;
mod client;
mod containers;
mod link;
mod network;
mod redirect;
mod rootfs;
mod sandboxes;
mod services;
mod shim;
mod socket;
mod spec;
mod stage;
mod state;
mod stats;
mod streams;

pub use stage::init;

use crate::images::ImageStore;
use crate::{Error, Reason};
use kubewright_core::{Entropy, SharedClock};
use parking_lot::Mutex;
use stage::Probe;
use state::{ContainerEntry, SandboxEntry};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const PROBE_TIME_MAX: Duration = Duration::from_secs(20);

/// How far containers are set apart from the machine and each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// None but the process group: no own root, no own network. Programs run beside an unpacked image; volumes are symbolic links
    /// in it, and `KUBEWRIGHT_ROOTFS` tells a program where it is.
    Process,
    /// Namespaces inside a user namespace, as an ordinary user: one user exists, who is root inside and the host's user outside.
    UserNamespace,
    /// Namespaces as root, with the users of the image and, where writable, cgroups.
    Root,
}

/// Where an embedded runtime lives and what it gives out.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The directory of its state and images; made if missing. One runtime at a time.
    pub root: PathBuf,
    /// The first address of the pods' network, a loopback range such as 127.64.1.0.
    pub pod_network: Ipv4Addr,
    /// The prefix length of that network, 8 to 30.
    pub pod_prefix: u8,
    /// The address of pods that use the machine's network.
    pub node_ip: String,
    /// The most isolation that is used; what the machine does not allow is left out.
    pub isolation: Isolation,
    /// The cgroup under which containers are put, as root (`kubewright`).
    pub cgroup_parent: String,
}

impl EmbeddedConfig {
    /// A runtime in a directory, with the network 127.64.0.0/24.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        EmbeddedConfig {
            root: root.into(),
            pod_network: Ipv4Addr::new(127, 64, 0, 0),
            pod_prefix: 24,
            node_ip: "127.0.0.1".to_owned(),
            isolation: Isolation::Root,
            cgroup_parent: "kubewright".to_owned(),
        }
    }
}

/// A runtime of real processes. A clone is another handle of the same runtime.
///
/// Dropping the last handle stops the runtime's own tasks; sandboxes and containers go on.
#[derive(Clone)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
    /// Ends the tasks with the last handle: they hold `inner`, but not this.
    _stop_on_drop: Arc<DropGuard>,
}

struct Inner {
    config: EmbeddedConfig,
    clock: SharedClock,
    entropy: Entropy,
    probe: Probe,
    isolation: Isolation,
    images: ImageStore,
    cgroups: Option<cgroups::Cgroups>,
    sandboxes: Mutex<HashMap<String, Arc<SandboxEntry>>>,
    containers: Mutex<HashMap<String, Arc<ContainerEntry>>>,
    /// Counts the changes of state, for [`crate::ContainerRuntime::changes`].
    changed: watch::Sender<u64>,
    /// The tasks that watch containers, relay connections and carry streams.
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Held while the runtime lives: one owner of a directory at a time.
    _lock: std::fs::File,
}

impl EmbeddedRuntime {
    /// Opens the runtime of a directory, and takes over the sandboxes and containers that run there.
    ///
    /// # Errors
    /// `FailedPrecondition` where the host program did not call [`init`], or another runtime has the directory; `Invalid` for a
    /// configuration that makes no sense; `Failed` for what the file system says.
    ///
    /// # Cancel safety
    /// Nothing is held after a drop; the call may be repeated.
    pub async fn open(config: EmbeddedConfig, clock: SharedClock) -> Result<Self, Error> {
        if !stage::is_initialised() {
            let words = "the embedded runtime starts the program's own executable as its helpers: \
                         kubewright_runtime::embedded::init() must be the first line of main";
            return Err(Error::new(Reason::FailedPrecondition, words));
        }
        if !(8..=30).contains(&config.pod_prefix) {
            return Err(Error::new(Reason::Invalid, "pod_prefix must be from 8 to 30"));
        }
        let lock = prepare(&config.root).map_err(|e| failed(&config.root.display().to_string(), &e))?;
        let lock = lock.ok_or_else(|| {
            let words = format!("another runtime has {}", config.root.display());
            Error::new(Reason::FailedPrecondition, words)
        })?;
        let probe = run_probe(&config.root).await?;
        let possible = match probe {
            Probe { namespaces: true, root: true, .. } => Isolation::Root,
            Probe { namespaces: true, .. } => Isolation::UserNamespace,
            _ => Isolation::Process,
        };
        let isolation = possible.min(config.isolation);
        let images = ImageStore::open(&config.root.join("images"), Arc::clone(&clock)).await?;
        let cgroups =
            (isolation == Isolation::Root).then(|| cgroups::Cgroups::find(&config.cgroup_parent)).flatten();
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            config,
            clock,
            entropy: Entropy::from_system(),
            probe,
            isolation,
            images,
            cgroups,
            sandboxes: Mutex::new(HashMap::new()),
            containers: Mutex::new(HashMap::new()),
            changed: watch::channel(0).0,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            _lock: lock,
        });
        inner.adopt().await?;
        Ok(EmbeddedRuntime { inner, _stop_on_drop: Arc::new(stop.drop_guard()) })
    }

    /// How far containers are set apart here.
    pub fn isolation(&self) -> Isolation {
        self.inner.isolation
    }

    /// The images, with more ways to bring one in than the port has.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Ends the runtime's own tasks and waits for them. Sandboxes and containers go on.
    ///
    /// # Cancel safety
    /// The tasks end in any case.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl std::fmt::Debug for EmbeddedRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedRuntime({:?}, {:?})", self.inner.config.root, self.inner.isolation)
    }
}

impl Inner {
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn new_id(&self) -> String {
        (0..4).map(|_| format!("{:016x}", self.entropy.next_u64())).collect()
    }

    /// Does something of the runtime's own beside its callers, until it ends or the runtime does.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.root.join("sandboxes").join(id)
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }
}

/// Makes the directories and takes the lock; `None` where another has it.
fn prepare(root: &Path) -> std::io::Result<Option<std::fs::File>> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(root)?;
    for name in ["sandboxes", "containers"] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join(name))?;
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o711))?;
    }
    let lock =
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

async fn run_probe(root: &Path) -> Result<Probe, Error> {
    let mut command = tokio::process::Command::from(stage::command("probe", root));
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROBE_TIME_MAX, command.output()).await;
    let output = output.map_err(|_| Error::new(Reason::Timeout, "the probe of this machine hangs"))?;
    let output = output.map_err(|e| failed("probe", &e))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Error::new(Reason::Failed, format!("the probe of this machine failed: {words}"))
    })
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::new(Reason::Failed, format!("{what}: {error}"))
}
