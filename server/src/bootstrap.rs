//! What every cluster has from its first moment: the system's namespaces, and the Service under which pods reach the API.

use crate::admission::SYSTEM_CLASSES;
use crate::allocate;
use crate::crd::internal;
use crate::handlers;
use crate::server::Shared;
use crate::tls::CLIENT_NAME;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, ContentType, GroupVersionResource, Verb};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// The ConfigMap of every namespace that holds the certificate authority.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";

/// Where API servers behind this one look.
const FRONT_PROXY: &str = "extension-apiserver-authentication";

fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

/// Creates what is missing, of the kinds that are served.
///
/// # Errors
/// Where something cannot be written.
pub(crate) async fn run(server: &Arc<Shared>, advertise: Option<(IpAddr, u16)>) -> Result<(), ApiError> {
    if server.kinds.get(&core("namespaces")).is_none() {
        return Ok(());
    }
    let namespaces = NAMESPACES.iter().map(|name| async move {
        let labels = json!({"kubernetes.io/metadata.name": name});
        let object = json!({"metadata": {"name": name, "labels": labels}});
        ensure(server, core("namespaces"), None, name, object).await?;
        root_ca(server, name).await
    });
    futures::future::try_join_all(namespaces).await?;
    if server.kinds.get(&core("services")).is_some() {
        let address = server.allocator.first_address().to_string();
        let port = advertise.map_or(6443, |(_, port)| port);
        let service = json!({
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]}});
        ensure(server, core("services"), Some("default"), "kubernetes", service).await?;
    }
    // At once, so that a store which groups commits flushes few times.
    futures::try_join!(allocate::default_range(server), priority_classes(server), front_proxy(server))?;
    allocate::repair(server).await?;
    match advertise {
        Some((address, port)) => endpoints(server, address, port).await,
        None => Ok(()),
    }
}

/// Tells API servers behind this one how to know it, and whose client certificates count.
async fn front_proxy(server: &Arc<Shared>) -> Result<(), ApiError> {
    let Some(identity) = server.aggregator.front_proxy() else { return Ok(()) };
    if server.kinds.get(&core("configmaps")).is_none() {
        return Ok(());
    }
    let mut data = json!({
        "requestheader-client-ca-file": identity.authority_pem,
        "requestheader-allowed-names": json!([CLIENT_NAME]).to_string(),
        "requestheader-username-headers": "[\"X-Remote-User\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]"});
    if let Some(pem) = &server.ca_certificate {
        data["client-ca-file"] = json!(pem);
    }
    let object = json!({"metadata": {"name": FRONT_PROXY}, "data": data});
    put(server, core("configmaps"), "kube-system", FRONT_PROXY, object).await
}

/// The classes of pods that the cluster itself lives on.
async fn priority_classes(server: &Arc<Shared>) -> Result<(), ApiError> {
    let classes = GroupVersionResource::new("scheduling.k8s.io", "v1", "priorityclasses");
    if server.kinds.get(&classes).is_none() {
        return Ok(());
    }
    let all = SYSTEM_CLASSES.iter().map(|(name, value)| {
        let about = match *name {
            "system-node-critical" => "For pods without which their node is of no use; they go last.",
            _ => "For pods without which the cluster is of no use; they may move to another node.",
        };
        let object = json!({"metadata": {"name": name}, "value": value, "description": about});
        ensure(server, classes.clone(), None, name, object)
    });
    futures::future::try_join_all(all).await.map(drop)
}

/// Gives a namespace the certificate authority, where the server was told one.
///
/// Boxed, because creating a namespace comes back here.
pub(crate) fn root_ca<'a>(
    server: &'a Arc<Shared>,
    namespace: &'a str,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(put_root_ca(server, namespace))
}

async fn put_root_ca(server: &Arc<Shared>, namespace: &str) -> Result<(), ApiError> {
    let Some(pem) = &server.ca_certificate else { return Ok(()) };
    if server.kinds.get(&core("configmaps")).is_none() {
        return Ok(());
    }
    let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as \
         the internal service IP or kubernetes.default.svc.";
    let object = json!({
        "metadata": {"name": ROOT_CA, "annotations": {"kubernetes.io/description": about}},
        "data": {"ca.crt": pem}});
    put(server, core("configmaps"), namespace, ROOT_CA, object).await
}

/// Says under which address the API answers, in Endpoints and EndpointSlice of the `kubernetes` Service.
///
/// # Errors
/// Where they cannot be written.
pub(crate) async fn endpoints(server: &Arc<Shared>, address: IpAddr, port: u16) -> Result<(), ApiError> {
    let slices = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    if server.kinds.get(&core("endpoints")).is_some() {
        let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let object = json!({"metadata": {"name": "kubernetes", "labels": labels},
            "subsets": [{"addresses": [{"ip": address}], "ports": ports}]});
        put(server, core("endpoints"), "default", "kubernetes", object).await?;
    }
    if server.kinds.get(&slices).is_some() {
        let labels = json!({"kubernetes.io/service-name": "kubernetes"});
        let object = json!({"metadata": {"name": "kubernetes", "labels": labels}, "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": ports});
        put(server, slices, "default", "kubernetes", object).await?;
    }
    Ok(())
}

/// Creates an object unless one of its name exists.
async fn ensure(
    server: &Arc<Shared>,
    resource: GroupVersionResource,
    namespace: Option<&str>,
    name: &str,
    object: Value,
) -> Result<(), ApiError> {
    if server.reader.get(&resource, namespace.unwrap_or(""), name)?.is_some() {
        return Ok(());
    }
    let request =
        ApiRequest::resource(Verb::Create, resource, namespace, None).body(ContentType::Json, object);
    match handlers::handle(internal(server, request)?).await {
        Err(e) if !e.is_already_exists() => Err(e),
        _ => Ok(()),
    }
}

/// Creates an object or makes the one that exists alike.
async fn put(
    server: &Arc<Shared>,
    resource: GroupVersionResource,
    namespace: &str,
    name: &str,
    object: Value,
) -> Result<(), ApiError> {
    if server.reader.get(&resource, namespace, name)?.is_none() {
        return ensure(server, resource, Some(namespace), name, object).await;
    }
    let request = ApiRequest::resource(Verb::Patch, resource, Some(namespace), Some(name));
    let request = request.body(ContentType::MergePatch, object);
    handlers::handle(internal(server, request)?).await.map(drop)
}
