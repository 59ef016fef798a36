//! The objects that tell of addresses: an IPAddress for each that a Service holds, ServiceCIDRs for the ranges.

use crate::crd::internal;
use crate::handlers;
use crate::keys::ResourceId;
use crate::pipeline::Claim;
use crate::server::Shared;
use bytes::Bytes;
use jiff::Timestamp;
use kubewright_core::{ApiError, ApiRequest, ContentType, GroupVersionResource, Verb, meta};
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) const GROUP: &str = "networking.k8s.io";
const MANAGER: &str = "ipallocator.k8s.io";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Deletions gather for so long before what they took is put back.
const GATHER: Duration = Duration::from_millis(200);

pub(crate) fn addresses() -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", "ipaddresses")
}

pub(crate) fn ranges() -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", "servicecidrs")
}

/// The key of an IPAddress in the store.
pub(super) fn key(address: &str) -> Bytes {
    ResourceId { group: GROUP.into(), resource: "ipaddresses".into() }.key("", address)
}

fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// The IPAddress of an address that a Service holds, without what only a stored object has.
fn object(address: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address, "labels": {MANAGED_BY: MANAGER, "ipaddress.kubernetes.io/ip-family": family(address)}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}}})
}

/// Makes the IPAddress together with the write of its Service, which is refused where one of that name exists.
pub(super) fn take(address: &str, namespace: &str, name: &str, uid: String, now: Timestamp) -> Claim {
    let mut value = object(address, namespace, name);
    value["metadata"]["uid"] = json!(uid);
    value["metadata"]["creationTimestamp"] = json!(meta::format_time(now));
    let bytes = crate::encode::stored(&value).unwrap_or_default();
    Claim::Take { key: key(address), holder: bytes }
}

/// Tells of the server's own ranges in the ServiceCIDR `kubernetes`.
///
/// # Errors
/// Where it cannot be written.
pub(crate) async fn default_range(server: &Arc<Shared>) -> Result<(), ApiError> {
    const NAME: &str = "kubernetes";
    if server.kinds.get(&ranges()).is_none() {
        return Ok(());
    }
    let cidrs = server.allocator.default_ranges();
    let found = server.reader.get(&ranges(), "", NAME)?.map(|o| o.value()).transpose()?;
    if found.is_none() {
        let object = json!({"metadata": {"name": NAME}, "spec": {"cidrs": cidrs}});
        send(server, Verb::Create, ranges(), None, object).await?;
    }
    let same = found.as_ref().is_none_or(|range| range["spec"]["cidrs"] == json!(cidrs));
    let is_ready = found.as_ref().is_some_and(|range| {
        let conditions = range["status"]["conditions"].as_array();
        conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    });
    if !same {
        tracing::warn!("the ServiceCIDR kubernetes tells of other ranges than this server was given");
    }
    if !same || is_ready {
        return Ok(());
    }
    let condition = json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": meta::format_time(server.clock.now())});
    let request = ApiRequest::resource(Verb::Patch, ranges(), None, Some(NAME)).subresource("status");
    let request = request.body(ContentType::MergePatch, json!({"status": {"conditions": [condition]}}));
    handlers::handle(internal(server, request)?).await.map(drop)
}

async fn send(
    server: &Arc<Shared>,
    verb: Verb,
    resource: GroupVersionResource,
    name: Option<&str>,
    object: Value,
) -> Result<(), ApiError> {
    let request = ApiRequest::resource(verb, resource, None, name).body(ContentType::Json, object);
    match handlers::handle(internal(server, request)?).await {
        Err(e) if e.is_already_exists() || (verb == Verb::Delete && e.is_not_found()) => Ok(()),
        other => other.map(drop),
    }
}

/// Puts back what is missing and takes away what nobody holds, whenever an IPAddress went that a Service holds, and once at first.
pub(crate) async fn keep(shared: Weak<Shared>, gone: Arc<Notify>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = gone.notified() => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(GATHER) => {}
        }
        let Some(server) = shared.upgrade() else { return };
        if let Err(e) = repair(&server).await {
            tracing::warn!(error = %e, "the IPAddresses of Services could not be put right; tried again");
            gone.notify_one();
        }
    }
}

/// One pass over all Services and addresses.
///
/// # Errors
/// Where something cannot be written.
pub(crate) async fn repair(server: &Arc<Shared>) -> Result<(), ApiError> {
    let services = GroupVersionResource::new("", "v1", "services");
    if server.kinds.get(&addresses()).is_none() || server.kinds.get(&services).is_none() {
        return Ok(());
    }
    for service in server.reader.list(&services, "")? {
        let value = service.value()?;
        for address in value["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            let missing = address != "None" && server.reader.get(&addresses(), "", address)?.is_none();
            if missing {
                let (namespace, name) = (meta::namespace(&value), meta::name(&value));
                send(server, Verb::Create, addresses(), None, object(address, namespace, name)).await?;
            }
        }
    }
    for address in server.reader.list(&addresses(), "")? {
        if address.header().labels.get(MANAGED_BY).is_none_or(|m| m != MANAGER) {
            continue;
        }
        let value = address.value()?;
        let parent = &value["spec"]["parentRef"];
        let text = |field: &str| parent[field].as_str().unwrap_or("");
        if parent["resource"] != "services" {
            continue;
        }
        let name = address.header().name.as_str();
        let service = server.reader.get(&services, text("namespace"), text("name"))?;
        let holds = match service {
            Some(service) => {
                let value = service.value()?;
                value["spec"]["clusterIPs"].as_array().is_some_and(|ips| ips.iter().any(|ip| ip == name))
            }
            None => false,
        };
        if !holds {
            let body = json!({"preconditions": {"uid": meta::uid(&value)}});
            send(server, Verb::Delete, addresses(), Some(name), body).await?;
        }
    }
    Ok(())
}
