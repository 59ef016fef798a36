//! Upstream's validation of probes and lifecycle hooks.

use crate::ErrorList;
use crate::api::core::service::validate_port_num_or_name;
use crate::api::kit::meta::NEGATIVE;
use crate::api::kit::names;
use crate::api::kit::{ErrorSink, Path, count, get, int, list, sub, text};
use serde_json::Value;

/// Validates a container's probes and hooks.
pub(super) fn validate(container: &Value, spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = get(container, name) else { continue };
        let at = path.child(name);
        validate_probe(probe, &at, errors);
        let threshold = int(probe, "successThreshold").unwrap_or(0);
        if name != "readinessProbe" && threshold != 1 {
            errors.invalid(&at.child("successThreshold"), threshold, "must be 1");
        }
        let grace = int(probe, "terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            if let Some(grace) = grace {
                errors.invalid(
                    &at.child("terminationGracePeriodSeconds"),
                    grace,
                    "must not be set for readinessProbes",
                );
            }
        } else if let Some(grace) = grace.filter(|g| *g <= 0) {
            errors.invalid(&at.child("terminationGracePeriodSeconds"), grace, "must be greater than 0");
        }
    }
    let lifecycle = sub(container, "lifecycle");
    let at = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = get(lifecycle, hook) {
            let grace = int(spec, "terminationGracePeriodSeconds").unwrap_or(0);
            validate_handler(handler, Some(grace), &at.child(hook), errors);
        }
    }
}

fn validate_probe(probe: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_handler(probe, None, path, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(number) = int(probe, field).filter(|n| *n < 0) {
            errors.invalid(&path.child(field), number, NEGATIVE);
        }
    }
}

/// Exactly one way to act; `grace` is set for hooks, which may sleep within it but know no gRPC.
fn validate_handler(handler: &Value, grace: Option<i64>, path: &Path<'_>, errors: &mut ErrorList) {
    let kinds: &[&str] = if grace.is_some() {
        &["exec", "httpGet", "tcpSocket", "sleep"]
    } else {
        &["exec", "httpGet", "tcpSocket", "grpc"]
    };
    let mut given = kinds.iter().filter(|kind| get(handler, kind).is_some());
    let Some(first) = given.next() else {
        errors.required(path, "must specify a handler type");
        return;
    };
    let at = path.child(first);
    let action = sub(handler, first);
    match *first {
        "exec" if count(action, "command") == 0 => errors.required(&at.child("command"), ""),
        "exec" => {}
        "httpGet" => validate_http(action, &at, errors),
        "tcpSocket" => validate_port_num_or_name(sub(action, "port"), &at.child("port"), errors),
        "grpc" => validate_number(int(action, "port").unwrap_or(0), &at.child("port"), errors),
        _ => {
            let (seconds, grace) = (int(action, "seconds").unwrap_or(0), grace.unwrap_or(0));
            if seconds < 0 || seconds > grace {
                let detail = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({grace}). Enable \
                     AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."
                );
                errors.invalid(&at, seconds, &detail);
            }
        }
    }
    for extra in given {
        errors.forbidden(&path.child(extra), "may not specify more than 1 handler type");
    }
}

fn validate_number(port: i64, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(problem) = names::port_number(port) {
        errors.invalid(path, port, &problem);
    }
}

fn validate_http(http: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if text(http, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    validate_port_num_or_name(sub(http, "port"), &path.child("port"), errors);
    let scheme = text(http, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(http, "httpHeaders") {
        let name = text(header, "name");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            errors.invalid(
                &path.child("httpHeaders"),
                name,
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
                 validation is '[-A-Za-z0-9]+')",
            );
        }
    }
}
