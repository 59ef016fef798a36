//! What must hold of a composition, each rule by itself; [`crate::Builder::build`] tells all that is broken at once.

use crate::error::BuildError;
use crate::plane::Builder;
use kubewright_core::GroupVersionResource;
use std::collections::BTreeSet;

/// Every mistake of a composition that shows only when it is whole.
pub(crate) fn all(parts: &Builder) -> Vec<BuildError> {
    let mut errors = Vec::new();
    if parts.store.is_none() {
        errors.push(BuildError::NoStore);
    }
    if let Some(Err(why)) = parts.service_cidr.as_deref().map(kubewright_server::api_service_address) {
        errors.push(BuildError::Invalid(why));
    }
    errors.extend(plugins(parts));
    errors.extend(computed(parts));
    #[cfg(feature = "reconcile")]
    errors.extend(controllers(parts));
    #[cfg(feature = "node")]
    errors.extend(nodes(parts));
    errors
}

/// Those names that occurred before.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

fn plugins(parts: &Builder) -> Vec<BuildError> {
    let twice = repeated(parts.admission.iter().map(|p| p.name()));
    twice.into_iter().map(BuildError::DuplicateAdmission).collect()
}

/// Computed resources have places of their own beside the kinds.
fn computed(parts: &Builder) -> Vec<BuildError> {
    let mut taken: BTreeSet<String> = parts.registry.iter().map(|kind| told(&kind.resource())).collect();
    let resources = parts.virtuals.iter().map(|resource| {
        let of = resource.descriptor();
        told(&GroupVersionResource::new(of.group, of.version, of.plural))
    });
    let twice: Vec<String> = resources.filter(|resource| !taken.insert(resource.clone())).collect();
    twice.into_iter().map(BuildError::DuplicateKind).collect()
}

/// A kind as people read it: `v1 pods`, `apps/v1 deployments`.
pub(crate) fn told(resource: &GroupVersionResource) -> String {
    let GroupVersionResource { group, version, resource } = resource;
    if group.is_empty() { format!("{version} {resource}") } else { format!("{group}/{version} {resource}") }
}

#[cfg(feature = "reconcile")]
fn controllers(parts: &Builder) -> Vec<BuildError> {
    let twice = repeated(parts.controllers.iter().map(|c| c.name));
    let mut errors: Vec<BuildError> = twice.into_iter().map(BuildError::DuplicateController).collect();
    for controller in &parts.controllers {
        let part = format!("the controller {}", controller.name);
        let kinds: BTreeSet<String> =
            controller.kinds.iter().filter(|k| !served(parts, k)).map(told).collect();
        errors.extend(kinds.into_iter().map(|kind| missing(&part, format!("the kind {kind}"))));
        if controller.name == "scheduler" {
            errors.extend(needs(parts, &part, &[("", "v1", "nodes"), ("", "v1", "pods")]));
        }
    }
    errors
}

/// Whether a kind is served, or may come with a CustomResourceDefinition while the plane runs.
#[cfg(feature = "reconcile")]
fn served(parts: &Builder, kind: &GroupVersionResource) -> bool {
    let definitions = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let of_others = kind.group.contains('.') && !kind.group.ends_with(".k8s.io");
    parts.registry.get(kind).is_some() || (of_others && parts.registry.get(&definitions).is_some())
}

#[cfg(feature = "reconcile")]
fn missing(part: &str, needs: String) -> BuildError {
    BuildError::Missing { part: part.to_owned(), needs }
}

#[cfg(feature = "reconcile")]
fn needs(parts: &Builder, part: &str, kinds: &[(&str, &str, &str)]) -> Vec<BuildError> {
    let kinds =
        kinds.iter().map(|(group, version, plural)| GroupVersionResource::new(*group, *version, *plural));
    kinds.filter(|k| !served(parts, k)).map(|k| missing(part, format!("the kind {}", told(&k)))).collect()
}

#[cfg(feature = "node")]
fn nodes(parts: &Builder) -> Vec<BuildError> {
    let twice = repeated(parts.nodes.iter().map(|n| n.name.as_str()));
    let mut errors: Vec<BuildError> = twice.into_iter().map(BuildError::DuplicateNode).collect();
    for node in &parts.nodes {
        let wrong = kubewright_core::meta::validate_dns1123_subdomain(&node.name);
        errors.extend(
            wrong.into_iter().map(|why| BuildError::Invalid(format!("the node {:?}: {why}", node.name))),
        );
    }
    let kinds = [("", "v1", "nodes"), ("", "v1", "pods"), ("coordination.k8s.io", "v1", "leases")];
    if let Some(first) = parts.nodes.first() {
        errors.extend(needs(parts, &format!("the node {}", first.name), &kinds));
    }
    if parts.service_proxy {
        let kinds = [("", "v1", "services"), ("discovery.k8s.io", "v1", "endpointslices")];
        errors.extend(needs(parts, "the Service proxy", &kinds));
    }
    errors
}
