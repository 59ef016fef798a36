//! Endpoints: the addresses behind a Service, in the older shape.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::network::validate_endpoint_ip;
use crate::api::kit::{
    ErrorSink, Path, column, count, default_text, describe, int, list, list_mut, name_column, text,
};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;
use std::sync::Arc;

/// How many addresses the table shows.
const ADDRESSES_SHOWN: usize = 3;

/// The descriptor of Endpoints.
pub fn descriptor(options: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        // The kind is a plural already.
        list_kind: "EndpointsList".into(),
        singular: "endpoints".into(),
        short_names: crate::api::kit::names(&["ep"]),
        strategy: Arc::new(EndpointsRules { allow_loopback: options.allow_loopback_endpoints }),
        columns: vec![
            name_column(),
            column("Endpoints", "string", "The first addresses.", |o, _| shown(o).into()),
            age_column(),
        ],
        ..describe::<Endpoints>(Scope::Namespaced)
    }
}

fn shown(endpoints: &Value) -> String {
    if count(endpoints, "subsets") == 0 {
        return "<none>".to_owned();
    }
    let mut shown = Vec::new();
    let mut total = 0;
    for subset in list(endpoints, "subsets") {
        let addresses = list(subset, "addresses");
        if list(subset, "ports").is_empty() {
            // Endpoints of a headless service without ports.
            for address in addresses {
                total += 1;
                if shown.len() < ADDRESSES_SHOWN {
                    shown.push(text(address, "ip").to_owned());
                }
            }
        }
        for port in list(subset, "ports") {
            for address in addresses {
                total += 1;
                if shown.len() < ADDRESSES_SHOWN {
                    shown.push(host_port(text(address, "ip"), int(port, "port").unwrap_or(0)));
                }
            }
        }
    }
    let text = shown.join(",");
    if total > ADDRESSES_SHOWN { format!("{text} + {} more...", total - ADDRESSES_SHOWN) } else { text }
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

struct EndpointsRules {
    allow_loopback: bool,
}

impl Strategy for EndpointsRules {
    fn default(&self, object: &mut Value) {
        for subset in list_mut(object, "subsets") {
            for port in list_mut(subset, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let path = Path::Root.child("subsets");
        for (i, subset) in list(object, "subsets").iter().enumerate() {
            self.validate_subset(subset, &path.index(i), &mut errors);
        }
        errors
    }
}

impl EndpointsRules {
    fn validate_subset(&self, subset: &Value, path: &Path<'_>, errors: &mut ErrorList) {
        if count(subset, "addresses") + count(subset, "notReadyAddresses") == 0 {
            errors.required(path, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let at = path.child(field);
            for (i, address) in list(subset, field).iter().enumerate() {
                let item = at.index(i);
                validate_endpoint_ip(text(address, "ip"), self.allow_loopback, &item.child("ip"), errors);
                let hostname = text(address, "hostname");
                if !hostname.is_empty() {
                    for problem in names::label(hostname) {
                        errors.invalid(&item.child("hostname"), hostname, &problem);
                    }
                }
            }
        }
        let ports = list(subset, "ports");
        let at = path.child("ports");
        for (i, port) in ports.iter().enumerate() {
            validate_port(port, ports.len() > 1, &at.index(i), errors);
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
        "TCP" | "UDP" | "SCTP" => {}
        other => errors.not_supported(&path.child("protocol"), other, &["TCP", "UDP", "SCTP"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_three_addresses_show() {
        let addresses: Vec<Value> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let check = |object: Value, wanted: &str| assert_eq!(shown(&object), wanted);
        check(json!({}), "<none>");
        check(json!({"subsets": [{"addresses": addresses[..1], "ports": [{"port": 80}]}]}), "10.0.0.1:80");
        check(
            json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}),
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...",
        );
        check(
            json!({"subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]}),
            "[fd00::1]:80",
        );
    }

    #[test]
    fn addresses_must_be_reachable() {
        let check = |ip: &str, allow_loopback: bool, wanted: usize| {
            let object =
                json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
            assert_eq!(EndpointsRules { allow_loopback }.validate(&object).len(), wanted, "{ip}");
        };
        check("10.0.0.1", false, 0);
        check("127.64.0.1", false, 1);
        check("127.64.0.1", true, 0);
        check("x", true, 1);
    }
}
