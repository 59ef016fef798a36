//! Of which families a Service's addresses are, as upstream works it out of what the client said.

use super::range::Family;
use kubewright_core::{ApiError, ErrorList, FieldError, FieldPath, meta};
use serde_json::{Value, json};
use std::net::IpAddr;

const SINGLE: &str = "SingleStack";
const REQUIRE: &str = "RequireDualStack";

fn texts(spec: &Value, field: &str) -> Vec<String> {
    spec[field].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn family(name: &str) -> Option<Family> {
    match name {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

/// Fills in `ipFamilies` and `ipFamilyPolicy`; `cluster` has the families of the cluster, its own first.
///
/// # Errors
/// 422 for a family or a policy that the cluster can't serve.
pub(super) fn settle(service: &mut Value, old: Option<&Value>, cluster: &[Family]) -> Result<(), ApiError> {
    let name = meta::name(service).to_owned();
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) else { return Ok(()) };
    if spec["type"] == "ExternalName" {
        return Ok(());
    }
    if spec["clusterIP"] == "None" && spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = json!(["None"]);
    }
    if let Some(old) = old {
        narrow(spec, &old["spec"]);
    }
    let errors = check(spec, cluster);
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "Service", &name, &errors));
    }
    complete(spec, cluster);
    Ok(())
}

/// A Service that had two addresses and now wants one loses the second, though the client repeats both.
fn narrow(spec: &mut Value, old: &Value) {
    let same = |field: &str, spec: &Value| spec[field] == old[field];
    let narrowed = spec["ipFamilyPolicy"] == SINGLE && old["ipFamilyPolicy"] != SINGLE;
    if narrowed && same("clusterIPs", spec) && same("ipFamilies", spec) {
        for field in ["clusterIPs", "ipFamilies"] {
            if let Some(items) = spec.get_mut(field).and_then(Value::as_array_mut) {
                items.truncate(1);
            }
        }
    }
}

/// No selector and no address of its own: what it leads to is its maker's business, so any family goes.
fn is_free(spec: &Value) -> bool {
    let selector = spec["selector"].as_object().is_some_and(|s| !s.is_empty());
    spec["clusterIP"] == "None" && !selector
}

fn check(spec: &Value, cluster: &[Family]) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = FieldPath::new("spec");
    let (families, addresses) = (texts(spec, "ipFamilies"), texts(spec, "clusterIPs"));
    let policy = &spec["ipFamilyPolicy"];
    if *policy == SINGLE {
        for (count, what) in [(addresses.len(), "cluster IPs"), (families.len(), "IP families")] {
            if count > 1 {
                let why =
                    format!("must be RequireDualStack or PreferDualStack when multiple {what} are specified");
                errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), policy.clone(), &why));
            }
        }
    }
    if is_free(spec) {
        return errors;
    }
    if *policy == REQUIRE && cluster.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), policy.clone(), why));
    }
    for (i, name) in families.iter().enumerate() {
        if family(name).is_some_and(|f| !cluster.contains(&f)) {
            let at = path.child("ipFamilies").index(i);
            errors.push(FieldError::invalid(&at, name.as_str(), "not configured on this cluster"));
        }
    }
    for (i, text) in addresses.iter().enumerate() {
        let Ok(address) = text.parse::<IpAddr>() else { continue };
        let of = Family::of(address);
        let at = path.child("clusterIPs").index(i);
        match families.get(i).and_then(|name| family(name)) {
            Some(wanted) if wanted != of => {
                let why = format!("expected an {} value as indicated by `ipFamilies[{i}]`", wanted.name());
                errors.push(FieldError::invalid(&at, text.as_str(), &why));
            }
            None if !cluster.contains(&of) => {
                let why = format!("{} is not configured on this cluster", of.name());
                errors.push(FieldError::invalid(&at, text.as_str(), &why));
            }
            _ => {}
        }
    }
    errors
}

fn complete(spec: &mut Value, cluster: &[Family]) {
    let mut families: Vec<Family> = texts(spec, "ipFamilies").iter().filter_map(|f| family(f)).collect();
    let addresses = texts(spec, "clusterIPs");
    for text in addresses.iter().skip(families.len()) {
        families.extend(text.parse::<IpAddr>().ok().map(Family::of));
    }
    if spec["ipFamilyPolicy"].as_str().is_none_or(str::is_empty) {
        let dual = families.len() > 1 || addresses.len() > 1 || (is_free(spec) && families.is_empty());
        spec["ipFamilyPolicy"] = json!(if dual { REQUIRE } else { SINGLE });
    }
    if families.is_empty() {
        families.push(cluster[0]);
    }
    let wants_two = spec["ipFamilyPolicy"] != SINGLE;
    if wants_two && families.len() == 1 && (cluster.len() > 1 || is_free(spec)) {
        families.push(families[0].other());
    }
    let names: Vec<&str> = families.iter().map(|f| f.name()).collect();
    spec["ipFamilies"] = json!(names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_upstream() {
        let check = |cluster: &[Family], spec: Value, want: &str| {
            let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
            let got = match settle(&mut service, None, cluster) {
                Err(e) => e.message().to_owned(),
                Ok(()) => {
                    let spec = &service["spec"];
                    format!(
                        "{} {}",
                        spec["ipFamilyPolicy"].as_str().unwrap_or(""),
                        texts(spec, "ipFamilies").join(",")
                    )
                }
            };
            assert!(got.ends_with(want), "{spec}: {got} is not {want}", spec = service["spec"]);
        };
        let (one, two) = (&[Family::V4][..], &[Family::V6, Family::V4][..]);
        let selector = || json!({"a": "b"});
        check(one, json!({"selector": selector()}), "SingleStack IPv4");
        check(two, json!({"selector": selector()}), "SingleStack IPv6");
        check(two, json!({"ipFamilies": ["IPv4"]}), "SingleStack IPv4");
        check(one, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4");
        check(
            two,
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]}),
            "PreferDualStack IPv4,IPv6",
        );
        check(two, json!({"ipFamilyPolicy": "RequireDualStack"}), "RequireDualStack IPv6,IPv4");
        check(two, json!({"ipFamilies": ["IPv4", "IPv6"]}), "RequireDualStack IPv4,IPv6");
        check(two, json!({"clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]}), "SingleStack IPv4");
        check(one, json!({"clusterIP": "None", "selector": selector()}), "SingleStack IPv4");
        check(one, json!({"clusterIP": "None"}), "RequireDualStack IPv4,IPv6");
        check(
            one,
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "this cluster is not configured for dual-stack services",
        );
        check(one, json!({"ipFamilies": ["IPv6"]}), "\"IPv6\": not configured on this cluster");
        check(
            two,
            json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
            "when multiple IP families are specified",
        );
        check(
            two,
            json!({"ipFamilies": ["IPv6"], "clusterIPs": ["10.0.0.5"]}),
            "expected an IPv6 value as indicated by `ipFamilies[0]`",
        );
    }

    #[test]
    fn a_service_becomes_single() {
        let old = json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}});
        let mut new = old.clone();
        new["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        settle(&mut new, Some(&old), &[Family::V4, Family::V6]).unwrap();
        assert_eq!(
            (&new["spec"]["clusterIPs"], &new["spec"]["ipFamilies"]),
            (&json!(["10.0.0.1"]), &json!(["IPv4"]))
        );
    }
}
