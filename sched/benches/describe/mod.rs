//! Workloads as their files describe them, and the nodes and pods of a description: shared by the bench of the pure cycle and the one
//! of a whole plane.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod report;

use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A workload, as its file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) sizes: Vec<Size>,
    /// What every node has besides its name and `kubernetes.io/hostname`.
    #[serde(default)]
    pub(crate) node: Value,
    /// Values of `topology.kubernetes.io/zone`, given out in turn.
    #[serde(default)]
    pub(crate) zones: Vec<String>,
    /// Pods that are there before, one list after the other, sharing the size's `init` evenly.
    #[serde(default)]
    pub(crate) init: Vec<Value>,
    /// Pods that are measured, in turn.
    pub(crate) pods: Vec<Value>,
    /// Pods that never fit and stay in the queue.
    #[serde(default)]
    pub(crate) unschedulable: Option<Value>,
    /// A node comes and goes after so many pods.
    #[serde(default)]
    pub(crate) churn: usize,
    /// Whole objects that are there before.
    #[serde(default)]
    pub(crate) objects: Vec<Value>,
    /// Whole objects for each node; `$node` in them stands for its name.
    #[serde(default)]
    pub(crate) each_node: Vec<Value>,
    /// Whole objects for each measured pod, there before the clock runs; `$name` in them, and in the pod, stands for its name.
    #[serde(default)]
    pub(crate) each: Vec<Value>,
    /// Whether claims are bound to volumes meanwhile.
    #[serde(default)]
    pub(crate) binds: bool,
}

/// Group and resource of a whole object.
pub(crate) fn resource_of(object: &Value) -> (&str, &'static str) {
    let group = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
    let resource = match object["kind"].as_str().unwrap_or("") {
        "CSINode" => "csinodes",
        "DeviceClass" => "deviceclasses",
        "PersistentVolume" => "persistentvolumes",
        "PersistentVolumeClaim" => "persistentvolumeclaims",
        "ResourceClaim" => "resourceclaims",
        "ResourceSlice" => "resourceslices",
        "Secret" => "secrets",
        "StorageClass" => "storageclasses",
        other => panic!("a description may have no {other}"),
    };
    (group, resource)
}

/// The objects with a name filled in for `$name` or `$node`.
pub(crate) fn named(objects: &[Value], variable: &str, name: &str) -> Vec<Value> {
    let mut objects = objects.to_vec();
    objects.iter_mut().for_each(|o| fill(o, variable, name));
    objects
}

/// Fills a name in.
pub(crate) fn fill(value: &mut Value, variable: &str, name: &str) {
    match value {
        Value::String(text) if text == variable => name.clone_into(text),
        Value::Array(list) => list.iter_mut().for_each(|v| fill(v, variable, name)),
        Value::Object(fields) => fields.values_mut().for_each(|v| fill(v, variable, name)),
        _ => {}
    }
}

/// One size of a workload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    #[serde(default)]
    pub(crate) init: usize,
    pub(crate) pods: usize,
    /// How many pods that never fit there are.
    #[serde(default)]
    pub(crate) unschedulable: usize,
    /// The peer's pods per second, where it was measured.
    #[serde(default)]
    pub(crate) peer: Option<f64>,
}

/// Every description of a folder, by file name.
pub(crate) fn folder(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("the folder of workloads");
    let mut files: Vec<PathBuf> = files.filter_map(|f| f.ok().map(|f| f.path())).collect();
    files.sort();
    files
}

/// The description in a file.
pub(crate) fn read(file: &Path) -> Workload {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The node of this number.
pub(crate) fn node(workload: &Workload, n: usize) -> Value {
    let name = format!("node-{n:05}");
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    });
    if let Some(zone) = workload.zones.get(n % workload.zones.len().max(1)) {
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
    }
    merge(&mut node, &workload.node);
    node
}

/// Merges `from` into a value.
pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}

/// A pod out of a template, in the namespace `sched-1` unless that names another.
pub(crate) fn pod(template: &Value, name: &str) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": "sched-1", "name": name},
        "spec": {"containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
        }]},
    });
    merge(&mut pod, template);
    fill(&mut pod, "$name", name);
    pod
}
