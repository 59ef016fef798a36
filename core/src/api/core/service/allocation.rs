//! What a Service needs from the server's allocators: addresses and node ports.

use super::{headless, unset_port};
use crate::api::kit::{flag, get, int, list, text};
use serde_json::Value;

/// What to allocate: a given one, which is an error when it is taken, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<T> {
    /// Any free one.
    Any,
    /// Exactly this one.
    This(T),
}

/// A node port to allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortWish {
    /// The index in `spec.ports` where the number goes.
    pub port_index: usize,
    /// `TCP`, `UDP` or `SCTP`; a number may be used once for each.
    pub protocol: String,
    /// Which number.
    pub port: Wanted<u16>,
}

/// What a service in its present shape must hold. To update, compare with that of the old object: what both hold stays, what only the
/// old one held is released after the write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// The cluster addresses, into `spec.clusterIPs` (and the first into `spec.clusterIP`). Empty for headless and ExternalName services.
    pub cluster_ips: Vec<Wanted<String>>,
    /// The node ports.
    pub node_ports: Vec<NodePortWish>,
    /// The port of the health check of a load balancer with local traffic, into `spec.healthCheckNodePort`.
    pub health_check: Option<Wanted<u16>>,
}

/// What a service needs. For an object that is stored already everything is [`Wanted::This`].
pub fn allocation(service: &Value) -> ServiceAllocation {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let kind = text(spec, "type");
    let mut wanted = ServiceAllocation::default();
    if kind != "ExternalName" && !headless(spec) {
        wanted.cluster_ips = cluster_ips(spec);
    }
    let allocates = kind == "NodePort"
        || (kind == "LoadBalancer"
            && (get(spec, "allocateLoadBalancerNodePorts").is_none()
                || flag(spec, "allocateLoadBalancerNodePorts")));
    if matches!(kind, "NodePort" | "LoadBalancer") {
        wanted.node_ports = node_ports(spec, allocates);
    }
    if kind == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local" {
        wanted.health_check = Some(port_of(spec, "healthCheckNodePort"));
    }
    wanted
}

fn cluster_ips(spec: &Value) -> Vec<Wanted<String>> {
    let given: Vec<Wanted<String>> = list(spec, "clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .filter(|ip| !ip.is_empty())
        .map(|ip| Wanted::This(ip.to_owned()))
        .collect();
    match (given.is_empty(), text(spec, "clusterIP")) {
        (false, _) => given,
        (true, "") => vec![Wanted::Any],
        (true, ip) => vec![Wanted::This(ip.to_owned())],
    }
}

fn node_ports(spec: &Value, allocates: bool) -> Vec<NodePortWish> {
    let mut wishes: Vec<NodePortWish> = Vec::new();
    for (port_index, port) in list(spec, "ports").iter().enumerate() {
        if unset_port(port) && !allocates {
            continue;
        }
        wishes.push(NodePortWish {
            port_index,
            protocol: text(port, "protocol").to_owned(),
            port: port_of(port, "nodePort"),
        });
    }
    wishes
}

fn port_of(owner: &Value, field: &str) -> Wanted<u16> {
    match int(owner, field).and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0) {
        Some(port) => Wanted::This(port),
        None => Wanted::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_type_decides_what_is_needed() {
        let check = |spec: Value, ips: &[Wanted<String>], ports: &[Wanted<u16>], health: bool| {
            let wanted = allocation(&json!({"spec": spec}));
            assert_eq!(wanted.cluster_ips, ips);
            assert_eq!(wanted.node_ports.iter().map(|w| w.port.clone()).collect::<Vec<_>>(), ports);
            assert_eq!(wanted.health_check.is_some(), health);
        };
        check(json!({"type": "ClusterIP", "ports": [{"port": 80}]}), &[Wanted::Any], &[], false);
        check(json!({"type": "ClusterIP", "clusterIP": "None"}), &[], &[], false);
        check(json!({"type": "ExternalName"}), &[], &[], false);
        check(
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"nodePort": 30000}, {"port": 1}]}),
            &[Wanted::This("10.0.0.1".to_owned())],
            &[Wanted::This(30000), Wanted::Any],
            false,
        );
        check(
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false,
                "ports": [{"port": 1}]}),
            &[Wanted::Any],
            &[],
            true,
        );
    }
}
