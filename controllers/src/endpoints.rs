//! Endpoints: the older view of what EndpointSlices say, at most 1,000 addresses in one object.

use crate::endpoints_common::{Backend, backends, services_of};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, ObjectKey, Reconciler};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const COALESCE: Duration = Duration::from_millis(20);

/// The Endpoints controller.
pub fn controller() -> Controller {
    Controller::for_kind::<Service>("endpoints")
        .watches::<Endpoints>(|endpoints, _| vec![ObjectKey::of(endpoints)])
        .coalesce(COALESCE)
        .watches::<Pod>(services_of)
        .with(Writer)
}

struct Writer;

impl Reconciler<Service> for Writer {
    type Error = ApiError;

    async fn reconcile(&self, service: Arc<Service>, cx: &Context) -> Result<Action, ApiError> {
        let Some(all) = backends(&service, cx).filter(|_| service.metadata.deletion_timestamp.is_none())
        else {
            return Ok(Action::Done);
        };
        let present = cx.informers().of::<Endpoints>().get_key(&ObjectKey::of(&*service));
        let wanted = wanted(&service, &all, present.as_deref());
        let api = cx.api::<Endpoints>(service.namespace().unwrap_or(""));
        match present {
            None => match api.create(&wanted).await {
                // Somebody else's object of this name is left alone until its next change.
                Err(e) if !e.is_already_exists() => return Err(e),
                _ => {}
            },
            Some(present) if differs(&present, &wanted) => drop(api.replace(service.name(), &wanted).await?),
            Some(_) => {}
        }
        Ok(Action::Done)
    }

    async fn gone(&self, key: &ObjectKey, cx: &Context) -> Result<Action, ApiError> {
        let present = cx.informers().of::<Endpoints>().get_key(key);
        let ours = |e: &Arc<Endpoints>| {
            e.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == MANAGER)
        };
        if present.as_ref().is_some_and(ours) {
            let api = cx.api::<Endpoints>(&key.namespace);
            match api.delete(&key.name, &DeleteOptions::default()).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(Action::Done)
    }
}

fn differs(present: &Endpoints, wanted: &Endpoints) -> bool {
    let subsets = |e: &Endpoints| e.subsets.clone().unwrap_or_default();
    let annotations = |e: &Endpoints| e.metadata.annotations.clone().unwrap_or_default();
    subsets(present) != subsets(wanted)
        || present.metadata.labels != wanted.metadata.labels
        || annotations(present) != annotations(wanted)
}

/// By the ports of a pod (name, number, protocol, application protocol).
type PortKey = Vec<(String, i32, String, Option<String>)>;

fn wanted(service: &Service, backends: &[Backend], present: Option<&Endpoints>) -> Endpoints {
    let mut groups: BTreeMap<PortKey, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let family = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
    for backend in backends.iter().filter(|b| b.ready || !b.terminating).take(ADDRESSES_MAX) {
        let addresses = backend.addresses();
        let Some((_, ip)) = addresses.iter().find(|(f, _)| family.as_deref().is_none_or(|want| want == *f))
        else {
            continue;
        };
        let port = |p: k8s_openapi::api::discovery::v1::EndpointPort| {
            (p.name.unwrap_or_default(), p.port.unwrap_or(0), p.protocol.unwrap_or_default(), p.app_protocol)
        };
        let mut key: PortKey = backend.slice_ports().into_iter().map(port).collect();
        key.sort();
        let (ready, not_ready) = groups.entry(key).or_default();
        let list = if backend.ready { ready } else { not_ready };
        list.push(address(service, &backend.pod, ip));
    }
    let mut endpoints = present.cloned().unwrap_or_default();
    endpoints.metadata.name = service.metadata.name.clone();
    endpoints.metadata.namespace = service.metadata.namespace.clone();
    endpoints.metadata.labels = Some(labels(service));
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    if backends.len() > ADDRESSES_MAX {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    endpoints.subsets = Some(groups.into_iter().map(subset).collect());
    endpoints
}

fn subset(
    (ports, (mut ready, mut not_ready)): (PortKey, (Vec<EndpointAddress>, Vec<EndpointAddress>)),
) -> EndpointSubset {
    let some = |list: Vec<EndpointAddress>| Some(list).filter(|l| !l.is_empty());
    ready.sort_by(|a, b| a.ip.cmp(&b.ip));
    not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
    let port = |(name, port, protocol, app_protocol): (String, i32, String, Option<String>)| EndpointPort {
        name: Some(name).filter(|n| !n.is_empty()),
        port,
        protocol: Some(protocol),
        app_protocol,
    };
    EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: Some(ports.into_iter().map(port).collect()).filter(|p: &Vec<_>| !p.is_empty()),
    }
}

fn address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    let spec = pod.spec.as_ref();
    let in_subdomain = spec.and_then(|s| s.subdomain.as_deref()) == Some(service.name());
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: spec.and_then(|s| s.hostname.clone()).filter(|h| in_subdomain && !h.is_empty()),
        node_name: spec.and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let own = service.metadata.labels.iter().flatten();
    let mut labels: BTreeMap<String, String> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.remove(HEADLESS);
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}
