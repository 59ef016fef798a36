//! Plugins that upstream leaves off unless asked for: a host composes them in with `ApiServerBuilder::admission`.

mod always_pull_images;
mod deny_service_external_ips;
mod event_rate_limit;
mod extended_resource_toleration;
mod limit_pod_hard_anti_affinity_topology;
mod owner_references;
mod pod_node_selector;
mod pod_toleration_restriction;

pub use always_pull_images::AlwaysPullImages;
pub use deny_service_external_ips::DenyServiceExternalIPs;
pub use event_rate_limit::{EventLimit, EventLimitKind, EventRateLimit};
pub use extended_resource_toleration::ExtendedResourceToleration;
pub use limit_pod_hard_anti_affinity_topology::LimitPodHardAntiAffinityTopology;
pub use owner_references::OwnerReferencesPermissionEnforcement;
pub use pod_node_selector::PodNodeSelector;
pub use pod_toleration_restriction::PodTolerationRestriction;

use super::AdmissionRequest;
use kubewright_core::{ApiError, GroupVersionResource};
use serde_json::Value;

/// An annotation of the request's namespace.
fn namespace_annotation(request: &AdmissionRequest<'_>, key: &str) -> Result<Option<String>, ApiError> {
    let namespaces = GroupVersionResource::new("", "v1", "namespaces");
    let found = match request.reader.get(&namespaces, "", request.namespace) {
        Err(e) if e.is_not_found() => None,
        other => other?,
    };
    let Some(found) = found else { return Ok(None) };
    let namespace: Value = found.value()?;
    let text = kubewright_core::meta::annotations(&namespace).and_then(|a| a.get(key)?.as_str());
    Ok(text.map(str::to_owned))
}

#[cfg(test)]
mod tests;
