//! Every pod runs as a service account, with its token, the cluster's certificate authority and the namespace mounted.

use super::json::{at, list, push, sub, text};
use super::{Admission, AdmissionRequest, forbidden};
use crate::pod_refs::PodRefs;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, Entropy, GroupVersionResource, meta};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "ServiceAccount";
/// Holds pods of an account to the secrets that it names.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
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
        NAME
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let check = |pod: &Value| {
            let wrong = if is_mirror(pod) {
                mirror_problem(pod).map(str::to_owned)
            } else {
                // Left by the first half, which has read the account.
                request.reinvocation.take::<Value>(NAME).and_then(|account| unreferenced(&account, pod))
            };
            wrong.map_or(Ok(()), |why| Err(forbidden(request, pod, &why)))
        };
        Box::pin(std::future::ready(object.map_or(Ok(()), check)))
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
        if is_mirror(pod) {
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
        if meta::annotations(&account).and_then(|a| a.get(ENFORCE)).is_some_and(|v| v == "true") {
            request.reinvocation.leave(NAME, Value::clone(&account));
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

fn is_mirror(pod: &Value) -> bool {
    meta::annotations(pod).is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"))
}

/// A mirror pod stands for one that runs already, and gets nothing.
fn mirror_problem(pod: &Value) -> Option<&'static str> {
    let refs = PodRefs::of(pod);
    if !refs.service_account.is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    if !refs.secrets.is_empty() {
        return Some("a mirror pod may not reference secrets");
    }
    let volumes = list(sub(pod, "spec"), "volumes").iter();
    let mut sources = volumes.flat_map(|v| list(sub(v, "projected"), "sources"));
    let token = sources.any(|s| !sub(s, "serviceAccountToken").is_null());
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

/// The first secret that a pod uses and its account does not name, in upstream's words.
fn unreferenced(account: &Value, pod: &Value) -> Option<String> {
    let owner = meta::name(account);
    let names = |field: &str, name: &str| list(account, field).iter().any(|s| text(s, "name") == name);
    let spec = sub(pod, "spec");
    let rest = format!("is not allowed because service account {owner} does not reference that");
    for volume in list(spec, "volumes").iter().filter(|v| !sub(v, "secret").is_null()) {
        let name = text(sub(volume, "secret"), "secretName");
        if !names("secrets", name) {
            return Some(format!("volume with secret.secretName={name:?} {rest} secret"));
        }
    }
    let kinds = [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ];
    for (kind, called) in kinds {
        for container in list(spec, kind) {
            let who = text(container, "name");
            for variable in list(container, "env") {
                let name = at(variable, &["valueFrom", "secretKeyRef", "name"]).as_str();
                if let Some(name) = name.filter(|n| !names("secrets", n)) {
                    let variable = text(variable, "name");
                    return Some(format!(
                        "{called} {who} with envVar {variable} referencing secret.secretName={name:?} {rest} secret"
                    ));
                }
            }
        }
    }
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        let name = text(secret, "name");
        if !names("imagePullSecrets", name) {
            return Some(format!("imagePullSecrets[{i}].name={name:?} {rest} imagePullSecret"));
        }
    }
    None
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

async fn find(request: &AdmissionRequest<'_>, name: &str) -> Result<Option<Arc<Value>>, ApiError> {
    let accounts = GroupVersionResource::new("", "v1", "serviceaccounts");
    for attempt in 0..DEFAULT_TRIES {
        match request.reader.get(&accounts, request.namespace, name) {
            Ok(Some(found)) => return found.parsed().map(Some),
            // A plane without service accounts as objects has nothing to look up.
            Err(_) => return Ok(Some(Arc::new(json!({"automountServiceAccountToken": false})))),
            Ok(None) if attempt == 0 => request.reader.consistent().await?,
            Ok(None) if name != "default" => return Ok(None),
            Ok(None) => tokio::time::sleep(DEFAULT_WAIT).await,
        }
    }
    Ok(None)
}
