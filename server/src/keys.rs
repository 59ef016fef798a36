//! Where objects stand in the store: one layout for every kind.
//!
//! `/registry/<group or core>/<resource>/<namespace>/<name>`, without the namespace for cluster-scoped kinds.

use bytes::Bytes;
use kubewright_core::{ApiError, KindDescriptor};
use kubewright_store::Store;
use smol_str::SmolStr;
use std::time::Duration;

/// Everything that the server keeps as objects.
pub(crate) const PREFIX: &str = "/registry/";

/// Claims of numbers (cluster IPs, node ports): one key each, written and removed together with the object that holds it.
pub(crate) const CLAIMS: &str = "/claims/";

/// The resource that stores objects: group and plural, whatever the version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ResourceId {
    /// API group, empty for core.
    pub(crate) group: SmolStr,
    /// Plural name.
    pub(crate) resource: SmolStr,
}

impl ResourceId {
    /// The resource under which a kind's objects are kept.
    pub(crate) fn of(kind: &KindDescriptor) -> Self {
        match &kind.stored_as {
            Some(other) => {
                ResourceId { group: other.resource.group.clone(), resource: other.resource.resource.clone() }
            }
            None => ResourceId { group: kind.group.clone(), resource: kind.plural.clone() },
        }
    }

    /// The prefix of its keys, with the last slash.
    pub(crate) fn prefix(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group.as_str() };
        format!("{PREFIX}{group}/{}/", self.resource)
    }

    /// The store key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Bytes {
        let mut key = self.prefix();
        if !namespace.is_empty() {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        Bytes::from(key)
    }

    /// Takes a store key apart into the resource and the object's key within it (`namespace/name` or `name`).
    pub(crate) fn split(key: &Bytes) -> Option<(&str, &str, Bytes)> {
        let text = std::str::from_utf8(key).ok()?;
        let rest = text.strip_prefix(PREFIX)?;
        let (group, rest) = rest.split_once('/')?;
        let (resource, object) = rest.split_once('/')?;
        let start = key.len() - object.len();
        Some((if group == "core" { "" } else { group }, resource, key.slice(start..)))
    }
}

/// Tells the store which objects it keeps in memory only, and which it may delete by itself.
///
/// # Errors
/// 500 where it can't keep any in memory only.
pub(crate) async fn declare(
    store: &dyn Store,
    in_memory: &[ResourceId],
    events: Duration,
) -> Result<(), ApiError> {
    for id in in_memory {
        let declared = store.keep_in_memory(Bytes::from(id.prefix())).await;
        declared.map_err(|e| ApiError::internal(format!("{} in memory: {e}", id.resource)))?;
    }
    for group in ["", "events.k8s.io"] {
        let id = ResourceId { group: group.into(), resource: "events".into() };
        store.expire(Bytes::from(id.prefix()), events);
    }
    Ok(())
}

/// The key of an object within its resource.
pub(crate) fn object_key(namespace: &str, name: &str) -> Bytes {
    if namespace.is_empty() {
        return Bytes::copy_from_slice(name.as_bytes());
    }
    let mut key = Vec::with_capacity(namespace.len() + 1 + name.len());
    key.extend_from_slice(namespace.as_bytes());
    key.push(b'/');
    key.extend_from_slice(name.as_bytes());
    Bytes::from(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        let check = |group: &str, resource: &str, namespace: &str, name: &str, expected: &str| {
            let id = ResourceId { group: group.into(), resource: resource.into() };
            let key = id.key(namespace, name);
            assert_eq!(key, expected);
            let (g, r, object) = ResourceId::split(&key).unwrap();
            assert_eq!((g, r, object), (group, resource, object_key(namespace, name)));
        };
        check("", "pods", "ns", "a", "/registry/core/pods/ns/a");
        check("", "nodes", "", "n", "/registry/core/nodes/n");
        check("apps", "deployments", "ns", "d.e", "/registry/apps/deployments/ns/d.e");
        for bad in ["/registry/", "/registry/core", "/registry/core/pods", "/claims/x/y/z"] {
            assert!(ResourceId::split(&Bytes::from_static(bad.as_bytes())).is_none(), "{bad}");
        }
    }
}
