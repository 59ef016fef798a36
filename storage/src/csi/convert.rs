//! Between the port's terms and CSI's messages, both ways.

use super::port::{
    AccessMode, AccessType, Attributes, CapacityRange, ContentSource, ControllerCapability, NodeCapability,
    PluginCapability, Secrets, Snapshot, Volume, VolumeCapability, VolumeStats,
};
use super::wire;
use crate::{Error, Reason};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

pub(super) fn map(attributes: Attributes) -> HashMap<String, String> {
    attributes.into_iter().collect()
}

pub(super) fn attributes(map: HashMap<String, String>) -> Attributes {
    map.into_iter().collect()
}

pub(super) fn secrets(map: HashMap<String, String>) -> Secrets {
    Secrets(attributes(map))
}

pub(super) fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().ok_or_else(|| Error::invalid(format!("the path {path:?} is not UTF-8")))?;
    Ok(text.to_owned())
}

/// A path out of a request; it must be there and absolute.
pub(super) fn path(text: String, what: &str) -> Result<PathBuf, Error> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Error::invalid(format!("{what} {path:?} is not absolute")))
    }
}

/// The error for a refused call.
pub(super) fn error_of(status: &Status) -> Error {
    let reason = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => Reason::Invalid,
        Code::NotFound => Reason::NotFound,
        Code::Unavailable | Code::Aborted | Code::FailedPrecondition => Reason::NotReady,
        Code::Unimplemented => Reason::Unsupported,
        _ => Reason::Failed,
    };
    let words = if status.message().is_empty() { status.code().description() } else { status.message() };
    Error::new(reason, format!("rpc error: code = {:?} desc = {words}", status.code()))
}

/// How an error is answered.
pub(super) fn status_of(error: &Error) -> Status {
    let code = match error.reason() {
        Reason::Invalid => Code::InvalidArgument,
        Reason::NotFound => Code::NotFound,
        Reason::NotReady => Code::Aborted,
        Reason::Unsupported => Code::Unimplemented,
        Reason::Failed => Code::Internal,
    };
    Status::new(code, error.to_string())
}

pub(super) fn write_capability(capability: VolumeCapability) -> wire::VolumeCapability {
    use wire::volume_capability::{
        AccessMode as Mode, AccessType as Type, BlockVolume, MountVolume, access_mode,
    };
    let kind = match capability.access_type {
        AccessType::Block => Type::Block(BlockVolume {}),
        AccessType::Mount { fs_type, mount_flags, volume_mount_group } => {
            Type::Mount(MountVolume { fs_type, mount_flags, volume_mount_group })
        }
    };
    let mode = match capability.access_mode {
        AccessMode::SingleNodeWriter => access_mode::Mode::SingleNodeWriter,
        AccessMode::SingleNodeReaderOnly => access_mode::Mode::SingleNodeReaderOnly,
        AccessMode::MultiNodeReaderOnly => access_mode::Mode::MultiNodeReaderOnly,
        AccessMode::MultiNodeSingleWriter => access_mode::Mode::MultiNodeSingleWriter,
        AccessMode::MultiNodeMultiWriter => access_mode::Mode::MultiNodeMultiWriter,
        AccessMode::SingleNodeSingleWriter => access_mode::Mode::SingleNodeSingleWriter,
        AccessMode::SingleNodeMultiWriter => access_mode::Mode::SingleNodeMultiWriter,
    };
    wire::VolumeCapability { access_type: Some(kind), access_mode: Some(Mode { mode: mode as i32 }) }
}

pub(super) fn read_capability(capability: Option<wire::VolumeCapability>) -> Result<VolumeCapability, Error> {
    use wire::volume_capability::{AccessType as Type, access_mode::Mode};
    let missing = |what: &str| Error::invalid(format!("the volume capability has no {what}"));
    let capability = capability.ok_or_else(|| Error::invalid("volume capability missing in request"))?;
    let access_mode = match capability.access_mode.ok_or_else(|| missing("access mode"))?.mode() {
        Mode::Unknown => return Err(missing("known access mode")),
        Mode::SingleNodeWriter => AccessMode::SingleNodeWriter,
        Mode::SingleNodeReaderOnly => AccessMode::SingleNodeReaderOnly,
        Mode::MultiNodeReaderOnly => AccessMode::MultiNodeReaderOnly,
        Mode::MultiNodeSingleWriter => AccessMode::MultiNodeSingleWriter,
        Mode::MultiNodeMultiWriter => AccessMode::MultiNodeMultiWriter,
        Mode::SingleNodeSingleWriter => AccessMode::SingleNodeSingleWriter,
        Mode::SingleNodeMultiWriter => AccessMode::SingleNodeMultiWriter,
    };
    let access_type = match capability.access_type.ok_or_else(|| missing("access type"))? {
        Type::Block(_) => AccessType::Block,
        Type::Mount(mount) => AccessType::Mount {
            fs_type: mount.fs_type,
            mount_flags: mount.mount_flags,
            volume_mount_group: mount.volume_mount_group,
        },
    };
    Ok(VolumeCapability { access_type, access_mode })
}

pub(super) fn write_capacity(range: CapacityRange) -> wire::CapacityRange {
    wire::CapacityRange { required_bytes: range.required_bytes, limit_bytes: range.limit_bytes }
}

pub(super) fn read_capacity(range: Option<wire::CapacityRange>) -> CapacityRange {
    let range = range.unwrap_or_default();
    CapacityRange { required_bytes: range.required_bytes, limit_bytes: range.limit_bytes }
}

pub(super) fn write_source(source: ContentSource) -> wire::VolumeContentSource {
    use wire::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let source = match source {
        ContentSource::Snapshot(snapshot_id) => Type::Snapshot(SnapshotSource { snapshot_id }),
        ContentSource::Volume(volume_id) => Type::Volume(VolumeSource { volume_id }),
    };
    wire::VolumeContentSource { r#type: Some(source) }
}

pub(super) fn read_source(source: Option<wire::VolumeContentSource>) -> Option<ContentSource> {
    use wire::volume_content_source::Type;
    Some(match source?.r#type? {
        Type::Snapshot(source) => ContentSource::Snapshot(source.snapshot_id),
        Type::Volume(source) => ContentSource::Volume(source.volume_id),
    })
}

pub(super) fn write_topology(segments: Attributes) -> wire::Topology {
    wire::Topology { segments: map(segments) }
}

pub(super) fn read_topology(topology: wire::Topology) -> Attributes {
    attributes(topology.segments)
}

pub(super) fn write_volume(volume: Volume) -> wire::Volume {
    wire::Volume {
        capacity_bytes: volume.capacity_bytes,
        volume_id: volume.id,
        volume_context: map(volume.context),
        content_source: volume.source.map(write_source),
        accessible_topology: volume.topology.into_iter().map(write_topology).collect(),
    }
}

pub(super) fn read_volume(volume: Option<wire::Volume>) -> Result<Volume, Error> {
    let missing = || Error::new(Reason::Failed, "the driver's answer has no volume");
    let volume = volume.ok_or_else(missing)?;
    Ok(Volume {
        id: volume.volume_id,
        capacity_bytes: volume.capacity_bytes,
        context: attributes(volume.volume_context),
        source: read_source(volume.content_source),
        topology: volume.accessible_topology.into_iter().map(read_topology).collect(),
    })
}

pub(super) fn write_snapshot(snapshot: Snapshot) -> wire::Snapshot {
    wire::Snapshot {
        size_bytes: snapshot.size_bytes,
        snapshot_id: snapshot.id,
        source_volume_id: snapshot.source_volume_id,
        creation_time: Some(prost_types::Timestamp { seconds: snapshot.creation_time, nanos: 0 }),
        ready_to_use: snapshot.ready_to_use,
        group_snapshot_id: String::new(),
    }
}

pub(super) fn read_snapshot(snapshot: Option<wire::Snapshot>) -> Result<Snapshot, Error> {
    let missing = || Error::new(Reason::Failed, "the driver's answer has no snapshot");
    let snapshot = snapshot.ok_or_else(missing)?;
    Ok(Snapshot {
        id: snapshot.snapshot_id,
        source_volume_id: snapshot.source_volume_id,
        size_bytes: snapshot.size_bytes,
        creation_time: snapshot.creation_time.map_or(0, |time| time.seconds),
        ready_to_use: snapshot.ready_to_use,
    })
}

pub(super) fn write_stats(stats: VolumeStats) -> Vec<wire::VolumeUsage> {
    use wire::volume_usage::Unit;
    let usage =
        |available, total, used, unit: Unit| wire::VolumeUsage { available, total, used, unit: unit as i32 };
    vec![
        usage(stats.available_bytes, stats.total_bytes, stats.used_bytes, Unit::Bytes),
        usage(stats.available_inodes, stats.total_inodes, stats.used_inodes, Unit::Inodes),
    ]
}

pub(super) fn read_stats(usage: &[wire::VolumeUsage]) -> VolumeStats {
    use wire::volume_usage::Unit;
    let mut stats = VolumeStats::default();
    for usage in usage {
        match usage.unit() {
            Unit::Bytes => {
                (stats.available_bytes, stats.total_bytes, stats.used_bytes) =
                    (usage.available, usage.total, usage.used);
            }
            Unit::Inodes => {
                (stats.available_inodes, stats.total_inodes, stats.used_inodes) =
                    (usage.available, usage.total, usage.used);
            }
            Unit::Unknown => {}
        }
    }
    stats
}

/// The controller's capabilities that the port knows, with their numbers.
pub(super) const CONTROLLER: [(ControllerCapability, wire::controller_service_capability::rpc::Type); 10] = {
    use ControllerCapability as Ours;
    use wire::controller_service_capability::rpc::Type;
    [
        (Ours::CreateDeleteVolume, Type::CreateDeleteVolume),
        (Ours::PublishUnpublishVolume, Type::PublishUnpublishVolume),
        (Ours::ListVolumes, Type::ListVolumes),
        (Ours::GetCapacity, Type::GetCapacity),
        (Ours::CreateDeleteSnapshot, Type::CreateDeleteSnapshot),
        (Ours::ListSnapshots, Type::ListSnapshots),
        (Ours::CloneVolume, Type::CloneVolume),
        (Ours::PublishReadonly, Type::PublishReadonly),
        (Ours::ExpandVolume, Type::ExpandVolume),
        (Ours::ModifyVolume, Type::ModifyVolume),
    ]
};

/// The node's capabilities that the port knows, with their numbers.
pub(super) const NODE: [(NodeCapability, wire::node_service_capability::rpc::Type); 4] = {
    use NodeCapability as Ours;
    use wire::node_service_capability::rpc::Type;
    [
        (Ours::StageUnstageVolume, Type::StageUnstageVolume),
        (Ours::GetVolumeStats, Type::GetVolumeStats),
        (Ours::ExpandVolume, Type::ExpandVolume),
        (Ours::VolumeMountGroup, Type::VolumeMountGroup),
    ]
};

pub(super) fn write_plugin_capability(capability: PluginCapability) -> wire::PluginCapability {
    use wire::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
    let service = |kind: service::Type| Type::Service(Service { r#type: kind as i32 });
    let expansion =
        |kind: volume_expansion::Type| Type::VolumeExpansion(VolumeExpansion { r#type: kind as i32 });
    let kind = match capability {
        PluginCapability::ControllerService => service(service::Type::ControllerService),
        PluginCapability::VolumeAccessibilityConstraints => {
            service(service::Type::VolumeAccessibilityConstraints)
        }
        PluginCapability::OnlineExpansion => expansion(volume_expansion::Type::Online),
        PluginCapability::OfflineExpansion => expansion(volume_expansion::Type::Offline),
    };
    wire::PluginCapability { r#type: Some(kind) }
}

/// `None` for one that the port does not know.
pub(super) fn read_plugin_capability(capability: wire::PluginCapability) -> Option<PluginCapability> {
    use wire::plugin_capability::{Type, service, volume_expansion};
    match capability.r#type? {
        Type::Service(found) => match found.r#type() {
            service::Type::ControllerService => Some(PluginCapability::ControllerService),
            service::Type::VolumeAccessibilityConstraints => {
                Some(PluginCapability::VolumeAccessibilityConstraints)
            }
            _ => None,
        },
        Type::VolumeExpansion(found) => match found.r#type() {
            volume_expansion::Type::Online => Some(PluginCapability::OnlineExpansion),
            volume_expansion::Type::Offline => Some(PluginCapability::OfflineExpansion),
            volume_expansion::Type::Unknown => None,
        },
    }
}
