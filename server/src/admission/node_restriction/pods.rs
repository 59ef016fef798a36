//! The pods of a node: it makes only mirror pods of its own, and ends and describes only those bound to it.

use super::Case;
use crate::admission::Operation;
use crate::admission::json::{at, list, sub, text};
use crate::pod_refs::PodRefs;
use kubewright_core::{ApiError, meta};
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) async fn judge(case: &Case<'_>) -> Result<(), ApiError> {
    match (case.request.subresource, case.request.operation) {
        (None, Operation::Create) => create(case).await,
        (None, Operation::Delete) => {
            bound(
                case,
                &format!("node {:?} can only delete pods with spec.nodeName set to itself", case.node),
            )
            .await
        }
        (None, operation) => case.refuse(format!(
            "unexpected operation {:?}, node {:?} can only create and delete mirror pods",
            told(operation),
            case.node
        )),
        (Some("status"), Operation::Update) => status(case),
        (Some("eviction"), Operation::Create) => {
            bound(case, &format!("node {} can only evict pods with spec.nodeName set to itself", case.node))
                .await
        }
        (Some("status" | "eviction"), operation) => {
            case.refuse(format!("unexpected operation {:?}", told(operation)))
        }
        (Some(other), _) => case.refuse(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
    }
}

fn told(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// The stored pod must be bound to the node.
async fn bound(case: &Case<'_>, otherwise: &str) -> Result<(), ApiError> {
    if case.name().is_empty() {
        return case.refuse("could not determine pod from request data");
    }
    let pod = case.pod(case.name()).await?;
    if text(sub(&pod, "spec"), "nodeName") == case.node { Ok(()) } else { case.refuse(otherwise) }
}

async fn create(case: &Case<'_>) -> Result<(), ApiError> {
    let (node, pod) = (case.node, case.object);
    if !meta::annotations(pod).is_some_and(|a| a.contains_key(MIRROR)) {
        return case.refuse(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(sub(pod, "spec"), "nodeName") != node {
        return case.refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    owner(case).await?;
    let refs = PodRefs::of(pod);
    let no = |what: &str| case.refuse(format!("node {node:?} can not create pods that reference {what}"));
    if !refs.service_account.is_empty() {
        return no("a service account");
    }
    if !refs.secrets.is_empty() {
        return no("secrets");
    }
    if !refs.config_maps.is_empty() {
        return no("configmaps");
    }
    let volumes = list(sub(pod, "spec"), "volumes");
    let sources = volumes.iter().flat_map(|v| list(sub(v, "projected"), "sources"));
    if sources.into_iter().any(|s| !sub(s, "clusterTrustBundle").is_null()) {
        return no("clustertrustbundles");
    }
    if !refs.claims.is_empty() {
        return no("persistentvolumeclaims");
    }
    if !list(sub(pod, "spec"), "resourceClaims").is_empty() {
        return no("resourceclaims");
    }
    Ok(())
}

async fn owner(case: &Case<'_>) -> Result<(), ApiError> {
    let node = case.node;
    let own = |what: &str| case.refuse(format!("node {node:?} can only create pods with {what}"));
    let owner = match list(sub(case.object, "metadata"), "ownerReferences") {
        [] => return own("an owner reference set to itself"),
        [owner] => owner,
        _ => return own("a single owner reference set to itself"),
    };
    if text(owner, "apiVersion") != "v1" || text(owner, "kind") != "Node" || text(owner, "name") != node {
        return own("an owner reference set to itself");
    }
    if sub(owner, "controller") != true {
        return own("a controller owner reference set to itself");
    }
    if sub(owner, "blockOwnerDeletion") == true {
        return case.refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(found) = case.read("", "nodes", "", node).await? else {
        return Err(ApiError::not_found("", "nodes", node));
    };
    let (wanted, has) = (text(owner, "uid"), meta::uid(&found));
    if wanted != has {
        return case.refuse(format!("node {node} UID mismatch: expected {wanted} got {has}"));
    }
    Ok(())
}

fn status(case: &Case<'_>) -> Result<(), ApiError> {
    let node = case.node;
    let old = case.request.old.unwrap_or(&Value::Null);
    if text(sub(old, "spec"), "nodeName") != node {
        return case.refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let labels = |pod| meta::labels(pod).filter(|l| !l.is_empty()).cloned();
    if labels(old) != labels(case.object) {
        return case.refuse(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod| list(sub(pod, "status"), "resourceClaimStatuses").to_vec();
    if claims(old) != claims(case.object) {
        return case.refuse(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

/// Whether a volume of the pod, or the driver of one, asks for tokens of an audience.
pub(super) async fn names_audience(case: &Case<'_>, pod: &Value, audience: &str) -> Result<bool, ApiError> {
    for volume in list(sub(pod, "spec"), "volumes") {
        for source in list(sub(volume, "projected"), "sources") {
            let token = sub(source, "serviceAccountToken");
            if !token.is_null() && text(token, "audience") == audience {
                return Ok(true);
            }
        }
        let inline = text(sub(volume, "csi"), "driver").to_owned();
        let driver = if inline.is_empty() { driver_of_claim(case, pod, volume).await? } else { inline };
        if driver.is_empty() {
            continue;
        }
        let found = case.read("storage.k8s.io", "csidrivers", "", &driver).await?.unwrap_or_default();
        let requests = list(sub(&found, "spec"), "tokenRequests");
        if requests.iter().any(|request| text(request, "audience") == audience) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn driver_of_claim(case: &Case<'_>, pod: &Value, volume: &Value) -> Result<String, ApiError> {
    let claim = match at(volume, &["persistentVolumeClaim", "claimName"]).as_str() {
        Some(name) => name.to_owned(),
        None if !sub(volume, "ephemeral").is_null() => {
            format!("{}-{}", meta::name(pod), text(volume, "name"))
        }
        None => return Ok(String::new()),
    };
    let claim =
        case.read("", "persistentvolumeclaims", case.request.namespace, &claim).await?.unwrap_or_default();
    let bound = text(sub(&claim, "spec"), "volumeName");
    if bound.is_empty() {
        return Ok(String::new());
    }
    let volume = case.read("", "persistentvolumes", "", bound).await?.unwrap_or_default();
    Ok(at(&volume, &["spec", "csi", "driver"]).as_str().unwrap_or("").to_owned())
}
