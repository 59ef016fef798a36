//! Services and their EndpointSlices as the table that a proxy works from.

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A transport protocol that the proxy carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of a Service with its ready endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Namespace and name of the Service, `default/web`.
    pub service: String,
    /// The port's name, often empty.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Cluster, external and load balancer addresses.
    pub addresses: Vec<IpAddr>,
    /// The port on those addresses.
    pub port: u16,
    /// The port on the nodes' own addresses.
    pub node_port: Option<u16>,
    /// How long a client sticks to its endpoint; `None` for `sessionAffinity: None`.
    pub affinity: Option<Duration>,
    /// Where connections go, sorted.
    pub endpoints: Vec<SocketAddr>,
}

/// The ports of a Service that need a proxy, with the endpoints of its slices. Headless and ExternalName Services have none; SCTP is left out.
///
/// Ready endpoints are used; where there are none, those that still serve while they terminate, as upstream does.
pub fn service_ports<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let addresses = addresses(service);
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        let seconds = config.and_then(|c| c.timeout_seconds).and_then(|s| u64::try_from(s).ok());
        Duration::from_secs(seconds.unwrap_or(10_800))
    });
    let meta = &service.metadata;
    let name = format!("{}/{}", meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let node_port = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        if addresses.is_empty() && node_port.is_none() {
            return None;
        }
        Some(ServicePort {
            service: name.clone(),
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref())?,
            addresses: addresses.clone(),
            port: u16::try_from(port.port).ok()?,
            node_port,
            affinity,
            endpoints: endpoints(port, slices.clone()),
        })
    });
    ports.collect()
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let cluster =
        spec.and_then(|s| s.cluster_ips.clone().or_else(|| s.cluster_ip.clone().map(|ip| vec![ip])));
    let external = spec.and_then(|s| s.external_ips.clone());
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|l| l.ingress.as_ref()).into_iter().flatten().filter_map(|i| i.ip.clone());
    let texts = cluster.into_iter().flatten().chain(external.into_iter().flatten()).chain(ingress);
    // `None` of a headless Service is no address and falls out here.
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn endpoints<'a>(port: &ApiPort, slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<SocketAddr> {
    let (mut ready, mut terminating) = (Vec::new(), Vec::new());
    let name = port.name.as_deref().unwrap_or("");
    for slice in slices.filter(|s| s.address_type != "FQDN") {
        let found = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or("") == name);
        let Some(number) = found.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let sockets = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
            let sockets = sockets.map(|ip: IpAddr| SocketAddr::new(ip, number));
            if is_ready(endpoint) {
                ready.extend(sockets);
            } else if serves(endpoint) {
                terminating.extend(sockets);
            }
        }
    }
    let mut chosen = if ready.is_empty() { terminating } else { ready };
    chosen.sort();
    chosen.dedup();
    chosen
}

/// An unset condition counts as true.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn serves(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|c| c.serving.unwrap_or(false) && c.terminating.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(service: Value, slices: Value, expected: &[(&str, u16, &[&str])]) {
        let service: Service = serde_json::from_value(service).unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
        let ports = service_ports(&service, slices.iter());
        let got: Vec<(String, u16, Vec<String>)> = ports
            .iter()
            .map(|p| (p.name.clone(), p.port, p.endpoints.iter().map(ToString::to_string).collect()))
            .collect();
        let expected: Vec<(String, u16, Vec<String>)> = expected
            .iter()
            .map(|(n, p, e)| ((*n).to_owned(), *p, e.iter().map(|e| (*e).to_owned()).collect()))
            .collect();
        assert_eq!(got, expected);
    }

    fn slice(endpoints: Value) -> Value {
        json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints})
    }

    fn service(spec: Value) -> Value {
        let mut all = json!({"clusterIP": "127.96.0.9", "ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        json!({"metadata": {"namespace": "n", "name": "s"}, "spec": all})
    }

    #[test]
    fn ready_endpoints_are_used_and_terminating_ones_only_in_need() {
        let up = json!({"addresses": ["127.64.0.2"], "conditions": {"ready": true}});
        let unset = json!({"addresses": ["127.64.0.1"]});
        let ending = json!({"addresses": ["127.64.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let down = json!({"addresses": ["127.64.0.4"], "conditions": {"ready": false}});
        check(
            service(json!({})),
            json!([slice(json!([up, unset, ending])), slice(json!([down]))]),
            &[("http", 80, &["127.64.0.1:8080", "127.64.0.2:8080"]), ("other", 81, &[])],
        );
        check(
            service(json!({})),
            json!([slice(json!([ending, down]))]),
            &[("http", 80, &["127.64.0.3:8080"]), ("other", 81, &[])],
        );
        check(service(json!({"clusterIP": "None"})), json!([]), &[]);
        check(service(json!({"type": "ExternalName"})), json!([]), &[]);
    }
}
