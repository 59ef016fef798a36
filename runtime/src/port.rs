//! The port: the Container Runtime Interface (`runtime.v1`) as async traits, in the specification's terms.
//!
//! Times are nanoseconds since the Unix epoch, 0 for "not yet", as in the specification.

use crate::Error;
use futures::future::BoxFuture;
use kubewright_core::streams::{ExecSession, PortForwardSession};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names and values that the caller attaches; a runtime keeps them and filters lists by them.
pub type Labels = BTreeMap<String, String>;

/// `PodSandboxMetadata`: what names a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Which try this is; counts up when the sandbox is made anew.
    pub attempt: u32,
}

/// Whose namespace of a kind is used (`NamespaceMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One for all containers of the pod.
    #[default]
    Pod,
    /// One for each container.
    Container,
    /// The node's.
    Node,
}

/// `NamespaceOption`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    /// Network.
    pub network: NamespaceMode,
    /// Process ids.
    pub pid: NamespaceMode,
    /// Inter-process communication.
    pub ipc: NamespaceMode,
}

/// `DNSConfig`, the lines of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// `PortMapping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node; 0 for none.
    pub host_port: u16,
    /// Address on the node; empty for all.
    pub host_ip: String,
}

/// The parts of a security context that CRI carries, for a sandbox and for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// Whose namespaces.
    pub namespaces: NamespaceOptions,
    /// User id.
    pub run_as_user: Option<i64>,
    /// User name in the image.
    pub run_as_username: String,
    /// Group id.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// All rights of the node.
    pub privileged: bool,
    /// The root file system can't be written.
    pub readonly_rootfs: bool,
    /// The program can't gain rights.
    pub no_new_privs: bool,
    /// Capabilities added, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped, without `CAP_`; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// Seccomp profile: empty or `unconfined`, `runtime/default`, `localhost/<path>`.
    pub seccomp_profile: String,
    /// AppArmor profile in the same spelling.
    pub apparmor_profile: String,
    /// SELinux `user`, `role`, `type`, `level`, where given.
    pub selinux_options: Option<[String; 4]>,
    /// Paths hidden from the container.
    pub masked_paths: Vec<String>,
    /// Paths that can't be written.
    pub readonly_paths: Vec<String>,
}

/// `LinuxContainerResources`; 0 means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CFS period in microseconds.
    pub cpu_period: i64,
    /// CFS quota in microseconds of a period.
    pub cpu_quota: i64,
    /// CPU shares.
    pub cpu_shares: i64,
    /// Memory limit in bytes.
    pub memory_limit_bytes: i64,
    /// Adjustment of the out-of-memory score.
    pub oom_score_adj: i64,
    /// CPUs that it may use, `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes that it may use.
    pub cpuset_mems: String,
    /// cgroup v2 values by file name.
    pub unified: Labels,
}

/// `PodSandboxConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// What names it.
    pub metadata: PodSandboxMetadata,
    /// Host name of the pod; empty with the node's network.
    pub hostname: String,
    /// Where the logs of its containers go.
    pub log_directory: String,
    /// Name resolution; `None` leaves it to the image or node.
    pub dns: Option<DnsConfig>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Parent cgroup.
    pub cgroup_parent: String,
    /// Kernel settings.
    pub sysctls: Labels,
    /// Rights.
    pub security: SecurityContext,
    /// What all containers together ask for.
    pub resources: Resources,
}

/// `PodSandboxState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodSandboxState {
    /// Ready for containers.
    Ready,
    /// Stopped.
    NotReady,
}

/// `PodSandbox` and `PodSandboxStatus` in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandbox {
    /// The runtime's id.
    pub id: String,
    /// What names it.
    pub metadata: PodSandboxMetadata,
    /// State.
    pub state: PodSandboxState,
    /// When it was made.
    pub created_at: i64,
    /// The pod's addresses, the primary one first; filled in by a status call only.
    pub ips: Vec<String>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Whose namespaces it uses; filled in by a status call only.
    pub namespaces: NamespaceOptions,
    /// The handler that runs it; empty for the default.
    pub runtime_handler: String,
}

/// `ContainerMetadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// The container's name in the pod.
    pub name: String,
    /// Which try this is: the restart count.
    pub attempt: u32,
}

/// `MountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// None.
    #[default]
    Private,
    /// From the node into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// `Mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the container.
    pub container_path: String,
    /// What of the node.
    pub host_path: String,
    /// Can't be written.
    pub readonly: bool,
    /// Relabel for SELinux.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: MountPropagation,
}

/// `Device`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path in the container.
    pub container_path: String,
    /// Path on the node.
    pub host_path: String,
    /// `r`, `w`, `m`.
    pub permissions: String,
}

/// `ContainerConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// What names it.
    pub metadata: ContainerMetadata,
    /// The image: the id that `pull_image` or `image_status` gave.
    pub image: String,
    /// The image as the pod's author wrote it.
    pub user_specified_image: String,
    /// Program (the image's entrypoint when empty).
    pub command: Vec<String>,
    /// Arguments (the image's when both are empty).
    pub args: Vec<String>,
    /// Working directory (the image's when empty).
    pub working_dir: String,
    /// Environment, in order.
    pub envs: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Log file below the sandbox's log directory, in the CRI log format.
    pub log_path: String,
    /// Keep the standard input open.
    pub stdin: bool,
    /// Close it after the first attach.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Rights.
    pub security: SecurityContext,
}

/// `ContainerState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// `Container` and `ContainerStatus` in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// The sandbox that it runs in.
    pub sandbox_id: String,
    /// What names it.
    pub metadata: ContainerMetadata,
    /// State.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: i64,
    /// When it started; a status call fills it and the rest in.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// Its exit code (128 + n for signal n).
    pub exit_code: i32,
    /// The image as asked for.
    pub image: String,
    /// The image's id or digest, `name@sha256:...` where known.
    pub image_ref: String,
    /// A word for why it is in this state: `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`.
    pub reason: String,
    /// A sentence for the same.
    pub message: String,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Its log file, whole path.
    pub log_path: String,
}

/// What a list of sandboxes is narrowed to; all given parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandboxFilter {
    /// Only this id.
    pub id: Option<String>,
    /// Only in this state.
    pub state: Option<PodSandboxState>,
    /// Only with these labels.
    pub labels: Labels,
}

/// What a list of containers is narrowed to; all given parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Only this id.
    pub id: Option<String>,
    /// Only in this state.
    pub state: Option<ContainerState>,
    /// Only of this sandbox.
    pub sandbox_id: Option<String>,
    /// Only with these labels.
    pub labels: Labels,
}

impl PodSandboxFilter {
    /// Whether this sandbox is wanted; an id may be cut short, as in the specification.
    pub fn matches(&self, sandbox: &PodSandbox) -> bool {
        self.id.as_deref().is_none_or(|id| sandbox.id.starts_with(id))
            && self.state.is_none_or(|state| sandbox.state == state)
            && has_labels(&sandbox.labels, &self.labels)
    }
}

impl ContainerFilter {
    /// Whether this container is wanted; ids may be cut short, as in the specification.
    pub fn matches(&self, container: &Container) -> bool {
        self.id.as_deref().is_none_or(|id| container.id.starts_with(id))
            && self.state.is_none_or(|state| container.state == state)
            && self.sandbox_id.as_deref().is_none_or(|id| container.sandbox_id.starts_with(id))
            && has_labels(&container.labels, &self.labels)
    }
}

fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// `ExecSyncResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSyncResult {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// What an exec or attach wants connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Program and arguments; empty for attach.
    pub command: Vec<String>,
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; not with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// `ContainerStats`; what a runtime can't tell is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// The container.
    pub id: String,
    /// What names it.
    pub metadata: ContainerMetadata,
    /// Labels.
    pub labels: Labels,
    /// When they were taken.
    pub timestamp: i64,
    /// CPU time used since the start, nanoseconds.
    pub cpu_usage_core_nano_seconds: u64,
    /// Memory that can't be reclaimed at once, bytes.
    pub memory_working_set_bytes: u64,
    /// Memory used, bytes.
    pub memory_usage_bytes: u64,
    /// Bytes of the writable layer.
    pub writable_layer_used_bytes: u64,
}

/// `RuntimeCondition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// `RuntimeReady` or `NetworkReady`.
    pub condition: String,
    /// Whether it holds.
    pub status: bool,
    /// A word for why not.
    pub reason: String,
    /// A sentence for why not.
    pub message: String,
}

/// `VersionResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `containerd`.
    pub runtime_name: String,
    /// `1.6.20`.
    pub runtime_version: String,
    /// `v1`.
    pub runtime_api_version: String,
}

/// `Image` of a list and of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:...`, the digest of its configuration.
    pub id: String,
    /// `name:tag` names.
    pub repo_tags: Vec<String>,
    /// `name@sha256:...` names.
    pub repo_digests: Vec<String>,
    /// Bytes.
    pub size_bytes: u64,
    /// User id that it runs as.
    pub uid: Option<i64>,
    /// User name that it runs as.
    pub username: String,
    /// Must not be removed by garbage collection.
    pub pinned: bool,
}

/// Credentials for a registry (`AuthConfig`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// `user:password` in base64.
    pub auth: String,
    /// The registry.
    pub server_address: String,
    /// Identity token.
    pub identity_token: String,
    /// Bearer token.
    pub registry_token: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthConfig(for {:?})", self.server_address)
    }
}

/// `FilesystemUsage` of the image store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// When it was taken.
    pub timestamp: i64,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Bytes used.
    pub used_bytes: u64,
    /// Inodes used.
    pub inodes_used: u64,
}

/// `RuntimeService`: sandboxes, containers and the streams into them.
///
/// Every call is idempotent where the specification says so: stopping or removing what is stopped or gone is no error.
/// Unless a method says otherwise, a dropped call may or may not have happened, and may be repeated.
pub trait ContainerRuntime: Send + Sync + 'static {
    /// Name and version.
    ///
    /// # Errors
    /// `TryAgain` where the runtime does not answer.
    fn version(&self) -> BoxFuture<'_, Result<Version, Error>>;

    /// `RuntimeReady` and `NetworkReady`.
    ///
    /// # Errors
    /// `TryAgain` where the runtime does not answer.
    fn status(&self) -> BoxFuture<'_, Result<Vec<RuntimeCondition>, Error>>;

    /// Makes and starts a sandbox; gives its id. `handler` is the RuntimeClass handler, empty for the default.
    ///
    /// # Errors
    /// Where it could not be made; nothing is left then.
    fn run_pod_sandbox(
        &self,
        config: &PodSandboxConfig,
        handler: &str,
    ) -> BoxFuture<'_, Result<String, Error>>;

    /// Stops a sandbox, its containers by force, and gives back its network.
    ///
    /// # Errors
    /// Where something is left running.
    fn stop_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// Removes a sandbox and its containers, stopping them by force.
    ///
    /// # Errors
    /// Where something is left.
    fn remove_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// One sandbox, with its addresses.
    ///
    /// # Errors
    /// `NotFound`.
    fn pod_sandbox_status(&self, id: &str) -> BoxFuture<'_, Result<PodSandbox, Error>>;

    /// The sandboxes.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>, Error>>;

    /// Makes a container in a sandbox; gives its id.
    ///
    /// # Errors
    /// `NotFound` where the sandbox or image is missing.
    fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> BoxFuture<'_, Result<String, Error>>;

    /// Starts a container.
    ///
    /// # Errors
    /// `StartFailed` where the program can't run.
    fn start_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// Ends a container: its stop signal, and after `grace` SIGKILL. Comes back when it has ended.
    ///
    /// # Errors
    /// Where it could not be ended.
    fn stop_container(&self, id: &str, grace: Duration) -> BoxFuture<'_, Result<(), Error>>;

    /// Removes a container, by force where it runs. Its log stays.
    ///
    /// # Errors
    /// Where it could not be removed.
    fn remove_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// The containers.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>, Error>>;

    /// One container, with its times and exit code.
    ///
    /// # Errors
    /// `NotFound`.
    fn container_status(&self, id: &str) -> BoxFuture<'_, Result<Container, Error>>;

    /// Changes the limits of a container.
    ///
    /// # Errors
    /// `Unsupported` where the runtime has no limits.
    fn update_container_resources(&self, id: &str, resources: &Resources)
    -> BoxFuture<'_, Result<(), Error>>;

    /// Opens the log file anew, after the caller moved it away.
    ///
    /// # Errors
    /// Where the container does not run.
    fn reopen_container_log(&self, id: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// Runs a program in a container to its end.
    ///
    /// # Errors
    /// `Timeout` where it takes longer than `timeout`; the program is ended then.
    fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecSyncResult, Error>>;

    /// Runs a program in a container with its streams connected.
    ///
    /// # Errors
    /// `NotFound`, or `FailedPrecondition` where the container does not run.
    ///
    /// # Cancel safety
    /// Dropping the session ends the program.
    fn exec(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>>;

    /// Connects to the streams of a container's main process.
    ///
    /// # Errors
    /// As [`ContainerRuntime::exec`].
    ///
    /// # Cancel safety
    /// Dropping the session detaches.
    fn attach(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>>;

    /// Opens one connection to a TCP port inside a sandbox.
    ///
    /// # Errors
    /// `Failed` where nothing listens.
    ///
    /// # Cancel safety
    /// Dropping the session closes the connection.
    fn port_forward(&self, sandbox_id: &str, port: u16) -> BoxFuture<'_, Result<PortForwardSession, Error>>;

    /// Use of resources by the containers.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    fn list_container_stats(
        &self,
        filter: ContainerFilter,
    ) -> BoxFuture<'_, Result<Vec<ContainerStats>, Error>>;

    /// Yields an item whenever some container or sandbox may have changed state, so that nobody needs to poll often.
    /// `None` where the runtime has no events: the caller polls.
    fn changes(&self) -> Option<futures::stream::BoxStream<'static, ()>>;
}

/// `ImageService`.
pub trait ImageService: Send + Sync + 'static {
    /// The images.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>, Error>>;

    /// One image by any of its names; `None` where there is none.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    fn image_status(&self, image: &str) -> BoxFuture<'_, Result<Option<Image>, Error>>;

    /// Pulls an image; gives the reference to run it by.
    ///
    /// # Errors
    /// `ImagePull` with the registry's words; `NotFound` where there is no such image.
    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> BoxFuture<'_, Result<String, Error>>;

    /// Removes an image; one that is gone is no error.
    ///
    /// # Errors
    /// `FailedPrecondition` where it is in use.
    fn remove_image(&self, image: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// What the images use of the disk.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    fn image_fs_info(&self) -> BoxFuture<'_, Result<Vec<FilesystemUsage>, Error>>;
}
