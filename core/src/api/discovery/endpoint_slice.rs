//! EndpointSlice: a bounded part of the addresses behind a Service.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::network::validate_endpoint_ip;
use crate::api::kit::{
    ErrorSink, Path, column, count, default_text, default_to, describe, entries, get, int, list, list_mut,
    name_column, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const SHOWN_MAX: usize = 3;

/// The descriptor of EndpointSlice.
pub fn descriptor(options: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        generation: true,
        strategy: Arc::new(EndpointSliceRules { allow_loopback: options.allow_loopback_endpoints }),
        columns: vec![
            name_column(),
            column("AddressType", "string", "The kind of addresses.", |o, _| text(o, "addressType").into()),
            column("Ports", "string", "The first ports.", |o, _| ports_shown(o).into()),
            column("Endpoints", "string", "The first addresses.", |o, _| endpoints_shown(o).into()),
            age_column(),
        ],
        ..describe::<EndpointSlice>(Scope::Namespaced)
    }
}

fn some_of(items: &[String], empty: &str) -> String {
    match items.len() {
        0 => empty.to_owned(),
        n if n > SHOWN_MAX => format!("{} + {} more...", items[..SHOWN_MAX].join(","), n - SHOWN_MAX),
        _ => items.join(","),
    }
}

fn ports_shown(slice: &Value) -> String {
    let ports: Vec<String> = list(slice, "ports")
        .iter()
        .map(|p| match int(p, "port") {
            Some(port) => port.to_string(),
            None if text(p, "name").is_empty() => "*".to_owned(),
            None => text(p, "name").to_owned(),
        })
        .collect();
    some_of(&ports, "<unset>")
}

fn endpoints_shown(slice: &Value) -> String {
    let addresses: Vec<String> = list(slice, "endpoints")
        .iter()
        .flat_map(|e| list(e, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    some_of(&addresses, "<unset>")
}

struct EndpointSliceRules {
    allow_loopback: bool,
}

impl Strategy for EndpointSliceRules {
    fn default(&self, object: &mut Value) {
        for port in list_mut(object, "ports") {
            default_to(port, "name", "");
            default_text(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let root = Path::Root;
        let kind = text(object, "addressType");
        match kind {
            "" => errors.required(&root.child("addressType"), ""),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.not_supported(&root.child("addressType"), other, &["FQDN", "IPv4", "IPv6"]),
        }
        let path = root.child("endpoints");
        let endpoints = list(object, "endpoints");
        if endpoints.len() > ENDPOINTS_MAX {
            errors.too_many(&path, endpoints.len(), ENDPOINTS_MAX);
        } else {
            for (i, endpoint) in endpoints.iter().enumerate() {
                self.validate_endpoint(endpoint, kind, &path.index(i), &mut errors);
            }
        }
        validate_ports(object, &root.child("ports"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        let path = Path::Root.child("addressType");
        immutable(sub(object, "addressType"), sub(old, "addressType"), &path, &mut errors);
        errors
    }
}

impl EndpointSliceRules {
    fn validate_endpoint(&self, endpoint: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
        let addresses = list(endpoint, "addresses");
        let at = path.child("addresses");
        if addresses.is_empty() {
            errors.required(&at, "must contain at least 1 address");
        } else if addresses.len() > ADDRESSES_MAX {
            errors.too_many(&at, addresses.len(), ADDRESSES_MAX);
        }
        for (i, address) in addresses.iter().enumerate() {
            self.validate_address(address.as_str().unwrap_or(""), kind, &at.index(i), errors);
        }
        let hostname = text(endpoint, "hostname");
        if !hostname.is_empty() {
            for problem in names::label(hostname) {
                errors.invalid(&path.child("hostname"), hostname, &problem);
            }
        }
        let node = text(endpoint, "nodeName");
        if get(endpoint, "nodeName").is_some() {
            for problem in names::subdomain(node) {
                errors.invalid(&path.child("nodeName"), node, &problem);
            }
        }
        let topology = path.child("deprecatedTopology");
        for (key, _) in entries(endpoint, "deprecatedTopology") {
            crate::api::kit::selectors::validate_label_key(key, &topology, errors);
        }
    }

    fn validate_address(&self, address: &str, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
        match kind {
            "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                errors.invalid(path, address, "must be an IPv4 address");
            }
            "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                errors.invalid(path, address, "must be an IPv6 address");
            }
            "IPv4" | "IPv6" => validate_endpoint_ip(address, self.allow_loopback, path, errors),
            "FQDN" => {
                let name = address.strip_suffix('.').unwrap_or(address);
                for problem in names::subdomain(name) {
                    errors.invalid(path, address, &problem);
                }
                if !name.contains('.') {
                    errors.invalid(
                        path,
                        address,
                        "should be a domain with at least two segments separated by dots",
                    );
                }
            }
            // An unknown kind has its own error; its addresses cannot be judged.
            _ => {}
        }
    }
}

fn validate_ports(slice: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if count(slice, "ports") > PORTS_MAX {
        errors.too_many(path, count(slice, "ports"), PORTS_MAX);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in list(slice, "ports").iter().enumerate() {
        let at = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            for problem in names::label(name) {
                errors.invalid(&at.child("name"), name, &problem);
            }
        }
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        }
        match text(port, "protocol") {
            "TCP" | "UDP" | "SCTP" => {}
            other => errors.not_supported(&at.child("protocol"), other, &["TCP", "UDP", "SCTP"]),
        }
        if let Some(number) = int(port, "port")
            && let Some(problem) = names::port_number(number)
        {
            errors.invalid(&at.child("port"), number, &problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(kind: &str, address: &str) -> Value {
        json!({
            "addressType": kind,
            "endpoints": [{"addresses": [address]}],
            "ports": [{"name": "", "protocol": "TCP", "port": 80}]})
    }

    #[test]
    fn addresses_fit_their_type() {
        let check = |object: Value, allow_loopback: bool, wanted: &[&str]| {
            let errors = EndpointSliceRules { allow_loopback }.validate(&object);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, wanted, "{object}");
        };
        check(slice("IPv4", "10.0.0.1"), false, &[]);
        check(slice("IPv4", "127.64.0.1"), false, &["endpoints[0].addresses[0]"]);
        check(slice("IPv4", "127.64.0.1"), true, &[]);
        check(slice("IPv4", "fd00::1"), true, &["endpoints[0].addresses[0]"]);
        check(slice("FQDN", "a.example.com"), false, &[]);
        check(slice("FQDN", "a"), false, &["endpoints[0].addresses[0]"]);
        check(slice("Other", "a"), false, &["addressType"]);
        check(json!({"addressType": "IPv4", "endpoints": [{}]}), false, &["endpoints[0].addresses"]);
    }

    #[test]
    fn columns_show_three() {
        let many: Vec<Value> = (1..=4).map(|i| json!({"addresses": [format!("10.0.0.{i}")]})).collect();
        let object = json!({"endpoints": many, "ports": [{"port": 80}, {"name": "x"}, {}]});
        assert_eq!(endpoints_shown(&object), "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...");
        assert_eq!(ports_shown(&object), "80,x,*");
        assert_eq!(ports_shown(&json!({})), "<unset>");
    }
}
