//! From CRI's messages to the port's terms.

use super::{present, wire};
use crate::Error;
use crate::port::{
    Container, ContainerMetadata, ContainerState, ContainerStats, FilesystemUsage, Image, NamespaceMode,
    NamespaceOptions, PodSandbox, PodSandboxMetadata, PodSandboxState, RuntimeCondition,
};

fn sandbox_metadata(metadata: Option<wire::PodSandboxMetadata>) -> PodSandboxMetadata {
    let wire::PodSandboxMetadata { name, uid, namespace, attempt } = metadata.unwrap_or_default();
    PodSandboxMetadata { name, uid, namespace, attempt }
}

fn container_metadata(metadata: Option<wire::ContainerMetadata>) -> ContainerMetadata {
    let wire::ContainerMetadata { name, attempt } = metadata.unwrap_or_default();
    ContainerMetadata { name, attempt }
}

fn sandbox_state(state: wire::PodSandboxState) -> PodSandboxState {
    match state {
        wire::PodSandboxState::SandboxReady => PodSandboxState::Ready,
        wire::PodSandboxState::SandboxNotready => PodSandboxState::NotReady,
    }
}

fn container_state(state: wire::ContainerState) -> ContainerState {
    match state {
        wire::ContainerState::ContainerCreated => ContainerState::Created,
        wire::ContainerState::ContainerRunning => ContainerState::Running,
        wire::ContainerState::ContainerExited => ContainerState::Exited,
        wire::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

fn mode(mode: wire::NamespaceMode) -> NamespaceMode {
    match mode {
        wire::NamespaceMode::Pod => NamespaceMode::Pod,
        // Another container's is what the port can't name; it is no namespace of the pod.
        wire::NamespaceMode::Container | wire::NamespaceMode::Target => NamespaceMode::Container,
        wire::NamespaceMode::Node => NamespaceMode::Node,
    }
}

fn namespaces(linux: Option<wire::LinuxPodSandboxStatus>) -> NamespaceOptions {
    let options = linux.and_then(|linux| linux.namespaces?.options).unwrap_or_default();
    NamespaceOptions { network: mode(options.network()), pid: mode(options.pid()), ipc: mode(options.ipc()) }
}

pub(super) fn sandbox(item: wire::PodSandbox) -> PodSandbox {
    PodSandbox {
        state: sandbox_state(item.state()),
        id: item.id,
        metadata: sandbox_metadata(item.metadata),
        created_at: item.created_at,
        ips: Vec::new(),
        labels: item.labels.into_iter().collect(),
        annotations: item.annotations.into_iter().collect(),
        namespaces: NamespaceOptions::default(),
        runtime_handler: item.runtime_handler,
    }
}

pub(super) fn sandbox_status(status: Option<wire::PodSandboxStatus>) -> Result<PodSandbox, Error> {
    let status = present(status, "sandbox status")?;
    let network = status.network.clone().unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip));
    Ok(PodSandbox {
        state: sandbox_state(status.state()),
        id: status.id,
        metadata: sandbox_metadata(status.metadata),
        created_at: status.created_at,
        ips: ips.filter(|ip| !ip.is_empty()).collect(),
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        namespaces: namespaces(status.linux),
        runtime_handler: status.runtime_handler,
    })
}

/// The image as asked for, where the runtime kept that, else as it names it.
fn image_name(image: Option<wire::ImageSpec>) -> String {
    let image = image.unwrap_or_default();
    if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image }
}

pub(super) fn container(item: wire::Container) -> Container {
    Container {
        state: container_state(item.state()),
        id: item.id,
        sandbox_id: item.pod_sandbox_id,
        metadata: container_metadata(item.metadata),
        created_at: item.created_at,
        started_at: 0,
        finished_at: 0,
        exit_code: 0,
        image: image_name(item.image),
        image_ref: item.image_ref,
        reason: String::new(),
        message: String::new(),
        labels: item.labels.into_iter().collect(),
        annotations: item.annotations.into_iter().collect(),
        log_path: String::new(),
    }
}

/// A container's status; CRI leaves out its sandbox, which a list tells.
pub(super) fn container_status(
    status: Option<wire::ContainerStatus>,
    sandbox_id: String,
) -> Result<Container, Error> {
    let status = present(status, "container status")?;
    Ok(Container {
        state: container_state(status.state()),
        id: status.id,
        sandbox_id,
        metadata: container_metadata(status.metadata),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        image: image_name(status.image),
        image_ref: status.image_ref,
        reason: status.reason,
        message: status.message,
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        log_path: status.log_path,
    })
}

pub(super) fn condition(condition: wire::RuntimeCondition) -> RuntimeCondition {
    let wire::RuntimeCondition { r#type, status, reason, message } = condition;
    RuntimeCondition { condition: r#type, status, reason, message }
}

pub(super) fn image(image: wire::Image) -> Image {
    Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size_bytes: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        pinned: image.pinned,
    }
}

fn value(number: Option<wire::UInt64Value>) -> u64 {
    number.map_or(0, |number| number.value)
}

pub(super) fn filesystem(usage: wire::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: usage.timestamp,
        mountpoint: usage.fs_id.map(|id| id.mountpoint).unwrap_or_default(),
        used_bytes: value(usage.used_bytes),
        inodes_used: value(usage.inodes_used),
    }
}

pub(super) fn stats(stats: wire::ContainerStats) -> ContainerStats {
    let attributes = stats.attributes.unwrap_or_default();
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    ContainerStats {
        id: attributes.id,
        metadata: container_metadata(attributes.metadata),
        labels: attributes.labels.into_iter().collect(),
        timestamp: cpu.timestamp.max(memory.timestamp),
        cpu_usage_core_nano_seconds: value(cpu.usage_core_nano_seconds),
        memory_working_set_bytes: value(memory.working_set_bytes),
        memory_usage_bytes: value(memory.usage_bytes),
        writable_layer_used_bytes: stats.writable_layer.map_or(0, |layer| value(layer.used_bytes)),
    }
}
