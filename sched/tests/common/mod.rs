//! What the black-box tests share: nodes and pods in few words, and a cluster that carries decisions out at once.

#![allow(dead_code, reason = "no test needs all of it")]

use jiff::Timestamp;
use kubewright_sched::{ClusterObject, Decision, PodKey, Scheduler};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A node of 4 CPUs, 8 GiB and 10 pods.
pub(crate) fn node(name: &str, labels: Value) -> Value {
    let mut node = json!({
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    node["metadata"]["labels"]["kubernetes.io/hostname"] = json!(name);
    node
}

/// A pod of namespace `n` that asks for so many CPUs, with more in its spec.
pub(crate) fn pod(name: &str, cpu: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": "n", "name": name, "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

pub(crate) fn with(mut object: Value, path: &str, value: Value) -> Value {
    let mut at = &mut object;
    for part in path.split('.') {
        at = &mut at[part];
    }
    *at = value;
    object
}

/// A scheduler with everything around it done at once.
pub(crate) struct Cluster {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: i64,
}

impl Cluster {
    pub(crate) fn new(nodes: &[Value]) -> Self {
        let mut cluster = Cluster { scheduler: Scheduler::with_defaults(1), now: 0 };
        nodes.iter().for_each(|n| cluster.node(n));
        cluster
    }

    pub(crate) fn node(&mut self, node: &Value) {
        self.scheduler.apply_node(Arc::new(serde_json::from_value(node.clone()).unwrap()), at(self.now));
    }

    pub(crate) fn add(&mut self, pod: &Value) {
        self.scheduler.apply_pod(Arc::new(serde_json::from_value(pod.clone()).unwrap()), at(self.now));
    }

    pub(crate) fn object<T: serde::de::DeserializeOwned>(
        &mut self,
        wrap: fn(Arc<T>) -> ClusterObject,
        object: Value,
    ) {
        let object = wrap(Arc::new(serde_json::from_value(object).unwrap()));
        self.scheduler.apply_object(&object, at(self.now));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.scheduler.remove_pod(&PodKey::new("n", name), at(self.now));
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += seconds;
        self.scheduler.advance(at(self.now));
    }

    /// The next decision, bound at once: the node's name, the message, or `NODE < VICTIMS`.
    pub(crate) fn next(&mut self) -> String {
        match self.scheduler.schedule_one(at(self.now)) {
            Some(Decision::Bind { node, pod, .. }) => {
                self.scheduler.bound(&pod.key);
                node.to_string()
            }
            Some(Decision::Unschedulable { nominated: Some((node, victims)), .. }) => {
                let victims: Vec<&str> = victims.iter().map(|v| v.name.as_str()).collect();
                format!("{node} < {}", victims.join(" "))
            }
            Some(Decision::Unschedulable { diagnosis, .. }) => diagnosis.to_string(),
            Some(Decision::Prepare { node, .. }) => format!("prepares {node}"),
            Some(Decision::Wait { .. }) => "waits".to_owned(),
            Some(Decision::Consult { .. }) => "consults".to_owned(),
            None => "idle".to_owned(),
        }
    }

    /// Adds a pod and tries it.
    pub(crate) fn place(&mut self, pod: &Value) -> String {
        self.add(pod);
        self.next()
    }
}
