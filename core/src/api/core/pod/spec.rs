//! Upstream's validation of a pod spec.

use super::{affinity, containers, security, volumes};
use crate::ErrorList;
use crate::api::kit::meta::non_negative;
use crate::api::kit::network::parse_ip;
use crate::api::kit::selectors::validate_labels;
use crate::api::kit::{ErrorSink, Path, flag, get, int, list, names::*, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const DEADLINE_MAX: i64 = i32::MAX as i64;
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;

/// Validates a pod spec; `metadata` is its pod's or template's.
pub(super) fn validate_spec(
    spec: &Value,
    metadata: &Value,
    template: bool,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let volumes = volumes::validate(spec, metadata, path, errors);
    containers::validate(spec, &volumes, path, errors);
    validate_policies(spec, path, errors);
    validate_names(spec, path, errors);
    security::validate_pod(spec, path, errors);
    validate_labels(spec, "nodeSelector", path, errors);
    if let Some(wanted) = get(spec, "affinity") {
        affinity::validate(wanted, &path.child("affinity"), errors);
    }
    affinity::validate_tolerations(spec, path, errors);
    affinity::validate_spread(spec, path, errors);
    validate_dns(spec, path, errors);
    validate_host_aliases(spec, path, errors);
    validate_gates(spec, template, path, errors);
}

fn validate_policies(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    known(spec, "restartPolicy", &RESTART_POLICIES, path, errors);
    known(spec, "dnsPolicy", &DNS_POLICIES, path, errors);
    if let Some(seconds) = int(spec, "activeDeadlineSeconds")
        && !(1..=DEADLINE_MAX).contains(&seconds)
    {
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, &between(1, DEADLINE_MAX));
    }
    non_negative(spec, "terminationGracePeriodSeconds", path, errors);
    if let Some(os) = get(spec, "os") {
        let name = text(os, "name");
        let at = path.child("os");
        match name {
            "" => errors.required(&at.child("name"), "cannot be empty"),
            "linux" | "windows" => {}
            other => errors.not_supported(&at.child("name"), other, &["linux", "windows"]),
        }
    }
    let preemption = text(spec, "preemptionPolicy");
    if !preemption.is_empty() && !matches!(preemption, "Never" | "PreemptLowerPriority") {
        errors.not_supported(&path.child("preemptionPolicy"), preemption, &["Never", "PreemptLowerPriority"]);
    }
}

/// A text that must be one of some.
pub(super) fn known(owner: &Value, field: &str, allowed: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    match text(owner, field) {
        "" => errors.required(&path.child(field), ""),
        value if allowed.contains(&value) => {}
        other => errors.not_supported(&path.child(field), other, allowed),
    }
}

fn validate_names(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const NAMES: [(&str, NameRule); 7] = [
        ("serviceAccountName", NameRule::Subdomain),
        ("nodeName", NameRule::Subdomain),
        ("hostname", NameRule::Label),
        ("subdomain", NameRule::Label),
        ("priorityClassName", NameRule::Subdomain),
        ("runtimeClassName", NameRule::Subdomain),
        ("hostnameOverride", NameRule::Subdomain),
    ];
    for (field, rule) in NAMES {
        let name = text(spec, field);
        if name.is_empty() {
            continue;
        }
        for problem in rule.problems(name) {
            errors.invalid(&path.child(field), name, &problem);
        }
    }
    let scheduler = text(spec, "schedulerName");
    for problem in qualified(scheduler).iter().filter(|_| !scheduler.is_empty()) {
        errors.invalid(&path.child("schedulerName"), scheduler, problem);
    }
    let secrets = path.child("imagePullSecrets");
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            errors.required(&secrets.index(i).child("name"), "");
        }
    }
    let mut seen = BTreeSet::new();
    let gates = path.child("readinessGates");
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        for problem in qualified(kind) {
            errors.invalid(&gates.index(i).child("conditionType"), kind, &problem);
        }
        if !seen.insert(kind) {
            errors.duplicate(&gates.index(i).child("conditionType"), kind);
        }
    }
}

fn validate_dns(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let config = sub(spec, "dnsConfig");
    let at = path.child("dnsConfig");
    let servers = list(config, "nameservers");
    let at_servers = at.child("nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            errors.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            errors.required(&at_servers, "must provide at least one DNS nameserver when `dnsPolicy` is None");
            return;
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        errors.invalid(&at_servers, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        parse_ip(server.as_str().unwrap_or(""), &at_servers.index(i), errors);
    }
    let searches = list(config, "searches");
    let at_searches = at.child("searches");
    if searches.len() > SEARCHES_MAX {
        errors.invalid(&at_searches, searches.to_vec(), "must not have more than 32 search paths");
    }
    let bytes: usize = searches.iter().filter_map(Value::as_str).map(|s| s.len() + 1).sum();
    if bytes.saturating_sub(1) > SEARCH_BYTES_MAX {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&at_searches, searches.to_vec(), detail);
    }
    for (i, search) in searches.iter().filter_map(Value::as_str).enumerate() {
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            for problem in subdomain(&name.replace('_', "-")) {
                errors.invalid(&at_searches.index(i), search, &problem);
            }
        }
    }
    let options = at.child("options");
    for (i, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&options.index(i), "must not be empty");
        }
    }
}

fn validate_host_aliases(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("hostAliases");
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let item = at.index(i);
        parse_ip(text(alias, "ip"), &item.child("ip"), errors);
        let names = item.child("hostnames");
        for (j, name) in list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            for problem in subdomain(name) {
                errors.invalid(&names.index(j), name, &problem);
            }
        }
    }
}

fn validate_gates(spec: &Value, template: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let gates = list(spec, "schedulingGates");
    let at = path.child("schedulingGates");
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let name = text(gate, "name");
        for problem in qualified(name) {
            errors.invalid(&at.index(i).child("name"), name, &problem);
        }
        if !seen.insert(name) {
            errors.duplicate(&at.index(i), name);
        }
    }
    if !template && !gates.is_empty() && !text(spec, "nodeName").is_empty() {
        errors
            .forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    let network = flag(spec, "hostNetwork");
    let ports = path.child("containers");
    for (i, container) in list(spec, "containers").iter().enumerate().filter(|_| network) {
        let item = ports.index(i);
        let at = item.child("ports");
        for (j, port) in list(container, "ports").iter().enumerate() {
            let (host, own) = (int(port, "hostPort").unwrap_or(0), int(port, "containerPort").unwrap_or(0));
            // A template gets its host ports with its pods.
            if host != own && !(template && host == 0) {
                errors.invalid(
                    &at.index(j).child("containerPort"),
                    own,
                    "must match `hostPort` when `hostNetwork` is true",
                );
            }
        }
    }
}
