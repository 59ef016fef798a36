//! The ports of volumes: what a node agent asks for, what a plugin implements, and where objects and tokens come from.

use crate::Error;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Volume};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the values of downward API fields need beyond the pod itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's addresses, the primary one first (`status.hostIP`, `status.hostIPs`).
    pub host_ips: Vec<String>,
    /// The pod's addresses, the primary one first; empty before the sandbox is there.
    pub pod_ips: Vec<String>,
    /// What pods may use of the node: the value of a limit that a container does not set.
    pub allocatable: BTreeMap<String, String>,
}

/// A token that a projected volume needs (the TokenRequest of authentication.k8s.io).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrder {
    /// Namespace of pod and service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod: String,
    /// That pod's uid.
    pub pod_uid: String,
    /// Whom the token is for; empty for the API server.
    pub audience: String,
    /// How long it is good for, seconds.
    pub expiration_seconds: i64,
}

/// Where plugins get API objects and tokens from.
pub trait VolumeSource: Send + Sync + 'static {
    /// A ConfigMap, `None` where there is none.
    ///
    /// # Errors
    /// Where the API server does not answer.
    fn config_map(&self, namespace: &str, name: &str)
    -> BoxFuture<'_, Result<Option<Arc<ConfigMap>>, Error>>;

    /// A Secret, `None` where there is none.
    ///
    /// # Errors
    /// Where the API server does not answer.
    fn secret(&self, namespace: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<Secret>>, Error>>;

    /// A PersistentVolumeClaim, `None` where there is none.
    ///
    /// # Errors
    /// Where the API server does not answer.
    fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Option<Arc<PersistentVolumeClaim>>, Error>>;

    /// A PersistentVolume, `None` where there is none.
    ///
    /// # Errors
    /// Where the API server does not answer.
    fn persistent_volume(&self, name: &str) -> BoxFuture<'_, Result<Option<Arc<PersistentVolume>>, Error>>;

    /// A token; an implementation keeps it and gives a new one after four fifths of its life.
    ///
    /// # Errors
    /// Where the API server refuses or does not answer.
    fn token(&self, order: TokenOrder) -> BoxFuture<'_, Result<String, Error>>;
}

/// One volume to mount.
pub struct MountRequest<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its volume.
    pub volume: &'a Volume,
    /// The directory of this volume: `<root>/pods/<uid>/volumes/<plugin>/<name>`. It need not exist.
    pub dir: PathBuf,
    /// Objects and tokens.
    pub source: &'a dyn VolumeSource,
    /// Values of downward fields.
    pub facts: &'a NodeFacts,
    /// Writes trees of files that change in one step.
    pub writer: &'a crate::AtomicWriter,
    /// The group that files get, from the pod's `fsGroup`.
    pub fs_group: Option<u32>,
}

/// A volume that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is on the node.
    pub path: PathBuf,
    /// Whether no container may write to it.
    pub read_only: bool,
    /// The most that it may hold, bytes (`emptyDir.sizeLimit`).
    pub size_limit: Option<u64>,
}

impl Mounted {
    /// A writable volume at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Mounted { path: path.into(), read_only: false, size_limit: None }
    }
}

/// One kind of volume.
///
/// | call | when | must |
/// |---|---|---|
/// | `mount` | before the pod's containers start, and again at any time | be idempotent; leave contents alone that containers may have written |
/// | `mount`, where `follows_source` | again whenever the source may have changed | change the files in one step |
/// | `unmount` | after the pod's containers ended | be idempotent; the manager then removes the directory |
pub trait VolumePlugin: Send + Sync + 'static {
    /// Its name as upstream spells it, `kubernetes.io/empty-dir`.
    fn name(&self) -> &'static str;

    /// Whether this volume is of its kind.
    fn supports(&self, volume: &Volume) -> bool;

    /// Makes the volume.
    ///
    /// # Errors
    /// Why it can't be; the caller tries again later.
    ///
    /// # Cancel safety
    /// A dropped call may have made a part; the next call completes it.
    fn mount<'a>(&'a self, request: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>>;

    /// Undoes what is more than files below `dir`.
    ///
    /// # Errors
    /// Where something is left.
    fn unmount<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), Error>>;

    /// Whether the content follows API objects and `mount` must be called again now and then.
    fn follows_source(&self) -> bool;
}

/// A CSI volume to publish on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsiVolume {
    /// Name of the driver.
    pub driver: String,
    /// The driver's name of the volume.
    pub volume_handle: String,
    /// File system; empty for the driver's choice.
    pub fs_type: String,
    /// Mount read-only.
    pub read_only: bool,
    /// `volumeAttributes`, and for inline volumes the pod's identity.
    pub attributes: BTreeMap<String, String>,
    /// Access modes of the PersistentVolume, upstream's spelling.
    pub access_modes: Vec<String>,
    /// `mountOptions` of the PersistentVolume.
    pub mount_options: Vec<String>,
    /// Contents of the Secret for publishing.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Where the driver shall stage it.
    pub staging_dir: PathBuf,
    /// Where the pod shall find it.
    pub target_dir: PathBuf,
    /// Declared in the pod itself, without a claim.
    pub ephemeral: bool,
}

/// Publishes CSI volumes on this node: the hook of the CSI client.
pub trait CsiMounter: Send + Sync + 'static {
    /// Stages and publishes a volume; idempotent.
    ///
    /// # Errors
    /// The driver's.
    fn publish(&self, volume: CsiVolume) -> BoxFuture<'_, Result<(), Error>>;

    /// Unpublishes the volume at `target_dir` and unstages it where nobody else uses it; idempotent.
    ///
    /// # Errors
    /// The driver's.
    fn unpublish(&self, target_dir: &Path) -> BoxFuture<'_, Result<(), Error>>;
}

/// The mounted volumes of one pod by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumes(pub BTreeMap<String, Mounted>);

/// What a node agent asks for.
pub trait Volumes: Send + Sync + 'static {
    /// Mounts all volumes of a pod, or brings them up to date.
    ///
    /// # Errors
    /// The first volume's error, named; the others were still tried.
    ///
    /// # Cancel safety
    /// May be repeated at any time.
    fn mount_pod<'a>(
        &'a self,
        pod: &'a Pod,
        source: &'a dyn VolumeSource,
        facts: &'a NodeFacts,
    ) -> BoxFuture<'a, Result<PodVolumes, Error>>;

    /// Unmounts and removes everything of a pod. An unknown pod is no error.
    ///
    /// # Errors
    /// Where something is left.
    fn unmount_pod<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// The uids of pods that have something on disk, for cleaning up after a restart.
    fn pods_on_disk(&self) -> Vec<String>;

    /// Whether any volume of this pod follows an API object.
    fn follows_source(&self, pod: &Pod) -> bool;

    /// The directory of a pod; `None` in a simulation, where nothing is on disk.
    fn pod_dir(&self, uid: &str) -> Option<PathBuf>;
}
