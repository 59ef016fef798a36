//! What a node agent writes is its own: its Node without another's labels and taints, its mirror pods, the state of its pods.

mod nodes;
mod pods;

use super::json::{list, sub, text};
use super::{Admission, AdmissionRequest, Operation, forbidden};
use crate::auth::{Attributes, Authorizer, Decision, node};
use crate::tls::RequestedCertificate;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, GroupVersionResource, meta};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

const LEASES: &str = "kube-node-lease";

/// Upstream's plugin of this name.
pub struct NodeRestriction(Arc<dyn Authorizer>);

impl NodeRestriction {
    /// Asks this authorizer whether a node may have tokens for audiences that its pods do not name.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        NodeRestriction(authorizer)
    }
}

impl fmt::Debug for NodeRestriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeRestriction")
    }
}

/// A request of a node agent, with what it is judged by.
#[derive(Clone, Copy)]
struct Case<'a> {
    request: &'a AdmissionRequest<'a>,
    node: &'a str,
    /// What is sent; null for a deletion.
    object: &'a Value,
}

impl Case<'_> {
    fn refuse(&self, why: impl AsRef<str>) -> Result<(), ApiError> {
        Err(forbidden(self.request, self.object, why.as_ref()))
    }

    /// The name of the object, wherever it stands.
    fn name(&self) -> &str {
        if self.request.name.is_empty() { meta::name(self.object) } else { self.request.name }
    }

    /// A stored object, as every acknowledged write left it where the cache does not have it yet.
    async fn read(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        let resource = GroupVersionResource::new(group, "v1", resource);
        let reader = self.request.reader;
        let found = match reader.get(&resource, namespace, name)? {
            Some(found) => Some(found),
            None => {
                reader.consistent().await?;
                reader.get(&resource, namespace, name)?
            }
        };
        found.map(|found| found.value()).transpose()
    }

    /// The pod that is asked about.
    async fn pod(&self, name: &str) -> Result<Value, ApiError> {
        let found = self.read("", "pods", self.request.namespace, name).await?;
        found.ok_or_else(|| ApiError::not_found("", "pods", name))
    }
}

impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        node::node_of(request.user).is_some()
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
            let Some(node) = node::node_of(request.user) else { return Ok(()) };
            let object = object.map_or(&Value::Null, |o| &*o);
            let case = Case { request, node, object };
            if node.is_empty() {
                let user = request.user.username.as_deref().unwrap_or("");
                return case.refuse(format!("could not determine node from user {user:?}"));
            }
            self.judge(&case).await
        })
    }
}

impl NodeRestriction {
    async fn judge(&self, case: &Case<'_>) -> Result<(), ApiError> {
        let request = case.request;
        let subresource = request.subresource;
        match (request.resource.group.as_str(), request.resource.resource.as_str()) {
            ("", "pods") => pods::judge(case).await,
            ("", "nodes") => nodes::judge(case),
            ("", "persistentvolumeclaims") if subresource == Some("status") => claim_status(case),
            ("", "persistentvolumeclaims") => case.refuse("may only update PVC status"),
            ("", "serviceaccounts") if subresource == Some("token") => self.token(case).await,
            ("coordination.k8s.io", "leases") => lease(case),
            ("storage.k8s.io", "csinodes") if case.name() != case.node => {
                case.refuse("can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => slice(case),
            ("certificates.k8s.io", "certificatesigningrequests") => certificate(case),
            _ => Ok(()),
        }
    }

    async fn token(&self, case: &Case<'_>) -> Result<(), ApiError> {
        if case.request.operation != Operation::Create {
            return Ok(());
        }
        let spec = sub(case.object, "spec");
        let bound = sub(spec, "boundObjectRef");
        let name = text(bound, "name");
        if text(bound, "apiVersion") != "v1" || text(bound, "kind") != "Pod" || name.is_empty() {
            return case.refuse("node requested token not bound to a pod");
        }
        let uid = text(bound, "uid");
        if uid.is_empty() {
            return case.refuse("node requested token with a pod binding without a uid");
        }
        let pod = case.pod(name).await?;
        if meta::uid(&pod) != uid {
            return case.refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ));
        }
        if text(sub(&pod, "spec"), "nodeName") != case.node {
            return case.refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audiences = list(spec, "audiences");
        if audiences.len() > 1 {
            return case.refuse("node may only request 0 or 1 audiences");
        }
        let audience = audiences.first().and_then(Value::as_str).unwrap_or("");
        if pods::names_audience(case, &pod, audience).await? || self.may_have(case, audience).await {
            return Ok(());
        }
        let user = case.request.user.username.as_deref().unwrap_or("");
        case.refuse(format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
        ))
    }

    async fn may_have(&self, case: &Case<'_>, audience: &str) -> bool {
        let attributes = Attributes {
            user: Cow::Borrowed(case.request.user),
            verb: "request-serviceaccounts-token-audience",
            version: "v1",
            resource: audience,
            namespace: case.request.namespace,
            name: case.request.name,
            ..Attributes::default()
        };
        self.0.authorize(&attributes).await == Decision::Allow
    }
}

fn claim_status(case: &Case<'_>) -> Result<(), ApiError> {
    let Some(old) = case.request.old else { return case.refuse("unexpected operation \"CREATE\"") };
    let bare = |claim: &Value| {
        let mut rest = claim.clone();
        if let Some(metadata) = meta::metadata_mut(&mut rest) {
            metadata.retain(|field, _| !matches!(field.as_str(), "resourceVersion" | "managedFields"));
        }
        if let Some(status) = rest.get_mut("status").and_then(Value::as_object_mut) {
            let settable = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];
            status.retain(|field, _| !settable.contains(&field.as_str()));
        }
        rest
    };
    if bare(old) == bare(case.object) {
        return Ok(());
    }
    case.refuse(format!(
        "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
        case.node
    ))
}

fn lease(case: &Case<'_>) -> Result<(), ApiError> {
    if case.request.namespace != LEASES {
        return case.refuse(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if case.name() != case.node {
        return case.refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

/// Changes of a slice are judged by the authorizer, for the name of its node stays.
fn slice(case: &Case<'_>) -> Result<(), ApiError> {
    let (slice, does) = match case.request.operation {
        Operation::Create => (case.object, "create"),
        Operation::Delete => (case.request.old.unwrap_or(&Value::Null), "delete"),
        Operation::Update | Operation::Connect => return Ok(()),
    };
    if text(sub(slice, "spec"), "nodeName") == case.node {
        return Ok(());
    }
    case.refuse(format!("can only {does} ResourceSlice with the same NodeName as the requesting node"))
}

fn certificate(case: &Case<'_>) -> Result<(), ApiError> {
    let signer = text(sub(case.object, "spec"), "signerName");
    let of_nodes =
        matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet");
    if case.request.operation != Operation::Create || case.request.subresource.is_some() || !of_nodes {
        return Ok(());
    }
    match RequestedCertificate::of(case.object) {
        Err(e) => case.refuse(format!("unable to parse csr: {e}")),
        Ok(subject) if subject.common_name == format!("system:node:{}", case.node) => Ok(()),
        Ok(_) => case.refuse(format!("can only create a node CSR with CN=system:node:{}", case.node)),
    }
}
