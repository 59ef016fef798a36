//! How an agent is put together.

use crate::agent::{Inner, NodeAgent};
use crate::cri::ClusterDns;
use crate::events::events;
use crate::hub::NodeHub;
use crate::images::Images;
use crate::settings::{Settings, machine_capacity};
use k8s_openapi::api::core::v1::Taint;
use kubewright_core::{Entropy, SharedClock, SystemClock};
use kubewright_net::Network;
use kubewright_reconcile::client::Client;
use kubewright_runtime::port::DnsConfig;
use kubewright_runtime::{ContainerRuntime, ImageService};
use kubewright_storage::{SimulatedVolumes, VolumeManager, Volumes};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What an agent lacks to be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node}: {missing} is missing")]
pub struct BuildError {
    node: String,
    missing: &'static str,
}

/// Makes a [`NodeAgent`].
#[must_use]
pub struct NodeAgentBuilder {
    name: String,
    hub: Arc<NodeHub>,
    client: Option<Client>,
    runtime: Option<Arc<dyn ContainerRuntime>>,
    images: Option<Arc<dyn ImageService>>,
    network: Option<Arc<dyn Network>>,
    volumes: Option<Arc<dyn Volumes>>,
    clock: SharedClock,
    entropy: Arc<Entropy>,
    settings: Settings,
    capacity: BTreeMap<String, String>,
}

impl NodeAgentBuilder {
    pub(crate) fn new(name: &str, hub: Arc<NodeHub>) -> Self {
        NodeAgentBuilder {
            name: name.to_owned(),
            hub,
            client: None,
            runtime: None,
            images: None,
            network: None,
            volumes: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Entropy::from_system()),
            settings: Settings {
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                taints: Vec::new(),
                capacity: BTreeMap::new(),
                reserved: BTreeMap::new(),
                host_ips: vec!["127.0.0.1".to_owned()],
                dns: ClusterDns {
                    domain: "cluster.local".to_owned(),
                    node: node_dns(),
                    ..ClusterDns::default()
                },
                root_dir: PathBuf::from("/var/lib/kubewright"),
                port: 10250,
                simulated: false,
                passes_max: 32,
                pod_cidr: None,
            },
            capacity: BTreeMap::new(),
        }
    }

    /// Writes with this client instead of the hub's.
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// What runs the containers.
    pub fn runtime(mut self, runtime: Arc<dyn ContainerRuntime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// What has the images.
    pub fn images(mut self, images: Arc<dyn ImageService>) -> Self {
        self.images = Some(images);
        self
    }

    /// Gives pods their addresses where the runtime does not.
    pub fn network(mut self, network: Option<Arc<dyn Network>>) -> Self {
        self.network = network;
        self
    }

    /// Mounts volumes in place of the manager below the root directory.
    pub fn volumes(mut self, volumes: Arc<dyn Volumes>) -> Self {
        self.volumes = Some(volumes);
        self
    }

    /// The directory of volumes and logs (`/var/lib/kubewright` by default).
    pub fn root_dir(mut self, root: impl Into<PathBuf>) -> Self {
        self.settings.root_dir = root.into();
        self
    }

    /// Takes the time from here.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes jitter and names from here.
    pub fn entropy(mut self, entropy: Arc<Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Adds a label to the node.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.settings.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds labels to the node.
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.settings.labels.extend(labels);
        self
    }

    /// Adds an annotation to the node.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.settings.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The taints that the node registers with.
    pub fn taints(mut self, taints: Vec<Taint>) -> Self {
        self.settings.taints = taints;
        self
    }

    /// How much of a resource the node has, as a quantity; what is not said is taken from the machine.
    pub fn capacity(mut self, resource: &str, quantity: &str) -> Self {
        self.capacity.insert(resource.to_owned(), quantity.to_owned());
        self
    }

    /// How much of a resource pods may not use.
    pub fn reserved(mut self, resource: &str, quantity: &str) -> Self {
        self.settings.reserved.insert(resource.to_owned(), quantity.to_owned());
        self
    }

    /// The node's addresses, the primary one first (`127.0.0.1` by default).
    pub fn addresses(mut self, ips: Vec<String>) -> Self {
        self.settings.host_ips = ips;
        self
    }

    /// `spec.podCIDR` of the node, where the network knows it.
    pub fn pod_cidr(mut self, cidr: &str) -> Self {
        self.settings.pod_cidr = Some(cidr.to_owned());
        self
    }

    /// The cluster's DNS: addresses of its servers and its domain.
    pub fn cluster_dns(mut self, servers: Vec<String>, domain: &str) -> Self {
        self.settings.dns.servers = servers;
        domain.clone_into(&mut self.settings.dns.domain);
        self
    }

    /// A node over a fake runtime: no files, probes always good, no hooks, warnings only among the events.
    pub fn simulated(mut self) -> Self {
        self.settings.simulated = true;
        self
    }

    /// How many pods are worked on at once (32 by default).
    pub fn concurrency(mut self, passes_max: usize) -> Self {
        self.settings.passes_max = passes_max.max(1);
        self
    }

    /// The agent.
    ///
    /// # Errors
    /// Where it has no runtime or no images.
    pub fn build(self) -> Result<NodeAgent, BuildError> {
        let missing = |missing| BuildError { node: self.name.clone(), missing };
        let runtime = self.runtime.clone().ok_or_else(|| missing("a container runtime"))?;
        let images = self.images.clone().ok_or_else(|| missing("an image service"))?;
        let mut settings = self.settings;
        settings.capacity = machine_capacity(&settings.root_dir);
        settings.capacity.extend(self.capacity);
        for (key, value) in [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch()),
        ] {
            settings.labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        let volumes: Arc<dyn Volumes> = match self.volumes {
            Some(volumes) => volumes,
            None if settings.simulated => Arc::new(SimulatedVolumes),
            None => Arc::new(
                VolumeManager::builder(&settings.root_dir)
                    .clock(self.clock.clone())
                    .entropy(self.entropy.clone())
                    .build(),
            ),
        };
        let client = self.client.unwrap_or_else(|| self.hub.client().clone());
        let (events, writer) = events(client.clone(), &self.name, self.clock.clone(), settings.simulated);
        let inner = Inner {
            name: self.name,
            hub: self.hub,
            client,
            runtime,
            images: Images::new(images, self.clock.clone()),
            network: self.network,
            volumes,
            clock: self.clock,
            entropy: self.entropy,
            settings,
            events,
            statuses: Default::default(),
            backoff: Default::default(),
            workers: Default::default(),
            dirty: Default::default(),
            tasks: Default::default(),
            runtime_name: OnceLock::new(),
            version: OnceLock::new(),
        };
        Ok(NodeAgent::from_parts(inner, writer))
    }
}

/// The machine's architecture in Go's spelling.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The name resolution of this machine.
fn node_dns() -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            Some("search") => config.searches = words.collect(),
            Some("options") => config.options.extend(words),
            _ => {}
        }
    }
    config
}
