//! Every pod runs as a service account, with its token, the cluster's certificate authority and the namespace mounted.

use super::{Admission, AdmissionRequest};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, Entropy, GroupVersionResource, meta};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// The default account of a fresh namespace is waited for, because a controller makes it.
const DEFAULT_TRIES: usize = 20;
const DEFAULT_WAIT: Duration = Duration::from_millis(50);

/// Upstream's plugin of this name.
#[derive(Debug)]
pub struct ServiceAccount {
    entropy: Arc<Entropy>,
}

impl ServiceAccount {
    /// With a source of volume names.
    pub fn new(entropy: Arc<Entropy>) -> Self {
        ServiceAccount { entropy }
    }
}

impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            match object {
                Some(pod) if request.creates_pod() => self.admit(request, pod).await,
                _ => Ok(()),
            }
        })
    }
}

impl ServiceAccount {
    async fn admit(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if meta::annotations(pod).is_some_and(|a| a.contains_key("kubernetes.io/config.mirror")) {
            return Ok(());
        }
        if !pod["spec"].is_object() {
            return Ok(());
        }
        let wanted = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
        let name = if wanted.is_empty() { "default".to_owned() } else { wanted.to_owned() };
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["serviceAccount"] = json!(name);
        let Some(account) = find(request, &name).await? else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                request.namespace
            );
            return Err(ApiError::forbidden("", "pods", meta::name(pod), &why));
        };
        let automount = pod["spec"]["automountServiceAccountToken"]
            .as_bool()
            .or_else(|| account["automountServiceAccountToken"].as_bool())
            .unwrap_or(true);
        if automount {
            self.mount(pod);
        }
        let none = pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
        if let Some(secrets) = account["imagePullSecrets"].as_array().filter(|s| none && !s.is_empty()) {
            pod["spec"]["imagePullSecrets"] = json!(secrets);
        }
        Ok(())
    }

    fn mount(&self, pod: &mut Value) {
        let volumes = pod["spec"]["volumes"].as_array();
        let own = volumes.into_iter().flatten().filter_map(|v| v["name"].as_str());
        let existing = own.into_iter().find(|n| n.starts_with(VOLUME_PREFIX)).map(str::to_owned);
        let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", self.entropy.suffix(5)));
        let mut mounted = false;
        for list in ["initContainers", "containers"] {
            for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                mounted |= mount_into(container, &name);
            }
        }
        if !mounted || existing.is_some() {
            return;
        }
        let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
        push(&mut pod["spec"], "volumes", volume);
    }
}

/// Adds the mount; false where the container has something of its own there.
fn mount_into(container: &mut Value, volume: &str) -> bool {
    if !container.is_object() {
        return false;
    }
    let mounts = container["volumeMounts"].as_array();
    if mounts.is_some_and(|m| m.iter().any(|m| m["mountPath"] == MOUNT_PATH)) {
        return false;
    }
    push(container, "volumeMounts", json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn push(owner: &mut Value, list: &str, item: Value) {
    match owner.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => owner[list] = json!([item]),
    }
}

async fn find(request: &AdmissionRequest<'_>, name: &str) -> Result<Option<Value>, ApiError> {
    let accounts = GroupVersionResource::new("", "v1", "serviceaccounts");
    for attempt in 0..DEFAULT_TRIES {
        match request.reader.get(&accounts, request.namespace, name) {
            Ok(Some(found)) => return found.value().map(Some),
            // A plane without service accounts as objects has nothing to look up.
            Err(_) => return Ok(Some(json!({"automountServiceAccountToken": false}))),
            Ok(None) if attempt == 0 => request.reader.consistent().await?,
            Ok(None) if name != "default" => return Ok(None),
            Ok(None) => tokio::time::sleep(DEFAULT_WAIT).await,
        }
    }
    Ok(None)
}
