//! What the EndpointSlice and the Endpoints controller share: the pods behind a Service, and their ports.

use crate::pods;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubewright_core::ObjectMeta;
use kubewright_core::selector::Selector;
use kubewright_reconcile::{Context, ObjectKey};
use smol_str::{SmolStr, format_smolstr};
use std::sync::Arc;

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) pod: Arc<Pod>,
    /// Serving, and not on its way out.
    pub(crate) ready: bool,
    /// Its readiness, whether or not it is on its way out.
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    ports: Vec<(ServicePort, i32)>,
}

impl Backend {
    /// How a pod stands behind a Service.
    pub(crate) fn of(service: &Service, pod: &Arc<Pod>) -> Self {
        let spec = service.spec.as_ref();
        let publish = spec.and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
        let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
        let all = spec.and_then(|s| s.ports.clone()).unwrap_or_default();
        let ports = all.into_iter().filter_map(|p| target(&p, pod).map(|number| (p, number))).collect();
        Backend { pod: pod.clone(), ready: publish || (serving && !terminating), serving, terminating, ports }
    }

    /// Its addresses, each with its family.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, &str)> {
        let status = self.pod.status.as_ref();
        let all = status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str());
        let mut ips: Vec<&str> = all.filter(|ip| !ip.is_empty()).collect();
        if ips.is_empty() {
            ips.extend(status.and_then(|s| s.pod_ip.as_deref()).filter(|ip| !ip.is_empty()));
        }
        let family = |ip: &str| if ip.contains(':') { "IPv6" } else { "IPv4" };
        let mut pairs: Vec<_> = ips.into_iter().map(|ip| (family(ip), ip)).collect();
        pairs.dedup_by_key(|(family, _)| *family);
        pairs
    }

    /// Its ports as slices name them: an unnamed port has the empty name.
    pub(crate) fn slice_ports(&self) -> Vec<EndpointPort> {
        let port = |(p, number): &(ServicePort, i32)| EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(*number),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: p.app_protocol.clone(),
        };
        self.ports.iter().map(port).collect()
    }
}

/// The number of a Service port on a pod; `None` where its name is no port of the pod.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let containers = spec.containers.iter().chain(sidecars);
            let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
            let named = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
                p.name.as_deref() == Some(name.as_str()) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(named).map(|p| p.container_port)
        }
    }
}

/// The pods behind a Service that have an address; `None` for a Service whose endpoints someone else writes.
pub(crate) fn backends(service: &Service, cx: &Context) -> Option<Vec<Backend>> {
    let spec = service.spec.as_ref()?;
    let wanted = spec.selector.as_ref().filter(|s| !s.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let selector = Selector::from_set(wanted.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let pods = cx.informers().of::<Pod>();
    pods.add_index(BY_LABEL, |pod| label_values(&pod.metadata, pod.metadata.labels.iter().flatten()));
    let (key, value) = wanted.first_key_value()?;
    let all = pods.by_index(BY_LABEL, &label_value(&service.metadata, key, value));
    let behind = all.iter().filter(|pod| {
        !pods::is_terminal(pod) && pod.metadata.labels.as_ref().is_some_and(|labels| selector.matches(labels))
    });
    let backends = behind.map(|pod| Backend::of(service, pod));
    Some(backends.filter(|b| !b.addresses().is_empty()).collect())
}

/// The Services whose selectors match a pod.
pub(crate) fn services_of(pod: &Pod, cx: &Context) -> Vec<ObjectKey> {
    let Some(labels) = &pod.metadata.labels else {
        return Vec::new();
    };
    let services = cx.informers().of::<Service>();
    services.add_index(BY_LABEL, |service| {
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
        label_values(&service.metadata, selector.and_then(|s| s.first_key_value()))
    });
    let candidates =
        labels.iter().flat_map(|(k, v)| services.by_index(BY_LABEL, &label_value(&pod.metadata, k, v)));
    let selects = |service: &Arc<Service>| {
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
        selector.is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)))
    };
    candidates.filter(selects).map(|service| ObjectKey::of(&*service)).collect()
}

/// Pods under each of their labels, Services under the first label of their selector: what one change concerns is then found without a
/// walk over a whole namespace.
const BY_LABEL: &str = "label";

fn label_value(meta: &ObjectMeta, key: &str, value: &str) -> SmolStr {
    format_smolstr!("{}/{key}={value}", meta.namespace.as_deref().unwrap_or(""))
}

fn label_values<'a>(
    meta: &ObjectMeta,
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Vec<SmolStr> {
    labels.into_iter().map(|(key, value)| label_value(meta, key, value)).collect()
}
