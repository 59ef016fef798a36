//! The port: the Container Storage Interface (`csi.v1`) as async traits, in the specification's terms.
//!
//! Every call is idempotent, as the specification demands: doing again what is done already succeeds.

use crate::Error;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Names and values that a driver gives and takes back.
pub type Attributes = BTreeMap<String, String>;

/// Values for the driver alone; they are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Attributes);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({:?})", self.0.keys().collect::<Vec<_>>())
    }
}

/// `GetPluginInfoResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginInfo {
    /// The driver's name, a domain name.
    pub name: String,
    /// Its version.
    pub vendor_version: String,
    /// What else it says of itself.
    pub manifest: Attributes,
}

/// `PluginCapability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginCapability {
    /// It has a controller.
    ControllerService,
    /// Its volumes can't be reached from everywhere.
    VolumeAccessibilityConstraints,
    /// Volumes grow while they are published.
    OnlineExpansion,
    /// Volumes grow while they are not published.
    OfflineExpansion,
}

/// How a volume is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessType {
    /// As a block device.
    Block,
    /// As a mounted file system.
    Mount {
        /// File system; empty for the driver's choice.
        fs_type: String,
        /// Mount options.
        mount_flags: Vec<String>,
        /// Group that owns the files; empty for none.
        volume_mount_group: String,
    },
}

/// By whom a volume is used (`VolumeCapability.AccessMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// One node, reading and writing.
    SingleNodeWriter,
    /// One node, reading.
    SingleNodeReaderOnly,
    /// Many nodes, reading.
    MultiNodeReaderOnly,
    /// Many nodes, one of them writing.
    MultiNodeSingleWriter,
    /// Many nodes, all writing.
    MultiNodeMultiWriter,
    /// One workload of one node.
    SingleNodeSingleWriter,
    /// Many workloads of one node.
    SingleNodeMultiWriter,
}

/// `VolumeCapability`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeCapability {
    /// How it is seen.
    pub access_type: AccessType,
    /// By whom it is used.
    pub access_mode: AccessMode,
}

/// `CapacityRange` in bytes; 0 for no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityRange {
    /// At least.
    pub required_bytes: i64,
    /// At most.
    pub limit_bytes: i64,
}

/// What a new volume is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentSource {
    /// This snapshot.
    Snapshot(String),
    /// This volume.
    Volume(String),
}

/// `CreateVolumeRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateVolume {
    /// The name by which the same volume is asked for again.
    pub name: String,
    /// How large.
    pub capacity: CapacityRange,
    /// What it must be able to.
    pub capabilities: Vec<VolumeCapability>,
    /// Parameters of the storage class.
    pub parameters: Attributes,
    /// Secrets.
    pub secrets: Secrets,
    /// What it is filled with.
    pub source: Option<ContentSource>,
    /// From where it must be reachable, one of them.
    pub requisite: Vec<Attributes>,
    /// From where it had better be reachable, the best first.
    pub preferred: Vec<Attributes>,
}

/// `Volume`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// The driver's name of it.
    pub id: String,
    /// Its size in bytes; 0 for unknown.
    pub capacity_bytes: i64,
    /// What the driver wants to be given back.
    pub context: Attributes,
    /// What it was filled with.
    pub source: Option<ContentSource>,
    /// From where it can be reached; empty for everywhere.
    pub topology: Vec<Attributes>,
}

/// A volume of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedVolume {
    /// The volume.
    pub volume: Volume,
    /// The nodes that it is published to.
    pub published_nodes: Vec<String>,
    /// Why it can't be used as it should; `None` where it can.
    pub abnormal: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; empty for the last one.
    pub next_token: String,
}

/// `ControllerPublishVolumeRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerPublish {
    /// The volume.
    pub volume_id: String,
    /// The driver's name of the node.
    pub node_id: String,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Read-only.
    pub readonly: bool,
    /// Secrets.
    pub secrets: Secrets,
    /// The volume's context.
    pub context: Attributes,
}

/// `Snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The driver's name of it.
    pub id: String,
    /// The volume that it was taken of.
    pub source_volume_id: String,
    /// Its size in bytes; 0 for unknown.
    pub size_bytes: i64,
    /// When it was taken, seconds since the Unix epoch.
    pub creation_time: i64,
    /// Whether volumes can be made from it.
    pub ready_to_use: bool,
}

/// What a list of snapshots is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Only those of this volume; empty for all.
    pub source_volume_id: String,
    /// Only this one; empty for all.
    pub snapshot_id: String,
}

/// What a volume has grown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// Its size in bytes.
    pub capacity_bytes: i64,
    /// Whether the node has to grow the file system as well.
    pub node_expansion_required: bool,
}

/// `ControllerServiceCapability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControllerCapability {
    /// `CREATE_DELETE_VOLUME`.
    CreateDeleteVolume,
    /// `PUBLISH_UNPUBLISH_VOLUME`.
    PublishUnpublishVolume,
    /// `LIST_VOLUMES`.
    ListVolumes,
    /// `GET_CAPACITY`.
    GetCapacity,
    /// `CREATE_DELETE_SNAPSHOT`.
    CreateDeleteSnapshot,
    /// `LIST_SNAPSHOTS`.
    ListSnapshots,
    /// `CLONE_VOLUME`.
    CloneVolume,
    /// `PUBLISH_READONLY`.
    PublishReadonly,
    /// `EXPAND_VOLUME`.
    ExpandVolume,
    /// `MODIFY_VOLUME`.
    ModifyVolume,
}

/// `NodeServiceCapability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeCapability {
    /// `STAGE_UNSTAGE_VOLUME`.
    StageUnstageVolume,
    /// `GET_VOLUME_STATS`.
    GetVolumeStats,
    /// `EXPAND_VOLUME`.
    ExpandVolume,
    /// `VOLUME_MOUNT_GROUP`.
    VolumeMountGroup,
}

/// `NodeGetInfoResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The driver's name of this node.
    pub node_id: String,
    /// How many volumes fit; 0 for the caller's choice.
    pub max_volumes: i64,
    /// Where the node is.
    pub topology: Attributes,
}

/// `NodeStageVolumeRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStage {
    /// The volume.
    pub volume_id: String,
    /// What publishing it to the node gave.
    pub publish_context: Attributes,
    /// Where it shall be mounted once for the whole node; the directory exists.
    pub staging_path: PathBuf,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Secrets.
    pub secrets: Secrets,
    /// The volume's context.
    pub context: Attributes,
}

/// `NodePublishVolumeRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePublish {
    /// The volume.
    pub volume_id: String,
    /// What publishing it to the node gave.
    pub publish_context: Attributes,
    /// Where it was staged; `None` where the driver does not stage.
    pub staging_path: Option<PathBuf>,
    /// Where the workload shall find it; its parent exists, itself it is made by the driver.
    pub target_path: PathBuf,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Read-only.
    pub readonly: bool,
    /// Secrets.
    pub secrets: Secrets,
    /// The volume's context.
    pub context: Attributes,
}

/// What of a volume is used; what a driver can't tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// Free bytes.
    pub available_bytes: i64,
    /// All bytes.
    pub total_bytes: i64,
    /// Bytes in use.
    pub used_bytes: i64,
    /// Free inodes.
    pub available_inodes: i64,
    /// All inodes.
    pub total_inodes: i64,
    /// Inodes in use.
    pub used_inodes: i64,
}

/// `NodeExpandVolumeRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeExpand {
    /// The volume.
    pub volume_id: String,
    /// Where it is published or staged.
    pub volume_path: PathBuf,
    /// How large it shall be.
    pub capacity: CapacityRange,
    /// Secrets.
    pub secrets: Secrets,
}

/// The `Identity` service.
///
/// # Errors
/// All methods of the three services: `NotReady` where the driver does not answer or is busy with the same volume, `Unsupported` where it
/// lacks the call, else what it says.
pub trait Identity: Send + Sync + 'static {
    /// Name and version.
    fn plugin_info(&self) -> BoxFuture<'_, Result<PluginInfo, Error>>;

    /// What the driver has.
    fn plugin_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<PluginCapability>, Error>>;

    /// Whether it is ready.
    fn probe(&self) -> BoxFuture<'_, Result<bool, Error>>;
}

/// The `Controller` service: volumes as such, wherever they are used.
pub trait Controller: Send + Sync + 'static {
    /// Which of the calls it has.
    fn controller_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<ControllerCapability>, Error>>;

    /// Makes a volume, or finds the one of that name.
    fn create_volume(&self, request: CreateVolume) -> BoxFuture<'_, Result<Volume, Error>>;

    /// Removes a volume; one that is gone is no error.
    fn delete_volume(&self, volume_id: &str, secrets: Secrets) -> BoxFuture<'_, Result<(), Error>>;

    /// Attaches a volume to a node; gives the publish context.
    fn controller_publish(&self, request: ControllerPublish) -> BoxFuture<'_, Result<Attributes, Error>>;

    /// Detaches it.
    fn controller_unpublish(
        &self,
        volume_id: &str,
        node_id: &str,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<(), Error>>;

    /// Why a volume lacks one of these capabilities; `None` where it has them all.
    fn validate_capabilities(
        &self,
        volume_id: &str,
        context: Attributes,
        capabilities: Vec<VolumeCapability>,
    ) -> BoxFuture<'_, Result<Option<String>, Error>>;

    /// The volumes, at most `max` (0 for the driver's choice), from a token on (empty for the beginning).
    fn list_volumes(&self, max: i32, token: &str) -> BoxFuture<'_, Result<Page<ListedVolume>, Error>>;

    /// How many bytes are left for new volumes with these parameters.
    fn capacity(&self, parameters: Attributes, topology: Attributes) -> BoxFuture<'_, Result<i64, Error>>;

    /// Takes a snapshot, or finds the one of that name.
    fn create_snapshot(
        &self,
        source_volume_id: &str,
        name: &str,
        parameters: Attributes,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<Snapshot, Error>>;

    /// Removes a snapshot; one that is gone is no error.
    fn delete_snapshot(&self, snapshot_id: &str, secrets: Secrets) -> BoxFuture<'_, Result<(), Error>>;

    /// The snapshots, as [`Controller::list_volumes`].
    fn list_snapshots(
        &self,
        filter: SnapshotFilter,
        max: i32,
        token: &str,
    ) -> BoxFuture<'_, Result<Page<Snapshot>, Error>>;

    /// Makes a volume larger.
    fn expand_volume(
        &self,
        volume_id: &str,
        capacity: CapacityRange,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<Expanded, Error>>;

    /// Changes parameters of a volume.
    fn modify_volume(
        &self,
        volume_id: &str,
        parameters: Attributes,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<(), Error>>;
}

/// The `Node` service: volumes on this node.
pub trait Node: Send + Sync + 'static {
    /// Which of the calls it has.
    fn node_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<NodeCapability>, Error>>;

    /// What the driver calls this node, and what fits.
    fn node_info(&self) -> BoxFuture<'_, Result<NodeInfo, Error>>;

    /// Mounts a volume once for the node.
    fn stage(&self, request: NodeStage) -> BoxFuture<'_, Result<(), Error>>;

    /// Undoes it.
    fn unstage(&self, volume_id: &str, staging_path: &Path) -> BoxFuture<'_, Result<(), Error>>;

    /// Shows a volume to one workload.
    fn publish(&self, request: NodePublish) -> BoxFuture<'_, Result<(), Error>>;

    /// Undoes it, and removes the target.
    fn unpublish(&self, volume_id: &str, target_path: &Path) -> BoxFuture<'_, Result<(), Error>>;

    /// What of the volume at this path is used.
    fn volume_stats(&self, volume_id: &str, volume_path: &Path) -> BoxFuture<'_, Result<VolumeStats, Error>>;

    /// Grows the file system; gives its size in bytes.
    fn node_expand(&self, request: NodeExpand) -> BoxFuture<'_, Result<i64, Error>>;
}

/// A whole driver.
pub trait Driver: Identity + Controller + Node {}

impl<T: Identity + Controller + Node> Driver for T {}
