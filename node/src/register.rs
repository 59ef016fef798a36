//! The Node object: made at the start, its status kept true.

use crate::agent::Inner;
use crate::builder::arch;
use crate::events::NORMAL;
use crate::names::KUBELET_VERSION;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubewright_core::{ApiError, ContentType, ObjectMeta};
use kubewright_reconcile::client::Api;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const RETRY: Duration = Duration::from_millis(500);
const CALL: Duration = Duration::from_secs(10);

/// Makes the node known, trying until it succeeds.
pub(crate) async fn register(a: &Arc<Inner>) {
    learn_version(a).await;
    loop {
        let answer = tokio::time::timeout(CALL, create(a)).await;
        match answer.unwrap_or_else(|_| Err(ApiError::unavailable("no answer"))) {
            Ok(()) => {
                a.events.node(&a.name, NORMAL, "Starting", "Starting kubelet.".to_owned());
                return;
            }
            Err(e) => tracing::warn!(node = a.name, error = %e, "the node can't be registered yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn learn_version(a: &Inner) {
    loop {
        match a.runtime.version().await {
            Ok(version) => {
                let _ = a.runtime_name.set(version.runtime_name.clone());
                let _ = a.version.set(version);
                return;
            }
            Err(e) => tracing::warn!(node = a.name, error = %e, "the runtime does not answer yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Creates the node, or brings the labels and the status of the one that is there up to date.
async fn create(a: &Inner) -> Result<(), ApiError> {
    let api = Api::<Node>::all(a.client.clone());
    let status = status(a, None, &conditions(a).await);
    let node = Node {
        metadata: ObjectMeta {
            name: Some(a.name.clone()),
            labels: Some(a.settings.labels.clone()),
            annotations: Some(a.settings.annotations.clone()).filter(|m| !m.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(a.settings.taints.clone()).filter(|t| !t.is_empty()),
            pod_cidr: a.settings.pod_cidr.clone(),
            pod_cidrs: a.settings.pod_cidr.clone().map(|c| vec![c]),
            ..NodeSpec::default()
        }),
        status: Some(status),
    };
    let existing = match api.create(&node).await {
        Ok(created) => created,
        Err(e) if e.is_already_exists() => {
            let patch =
                json!({"metadata": {"labels": a.settings.labels, "annotations": a.settings.annotations}});
            api.patch(&a.name, ContentType::StrategicMergePatch, patch).await?
        }
        Err(e) => return Err(e),
    };
    update(a, &existing).await
}

/// Brings the status of the node up to date; writes only what differs.
pub(crate) async fn update(a: &Inner, node: &Node) -> Result<(), ApiError> {
    let old = node.status.clone().unwrap_or_default();
    let new = status(a, Some(&old), &conditions(a).await);
    let (Value::Object(before), Value::Object(after)) = (value(&old)?, value(&new)?) else {
        return Err(ApiError::internal("a node's status is no object"));
    };
    let changed: serde_json::Map<String, Value> =
        after.into_iter().filter(|(k, v)| before.get(k) != Some(v)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let api = Api::<Node>::all(a.client.clone());
    let patch = json!({"status": changed});
    api.patch_subresource(&a.name, "status", ContentType::StrategicMergePatch, patch).await.map(drop)
}

fn value(status: &NodeStatus) -> Result<Value, ApiError> {
    serde_json::to_value(status).map_err(ApiError::internal)
}

/// One condition: type, whether it holds, reason, message.
pub(crate) type Draft = (&'static str, bool, &'static str, String);

/// What the runtime and the disk say.
pub(crate) async fn conditions(a: &Inner) -> Vec<Draft> {
    let mut troubles = Vec::new();
    match tokio::time::timeout(CALL, a.runtime.status()).await {
        Ok(Ok(conditions)) => {
            for c in conditions.iter().filter(|c| !c.status) {
                let what = if c.condition == "NetworkReady" {
                    "container runtime network"
                } else {
                    "container runtime"
                };
                troubles.push(format!(
                    "{what} not ready: {}=false reason:{} message:{}",
                    c.condition, c.reason, c.message
                ));
            }
        }
        Ok(Err(e)) => troubles.push(format!("container runtime is down: {e}")),
        Err(_) => troubles.push("container runtime is down: no answer".to_owned()),
    }
    if let Some(network) = &a.network
        && let Err(e) = network.status().await
    {
        troubles.push(format!("container runtime network not ready: {e}"));
    }
    let ready: Draft = if troubles.is_empty() {
        ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned())
    } else {
        ("Ready", false, "KubeletNotReady", format!("[{}]", troubles.join(", ")))
    };
    let pressure = disk_is_full(a);
    let disk: Draft = if pressure {
        ("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure".to_owned())
    } else {
        ("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned())
    };
    vec![
        (
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available".to_owned(),
        ),
        disk,
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned()),
        ready,
    ]
}

/// Less than a twentieth of the disk of volumes and logs is free, and less than 1 GiB.
fn disk_is_full(a: &Inner) -> bool {
    if a.settings.simulated {
        return false;
    }
    let root = &a.settings.root_dir;
    let existing = root.ancestors().find(|p| p.exists()).unwrap_or(root);
    nix::sys::statvfs::statvfs(existing).is_ok_and(|s| {
        let free = s.blocks_available() * s.fragment_size();
        free < (1 << 30) && s.blocks_available() * 20 < s.blocks()
    })
}

/// The status of the node. Times of conditions that did not change are kept.
fn status(a: &Inner, old: Option<&NodeStatus>, drafts: &[Draft]) -> NodeStatus {
    let quantities = |m: &BTreeMap<String, String>| -> BTreeMap<String, Quantity> {
        m.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect()
    };
    let past = old.and_then(|o| o.conditions.as_deref()).unwrap_or(&[]);
    let now = a.clock.now();
    let mut conditions: Vec<NodeCondition> = drafts.iter().map(|d| condition(d, past, now)).collect();
    let ours = |c: &&NodeCondition| !drafts.iter().any(|d| d.0 == c.type_);
    conditions.extend(past.iter().filter(ours).cloned());
    let address = |kind: &str, text: &str| NodeAddress { type_: kind.to_owned(), address: text.to_owned() };
    let mut addresses: Vec<_> = a.settings.host_ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", &a.name));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(quantities(&a.settings.capacity)),
        allocatable: Some(quantities(&a.settings.allocatable())),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: a.settings.port }),
        }),
        node_info: Some(node_info(a)),
        ..NodeStatus::default()
    }
}

fn condition(draft: &Draft, past: &[NodeCondition], now: jiff::Timestamp) -> NodeCondition {
    let (kind, holds, reason, message) = draft;
    let status = if *holds { "True" } else { "False" };
    let before = past.iter().find(|c| c.type_ == *kind);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: (*kind).to_owned(),
        status: status.to_owned(),
        reason: Some((*reason).to_owned()),
        message: Some(message.clone()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    }
}

fn node_info(a: &Inner) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os = read("/etc/os-release");
    let pretty = os
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"')
        .to_owned();
    let version = a.version.get().cloned().unwrap_or_default();
    NodeSystemInfo {
        architecture: arch().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: pretty,
        ..NodeSystemInfo::default()
    }
}
