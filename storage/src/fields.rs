//! The values of `fieldRef` and `resourceFieldRef`, for downward API volumes and for environment variables.

use crate::{Error, NodeFacts};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;

/// The value of a `fieldRef` path. Volumes may ask for metadata only; `in_env` allows what environment variables may ask for.
///
/// # Errors
/// `Invalid` for a path that can't be asked for.
pub fn field(pod: &Pod, path: &str, facts: &NodeFacts, in_env: bool) -> Result<String, Error> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((base, key)) = subscript(path) {
        let map = match base {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(unsupported(path)),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let text = |t: Option<&String>| Ok(t.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" if !in_env => Ok(lines(meta.labels.as_ref())),
        "metadata.annotations" if !in_env => Ok(lines(meta.annotations.as_ref())),
        "spec.nodeName" if in_env => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" if in_env => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" if in_env => text(facts.host_ips.first()),
        "status.hostIPs" if in_env => Ok(facts.host_ips.join(",")),
        "status.podIP" if in_env => text(facts.pod_ips.first()),
        "status.podIPs" if in_env => Ok(facts.pod_ips.join(",")),
        _ => Err(unsupported(path)),
    }
}

fn unsupported(path: &str) -> Error {
    Error::invalid(format!("unsupported fieldPath: {path}"))
}

/// `metadata.labels['a']` as (`metadata.labels`, `a`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

/// Labels and annotations as a volume shows them: sorted lines of `key="value"` in Go's quoting.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect::<Vec<_>>().join("\n")
}

fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef` for a container: the quantity divided by the divisor, rounded up.
///
/// # Errors
/// `Invalid` for an unknown resource or a divisor that is no quantity.
pub fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    facts: &NodeFacts,
) -> Result<String, Error> {
    let resources = container.resources.clone().unwrap_or_default();
    let (kind, name) = selector
        .resource
        .split_once('.')
        .filter(|(kind, name)| {
            matches!(*kind, "limits" | "requests")
                && (matches!(*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-"))
        })
        .ok_or_else(|| Error::invalid(format!("unsupported container resource: {}", selector.resource)))?;
    let list = if kind == "limits" { resources.limits } else { resources.requests };
    let mut quantity = list.and_then(|m| m.get(name).map(|q| q.0.clone()));
    if quantity.is_none() && kind == "limits" {
        // A container without a limit may use what the node has.
        quantity = facts.allocatable.get(name).cloned();
    }
    let nano =
        |text: &str| nanos(text).ok_or_else(|| Error::invalid(format!("quantity {text:?} is not readable")));
    let value = nano(quantity.as_deref().unwrap_or("0"))?;
    let divisor = match selector.divisor.as_ref().map(|d| d.0.as_str()) {
        None | Some("" | "0") => NANO,
        Some(text) => nano(text)?,
    };
    if divisor <= 0 {
        return Err(Error::invalid("the divisor must be greater than 0"));
    }
    Ok(((value + divisor - 1) / divisor).to_string())
}

const NANO: i128 = 1_000_000_000;

/// A quantity in billionths, rounded up; `None` where it is not readable or too large.
pub fn nanos(text: &str) -> Option<i128> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, divisor) = scale(suffix)?;
    let value = digits.checked_mul(NANO)?.checked_mul(factor)?;
    let by = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divisor)?;
    Some(sign * ((value + by - 1) / by))
}

/// What a quantity's suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const SMALL: [&str; 3] = ["m", "u", "n"];
    let place = |list: &[&str]| list.iter().position(|s| *s == suffix).and_then(|i| u32::try_from(i).ok());
    if let Some(i) = place(&BINARY) {
        return Some((1024_i128.pow(i + 1), 1));
    }
    if let Some(i) = place(&DECIMAL) {
        return Some((1000_i128.pow(i), 1));
    }
    if let Some(i) = place(&SMALL) {
        return Some((1, 1000_i128.pow(i + 1)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs().min(30))?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read() {
        let check = |text: &str, wanted: Option<i128>| assert_eq!(nanos(text), wanted, "{text}");
        check("1", Some(NANO));
        check("-1.5", Some(-NANO * 3 / 2));
        check("100m", Some(NANO / 10));
        check("1Ki", Some(1024 * NANO));
        check("2e3", Some(2000 * NANO));
        check("1E", Some(NANO * 1_000_000_000_000_000_000));
        check("0.1n", Some(1));
        for bad in ["", "-", ".", "1.2.3", "1 Gi", "x", "1Kb", "99999999999999999999999999999999999999Ei"] {
            check(bad, None);
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u",
                "labels": {"b": "2", "a": "x\"y\n"}, "annotations": {"k": "v"}},
            "spec": {"nodeName": "node-1", "serviceAccountName": "sa", "containers": []},
        }))
        .unwrap()
    }

    #[test]
    fn fields_have_upstreams_values() {
        let facts = NodeFacts {
            host_ips: vec!["10.0.0.1".into()],
            pod_ips: vec!["10.1.0.1".into(), "fd::1".into()],
            ..NodeFacts::default()
        };
        let check = |path: &str, env: Option<&str>, volume: Option<&str>| {
            assert_eq!(field(&pod(), path, &facts, true).ok().as_deref(), env, "{path} in env");
            assert_eq!(field(&pod(), path, &facts, false).ok().as_deref(), volume, "{path} in a volume");
        };
        check("metadata.name", Some("p"), Some("p"));
        check("metadata.namespace", Some("n"), Some("n"));
        check("metadata.uid", Some("u"), Some("u"));
        check("metadata.labels['b']", Some("2"), Some("2"));
        check("metadata.labels['none']", Some(""), Some(""));
        check("metadata.annotations['k']", Some("v"), Some("v"));
        check("metadata.labels", None, Some("a=\"x\\\"y\\n\"\nb=\"2\""));
        check("metadata.annotations", None, Some("k=\"v\""));
        check("spec.nodeName", Some("node-1"), None);
        check("spec.serviceAccountName", Some("sa"), None);
        check("status.hostIP", Some("10.0.0.1"), None);
        check("status.podIPs", Some("10.1.0.1,fd::1"), None);
        check("spec.containers", None, None);
        check("status.hostIP['a']", None, None);
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}},
        }))
        .unwrap();
        let facts = NodeFacts {
            allocatable: [("ephemeral-storage".to_owned(), "10Gi".to_owned())].into(),
            ..NodeFacts::default()
        };
        let check = |name: &str, divisor: Option<&str>, wanted: Option<&str>| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
            assert_eq!(resource(&container, &selector, &facts).ok().as_deref(), wanted, "{name} {divisor:?}");
        };
        check("limits.cpu", None, Some("2"));
        check("limits.cpu", Some("1m"), Some("1500"));
        check("requests.cpu", Some("1"), Some("1"));
        check("limits.memory", None, Some("67108864"));
        check("limits.memory", Some("1Mi"), Some("64"));
        check("requests.memory", None, Some("0"));
        check("limits.ephemeral-storage", Some("1Gi"), Some("10"));
        check("limits.gpu", None, None);
        check("cpu", None, None);
        check("limits.cpu", Some("x"), None);
        check("limits.cpu", Some("-1"), None);
    }
}
