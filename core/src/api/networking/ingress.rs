//! Ingress: which requests from outside go to which Service.

use super::ingress_class::validate_reference;
use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, optional_name};
use crate::api::kit::columns::{age_column, joined, or};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::network::parse_ip;
use crate::api::kit::{ErrorSink, Path, at, column, count, describe, get, int, list, name_column, sub, text};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];
/// How many hosts a table shows.
const HOSTS_SHOWN: usize = 3;

/// The descriptor of Ingress.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["ing"]),
        status: true,
        generation: true,
        strategy: Arc::new(IngressRules),
        columns: columns(),
        ..describe::<Ingress>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Class", "string", "Whose rules these are.", |o, _| {
            or(text(sub(o, "spec"), "ingressClassName"), "<none>").into()
        }),
        column("Hosts", "string", "The hosts that requests are for.", |o, _| hosts(o).into()),
        column("Address", "string", "Where requests come in.", |o, _| {
            let balancer = at(o, &["status", "loadBalancer"]);
            joined(list(balancer, "ingress").iter().map(|i| match text(i, "ip") {
                "" => text(i, "hostname"),
                ip => ip,
            }))
            .into()
        }),
        column("Ports", "string", "The ports that are open.", |o, _| {
            if count(sub(o, "spec"), "tls") > 0 { "80, 443".into() } else { "80".into() }
        }),
        age_column(),
    ]
}

fn hosts(ingress: &Value) -> String {
    let hosts: Vec<&str> = list(sub(ingress, "spec"), "rules")
        .iter()
        .map(|r| text(r, "host"))
        .filter(|h| !h.is_empty())
        .collect();
    let shown = joined(hosts.iter().take(HOSTS_SHOWN).copied());
    match hosts.len() {
        0 => "*".to_owned(),
        n if n > HOSTS_SHOWN => format!("{shown} + {} more...", n - HOSTS_SHOWN),
        _ => shown,
    }
}

struct IngressRules;

impl Strategy for IngressRules {
    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = validate_ingress(object);
        let class = sub(sub(object, "spec"), "ingressClassName");
        let annotation = at(object, &["metadata", "annotations", CLASS_ANNOTATION]);
        if !annotation.is_null() && !class.is_null() && annotation != class {
            let path = Path::Root.child("annotations");
            let detail = "must match `ingressClassName` when both are specified";
            errors.invalid(&path.child(CLASS_ANNOTATION), annotation.clone(), detail);
        }
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") { validate_status(object) } else { validate_ingress(object) }
    }
}

fn validate_ingress(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_name(object, NameRule::Subdomain, &mut errors);
    let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
    let rules = list(spec, "rules");
    let fallback = get(spec, "defaultBackend");
    if rules.is_empty() && fallback.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&path, rules.to_vec(), detail);
    }
    if let Some(backend) = fallback {
        validate_backend(backend, &path.child("defaultBackend"), &mut errors);
    }
    let at_rules = path.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        validate_rule(rule, &at_rules.index(i), &mut errors);
    }
    let at_tls = path.child("tls");
    for (i, tls) in list(spec, "tls").iter().enumerate() {
        let item = at_tls.index(i);
        let hosts = item.child("hosts");
        for (j, host) in list(tls, "hosts").iter().enumerate() {
            validate_host(host.as_str().unwrap_or(""), &hosts.index(j), &mut errors);
        }
        optional_name(tls, "secretName", NameRule::Subdomain, &item, &mut errors);
    }
    if let Some(class) = get(spec, "ingressClassName").and_then(Value::as_str) {
        for problem in names::subdomain(class) {
            errors.invalid(&path.child("ingressClassName"), class, &problem);
        }
    }
    errors
}

/// A host name, in which the first label may be a star.
fn validate_host(host: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if !host.contains('*') {
        for problem in names::subdomain(host) {
            errors.invalid(path, host, &problem);
        }
        return;
    }
    let rest = host.strip_prefix("*.").unwrap_or("");
    if rest.contains('*') || !names::subdomain(rest).is_empty() {
        let detail = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
                      of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
                      '*.example.com', regex used for validation is \
                      '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        errors.invalid(path, host, detail);
    }
}

fn validate_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let host = text(rule, "host");
    if !host.is_empty() {
        let at_host = path.child("host");
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid(&at_host, host, "must be a DNS name, not an IP address");
        }
        validate_host(host, &at_host, errors);
    }
    let Some(http) = get(rule, "http") else { return };
    let at_http = path.child("http");
    let at_paths = at_http.child("paths");
    let paths = list(http, "paths");
    if paths.is_empty() {
        errors.required(&at_paths, "");
    }
    for (i, http_path) in paths.iter().enumerate() {
        validate_path(http_path, &at_paths.index(i), errors);
    }
}

fn validate_path(http_path: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (kind, wanted) = (text(http_path, "pathType"), text(http_path, "path"));
    let at_path = path.child("path");
    if get(http_path, "pathType").is_none() {
        errors.required(&path.child("pathType"), "pathType must be specified");
        return;
    }
    let strict = matches!(kind, "Exact" | "Prefix");
    if !PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.child("pathType"), kind, &PATH_TYPES);
    } else if !wanted.starts_with('/') && (strict || !wanted.is_empty()) {
        errors.invalid(&at_path, wanted, "must be an absolute path");
    }
    if strict {
        for bad in BAD_SEQUENCES.iter().filter(|bad| wanted.contains(**bad)) {
            errors.invalid(&at_path, wanted, &format!("must not contain '{bad}'"));
        }
        for bad in BAD_ENDS.iter().filter(|bad| wanted.ends_with(**bad)) {
            errors.invalid(&at_path, wanted, &format!("cannot end with '{bad}'"));
        }
    }
    validate_backend(sub(http_path, "backend"), &path.child("backend"), errors);
}

fn validate_backend(backend: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match (get(backend, "resource"), get(backend, "service")) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (Some(resource), None) => validate_reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => validate_service(service, path, errors),
    }
}

fn validate_service(service: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at_service = path.child("service");
    let name = text(service, "name");
    if name.is_empty() {
        errors.required(&at_service.child("name"), "");
    } else {
        for problem in names::label(name) {
            errors.invalid(&at_service.child("name"), name, &problem);
        }
    }
    let port = sub(service, "port");
    let at_port = at_service.child("port");
    match (text(port, "name"), int(port, "number").unwrap_or(0)) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            if let Some(problem) = names::port_number(number) {
                errors.invalid(&at_port.child("number"), number, &problem);
            }
        }
        (name, 0) => {
            for problem in names::port_name(name) {
                errors.invalid(&at_port.child("name"), name, &problem);
            }
        }
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

fn validate_status(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = Path::Root.child("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    for (i, point) in list(at(object, &["status", "loadBalancer"]), "ingress").iter().enumerate() {
        let item = path.index(i);
        let (ip, host) = (text(point, "ip"), text(point, "hostname"));
        if !ip.is_empty() {
            parse_ip(ip, &item.child("ip"), &mut errors);
        }
        if host.is_empty() {
            continue;
        }
        for problem in names::subdomain(host) {
            errors.invalid(&item.child("hostname"), host, &problem);
        }
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid(&item.child("hostname"), host, "must be a DNS name, not an IP address");
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn ingress() -> Value {
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}})
    }

    #[test]
    fn ingresses_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = ingress();
            change(&mut object["spec"]);
            assert_eq!(texts(&IngressRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(|s| s["rules"][0]["host"] = "*.example.com".into(), &[]);
        check(
            |s| s["rules"] = json!([]),
            &["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
        );
        check(
            |s| s["rules"][0]["host"] = "10.0.0.1".into(),
            &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
        );
        check(
            |s| s["rules"][0]["http"]["paths"][0]["path"] = "a//b".into(),
            &[
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
            ],
        );
        check(
            |s| s["rules"][0]["http"]["paths"][0]["pathType"] = Value::Null,
            &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
        );
        check(
            |s| s["defaultBackend"] = json!({"service": {"name": "s", "port": {}}}),
            &["spec.defaultBackend: Required value: port name or number is required"],
        );
        check(
            |s| s["defaultBackend"] = json!({"resource": {"kind": "Bucket"}}),
            &["spec.defaultBackend.resource.name: Required value: name is required"],
        );
        let mut object = ingress();
        object["metadata"]["annotations"] = json!({CLASS_ANNOTATION: "a"});
        object["spec"]["ingressClassName"] = "b".into();
        assert_eq!(IngressRules.validate(&object).len(), 1);
        assert_eq!(IngressRules.validate_update(&object, &object, write(None)).len(), 0);
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "x", "hostname": "10.0.0.1"}]}}});
        assert_eq!(IngressRules.validate_update(&status, &status, write(Some("status"))).len(), 2);
    }

    #[test]
    fn columns_tell_hosts_and_ports() {
        let mut object = ingress();
        object["spec"]["tls"] = json!([{}]);
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "lb"}]}});
        assert_eq!(
            row(&columns(), &object),
            json!(["i", "<none>", "a.example.com", "10.0.0.1,lb", "80, 443", "<unknown>"])
        );
        assert_eq!(hosts(&json!({"spec": {"rules": [{}]}})), "*");
        let many = json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]}});
        assert_eq!(hosts(&many), "a,b,c + 1 more...");
    }
}
