//! From the port's terms to CRI's messages.

use super::wire;
use crate::port::{
    AuthConfig, ContainerConfig, ContainerFilter, ContainerState, Mount, MountPropagation, NamespaceMode,
    NamespaceOptions, PodSandboxConfig, PodSandboxFilter, PodSandboxState, PortMapping, Resources,
    SecurityContext,
};
use std::collections::HashMap;

fn map(labels: &crate::port::Labels) -> HashMap<String, String> {
    labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

pub(super) fn image(name: &str) -> wire::ImageSpec {
    wire::ImageSpec { image: name.to_owned(), ..Default::default() }
}

fn number(value: i64) -> wire::Int64Value {
    wire::Int64Value { value }
}

fn mode(mode: NamespaceMode) -> i32 {
    let mode = match mode {
        NamespaceMode::Pod => wire::NamespaceMode::Pod,
        NamespaceMode::Container => wire::NamespaceMode::Container,
        NamespaceMode::Node => wire::NamespaceMode::Node,
    };
    mode as i32
}

fn namespaces(options: &NamespaceOptions) -> wire::NamespaceOption {
    wire::NamespaceOption {
        network: mode(options.network),
        pid: mode(options.pid),
        ipc: mode(options.ipc),
        ..Default::default()
    }
}

/// A profile in the port's spelling.
fn profile(name: &str) -> wire::SecurityProfile {
    use wire::security_profile::ProfileType;
    let (kind, reference) = match name {
        "runtime/default" => (ProfileType::RuntimeDefault, ""),
        "" | "unconfined" => (ProfileType::Unconfined, ""),
        other => (ProfileType::Localhost, other.strip_prefix("localhost/").unwrap_or(other)),
    };
    wire::SecurityProfile { profile_type: kind as i32, localhost_ref: reference.to_owned() }
}

/// AppArmor is left alone where nothing is asked for: a node may lack it.
fn apparmor(name: &str) -> Option<wire::SecurityProfile> {
    (!name.is_empty()).then(|| profile(name))
}

fn selinux(options: &Option<[String; 4]>) -> Option<wire::SeLinuxOption> {
    let [user, role, r#type, level] = options.clone()?;
    Some(wire::SeLinuxOption { user, role, r#type, level })
}

fn sandbox_security(security: &SecurityContext) -> wire::LinuxSandboxSecurityContext {
    wire::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&security.namespaces)),
        selinux_options: selinux(&security.selinux_options),
        run_as_user: security.run_as_user.map(number),
        run_as_group: security.run_as_group.map(number),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        privileged: security.privileged,
        seccomp: Some(profile(&security.seccomp_profile)),
        apparmor: apparmor(&security.apparmor_profile),
        ..Default::default()
    }
}

fn container_security(security: &SecurityContext) -> wire::LinuxContainerSecurityContext {
    wire::LinuxContainerSecurityContext {
        capabilities: Some(wire::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            ..Default::default()
        }),
        privileged: security.privileged,
        namespace_options: Some(namespaces(&security.namespaces)),
        selinux_options: selinux(&security.selinux_options),
        run_as_user: security.run_as_user.map(number),
        run_as_group: security.run_as_group.map(number),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: Some(profile(&security.seccomp_profile)),
        apparmor: apparmor(&security.apparmor_profile),
        ..Default::default()
    }
}

pub(super) fn resources(resources: &Resources) -> wire::LinuxContainerResources {
    wire::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit_bytes,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        unified: map(&resources.unified),
        ..Default::default()
    }
}

fn port(mapping: &PortMapping) -> wire::PortMapping {
    let protocol = match mapping.protocol.as_str() {
        "UDP" => wire::Protocol::Udp,
        "SCTP" => wire::Protocol::Sctp,
        _ => wire::Protocol::Tcp,
    };
    wire::PortMapping {
        protocol: protocol as i32,
        container_port: i32::from(mapping.container_port),
        host_port: i32::from(mapping.host_port),
        host_ip: mapping.host_ip.clone(),
    }
}

pub(super) fn sandbox(config: &PodSandboxConfig) -> wire::PodSandboxConfig {
    let metadata = wire::PodSandboxMetadata {
        name: config.metadata.name.clone(),
        uid: config.metadata.uid.clone(),
        namespace: config.metadata.namespace.clone(),
        attempt: config.metadata.attempt,
    };
    let dns = config.dns.as_ref().map(|dns| wire::DnsConfig {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    });
    wire::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.clone(),
        dns_config: dns,
        port_mappings: config.port_mappings.iter().map(port).collect(),
        labels: map(&config.labels),
        annotations: map(&config.annotations),
        linux: Some(wire::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(sandbox_security(&config.security)),
            sysctls: map(&config.sysctls),
            overhead: None,
            resources: Some(resources(&config.resources)),
        }),
    }
}

fn mount(mount: &Mount) -> wire::Mount {
    let propagation = match mount.propagation {
        MountPropagation::Private => wire::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => wire::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => wire::MountPropagation::PropagationBidirectional,
    };
    wire::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation as i32,
        ..Default::default()
    }
}

pub(super) fn container(config: &ContainerConfig) -> wire::ContainerConfig {
    let env = |(key, value): &(String, String)| wire::KeyValue {
        key: key.clone(),
        value: value.clone().into_bytes(),
    };
    let device = |device: &crate::port::Device| wire::Device {
        container_path: device.container_path.clone(),
        host_path: device.host_path.clone(),
        permissions: device.permissions.clone(),
    };
    let metadata =
        wire::ContainerMetadata { name: config.metadata.name.clone(), attempt: config.metadata.attempt };
    let image = wire::ImageSpec {
        image: config.image.clone(),
        user_specified_image: config.user_specified_image.clone(),
        ..Default::default()
    };
    wire::ContainerConfig {
        metadata: Some(metadata),
        image: Some(image),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.envs.iter().map(env).collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        devices: config.devices.iter().map(device).collect(),
        labels: map(&config.labels),
        annotations: map(&config.annotations),
        log_path: config.log_path.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(container_security(&config.security)),
        }),
        ..Default::default()
    }
}

pub(super) fn sandbox_filter(filter: &PodSandboxFilter) -> wire::PodSandboxFilter {
    let state = filter.state.map(|state| {
        let state = match state {
            PodSandboxState::Ready => wire::PodSandboxState::SandboxReady,
            PodSandboxState::NotReady => wire::PodSandboxState::SandboxNotready,
        };
        wire::PodSandboxStateValue { state: state as i32 }
    });
    wire::PodSandboxFilter {
        id: filter.id.clone().unwrap_or_default(),
        state,
        label_selector: map(&filter.labels),
    }
}

pub(super) fn container_filter(filter: &ContainerFilter) -> wire::ContainerFilter {
    let state = filter.state.map(|state| {
        let state = match state {
            ContainerState::Created => wire::ContainerState::ContainerCreated,
            ContainerState::Running => wire::ContainerState::ContainerRunning,
            ContainerState::Exited => wire::ContainerState::ContainerExited,
            ContainerState::Unknown => wire::ContainerState::ContainerUnknown,
        };
        wire::ContainerStateValue { state: state as i32 }
    });
    wire::ContainerFilter {
        id: filter.id.clone().unwrap_or_default(),
        state,
        pod_sandbox_id: filter.sandbox_id.clone().unwrap_or_default(),
        label_selector: map(&filter.labels),
    }
}

pub(super) fn stats_filter(filter: &ContainerFilter) -> wire::ContainerStatsFilter {
    wire::ContainerStatsFilter {
        id: filter.id.clone().unwrap_or_default(),
        pod_sandbox_id: filter.sandbox_id.clone().unwrap_or_default(),
        label_selector: map(&filter.labels),
    }
}

pub(super) fn auth(auth: AuthConfig) -> wire::AuthConfig {
    wire::AuthConfig {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_spelt_out() {
        let check = |name: &str, kind: i32, reference: &str| {
            let found = profile(name);
            assert_eq!((found.profile_type, found.localhost_ref.as_str()), (kind, reference), "{name:?}");
        };
        check("", 1, "");
        check("unconfined", 1, "");
        check("runtime/default", 0, "");
        check("localhost//var/p.json", 2, "/var/p.json");
        check("localhost/name", 2, "name");
        assert!(apparmor("").is_none() && apparmor("unconfined").is_some());
    }
}
