//! Which other objects a pod and a volume refer to by name.

use serde_json::Value;
use std::collections::BTreeSet;

/// The objects of its namespace that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodRefs {
    pub(crate) service_account: String,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) claims: BTreeSet<String>,
    pub(crate) resource_claims: BTreeSet<String>,
}

fn text(value: &Value, path: &str) -> Option<String> {
    value.pointer(path).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

const CONTAINERS: &[&str] = &["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
/// Where the sources of volumes name a secret of the pod's namespace.
const VOLUME_SECRETS: &[&str] = &[
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/flexVolume/secretRef/name",
    "/rbd/secretRef/name",
    "/secret/secretName",
    "/scaleIO/secretRef/name",
    "/iscsi/secretRef/name",
    "/storageos/secretRef/name",
    "/csi/nodePublishSecretRef/name",
];

impl PodRefs {
    pub(crate) fn of(pod: &Value) -> Self {
        let mut refs = PodRefs {
            service_account: text(pod, "/spec/serviceAccountName").unwrap_or_default(),
            ..PodRefs::default()
        };
        refs.secrets.extend(list(pod, "/spec/imagePullSecrets").filter_map(|s| text(s, "/name")));
        for container in CONTAINERS.iter().flat_map(|kind| list(pod, kind)) {
            refs.add_container(container);
        }
        let name = text(pod, "/metadata/name").unwrap_or_default();
        for volume in list(pod, "/spec/volumes") {
            refs.add_volume(volume, &name);
        }
        refs.resource_claims
            .extend(list(pod, "/spec/resourceClaims").filter_map(|c| text(c, "/resourceClaimName")));
        refs.resource_claims
            .extend(list(pod, "/status/resourceClaimStatuses").filter_map(|c| text(c, "/resourceClaimName")));
        refs.resource_claims.extend(text(pod, "/status/extendedResourceClaimStatus/resourceClaimName"));
        refs
    }

    fn add_container(&mut self, container: &Value) {
        for source in list(container, "/envFrom") {
            self.secrets.extend(text(source, "/secretRef/name"));
            self.config_maps.extend(text(source, "/configMapRef/name"));
        }
        for variable in list(container, "/env") {
            self.secrets.extend(text(variable, "/valueFrom/secretKeyRef/name"));
            self.config_maps.extend(text(variable, "/valueFrom/configMapKeyRef/name"));
        }
    }

    fn add_volume(&mut self, volume: &Value, pod: &str) {
        self.secrets.extend(VOLUME_SECRETS.iter().filter_map(|path| text(volume, path)));
        self.config_maps.extend(text(volume, "/configMap/name"));
        for source in list(volume, "/projected/sources") {
            self.secrets.extend(text(source, "/secret/name"));
            self.config_maps.extend(text(source, "/configMap/name"));
        }
        self.claims.extend(text(volume, "/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some_and(|e| !e.is_null()) {
            self.claims.extend(text(volume, "/name").map(|name| format!("{pod}-{name}")));
        }
    }
}

/// The secrets that a node needs for a volume, each as namespace and name.
pub(crate) fn volume_secrets(volume: &Value) -> BTreeSet<(String, String)> {
    const REFERENCES: &[&str] = &[
        "cephfs/secretRef",
        "cinder/secretRef",
        "flexVolume/secretRef",
        "rbd/secretRef",
        "scaleIO/secretRef",
        "iscsi/secretRef",
        "storageos/secretRef",
        "csi/nodePublishSecretRef",
        "csi/nodeStageSecretRef",
        "csi/nodeExpandSecretRef",
    ];
    let of_claim = text(volume, "/spec/claimRef/namespace").unwrap_or_default();
    let named = |name: &str, namespace: &str| {
        let namespace = text(volume, namespace).unwrap_or_else(|| of_claim.clone());
        text(volume, name).map(|name| (namespace, name))
    };
    let mut found: BTreeSet<(String, String)> = REFERENCES
        .iter()
        .filter_map(|place| named(&format!("/spec/{place}/name"), &format!("/spec/{place}/namespace")))
        .collect();
    found.extend(named("/spec/azureFile/secretName", "/spec/azureFile/secretNamespace"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_reference_is_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "a", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}]}],
            "ephemeralContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c2"}}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s3"}}, {"name": "w", "ephemeral": {}},
                {"projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c3"}}]}},
                {"persistentVolumeClaim": {"claimName": "k"}}, {"csi": {"nodePublishSecretRef": {"name": "s5"}}}],
            "resourceClaims": [{"resourceClaimName": "r1"}, {"resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"resourceClaimName": "r2"}]}});
        let refs = PodRefs::of(&pod);
        let all = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(all(&refs.secrets), "pull s1 s2 s3 s4 s5");
        assert_eq!(all(&refs.config_maps), "c1 c2 c3");
        assert_eq!(all(&refs.claims), "k p-w");
        assert_eq!((all(&refs.resource_claims), refs.service_account.as_str()), ("r1 r2".to_owned(), "a"));
        let volume = json!({"spec": {"claimRef": {"namespace": "n"},
            "csi": {"nodeStageSecretRef": {"name": "x", "namespace": "m"}, "controllerPublishSecretRef": {"name": "no"}},
            "azureFile": {"secretName": "y"}}});
        let wanted = [("m", "x"), ("n", "y")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(volume_secrets(&volume), BTreeSet::from(wanted));
    }
}
