//! Spreading and affinity over labels with many values, where nodes are grouped by what is counted: nodes that share a value follow each other.

mod common;

use common::{Cluster, node, pod, with};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const HOSTS: usize = 70;

/// Two nodes for each host name.
fn cluster() -> Cluster {
    let nodes: Vec<Value> = (0..2 * HOSTS)
        .map(|n| {
            let host = json!(format!("host-{}", n / 2));
            let mut node = node(&format!("node-{n}"), json!({}));
            node["metadata"]["labels"]["kubernetes.io/hostname"] = host;
            node
        })
        .collect();
    Cluster::new(&nodes)
}

/// Places so many pods and counts them by host.
fn hosts(cluster: &mut Cluster, spec: &Value, pods: usize) -> BTreeMap<usize, usize> {
    let mut hosts = BTreeMap::new();
    for n in 0..pods {
        let labelled =
            with(pod(&format!("p{n}"), "100m", spec.clone()), "metadata.labels", json!({"app": "x"}));
        let on = cluster.place(&labelled);
        let number: usize = on.strip_prefix("node-").unwrap_or_else(|| panic!("{on}")).parse().unwrap();
        *hosts.entry(number / 2).or_default() += 1;
    }
    hosts
}

#[test]
fn pods_spread_over_host_names_that_nodes_share() {
    let spec = json!({"topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]});
    let hosts = hosts(&mut cluster(), &spec, 2 * HOSTS);
    assert!(hosts.len() == HOSTS && hosts.values().all(|n| *n == 2), "{hosts:?}");
}

#[test]
fn pods_keep_away_from_host_names_that_nodes_share() {
    let spec = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}]}}});
    let mut cluster = cluster();
    let hosts = hosts(&mut cluster, &spec, HOSTS);
    assert!(hosts.len() == HOSTS && hosts.values().all(|n| *n == 1), "{hosts:?}");
    let more = with(pod("more", "100m", spec), "metadata.labels", json!({"app": "x"}));
    assert!(cluster.place(&more).contains("140 node(s) didn't match pod anti-affinity rules"));
}
