//! EndpointSlices: which addresses are behind a Service, in slices of at most 100.

use crate::endpoints_common::{Backend, backends, services_of};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, Reconciler, owner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Upstream's default of endpoints in one slice.
const ENDPOINTS_MAX: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Pod changes within this time make one pass.
const COALESCE: Duration = Duration::from_millis(20);

/// The EndpointSlice controller.
pub fn controller() -> Controller {
    Controller::for_kind::<Service>("endpointslice")
        .owns::<EndpointSlice>()
        .coalesce(COALESCE)
        .watches::<Pod>(services_of)
        .concurrency(4)
        .with(Slices)
}

struct Slices;

impl Reconciler<Service> for Slices {
    type Error = ApiError;

    async fn reconcile(&self, service: Arc<Service>, cx: &Context) -> Result<Action, ApiError> {
        let Some(all) = backends(&service, cx) else {
            return Ok(Action::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let existing = existing(&service, cx);
        let plan = plan(&service, &all, existing);
        let api = cx.api::<EndpointSlice>(service.namespace().unwrap_or(""));
        for slice in &plan.create {
            api.create(slice).await?;
        }
        for slice in &plan.update {
            api.replace(slice.name(), slice).await?;
        }
        for slice in &plan.delete {
            match api.delete(slice.name(), &DeleteOptions::default()).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(Action::Done)
    }
}

/// The slices that this controller made for a Service.
fn existing(service: &Service, cx: &Context) -> Vec<Arc<EndpointSlice>> {
    let informer = cx.informers().of::<EndpointSlice>();
    crate::claim::children_of(&informer, service.uid())
        .into_iter()
        .filter(|s| s.metadata.deletion_timestamp.is_none())
        .filter(|s| s.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == MANAGER))
        .collect()
}

#[derive(Debug, Default)]
struct Plan {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
}

/// Endpoints of one address family with the same ports share slices.
type GroupKey = (String, Vec<PortKey>);
type PortKey = (Option<String>, Option<i32>, Option<String>, Option<String>);

fn port_keys(ports: &[EndpointPort]) -> Vec<PortKey> {
    let key = |p: &EndpointPort| (p.name.clone(), p.port, p.protocol.clone(), p.app_protocol.clone());
    let mut keys: Vec<PortKey> = ports.iter().map(key).collect();
    keys.sort();
    keys
}

/// What to write so that the slices show the backends. Endpoints stay in the slice where they are; new ones fill the gaps.
fn plan(service: &Service, backends: &[Backend], existing: Vec<Arc<EndpointSlice>>) -> Plan {
    let mut groups: BTreeMap<GroupKey, (Vec<EndpointPort>, BTreeMap<String, Endpoint>)> = BTreeMap::new();
    for family in families(service, backends) {
        groups.entry((family, Vec::new())).or_default();
    }
    for backend in backends {
        for (family, address) in backend.addresses() {
            let ports = backend.slice_ports();
            let key = (family.to_owned(), port_keys(&ports));
            let group = groups.entry(key).or_insert_with(|| (ports, BTreeMap::new()));
            group.1.insert(backend.pod.uid().to_owned(), endpoint(service, backend, address));
        }
    }
    // An empty placeholder is wanted only where the family has no endpoints at all.
    let used: BTreeSet<String> =
        groups.iter().filter(|(_, g)| !g.1.is_empty()).map(|((f, _), _)| f.clone()).collect();
    groups.retain(|(family, _), g| !g.1.is_empty() || !used.contains(family));
    let mut plan = Plan::default();
    let mut slices: BTreeMap<GroupKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        let key = (slice.address_type.clone(), port_keys(slice.ports.as_deref().unwrap_or_default()));
        match groups.contains_key(&key) {
            true => slices.entry(key).or_default().push(slice),
            false => plan.delete.push(slice),
        }
    }
    for (key, (ports, endpoints)) in groups {
        let present = slices.remove(&key).unwrap_or_default();
        plan_group(service, &key.0, ports, endpoints, present, &mut plan);
    }
    plan
}

fn plan_group(
    service: &Service,
    family: &str,
    ports: Vec<EndpointPort>,
    mut wanted: BTreeMap<String, Endpoint>,
    present: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let uid = |e: &Endpoint| e.target_ref.as_ref().and_then(|r| r.uid.clone()).unwrap_or_default();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in present {
        let own = slice.endpoints.iter().flatten();
        let endpoints: Vec<Endpoint> =
            own.filter_map(|e| wanted.remove(&uid(e))).take(ENDPOINTS_MAX).collect();
        kept.push((slice, endpoints));
    }
    let mut rest: Vec<Endpoint> = wanted.into_values().rev().collect();
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut kept {
        while endpoints.len() < ENDPOINTS_MAX {
            let Some(next) = rest.pop() else { break };
            endpoints.push(next);
        }
    }
    let mut filled = 0;
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && (filled > 0 || !rest.is_empty()) {
            plan.delete.push(slice);
            continue;
        }
        filled += 1;
        let renewed = renewed(service, &slice, endpoints, ports.clone());
        if renewed != *slice {
            plan.update.push(renewed);
        }
    }
    rest.reverse();
    let chunks: Vec<Vec<Endpoint>> = rest.chunks(ENDPOINTS_MAX).map(<[Endpoint]>::to_vec).collect();
    let chunks = if chunks.is_empty() && filled == 0 { vec![Vec::new()] } else { chunks };
    for endpoints in chunks {
        plan.create.push(new_slice(service, family, endpoints, ports.clone()));
    }
}

/// The families for which a Service gets a slice even without endpoints.
fn families(service: &Service, backends: &[Backend]) -> Vec<String> {
    let named = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if named.is_empty() && backends.is_empty() { vec!["IPv4".to_owned()] } else { named }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let own = service.metadata.labels.iter().flatten();
    let mut labels: BTreeMap<String, String> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.remove(HEADLESS);
    if service
        .spec
        .as_ref()
        .and_then(|s| s.cluster_ip.as_deref())
        .is_none_or(|ip| ip == "None" || ip.is_empty())
    {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(service: &Service) -> Option<BTreeMap<String, String>> {
    const NOT_COPIED: &[&str] = &[
        "kubectl.kubernetes.io/last-applied-configuration",
        "endpoints.kubernetes.io/last-change-trigger-time",
    ];
    let own = service.metadata.annotations.iter().flatten();
    let all: BTreeMap<_, _> =
        own.filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    Some(all).filter(|a| !a.is_empty())
}

fn new_slice(
    service: &Service,
    family: &str,
    endpoints: Vec<Endpoint>,
    ports: Vec<EndpointPort>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            annotations: annotations(service),
            owner_references: Some(vec![owner::controller_ref(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    }
}

fn renewed(
    service: &Service,
    slice: &EndpointSlice,
    endpoints: Vec<Endpoint>,
    ports: Vec<EndpointPort>,
) -> EndpointSlice {
    let mut renewed = slice.clone();
    renewed.metadata.labels = Some(labels(service));
    renewed.metadata.annotations = annotations(service);
    // An empty list may come back as none.
    if !(endpoints.is_empty() && slice.endpoints.as_ref().is_none_or(Vec::is_empty)) {
        renewed.endpoints = Some(endpoints);
    }
    if port_keys(&ports) != port_keys(slice.ports.as_deref().unwrap_or_default()) {
        renewed.ports = Some(ports);
    }
    renewed
}

fn endpoint(service: &Service, backend: &Backend, address: &str) -> Endpoint {
    let pod: &Pod = &backend.pod;
    let spec = pod.spec.as_ref();
    let in_subdomain = spec.and_then(|s| s.subdomain.as_deref()) == Some(service.name());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: spec.and_then(|s| s.hostname.clone()).filter(|h| in_subdomain && !h.is_empty()),
        node_name: spec.and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"team": "red"}},
            "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]}}))
        .unwrap()
    }

    fn pods(count: usize) -> Vec<Backend> {
        let pod = |i: usize| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": format!("p{i}"), "uid": format!("uid{i:05}"), "namespace": "n"},
                "spec": {"containers": []}, "status": {"podIP": format!("10.1.{}.{}", i / 250, i % 250),
                "conditions": [{"type": "Ready", "status": "True"}]}}),
            )
            .unwrap()
        };
        (0..count).map(|i| Backend::of(&service(), &Arc::new(pod(i)))).collect()
    }

    fn sizes(plan: &Plan) -> (Vec<usize>, Vec<usize>, usize) {
        let size = |s: &EndpointSlice| s.endpoints.as_ref().map_or(0, Vec::len);
        (plan.create.iter().map(size).collect(), plan.update.iter().map(size).collect(), plan.delete.len())
    }

    fn made(plan: Plan) -> Vec<Arc<EndpointSlice>> {
        let name = |(i, mut s): (usize, EndpointSlice)| {
            s.metadata.name = Some(format!("s-{i}"));
            Arc::new(s)
        };
        plan.create.into_iter().enumerate().map(name).collect()
    }

    #[test]
    fn slices_hold_a_hundred_and_change_little() {
        let service = service();
        let first = plan(&service, &pods(250), Vec::new());
        assert_eq!(sizes(&first), (vec![100, 100, 50], vec![], 0));
        let existing = made(first);
        assert_eq!(sizes(&plan(&service, &pods(250), existing.clone())), (vec![], vec![], 0));
        assert_eq!(sizes(&plan(&service, &pods(260), existing.clone())), (vec![], vec![60], 0));
        assert_eq!(sizes(&plan(&service, &pods(150), existing.clone())), (vec![], vec![50], 1));
        assert_eq!(sizes(&plan(&service, &[], existing)), (vec![0], vec![], 3));
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let first = plan(&service(), &[], Vec::new());
        assert_eq!(sizes(&first), (vec![0], vec![], 0));
        let existing = made(first);
        assert_eq!(sizes(&plan(&service(), &[], existing)), (vec![], vec![], 0));
    }
}
