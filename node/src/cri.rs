//! The pod and its containers in CRI's terms: pure translation.

use crate::names;
use crate::policy::{grace_seconds, host_network};
use crate::resources;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext as ApiSecurity};
use kubewright_runtime::port::{
    DnsConfig, Labels, NamespaceMode, NamespaceOptions, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    Resources, SecurityContext,
};
use std::hash::Hasher;

/// How names resolve in this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClusterDns {
    /// Addresses of the cluster's DNS servers; empty leaves pods with the node's resolver.
    pub(crate) servers: Vec<String>,
    /// `cluster.local`.
    pub(crate) domain: String,
    /// The node's own servers, searches and options.
    pub(crate) node: DnsConfig,
}

/// A hash of what a change of restarts a container: its name and image, as upstream.
pub(crate) fn spec_hash(container: &Container) -> String {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(container.name.as_bytes());
    hasher.write_u8(0);
    hasher.write(container.image.as_deref().unwrap_or("").as_bytes());
    format!("{:x}", hasher.finish())
}

/// The labels of a pod's sandbox; a container's also name the container.
pub(crate) fn pod_labels(pod: &Pod) -> Labels {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    [
        (names::POD_NAME, text(&pod.metadata.name)),
        (names::POD_NAMESPACE, text(&pod.metadata.namespace)),
        (names::POD_UID, text(&pod.metadata.uid)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// `<namespace>_<name>_<uid>`, the directory of a pod's logs.
pub(crate) fn log_dir_name(pod: &Pod) -> String {
    let m = &pod.metadata;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    format!("{}_{}_{}", text(&m.namespace), text(&m.name), text(&m.uid))
}

/// The host name of a pod and, with a subdomain, its domain.
pub(crate) fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.as_ref();
    let given =
        spec.and_then(|s| s.hostname_override.as_deref().or(s.hostname.as_deref())).filter(|h| !h.is_empty());
    let name = given.or(pod.metadata.name.as_deref()).unwrap_or("");
    // A host name has at most 63 characters; what is cut off must not end in a dash or dot.
    let short: String = name.chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let domain = match spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty()) {
        Some(sub) => {
            format!("{sub}.{}.svc.{cluster_domain}", pod.metadata.namespace.as_deref().unwrap_or(""))
        }
        None => String::new(),
    };
    (short, domain)
}

/// The name resolution of a pod, by its policy.
pub(crate) fn dns(pod: &Pod, cluster: &ClusterDns) -> DnsConfig {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let of_cluster = match policy {
        "None" => None,
        "ClusterFirstWithHostNet" => Some(true),
        "ClusterFirst" => Some(!host_network(pod)),
        _ => Some(false),
    };
    let mut config = match of_cluster {
        None => DnsConfig::default(),
        Some(true) if !cluster.servers.is_empty() => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            let mut searches = vec![
                format!("{namespace}.svc.{}", cluster.domain),
                format!("svc.{}", cluster.domain),
                cluster.domain.clone(),
            ];
            searches.extend(cluster.node.searches.iter().cloned());
            DnsConfig { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
        }
        Some(_) => cluster.node.clone(),
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        merge(&mut config.servers, own.nameservers.as_deref());
        merge(&mut config.searches, own.searches.as_deref());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    config
}

fn merge(list: &mut Vec<String>, more: Option<&[String]>) {
    for item in more.unwrap_or(&[]) {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn namespaces(pod: &Pod) -> NamespaceOptions {
    let spec = pod.spec.as_ref();
    let node = |on: Option<bool>, otherwise| if on == Some(true) { NamespaceMode::Node } else { otherwise };
    let shared = spec.and_then(|s| s.share_process_namespace) == Some(true);
    let pid = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOptions {
        network: node(spec.and_then(|s| s.host_network), NamespaceMode::Pod),
        pid: node(spec.and_then(|s| s.host_pid), pid),
        ipc: node(spec.and_then(|s| s.host_ipc), NamespaceMode::Pod),
    }
}

/// The configuration of a pod's sandbox.
pub(crate) fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    log_directory: String,
    cluster: &ClusterDns,
) -> PodSandboxConfig {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let mut labels: Labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(pod_labels(pod));
    let spec = pod.spec.clone().unwrap_or_default();
    let security = spec.security_context.clone().unwrap_or_default();
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            namespace: text(&pod.metadata.namespace),
            attempt,
        },
        hostname: if host_network(pod) { String::new() } else { hostname(pod, &cluster.domain).0 },
        log_directory,
        dns: Some(dns(pod, cluster)),
        port_mappings: port_mappings(pod),
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: String::new(),
        sysctls: security.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
        security: SecurityContext {
            namespaces: namespaces(pod),
            run_as_user: security.run_as_user,
            run_as_group: security.run_as_group,
            supplemental_groups: groups(&security),
            seccomp_profile: profile(
                security.seccomp_profile.as_ref().map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())),
            ),
            selinux_options: None,
            privileged: spec
                .containers
                .iter()
                .any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false)),
            ..SecurityContext::default()
        },
        resources: resources::of_pod(&spec),
    }
}

fn groups(security: &PodSecurityContext) -> Vec<i64> {
    let mut all = security.supplemental_groups.clone().unwrap_or_default();
    all.extend(security.fs_group);
    all
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let port = |n: i32| u16::try_from(n).ok();
    containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            Some(PortMapping {
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                container_port: port(p.container_port)?,
                host_port: port(p.host_port?)?,
                host_ip: p.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

fn profile(of: Option<(&str, Option<&str>)>) -> String {
    match of {
        Some(("RuntimeDefault", _)) => "runtime/default".to_owned(),
        Some(("Localhost", Some(path))) => format!("localhost/{path}"),
        Some(("Unconfined", _)) => "unconfined".to_owned(),
        _ => String::new(),
    }
}

const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The rights of a container: its own security context over the pod's.
pub(crate) fn security(pod: &Pod, container: &Container) -> SecurityContext {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own: ApiSecurity = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    let selinux = own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref());
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let list =
        |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    SecurityContext {
        namespaces: namespaces(pod),
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_username: String::new(),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups: groups(&of_pod),
        privileged,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp_profile: profile(seccomp.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref()))),
        apparmor_profile: profile(apparmor.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref()))),
        selinux_options: selinux.map(|s| [text(&s.user), text(&s.role), text(&s.type_), text(&s.level)]),
        masked_paths: list(&MASKED),
        readonly_paths: list(&READONLY),
    }
}

/// `runAsNonRoot`: why the container must not run, where its user is root.
///
/// # Errors
/// The sentence of `CreateContainerConfigError`.
pub(crate) fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let wanted = own.and_then(|s| s.run_as_non_root).or(of_pod.and_then(|s| s.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let whose = format!(
        "(pod: \"{}_{}({})\", container: {})",
        pod.metadata.name.as_deref().unwrap_or(""),
        pod.metadata.namespace.as_deref().unwrap_or(""),
        pod.metadata.uid.as_deref().unwrap_or(""),
        container.name
    );
    match own.and_then(|s| s.run_as_user).or(of_pod.and_then(|s| s.run_as_user)) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        Some(_) => Ok(()),
        None if image_uid == Some(0) => {
            Err(format!("container has runAsNonRoot and image will run as root {whose}"))
        }
        None if image_uid.is_none() && !image_user.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {whose}"
        )),
        None if image_uid.is_none() => {
            Err(format!("container has runAsNonRoot and image will run as root {whose}"))
        }
        None => Ok(()),
    }
}

/// The annotations by which an agent knows a container again.
pub(crate) fn container_annotations(pod: &Pod, container: &Container, restarts: u32) -> Labels {
    [
        (names::CONTAINER_HASH, spec_hash(container)),
        (names::RESTART_COUNT, restarts.to_string()),
        (names::TERMINATION_MESSAGE_PATH, container.termination_message_path.clone().unwrap_or_default()),
        (
            names::TERMINATION_MESSAGE_POLICY,
            container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
        (names::TERMINATION_GRACE_PERIOD, grace_seconds(pod).to_string()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// The limits of a container.
pub(crate) fn container_resources(pod: &Pod, container: &Container, node_memory: u64) -> Resources {
    let spec = pod.spec.clone().unwrap_or_default();
    resources::of_container(&spec, container, node_memory)
}

/// The lines of a pod's `/etc/hosts`.
pub(crate) fn hosts_file(pod: &Pod, ips: &[String], cluster_domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (name, domain) = hostname(pod, cluster_domain);
    for ip in ips {
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{name}\n"));
        } else {
            text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n"));
        }
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or(&[]);
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            text.push_str(&format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.as_deref().unwrap_or(&[]).join("\t")
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::{Value, json};

    #[test]
    fn names_resolve_by_policy() {
        let cluster = ClusterDns {
            servers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            node: DnsConfig {
                servers: vec!["1.1.1.1".into()],
                searches: vec!["lan".into()],
                options: vec![],
            },
        };
        let check = |spec: Value, servers: &[&str], searches: &[&str], options: &[&str]| {
            let config = dns(&pod(spec.clone()), &cluster);
            assert_eq!(
                (config.servers, config.searches, config.options),
                (
                    servers.iter().map(|s| (*s).to_owned()).collect(),
                    searches.iter().map(|s| (*s).to_owned()).collect(),
                    options.iter().map(|s| (*s).to_owned()).collect(),
                ),
                "{spec}"
            );
        };
        let in_cluster = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"];
        check(json!({}), &["10.96.0.10"], &in_cluster, &["ndots:5"]);
        check(json!({"dnsPolicy": "Default"}), &["1.1.1.1"], &["lan"], &[]);
        check(json!({"hostNetwork": true}), &["1.1.1.1"], &["lan"], &[]);
        check(
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &["10.96.0.10"],
            &in_cluster,
            &["ndots:5"],
        );
        let own = json!({"nameservers": ["8.8.8.8"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        check(json!({"dnsPolicy": "None", "dnsConfig": own}), &["8.8.8.8"], &["x"], &["ndots:2", "edns0"]);
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
            &["10.96.0.10"],
            &in_cluster,
            &["ndots:2"],
        );
    }

    #[test]
    fn the_containers_rights_stand_over_the_pods() {
        let p = pod(
            json!({"securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "runAsNonRoot": true},
            "containers": [
                {"name": "a"},
                {"name": "b", "securityContext": {"runAsUser": 0, "privileged": true, "capabilities": {"drop": ["ALL"]}}},
            ]}),
        );
        let containers = &p.spec.as_ref().unwrap().containers;
        let (a, b) = (security(&p, &containers[0]), security(&p, &containers[1]));
        assert_eq!((a.run_as_user, a.run_as_group, a.supplemental_groups), (Some(1), Some(2), vec![3]));
        assert!(!a.privileged && !a.masked_paths.is_empty());
        assert_eq!((b.run_as_user, b.privileged, b.masked_paths.len()), (Some(0), true, 0));
        assert_eq!(b.drop_capabilities, ["ALL"]);
        assert!(verify_non_root(&p, &containers[0], Some(0), "").is_ok());
        assert!(
            verify_non_root(&p, &containers[1], Some(5), "").unwrap_err().contains("breaks non-root policy")
        );
    }

    #[test]
    fn host_names_are_short() {
        let mut p = pod(json!({"subdomain": "web"}));
        assert_eq!(hostname(&p, "c.l"), ("p".to_owned(), "web.n.svc.c.l".to_owned()));
        p.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(10)));
        assert_eq!(hostname(&p, "c.l").0, "a".repeat(62));
        assert!(hosts_file(&p, &["10.0.0.1".into()], "c.l").contains("10.0.0.1\t"));
    }
}
