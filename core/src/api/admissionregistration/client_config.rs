//! How the server reaches something outside: a URL, or a Service with a path.

use crate::ErrorList;
use crate::api::kit::names::{port_number, subdomain};
use crate::api::kit::{ErrorSink, Path, default_int, get, int, object_mut, text};
use serde_json::Value;

const FORM: &str = "; desired format: https://host[/path]";

/// The port of a Service that is not named.
pub(super) fn default_port(config: &mut Value) {
    if let Some(service) = object_mut(config, "service") {
        default_int(service, "port", 443);
    }
}

/// Validates `clientConfig`.
pub(in crate::api) fn validate(config: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match (get(config, "url").and_then(Value::as_str), get(config, "service")) {
        (Some(url), None) => validate_url(url, &path.child("url"), errors),
        (None, Some(service)) => validate_service(service, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn validate_url(url: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or("") };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if scheme != "https" {
        errors.invalid(path, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errors.invalid(path, host, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["name", "namespace"] {
        if text(service, field).is_empty() {
            errors.required(&path.child(field), &format!("service {field} is required"));
        }
    }
    let port = int(service, "port").unwrap_or(0);
    if let Some(problem) = port_number(port) {
        errors.invalid(&path.child("port"), port, &format!("port is not valid: {problem}"));
    }
    let (at, url_path) = (path.child("path"), text(service, "path"));
    if matches!(url_path, "" | "/") {
        return;
    }
    let Some(rest) = url_path.strip_prefix('/') else {
        errors.invalid(&at, url_path, "must start with a '/'");
        return;
    };
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&at, url_path, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for problem in subdomain(step) {
            errors.invalid(&at, url_path, &format!("segment[{i}]: {problem}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::texts;
    use serde_json::json;

    #[test]
    fn one_way_to_reach_it_is_needed() {
        let check = |config: Value, wanted: &[&str]| {
            let mut errors = ErrorList::new();
            validate(&config, &Path::Root.child("c"), &mut errors);
            assert_eq!(texts(&errors), wanted, "{config}");
        };
        check(json!({"url": "https://a.example.com:8443/x"}), &[]);
        check(json!({"service": {"name": "s", "namespace": "n", "port": 443, "path": "/a/b/"}}), &[]);
        check(json!({}), &["c: Required value: exactly one of url or service is required"]);
        check(
            json!({"url": "http://u@/x?a=b#c"}),
            &[
                "c.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "c.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
                "c.url: Invalid value: \"u\": user information is not permitted in the URL",
                "c.url: Invalid value: \"c\": fragments are not permitted in the URL",
                "c.url: Invalid value: \"a=b\": query parameters are not permitted in the URL",
            ],
        );
        check(
            json!({"service": {"name": "s", "port": 0, "path": "a"}}),
            &[
                "c.service.namespace: Required value: service namespace is required",
                "c.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "c.service.path: Invalid value: \"a\": must start with a '/'",
            ],
        );
    }
}
