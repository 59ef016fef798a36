//! Service: a stable address in front of pods.

mod allocation;
mod columns;
mod update;
mod validation;

pub(crate) use validation::validate_port_num_or_name;

pub use allocation::{NodePortWish, ServiceAllocation, Wanted, allocation};

use crate::api::BuiltinOptions;
use crate::api::kit::{
    at, carry, default_text, default_to, describe, ensure, field_at, get, int, list_mut, names, remove, set,
    sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a client stays with its pod where the service says nothing, in seconds.
const AFFINITY_SECONDS: i64 = 10_800;

/// The descriptor of Service.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["svc"]),
        categories: names(&["all"]),
        status: true,
        strategy: Arc::new(ServiceRules),
        columns: columns::columns(),
        selectable_fields: vec![
            field_at("spec.clusterIP", |o| text(sub(o, "spec"), "clusterIP").to_owned()),
            field_at("spec.type", |o| text(sub(o, "spec"), "type").to_owned()),
        ],
        ..describe::<Service>(Scope::Namespaced)
    }
}

/// Whether a service spec asks for no address of its own.
pub(crate) fn headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || at(spec, &["clusterIPs"]).get(0).is_some_and(|ip| ip == "None")
}

/// Whether a service spec is reachable from outside.
fn externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => crate::api::kit::count(spec, "externalIPs") > 0,
        _ => false,
    }
}

struct ServiceRules;

impl Strategy for ServiceRules {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
            default_spec(spec);
        }
        if let Some(status) = ensure(object, "status") {
            default_to(status, "loadBalancer", json!({}));
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        set(object, "status", json!({"loadBalancer": {}}));
        if let Some(spec) = object.get_mut("spec") {
            update::normalize_cluster_ips(spec, None);
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        if cx.subresource == Some("status") {
            carry(object, old, "spec");
            return;
        }
        carry(object, old, "status");
        if let Some(spec) = object.get_mut("spec") {
            update::keep_allocations(spec, sub(old, "spec"));
            update::normalize_cluster_ips(spec, Some(sub(old, "spec")));
            update::drop_of_other_types(spec, sub(old, "spec"));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        validation::validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validation::validate_status(object);
        }
        let mut errors = ErrorList::new();
        update::validate_update(sub(object, "spec"), sub(old, "spec"), &mut errors);
        errors.extend(validation::validate(object));
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let spec = sub(object, "spec");
        let mut warnings = Vec::new();
        if get(spec, "externalName").is_some_and(|v| v != "") && text(spec, "type") != "ExternalName" {
            warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
        }
        if headless(spec) && !text(spec, "loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if headless(spec) && text(spec, "sessionAffinity") == "ClientIP" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
        warnings
    }
}

fn default_spec(spec: &mut Value) {
    default_text(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            remove(spec, "sessionAffinityConfig");
        }
        "ClientIP" if at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_null() => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        _ => {}
    }
    default_text(spec, "type", "ClusterIP");
    for port in list_mut(spec, "ports") {
        default_text(port, "protocol", "TCP");
        let unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(v) => v.as_i64() == Some(0) || v == "",
        };
        if unset && let Some(number) = int(port, "port") {
            set(port, "targetPort", number);
        }
    }
    if externally_accessible(spec) {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(text(spec, "type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if text(spec, "type") == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// A number that is absent or zero counts as unset; the allocator fills it in.
fn unset_port(port: &Value) -> bool {
    int(port, "nodePort").unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_depend_on_the_type() {
        let check = |spec: Value, wanted: Value| {
            let mut service = json!({"spec": spec});
            ServiceRules.default(&mut service);
            let once = service.clone();
            ServiceRules.default(&mut service);
            assert_eq!(service, once);
            assert_eq!(service["spec"], wanted);
        };
        check(
            json!({"ports": [{"port": 80}]}),
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}),
        );
        check(
            json!({"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 1, "targetPort": "web"}]}),
            json!({
                "type": "NodePort", "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}},
                "ports": [{"port": 1, "protocol": "TCP", "targetPort": "web"}]}),
        );
        check(
            json!({"type": "ExternalName", "externalName": "a.b"}),
            json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}),
        );
        check(
            json!({"type": "LoadBalancer"}),
            json!({
                "type": "LoadBalancer", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}),
        );
    }
}
