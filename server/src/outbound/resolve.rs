//! From a Service to the addresses behind it, out of the server's own cache.

use super::{CallError, Place};
use crate::server::Reader;
use kubewright_core::{ApiError, GroupVersionResource};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Finds the addresses of destinations. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Resolver {
    /// Where Services are read; none where they can't be.
    reader: Option<Reader>,
    /// Counts lookups, so that endpoints take turns.
    turn: Arc<AtomicUsize>,
}

impl Resolver {
    pub(crate) fn new(reader: Reader) -> Self {
        Resolver { reader: Some(reader), turn: Arc::default() }
    }

    /// Knows no Services.
    pub(crate) fn without_services() -> Self {
        Resolver { reader: None, turn: Arc::default() }
    }

    fn get(&self, resource: &GroupVersionResource, namespace: &str, name: &str) -> Option<Value> {
        self.reader.as_ref()?.get(resource, namespace, name).ok().flatten()?.value().ok()
    }

    /// The addresses to try, best first.
    ///
    /// # Errors
    /// Where the Service is not there or nothing stands behind it.
    pub(super) async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, CallError> {
        match place {
            Place::Host { host, port } => lookup(host, *port).await,
            Place::Service { namespace, name, port } => match self.service(namespace, name, *port)? {
                Found::Addresses(addresses) => Ok(addresses),
                Found::External(host) => lookup(&host, *port).await,
            },
        }
    }

    /// The ready endpoints of a Service's port, or its cluster IP where nobody keeps its endpoints.
    fn service(&self, namespace: &str, name: &str, port: u16) -> Result<Found, CallError> {
        let resource = GroupVersionResource::new("", "v1", "services");
        let unresolved = |why: String| CallError::Unresolved(why);
        let service = self
            .get(&resource, namespace, name)
            .ok_or_else(|| unresolved(format!("services {name:?} not found")))?;
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(Found::External(spec["externalName"].as_str().unwrap_or("").to_owned()));
        }
        let offered = service_port(&service, &port.to_string())
            .ok_or_else(|| unresolved(format!("no service port {port} found for service {name:?}")))?;
        let empty = || unresolved(format!("no endpoints available for service {name:?}"));
        let (sliced, mut ready) = self.endpoints(namespace, name, offered["name"].as_str().unwrap_or(""));
        if !ready.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % ready.len();
            ready.rotate_left(turn);
            return Ok(Found::Addresses(ready));
        }
        let address = spec["clusterIP"].as_str().and_then(|a| a.parse::<IpAddr>().ok());
        match address.filter(|_| !sliced) {
            Some(address) => Ok(Found::Addresses(vec![SocketAddr::new(address, port)])),
            None => Err(empty()),
        }
    }

    /// Whether a Service has slices at all, and the ready addresses of one of its ports.
    fn endpoints(&self, namespace: &str, service: &str, port: &str) -> (bool, Vec<SocketAddr>) {
        let resource = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
        let mut ready = Vec::new();
        let mut sliced = false;
        let slices = self.reader.as_ref().and_then(|r| r.list(&resource, namespace).ok());
        for slice in slices.unwrap_or_default() {
            let owner = slice.header().labels.get("kubernetes.io/service-name");
            if owner.is_none_or(|o| o != service) {
                continue;
            }
            sliced = true;
            let Ok(slice) = slice.value() else { continue };
            let named = |p: &&Value| p["name"].as_str().unwrap_or("") == port;
            let number = items(&slice["ports"]).find(named).and_then(|p| p["port"].as_u64());
            let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
            for endpoint in items(&slice["endpoints"]).filter(|e| e["conditions"]["ready"] != false) {
                let addresses = items(&endpoint["addresses"]).filter_map(Value::as_str);
                ready.extend(addresses.filter_map(|a| a.parse().ok()).map(|a| SocketAddr::new(a, number)));
            }
        }
        (sliced, ready)
    }

    /// Whether a Service is there, and whether any of its endpoints is ready, for the condition of an APIService.
    ///
    /// # Errors
    /// The reason of upstream's condition, with its message.
    pub(crate) fn check(&self, namespace: &str, name: &str, port: u16) -> Result<(), (&'static str, String)> {
        let resource = GroupVersionResource::new("", "v1", "services");
        let Some(service) = self.get(&resource, namespace, name) else {
            let why = format!("service/{name} in {namespace:?} is not present");
            return Err(("ServiceNotFound", why));
        };
        if service["spec"]["type"] == "ExternalName" {
            return Ok(());
        }
        if service_port(&service, &port.to_string()).is_none() {
            let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Err(("ServicePortError", why));
        }
        match self.service(namespace, name, port) {
            Ok(_) => Ok(()),
            Err(_) => {
                let offered = service_port(&service, &port.to_string());
                let port_name = offered.as_ref().and_then(|p| p["name"].as_str()).unwrap_or("");
                let (sliced, _) = self.endpoints(namespace, name, port_name);
                if sliced {
                    let why = format!(
                        "endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
                    );
                    return Err(("MissingEndpoints", why));
                }
                let why = format!("cannot find endpointslices for service/{name} in {namespace:?}");
                Err(("EndpointsNotFound", why))
            }
        }
    }

    /// An address of a Service's port, by number or name, for the `proxy` subresource.
    ///
    /// # Errors
    /// 404 where the Service is not there, 503 where it has no such port or nothing stands behind it.
    pub(crate) fn proxied(&self, namespace: &str, name: &str, port: &str) -> Result<SocketAddr, ApiError> {
        let resource = GroupVersionResource::new("", "v1", "services");
        let service = self.get(&resource, namespace, name);
        let service = service.ok_or_else(|| ApiError::not_found("", "services", name))?;
        let offered = service_port(&service, port).ok_or_else(|| {
            ApiError::unavailable(format!("no service port {port:?} found for service {name:?}"))
        })?;
        let number = offered["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
        match self.service(namespace, name, number).map_err(|e| ApiError::unavailable(e.to_string()))? {
            Found::Addresses(addresses) if !addresses.is_empty() => Ok(addresses[0]),
            _ => Err(ApiError::unavailable(format!("no endpoints available for service {name:?}"))),
        }
    }
}

enum Found {
    Addresses(Vec<SocketAddr>),
    External(String),
}

/// The port of a Service that is wanted by number or name; its only one where nothing is wanted.
fn service_port(service: &Value, wanted: &str) -> Option<Value> {
    let ports: Vec<&Value> = items(&service["spec"]["ports"]).collect();
    if wanted.is_empty() {
        return match ports.as_slice() {
            [one] => Some((*one).clone()),
            _ => None,
        };
    }
    let fits = |p: &&&Value| {
        p["name"].as_str() == Some(wanted) || p["port"].as_u64().is_some_and(|n| n.to_string() == wanted)
    };
    ports.iter().find(fits).map(|p| (*p).clone())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, CallError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(_) => Err(CallError::Connect(format!("dial tcp: lookup {host}: no such host"))),
    }
}
