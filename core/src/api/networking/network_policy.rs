//! NetworkPolicy: which pods may talk to which.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::network::{Network, parse_cidr};
use crate::api::kit::selectors::{self, format_label_selector};
use crate::api::kit::{
    ErrorSink, Path, column, count, default_text, describe, get, int, list, list_mut, name_column,
    object_mut, set, sub, text,
};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use std::sync::Arc;

/// The two directions, each with the field of its peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// The descriptor of NetworkPolicy.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["netpol"]),
        generation: true,
        strategy: Arc::new(NetworkPolicyRules),
        columns: vec![
            name_column(),
            column("Pod-Selector", "string", "Whose traffic it rules.", |o, _| {
                format_label_selector(sub(sub(o, "spec"), "podSelector")).into()
            }),
            age_column(),
        ],
        ..describe::<NetworkPolicy>(Scope::Namespaced)
    }
}

struct NetworkPolicyRules;

impl Strategy for NetworkPolicyRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        for (direction, _) in DIRECTIONS {
            for port in list_mut(spec, direction).flat_map(|rule| list_mut(rule, "ports")) {
                default_text(port, "protocol", "TCP");
            }
        }
        if count(spec, "policyTypes") == 0 {
            let both = count(spec, "egress") > 0;
            set(spec, "policyTypes", if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        selectors::validate(sub(spec, "podSelector"), &path.child("podSelector"), &mut errors);
        for (direction, peers) in DIRECTIONS {
            let at = path.child(direction);
            for (i, rule) in list(spec, direction).iter().enumerate() {
                validate_rule(rule, peers, &at.index(i), &mut errors);
            }
        }
        let at = path.child("policyTypes");
        let types = list(spec, "policyTypes");
        if types.len() > 2 {
            errors.invalid(&at, types.to_vec(), "may not specify more than two policyTypes");
            return errors;
        }
        for (i, kind) in types.iter().enumerate() {
            let kind = kind.as_str().unwrap_or("");
            if !matches!(kind, "Ingress" | "Egress") {
                errors.not_supported(&at.index(i), kind, &["Egress", "Ingress"]);
            }
        }
        errors
    }
}

fn validate_rule(rule: &Value, peers: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let at_ports = path.child("ports");
    for (i, port) in list(rule, "ports").iter().enumerate() {
        validate_port(port, &at_ports.index(i), errors);
    }
    let at_peers = path.child(peers);
    for (i, peer) in list(rule, peers).iter().enumerate() {
        validate_peer(peer, &at_peers.index(i), errors);
    }
}

fn validate_port(port: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let protocol = text(port, "protocol");
    if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
        errors.not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
    }
    let (at_port, at_end) = (path.child("port"), path.child("endPort"));
    let end = int(port, "endPort");
    match get(port, "port") {
        None => {
            if let Some(end) = end {
                errors.invalid(&at_end, end, "may not be specified when `port` is not specified");
            }
        }
        Some(Value::String(name)) => {
            if let Some(end) = end {
                errors.invalid(&at_end, end, "may not be specified when `port` is non-numeric");
            }
            for problem in names::port_name(name) {
                errors.invalid(&at_port, name.as_str(), &problem);
            }
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or(0);
            if let Some(problem) = names::port_number(number) {
                errors.invalid(&at_port, number, &problem);
            }
            let Some(end) = end else { return };
            if end < number {
                errors.invalid(&at_end, end, "must be greater than or equal to `port`");
            }
            if let Some(problem) = names::port_number(end) {
                errors.invalid(&at_end, end, &problem);
            }
        }
    }
}

fn validate_peer(peer: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let mut peers = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = get(peer, field) {
            peers += 1;
            selectors::validate(selector, &path.child(field), errors);
        }
    }
    let block = get(peer, "ipBlock");
    if let Some(block) = block {
        validate_block(block, &path.child("ipBlock"), errors);
    }
    match (peers, block) {
        (0, None) => errors.required(path, "must specify a peer"),
        (n, Some(_)) if n > 0 => errors.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn validate_block(block: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    let Some(whole) = parse_cidr(cidr, &path.child("cidr"), errors) else { return };
    let at = path.child("except");
    for (i, except) in list(block, "except").iter().enumerate() {
        let except = except.as_str().unwrap_or("");
        let Some(part) = parse_cidr(except, &at.index(i), errors) else { continue };
        if !is_strict_part(whole, part) {
            errors.invalid(&at.index(i), except, "must be a strict subset of `cidr`");
        }
    }
}

fn is_strict_part(whole: Network, part: Network) -> bool {
    whole.contains(part.address) && whole.bits < part.bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;

    fn policy(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
        NetworkPolicyRules.default(&mut object);
        object
    }

    #[test]
    fn policies_are_defaulted() {
        let object = policy(json!({"podSelector": {}, "egress": [{"ports": [{"port": 80}]}]}));
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(object["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(policy(json!({"podSelector": {}}))["spec"]["policyTypes"], json!(["Ingress"]));
    }

    #[test]
    fn policies_are_refused_in_upstreams_words() {
        let check = |rule: Value, wanted: &[&str]| {
            let object = policy(json!({"podSelector": {}, "ingress": [rule]}));
            assert_eq!(texts(&NetworkPolicyRules.validate(&object)), wanted);
        };
        check(json!({}), &[]);
        check(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}), &[]);
        check(json!({"from": [{}]}), &["spec.ingress[0].from[0]: Required value: must specify a peer"]);
        check(
            json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.0.0.0/8"]}}]}),
            &[
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ],
        );
        check(
            json!({"ports": [{"port": 80, "endPort": 70}]}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`"],
        );
        check(
            json!({"ports": [{"protocol": "ICMP", "endPort": 70}]}),
            &[
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is not specified",
            ],
        );
    }
}
