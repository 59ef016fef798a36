//! Which requests a webhook or a policy is about: rules on resources, and selectors on namespaces and objects.

use super::{AdmissionRequest, Operation};
use kubewright_core::{ApiError, GroupVersionResource, KindDescriptor, Selector, meta};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::sync::Arc;

const ANY: &str = "*";

/// One rule: operations on resources of groups and versions, in a scope.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    operations: Vec<SmolStr>,
    groups: Vec<SmolStr>,
    versions: Vec<SmolStr>,
    /// Plurals with their subresources, empty for the object itself.
    resources: Vec<(SmolStr, SmolStr)>,
    scope: Scope,
    /// The only names that it is about; empty for all.
    names: Vec<SmolStr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Cluster,
    Namespaced,
}

impl Rule {
    /// A rule out of `rules`, `resourceRules` or `excludeResourceRules`.
    pub(crate) fn of(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<SmolStr> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(SmolStr::new).collect()
        };
        let resources = texts("resources").into_iter().map(|target| match target.split_once('/') {
            Some((resource, below)) => (SmolStr::new(resource), SmolStr::new(below)),
            None => (target, SmolStr::default()),
        });
        Rule {
            resources: resources.collect(),
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            names: texts("resourceNames"),
            scope: match rule["scope"].as_str() {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::All,
            },
        }
    }

    /// The plurals that it names; `None` where it names every one.
    pub(crate) fn plurals(&self) -> Option<impl Iterator<Item = &SmolStr>> {
        let every = self.resources.iter().any(|(resource, _)| resource == ANY);
        (!every).then(|| self.resources.iter().map(|(resource, _)| resource))
    }

    /// Whether the request is one of those, were it for `resource`.
    pub(crate) fn matches(&self, request: &AdmissionRequest<'_>, resource: &GroupVersionResource) -> bool {
        let has = |list: &[SmolStr], value: &str| list.iter().any(|v| v == ANY || v == value);
        let below = request.subresource.unwrap_or("");
        let below = below.split('/').next().unwrap_or(below);
        let target = |(wanted, sub): &(SmolStr, SmolStr)| {
            (wanted == ANY || *wanted == resource.resource) && (sub == ANY || sub == below)
        };
        let within = match self.scope {
            Scope::All => true,
            Scope::Cluster => !request.kind.namespaced(),
            Scope::Namespaced => request.kind.namespaced(),
        };
        within
            && has(&self.operations, request.operation.as_str())
            && has(&self.groups, &resource.group)
            && has(&self.versions, &resource.version)
            && self.resources.iter().any(target)
            && (self.names.is_empty() || self.names.iter().any(|n| n == request.name))
    }
}

impl Operation {
    /// The name in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Whether a request is about what configures admission itself, which nothing may keep from being mended.
pub(crate) fn is_exempt(request: &AdmissionRequest<'_>) -> bool {
    request.resource.group == "admissionregistration.k8s.io"
}

/// The namespace that selectors see: a Namespace is in itself.
pub(crate) fn namespace_of<'a>(request: &AdmissionRequest<'a>, object: Option<&'a Value>) -> &'a str {
    if !is_namespace(request) {
        return request.namespace;
    }
    if request.name.is_empty() { object.map_or("", meta::name) } else { request.name }
}

fn is_namespace(request: &AdmissionRequest<'_>) -> bool {
    request.resource.group.is_empty() && request.resource.resource == "namespaces"
}

/// Whether a selector of namespaces takes the request; cluster-scoped objects are in none and are always taken.
///
/// # Errors
/// 404 where the namespace is not there.
pub(crate) fn namespace_matches(
    selector: &Selector,
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
) -> Result<bool, ApiError> {
    if selector.is_everything() {
        return Ok(true);
    }
    let name = namespace_of(request, object);
    if name.is_empty() {
        return Ok(true);
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace(request) && request.subresource.is_none() && writes {
        // The write is about these labels.
        return Ok(selector.matches(&object.and_then(meta::labels)));
    }
    let namespaces = GroupVersionResource::new("", "v1", "namespaces");
    let found = request.reader.get(&namespaces, "", name)?;
    let found = found.ok_or_else(|| ApiError::not_found("", "namespaces", name))?;
    Ok(selector.matches(&found.header().labels))
}

/// Whether a selector of objects takes the object after or before the write.
pub(crate) fn object_matches(selector: &Selector, old: Option<&Value>, object: Option<&Value>) -> bool {
    let takes = |object: &Value| {
        let labels: Option<&Map<String, Value>> = meta::labels(object);
        object.get("metadata").is_some() && selector.matches(&labels)
    };
    selector.is_everything() || object.is_some_and(takes) || old.is_some_and(takes)
}

/// The other resources that hold the same objects as a kind: its other versions, and its other groups.
pub(crate) fn equivalents(request: &AdmissionRequest<'_>) -> Vec<Arc<KindDescriptor>> {
    let own = crate::keys::ResourceId::of(request.kind);
    let kinds = request.reader.kinds.load();
    let same =
        |k: &&Arc<KindDescriptor>| crate::keys::ResourceId::of(k) == own && k.resource() != request.resource;
    kinds.registry.iter().filter(same).cloned().collect()
}
