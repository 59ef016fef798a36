//! What an update of a Service keeps, drops and refuses.

use super::{headless, unset_port};
use crate::ErrorList;
use crate::api::kit::{ErrorSink, Path, count, get, int, list, list_mut, remove, same, set, sub, text};
use serde_json::{Value, json};

/// Keeps `clusterIP` and the first of `clusterIPs` equal, whichever of them the client set.
pub(super) fn normalize_cluster_ips(spec: &mut Value, old: Option<&Value>) {
    let ip = text(spec, "clusterIP").to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && count(spec, "clusterIPs") == 0 {
            set(spec, "clusterIPs", json!([ip]));
        }
        return;
    };
    let old_ip = text(old, "clusterIP");
    let (has, had) = (count(spec, "clusterIPs") > 0, count(old, "clusterIPs") > 0);
    let same_list = same(sub(spec, "clusterIPs"), sub(old, "clusterIPs"));
    if ip.is_empty() && !old_ip.is_empty() && same_list {
        remove(spec, "clusterIPs");
        return;
    }
    let first_given = old_ip.is_empty() && !had && !has;
    if !ip.is_empty() && (first_given || (ip != old_ip && same_list)) {
        set(spec, "clusterIPs", json!([ip]));
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn needs_node_port(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// A client that does not repeat what was allocated keeps it.
pub(super) fn keep_allocations(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        if text(spec, "clusterIP").is_empty() && !text(old, "clusterIP").is_empty() {
            set(spec, "clusterIP", text(old, "clusterIP"));
        }
        if count(spec, "clusterIPs") == 0
            && text(spec, "clusterIP") == text(old, "clusterIP")
            && let Some(ips) = get(old, "clusterIPs")
        {
            set(spec, "clusterIPs", ips.clone());
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if get(spec, field).is_none()
                && let Some(value) = get(old, field)
            {
                set(spec, field, value.clone());
            }
        }
    }
    if needs_node_port(spec) && needs_node_port(old) {
        keep_node_ports(spec, old);
    }
    if needs_health_check(spec)
        && needs_health_check(old)
        && int(spec, "healthCheckNodePort").unwrap_or(0) == 0
        && let Some(port) = get(old, "healthCheckNodePort")
    {
        set(spec, "healthCheckNodePort", port.clone());
    }
}

fn keep_node_ports(spec: &mut Value, old: &Value) {
    let taken: Vec<i64> = list(spec, "ports").iter().filter_map(|p| int(p, "nodePort")).collect();
    for port in list_mut(spec, "ports").filter(|p| unset_port(p)) {
        let former = list(old, "ports")
            .iter()
            .find(|p| text(p, "protocol") == text(port, "protocol") && int(p, "port") == int(port, "port"));
        if let Some(number) =
            former.and_then(|p| int(p, "nodePort")).filter(|n| *n != 0 && !taken.contains(n))
        {
            set(port, "nodePort", number);
        }
    }
}

/// A client that changes the type need not clear what only the old type had: it goes unless the client changed it too.
pub(super) fn drop_of_other_types(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old)
        && !needs_cluster_ip(spec)
        && same(sub(spec, "clusterIPs"), sub(old, "clusterIPs"))
    {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(spec, field);
        }
    }
    if needs_node_port(old) && !needs_node_port(spec) {
        let unchanged = list(spec, "ports").iter().all(|p| {
            unset_port(p) || list(old, "ports").iter().any(|o| int(o, "nodePort") == int(p, "nodePort"))
        });
        if unchanged {
            list_mut(spec, "ports").for_each(|port| {
                remove(port, "nodePort");
            });
        }
    }
    let equal = |spec: &Value, field: &str| same(sub(spec, field), sub(old, field));
    if needs_health_check(old) && !needs_health_check(spec) && equal(spec, "healthCheckNodePort") {
        remove(spec, "healthCheckNodePort");
    }
    if text(old, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if equal(spec, field) {
                remove(spec, field);
            }
        }
    }
    if super::externally_accessible(old)
        && !super::externally_accessible(spec)
        && equal(spec, "externalTrafficPolicy")
    {
        remove(spec, "externalTrafficPolicy");
    }
    if !matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
        && equal(spec, "internalTrafficPolicy")
    {
        remove(spec, "internalTrafficPolicy");
    }
}

pub(super) fn validate_update(spec: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::Root.child("spec");
    if needs_cluster_ip(spec) && needs_cluster_ip(old) && !(headless(spec) && headless(old)) {
        validate_cluster_ips(spec, old, &path, errors);
    }
    let class = "loadBalancerClass";
    let both = text(spec, "type") == "LoadBalancer" && text(old, "type") == "LoadBalancer";
    if both && !same(sub(spec, class), sub(old, class)) {
        errors.invalid(&path.child(class), sub(spec, class).clone(), "may not change once set");
    }
}

fn validate_cluster_ips(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (new_ips, old_ips) = (list(spec, "clusterIPs"), list(old, "clusterIPs"));
    let at = path.child("clusterIPs");
    if new_ips.is_empty() && !old_ips.is_empty() {
        errors.invalid(&at.index(0), json!([]), "primary clusterIP can not be unset");
        return;
    }
    for (i, (new, old)) in new_ips.iter().zip(old_ips).enumerate() {
        if new != old {
            errors.invalid(&at.index(i), new_ips.to_vec(), "may not change once set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(mut new: Value, old: Value) -> (Value, Vec<String>) {
        keep_allocations(&mut new, &old);
        normalize_cluster_ips(&mut new, Some(&old));
        drop_of_other_types(&mut new, &old);
        let mut errors = ErrorList::new();
        validate_update(&new, &old, &mut errors);
        (new, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_address_stays() {
        let old = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]});
        let (kept, errors) = update(json!({"type": "ClusterIP"}), old.clone());
        assert_eq!((kept, errors), (old.clone(), vec![]));
        let (_, errors) = update(
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}),
            old.clone(),
        );
        assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]);
        let (dropped, errors) =
            update(json!({"type": "ExternalName", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}), old);
        assert_eq!((dropped, errors), (json!({"type": "ExternalName"}), vec![]));
    }

    #[test]
    fn node_ports_stay_with_their_port() {
        let old = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]});
        let (kept, _) = update(
            json!({"type": "NodePort", "ports": [{"port": 81, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]}),
            old.clone(),
        );
        assert_eq!(kept["ports"][1]["nodePort"], 30000);
        assert!(kept["ports"][0].get("nodePort").is_none());
        let mut new = old.clone();
        new["type"] = "ClusterIP".into();
        let (dropped, _) = update(new, old);
        assert!(dropped["ports"][0].get("nodePort").is_none());
    }
}
