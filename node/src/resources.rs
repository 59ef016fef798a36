//! CPU and memory in the kernel's terms, and what a pod asks for.

use crate::policy::is_sidecar;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kubewright_runtime::port::Resources;
use kubewright_storage::fields::nanos;
use std::collections::BTreeMap;

type Quantities = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

const PERIOD: i64 = 100_000;
const QUOTA_MIN: i64 = 1_000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

fn value(list: Option<&Quantities>, name: &str, unit: i128) -> Option<i64> {
    let n = nanos(&list?.get(name)?.0)?;
    i64::try_from((n + unit - 1) / unit).ok()
}

/// Millicores of a list.
fn milli(list: Option<&Quantities>) -> Option<i64> {
    value(list, "cpu", 1_000_000)
}

/// Bytes of a list.
fn bytes(list: Option<&Quantities>) -> Option<i64> {
    value(list, "memory", 1_000_000_000)
}

fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * PERIOD / 1000).max(QUOTA_MIN) }
}

/// The limits of a container. `node_memory` is the node's memory in bytes.
pub(crate) fn of_container(spec: &PodSpec, container: &Container, node_memory: u64) -> Resources {
    let r = container.resources.clone().unwrap_or_default();
    let limit = milli(r.limits.as_ref());
    // As upstream: a limit without a request stands for it.
    let request = milli(r.requests.as_ref()).or(limit).unwrap_or(0);
    Resources {
        cpu_period: if limit.unwrap_or(0) > 0 { PERIOD } else { 0 },
        cpu_quota: quota(limit.unwrap_or(0)),
        cpu_shares: shares(request),
        memory_limit_bytes: bytes(r.limits.as_ref()).unwrap_or(0),
        oom_score_adj: oom_score(spec, container, node_memory),
        ..Resources::default()
    }
}

/// What all containers of a pod together ask for.
pub(crate) fn of_pod(spec: &PodSpec) -> Resources {
    let all = || spec.containers.iter().filter_map(|c| c.resources.as_ref());
    let cpu: i64 = all().filter_map(|r| milli(r.requests.as_ref()).or(milli(r.limits.as_ref()))).sum();
    let limits: Option<i64> = all().map(|r| bytes(r.limits.as_ref())).sum();
    Resources {
        cpu_shares: shares(cpu),
        memory_limit_bytes: limits.filter(|_| all().count() == spec.containers.len()).unwrap_or(0),
        ..Resources::default()
    }
}

/// Which process the kernel ends first when memory runs out: best-effort pods, then those that use more than they asked for.
fn oom_score(spec: &PodSpec, container: &Container, node_memory: u64) -> i64 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match crate::status::qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = bytes(container.resources.as_ref().and_then(|r| r.requests.as_ref())).unwrap_or(0);
            let memory = i64::try_from(node_memory).unwrap_or(i64::MAX).max(1);
            let score = 1000 - i64::try_from(1000 * i128::from(request) / i128::from(memory)).unwrap_or(1000);
            score.clamp(3, 999)
        }
    }
}

/// What a pod asks a node for, by resource, in billionths: the sum of its containers or, where larger, the most that its
/// init containers need at one time, plus the overhead.
pub(crate) fn pod_requests(spec: &PodSpec) -> BTreeMap<String, i128> {
    let of = |c: &Container| -> BTreeMap<String, i128> {
        let requests = c.resources.as_ref().and_then(|r| r.requests.clone()).unwrap_or_default();
        requests.iter().filter_map(|(k, q)| Some((k.clone(), nanos(&q.0)?))).collect()
    };
    let add = |into: &mut BTreeMap<String, i128>, more: &BTreeMap<String, i128>| {
        for (k, v) in more {
            *into.entry(k.clone()).or_default() += v;
        }
    };
    let mut total = BTreeMap::new();
    for c in &spec.containers {
        add(&mut total, &of(c));
    }
    let (mut sidecars, mut peak) = (BTreeMap::new(), BTreeMap::<String, i128>::new());
    for c in spec.init_containers.iter().flatten() {
        if is_sidecar(c) {
            add(&mut sidecars, &of(c));
        }
        let mut now = sidecars.clone();
        if !is_sidecar(c) {
            add(&mut now, &of(c));
        }
        for (k, v) in now {
            let most = peak.entry(k).or_default();
            *most = (*most).max(v);
        }
    }
    add(&mut total, &sidecars);
    for (k, v) in peak {
        let sum = total.entry(k).or_default();
        *sum = (*sum).max(v);
    }
    for (k, q) in spec.overhead.iter().flatten() {
        *total.entry(k.clone()).or_default() += nanos(&q.0).unwrap_or(0);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(resources: Value) -> Container {
        serde_json::from_value(json!({"name": "c", "resources": resources})).unwrap()
    }

    #[test]
    fn limits_reach_the_kernel() {
        let check = |resources: Value, wanted: (i64, i64, i64, i64)| {
            let c = container(resources.clone());
            let spec = PodSpec { containers: vec![c.clone()], ..PodSpec::default() };
            let r = of_container(&spec, &c, 1 << 30);
            assert_eq!(
                (r.cpu_shares, r.cpu_quota, r.memory_limit_bytes, r.oom_score_adj),
                wanted,
                "{resources}"
            );
        };
        check(json!({}), (2, 0, 0, 1000));
        check(json!({"limits": {"cpu": "500m", "memory": "64Mi"}}), (512, 50_000, 64 << 20, -997));
        check(json!({"requests": {"cpu": "1", "memory": "512Mi"}}), (1024, 0, 0, 500));
        check(json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "1m"}}), (2, 1000, 0, 999));
    }

    #[test]
    fn init_containers_count_where_they_need_more() {
        let of = |containers: Value, inits: Value| -> i128 {
            let spec: PodSpec =
                serde_json::from_value(json!({"containers": containers, "initContainers": inits})).unwrap();
            pod_requests(&spec).get("cpu").copied().unwrap_or(0) / 1_000_000
        };
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        assert_eq!(of(json!([c("1"), c("500m")]), json!([])), 1500);
        assert_eq!(of(json!([c("1")]), json!([c("3")])), 3000);
        assert_eq!(of(json!([c("1")]), json!([sidecar, c("3")])), 4000);
        assert_eq!(of(json!([c("4")]), json!([sidecar, c("1")])), 5000);
    }
}
