//! How a Service looks in a table.

use crate::api::kit::columns::{age_column, labels, or};
use crate::api::kit::{at, column, computed, int, list, name_column, sub, text};
use crate::resource::PrinterColumn;
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Type", "string", "How the service is exposed.", |o, _| text(sub(o, "spec"), "type").into()),
        column("Cluster-IP", "string", "The service's address in the cluster.", |o, _| {
            at(o, &["spec", "clusterIPs"]).get(0).and_then(Value::as_str).unwrap_or("<none>").into()
        }),
        column("External-IP", "string", "The service's addresses outside.", |o, _| external_ip(o).into()),
        column("Port(s)", "string", "The ports.", |o, _| ports(sub(o, "spec")).into()),
        age_column(),
        computed("Selector", "string", "Which pods stand behind it.", 1, |o, _| {
            labels(sub(o, "spec"), "selector").into()
        }),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = sub(service, "spec");
    let external: Vec<&str> = list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match text(spec, "type") {
        "ClusterIP" | "NodePort" => or(&external.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let ingress = ingress(service);
            match (ingress.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".to_owned(),
                (false, true) => ingress,
                (true, false) => external.join(","),
                (false, false) => format!("{ingress},{}", external.join(",")),
            }
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ingress(service: &Value) -> String {
    let ingress = list(at(service, &["status", "loadBalancer"]), "ingress");
    let addresses: BTreeSet<&str> =
        ingress.iter().map(|i| or(text(i, "ip"), text(i, "hostname"))).filter(|a| !a.is_empty()).collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

fn ports(spec: &Value) -> String {
    let ports: Vec<String> = list(spec, "ports")
        .iter()
        .map(|p| {
            let (port, protocol) = (int(p, "port").unwrap_or(0), text(p, "protocol"));
            match int(p, "nodePort").filter(|n| *n > 0) {
                Some(node_port) => format!("{port}:{node_port}/{protocol}"),
                None => format!("{port}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_and_ports_show_as_upstreams() {
        let check = |service: Value, ip: &str, shown_ports: &str| {
            assert_eq!((external_ip(&service).as_str(), ports(&service["spec"]).as_str()), (ip, shown_ports));
        };
        check(json!({"spec": {"type": "ClusterIP"}}), "<none>", "<none>");
        check(
            json!({"spec": {"type": "NodePort", "externalIPs": ["1.2.3.4"], "ports": [
                {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            "1.2.3.4",
            "80:30080/TCP,53/UDP",
        );
        check(json!({"spec": {"type": "LoadBalancer"}}), "<pending>", "<none>");
        check(
            json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"hostname": "a.long.name.example.com"}]}}}),
            "a.long.name.example.com",
            "<none>",
        );
        check(json!({"spec": {"type": "ExternalName", "externalName": "x.y"}}), "x.y", "<none>");
    }
}
