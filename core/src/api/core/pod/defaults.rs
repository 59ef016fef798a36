//! Upstream's defaults of pods and pod templates.

use crate::api::core::persistent_volume_claim::default_claim_spec;
use crate::api::kit::{
    default_int, default_text, default_to, ensure, entries, flag, get, int, list_mut, object_mut, set, sub,
    text,
};
use serde_json::{Map, Value};

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// File mode 0644.
const VOLUME_MODE: i64 = 0o644;
/// The fields of a volume that are no source.
const NO_SOURCE: &str = "name";

/// The defaults of a pod: those of its spec, and those that templates do not get.
pub(super) fn default_pod(pod: &mut Value) {
    let Some(spec) = object_mut(pod, "spec") else { return };
    default_spec(spec);
    for field in ["containers", "initContainers"] {
        for container in list_mut(spec, field) {
            requests_from_limits(container);
        }
    }
    if get(spec, "resources").is_some() {
        requests_from_limits(spec);
    }
    default_to(spec, "enableServiceLinks", true);
    if flag(spec, "hostNetwork") {
        for field in ["containers", "initContainers"] {
            for port in list_mut(spec, field).flat_map(|c| list_mut(c, "ports")) {
                if let Some(number) = int(port, "containerPort") {
                    default_int(port, "hostPort", number);
                }
            }
        }
    }
}

/// What a container may use at most it also asks for, where it asks for nothing.
fn requests_from_limits(container: &mut Value) {
    let Some(resources) = object_mut(container, "resources") else { return };
    let missing: Vec<(String, Value)> = {
        let requests = sub(resources, "requests");
        entries(resources, "limits")
            .filter(|(name, _)| requests.get(name.as_str()).is_none())
            .map(|(name, amount)| (name.clone(), amount.clone()))
            .collect()
    };
    if missing.is_empty() {
        return;
    }
    if let Some(requests) = ensure(resources, "requests") {
        for (name, amount) in missing {
            set(requests, &name, amount);
        }
    }
}

/// The defaults of a pod spec, wherever it stands.
pub(super) fn default_spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_to(spec, "securityContext", Map::new());
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "schedulerName", "default-scheduler");
    same_account(spec);
    for field in CONTAINERS {
        list_mut(spec, field).for_each(default_container);
    }
    list_mut(spec, "volumes").for_each(default_volume);
}

/// The account has an old name beside its present one; both always say the same.
fn same_account(spec: &mut Value) {
    let (name, old) = (text(spec, "serviceAccountName"), text(spec, "serviceAccount"));
    if name == old {
        return;
    }
    let account = if name.is_empty() { old } else { name }.to_owned();
    set(spec, "serviceAccountName", account.as_str());
    set(spec, "serviceAccount", account);
}

fn default_container(container: &mut Value) {
    default_to(container, "resources", Map::new());
    if text(container, "imagePullPolicy").is_empty() {
        set(container, "imagePullPolicy", pull_policy(text(container, "image")));
    }
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    for port in list_mut(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in list_mut(container, "env") {
        if let Some(field) = object_mut(variable, "valueFrom").and_then(|v| object_mut(v, "fieldRef")) {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(resource) =
            object_mut(variable, "valueFrom").and_then(|v| object_mut(v, "resourceFieldRef"))
        {
            default_to(resource, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = object_mut(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = object_mut(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = object_mut(lifecycle, hook) {
                default_handler(hook);
            }
        }
    }
}

/// Images that say no version, or `latest`, are pulled always.
fn pull_policy(image: &str) -> &'static str {
    let without_digest = image.split('@').next().unwrap_or(image);
    let name = without_digest.rsplit('/').next().unwrap_or(without_digest);
    match name.rsplit_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if image.contains('@') => "IfNotPresent",
        None => "Always",
    }
}

fn default_probe(probe: &mut Value) {
    default_int(probe, "timeoutSeconds", 1);
    default_int(probe, "periodSeconds", 10);
    default_int(probe, "successThreshold", 1);
    default_int(probe, "failureThreshold", 3);
    default_handler(probe);
    if let Some(grpc) = object_mut(probe, "grpc") {
        default_to(grpc, "service", "");
    }
}

fn default_handler(handler: &mut Value) {
    if let Some(http) = object_mut(handler, "httpGet") {
        default_text(http, "path", "/");
        default_text(http, "scheme", "HTTP");
    }
}

fn default_volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|m| m.iter().any(|(k, v)| k != NO_SOURCE && !v.is_null()));
    if !has_source {
        default_to(volume, "emptyDir", Map::new());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object_mut(volume, source) {
            default_to(source, "defaultMode", VOLUME_MODE);
            default_field_refs(source);
        }
    }
    if let Some(projected) = object_mut(volume, "projected") {
        for source in list_mut(projected, "sources") {
            if let Some(token) = object_mut(source, "serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = object_mut(source, "downwardAPI") {
                default_field_refs(downward);
            }
        }
    }
    if let Some(path) = object_mut(volume, "hostPath") {
        default_to(path, "type", "");
    }
    if let Some(image) = object_mut(volume, "image")
        && text(image, "pullPolicy").is_empty()
    {
        set(image, "pullPolicy", pull_policy(text(image, "reference")));
    }
    if let Some(iscsi) = object_mut(volume, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
    let claim = object_mut(volume, "ephemeral").and_then(|e| object_mut(e, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|t| object_mut(t, "spec")) {
        default_claim_spec(spec);
    }
}

fn default_field_refs(source: &mut Value) {
    for item in list_mut(source, "items") {
        if let Some(field) = object_mut(item, "fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = object_mut(item, "resourceFieldRef") {
            default_to(resource, "divisor", "0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_pod_gets_upstreams_defaults() {
        let mut pod = json!({"spec": {
            "hostNetwork": true, "serviceAccountName": "sa",
            "containers": [{
                "name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0}}],
            "volumes": [
                {"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}});
        default_pod(&mut pod);
        let once = pod.clone();
        default_pod(&mut pod);
        assert_eq!(pod, once);
        assert_eq!(
            pod,
            json!({"spec": {
                "hostNetwork": true, "serviceAccountName": "sa", "serviceAccount": "sa", "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always", "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler", "enableServiceLinks": true,
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
                    "livenessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                        "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [
                    {"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
                    {"name": "h", "hostPath": {"path": "/", "type": ""}},
                    {"name": "p", "projected": {
                        "defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}]}})
        );
    }

    #[test]
    fn the_tag_decides_how_to_pull() {
        let check = |image: &str, wanted: &str| assert_eq!(pull_policy(image), wanted, "{image}");
        check("nginx", "Always");
        check("nginx:latest", "Always");
        check("nginx:1.2", "IfNotPresent");
        check("localhost:5000/nginx", "Always");
        check("localhost:5000/nginx:v1", "IfNotPresent");
        check("nginx@sha256:00", "IfNotPresent");
        check("nginx:latest@sha256:00", "Always");
    }
}
