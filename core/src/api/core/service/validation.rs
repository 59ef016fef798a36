//! Upstream's validation of a Service.

use super::{externally_accessible, headless};
use crate::ErrorList;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::network::{parse_ip, validate_endpoint_ip};
use crate::api::kit::selectors::validate_labels;
use crate::api::kit::{ErrorSink, Path, at, count, get, int, list, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;
/// The port of the node agent, which no load balancer may expose.
const AGENT_PORT: i64 = 10_250;

pub(super) fn validate(service: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_name(service, NameRule::Dns1035, &mut errors);
    let spec = sub(service, "spec");
    let path = Path::Root.child("spec");
    validate_ports(spec, &path, &mut errors);
    validate_type(spec, &path, &mut errors);
    validate_labels(spec, "selector", &path, &mut errors);
    validate_affinity(spec, &path, &mut errors);
    validate_cluster_ips(spec, &path, &mut errors);
    let external = path.child("externalIPs");
    for (i, ip) in list(spec, "externalIPs").iter().enumerate() {
        validate_endpoint_ip(ip.as_str().unwrap_or(""), false, &external.index(i), &mut errors);
    }
    validate_traffic(spec, &path, &mut errors);
    errors
}

fn validate_ports(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let ports = list(spec, "ports");
    let at = path.child("ports");
    let kind = text(spec, "type");
    if ports.is_empty() && !headless(spec) && kind != "ExternalName" {
        errors.required(&at, "");
    }
    let (mut seen_names, mut seen_ports, mut seen_node_ports) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let item = at.index(i);
        validate_port(port, ports.len() > 1, &item, errors);
        let (name, protocol) = (text(port, "name"), text(port, "protocol"));
        if !name.is_empty() && !seen_names.insert(name) {
            errors.duplicate(&item.child("name"), name);
        }
        if !seen_ports.insert((protocol, int(port, "port"))) {
            errors.duplicate(&item, port.clone());
        }
        let node_port = int(port, "nodePort").unwrap_or(0);
        if node_port == 0 {
            continue;
        }
        if matches!(kind, "ClusterIP" | "ExternalName") {
            errors.forbidden(&item.child("nodePort"), &format!("may not be used when `type` is '{kind}'"));
        }
        if !seen_node_ports.insert((protocol, node_port)) {
            errors.duplicate(&item.child("nodePort"), node_port);
        }
    }
}

fn validate_port(port: &Value, named: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(port, "name");
    if named && name.is_empty() {
        errors.required(&path.child("name"), "");
    } else if !name.is_empty() {
        for problem in names::label(name) {
            errors.invalid(&path.child("name"), name, &problem);
        }
    }
    let number = int(port, "port").unwrap_or(0);
    if let Some(problem) = names::port_number(number) {
        errors.invalid(&path.child("port"), number, &problem);
    }
    match text(port, "protocol") {
        "" => errors.required(&path.child("protocol"), ""),
        known if PROTOCOLS.contains(&known) => {}
        other => errors.not_supported(&path.child("protocol"), other, &PROTOCOLS),
    }
    validate_port_num_or_name(sub(port, "targetPort"), &path.child("targetPort"), errors);
    let app = text(port, "appProtocol");
    if !app.is_empty() {
        for problem in names::qualified(app) {
            errors.invalid(&path.child("appProtocol"), app, &problem);
        }
    }
}

/// Validates an int-or-string that names a port.
pub(crate) fn validate_port_num_or_name(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match value {
        Value::String(name) => {
            for problem in names::port_name(name) {
                errors.invalid(path, name.as_str(), &problem);
            }
        }
        other => {
            let number = other.as_i64().unwrap_or(0);
            if let Some(problem) = names::port_number(number) {
                errors.invalid(path, number, &problem);
            }
        }
    }
}

fn validate_type(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(spec, "type");
    let cluster_ips = path.child("clusterIPs");
    match kind {
        "" => errors.required(&path.child("type"), ""),
        "LoadBalancer" | "NodePort" => {
            if headless(spec) {
                let detail = format!("may not be set to 'None' for {kind} services");
                errors.invalid(&cluster_ips.index(0), "None", &detail);
            }
            let ports = path.child("ports");
            for (i, port) in list(spec, "ports").iter().enumerate().filter(|_| kind == "LoadBalancer") {
                if int(port, "port") == Some(AGENT_PORT) {
                    let detail =
                        format!("may not expose port {AGENT_PORT} externally since it is used by kubelet");
                    errors.invalid(&ports.index(i), AGENT_PORT, &detail);
                }
            }
        }
        "ExternalName" => validate_external_name(spec, path, errors),
        "ClusterIP" => {}
        other => errors.not_supported(&path.child("type"), other, &TYPES),
    }
}

fn validate_external_name(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if get(spec, field).is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty())) {
            errors.forbidden(&path.child(field), "may not be set for ExternalName services");
        }
    }
    let name = text(spec, "externalName");
    let at = path.child("externalName");
    if name.is_empty() {
        errors.required(&at, "");
        return;
    }
    for problem in names::subdomain(name.strip_suffix('.').unwrap_or(name)) {
        errors.invalid(&at, name, &problem);
    }
}

fn validate_affinity(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let config = path.child("sessionAffinityConfig");
    match text(spec, "sessionAffinity") {
        "" => errors.required(&path.child("sessionAffinity"), ""),
        "None" => {
            if get(spec, "sessionAffinityConfig").is_some() {
                errors.forbidden(&config, "must not be set when session affinity is None");
            }
        }
        "ClientIP" => {
            let client = config.child("clientIP");
            let timeout = client.child("timeoutSeconds");
            match at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).as_i64() {
                None => errors.required(&timeout, "must be set when session affinity is ClientIP"),
                Some(seconds) if seconds <= 0 || seconds > AFFINITY_SECONDS_MAX => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errors.invalid(&timeout, seconds, &detail);
                }
                Some(_) => {}
            }
        }
        other => errors.not_supported(&path.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

fn validate_cluster_ips(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let (ip, ips) = (text(spec, "clusterIP"), list(spec, "clusterIPs"));
    let at = path.child("clusterIPs");
    match ips.first().and_then(Value::as_str) {
        None if !ip.is_empty() => errors.required(&at, ""),
        Some(_) if ip.is_empty() => {
            errors.invalid(&at, ips.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        Some(first) if first != ip => errors.invalid(&at, ips.to_vec(), "first value must match `clusterIP`"),
        _ => {}
    }
    if ips.len() > 1 && ips.iter().any(|ip| ip == "None") {
        errors.invalid(&at, ips.to_vec(), "'None' must be the first and only value");
        return;
    }
    for (i, ip) in ips.iter().filter_map(Value::as_str).enumerate() {
        if ip != "None" {
            parse_ip(ip, &at.index(i), errors);
        }
    }
    if ips.len() > 2 {
        errors.invalid(&at, ips.to_vec(), "may only hold up to 2 values");
    }
    validate_families(spec, path, errors);
}

fn validate_families(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("ipFamilies");
    let mut seen = BTreeSet::new();
    for (i, family) in list(spec, "ipFamilies").iter().enumerate() {
        let family = family.as_str().unwrap_or("");
        if !matches!(family, "IPv4" | "IPv6") {
            errors.not_supported(&at.index(i), family, &["IPv4", "IPv6"]);
        }
        if !seen.insert(family) {
            errors.duplicate(&at.index(i), family);
        }
    }
    let policy = text(spec, "ipFamilyPolicy");
    let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if !policy.is_empty() && !known.contains(&policy) {
        errors.not_supported(&path.child("ipFamilyPolicy"), policy, &known);
    }
}

fn validate_traffic(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(spec, "type");
    let balanced = "may only be used when `type` is 'LoadBalancer'";
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if get(spec, field).is_some() && kind != "LoadBalancer" {
            errors.forbidden(&path.child(field), balanced);
        }
    }
    if count(spec, "loadBalancerSourceRanges") > 0 && kind != "LoadBalancer" {
        errors.forbidden(&path.child("LoadBalancerSourceRanges"), balanced);
    }
    let external = text(spec, "externalTrafficPolicy");
    let at = path.child("externalTrafficPolicy");
    match external {
        "" if externally_accessible(spec) => errors.required(&at, ""),
        "" => {}
        _ if !externally_accessible(spec) => {
            errors.invalid(&at, external, "may only be set for externally-accessible services");
        }
        "Cluster" | "Local" => {}
        other => errors.not_supported(&at, other, &["Cluster", "Local"]),
    }
    let internal = text(spec, "internalTrafficPolicy");
    if !internal.is_empty() && !matches!(internal, "Cluster" | "Local") {
        errors.not_supported(&path.child("internalTrafficPolicy"), internal, &["Cluster", "Local"]);
    }
    let health = int(spec, "healthCheckNodePort").unwrap_or(0);
    if health != 0 && !(kind == "LoadBalancer" && external == "Local") {
        errors.invalid(
            &path.child("healthCheckNodePort"),
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
}

/// Validates a write of `status`.
pub(super) fn validate_status(service: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = Path::Root.child("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    let ingress = list(at(service, &["status", "loadBalancer"]), "ingress");
    if !ingress.is_empty() && text(sub(service, "spec"), "type") != "LoadBalancer" {
        errors.forbidden(&path, "may only be used when `spec.type` is \"LoadBalancer\"");
        return errors;
    }
    for (i, entry) in ingress.iter().enumerate() {
        let item = path.index(i);
        let (ip, hostname) = (text(entry, "ip"), text(entry, "hostname"));
        if !ip.is_empty() {
            parse_ip(ip, &item.child("ip"), &mut errors);
        }
        if !hostname.is_empty() {
            for problem in names::subdomain(hostname) {
                errors.invalid(&item.child("hostname"), hostname, &problem);
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut service = json!({"metadata": {"name": "web"}, "spec": {
                "type": "ClusterIP", "sessionAffinity": "None",
                "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}});
            change(&mut service["spec"]);
            let texts: Vec<String> = validate(&service).iter().map(ToString::to_string).collect();
            assert_eq!(texts, wanted);
        };
        check(|_| {}, &[]);
        check(|s| s["ports"] = json!([]), &["spec.ports: Required value"]);
        check(
            |s| s["ports"][0]["port"] = 0.into(),
            &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        );
        check(
            |s| s["ports"][0]["nodePort"] = 30000.into(),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        );
        check(
            |s| s["type"] = "X".into(),
            &[
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        );
        check(
            |s| *s = json!({"type": "ExternalName", "sessionAffinity": "None"}),
            &["spec.externalName: Required value"],
        );
        check(|s| s["clusterIP"] = "x".into(), &["spec.clusterIPs: Required value"]);
        check(
            |s| {
                s["clusterIP"] = "x".into();
                s["clusterIPs"] = json!(["x"]);
            },
            &[
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            |s| s["externalTrafficPolicy"] = "Local".into(),
            &[
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        );
    }

    #[test]
    fn several_ports_need_names() {
        let service = json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None", "ports": [
            {"port": 80, "targetPort": 80, "protocol": "TCP"}, {"name": "a", "port": 80, "targetPort": "x", "protocol": "TCP"}]}});
        let texts: Vec<String> =
            validate(&service).iter().map(|e| format!("{} {}", e.field, e.kind.as_str())).collect();
        assert_eq!(texts, ["spec.ports[0].name FieldValueRequired", "spec.ports[1] FieldValueDuplicate"]);
    }
}
