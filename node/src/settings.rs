//! What an agent is told about its node.

use crate::cri::ClusterDns;
use k8s_openapi::api::core::v1::Taint;
use kubewright_storage::fields::nanos;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a node presents itself.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    /// Resources by name, as quantities.
    pub(crate) capacity: BTreeMap<String, String>,
    /// What of the capacity pods may not use.
    pub(crate) reserved: BTreeMap<String, String>,
    /// The node's addresses, the primary one first.
    pub(crate) host_ips: Vec<String>,
    pub(crate) dns: ClusterDns,
    pub(crate) root_dir: PathBuf,
    /// The port that the node's own API would listen on; in one process it is called directly.
    pub(crate) port: i32,
    /// Nothing is on disk, no probe and no hook runs: for nodes over a fake runtime.
    pub(crate) simulated: bool,
    /// How many pods are worked on at once.
    pub(crate) passes_max: usize,
    pub(crate) pod_cidr: Option<String>,
}

impl Settings {
    /// What pods may use.
    pub(crate) fn allocatable(&self) -> BTreeMap<String, String> {
        let rest =
            |name: &str, all: &String| match self.reserved.get(name).and_then(|r| nanos(r)).zip(nanos(all)) {
                Some((reserved, all)) if name == "cpu" => format!("{}m", (all - reserved).max(0) / 1_000_000),
                Some((reserved, all)) => ((all - reserved).max(0) / 1_000_000_000).to_string(),
                None => all.clone(),
            };
        self.capacity.iter().map(|(name, all)| (name.clone(), rest(name, all))).collect()
    }

    /// The node's memory, bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let memory = self.capacity.get("memory").and_then(|m| nanos(m)).unwrap_or(0);
        u64::try_from(memory / 1_000_000_000).unwrap_or(0)
    }
}

/// What this machine has, for an agent that is told nothing else.
pub(crate) fn machine_capacity(root: &std::path::Path) -> BTreeMap<String, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .unwrap_or(1 << 20);
    let existing = root.ancestors().find(|p| p.exists()).unwrap_or(root);
    let disk = nix::sys::statvfs::statvfs(existing).map_or(0, |s| s.blocks() * s.fragment_size());
    [
        ("cpu", cpus.to_string()),
        ("memory", format!("{kib}Ki")),
        ("ephemeral-storage", format!("{}Ki", disk / 1024)),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
        ("pods", "110".to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into()
}
