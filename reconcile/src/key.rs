//! The name of an object within its resource.

use kubewright_core::{ApiObject, ObjectMeta, Resource};
use smol_str::SmolStr;
use std::fmt;

/// Namespace and name; the namespace is empty for cluster scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace, empty for cluster scope.
    pub namespace: SmolStr,
    /// The name.
    pub name: SmolStr,
}

impl ObjectKey {
    /// From its two parts.
    ///
    /// ```
    /// let key = kubewright_reconcile::ObjectKey::new("default", "web");
    /// assert_eq!(key.to_string(), "default/web");
    /// ```
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        ObjectKey { namespace: SmolStr::new(namespace), name: SmolStr::new(name) }
    }

    /// The key of a typed object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::of_meta(object.metadata())
    }

    /// The key that stands in this metadata.
    pub fn of_meta(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// The key of an undecoded object.
    pub fn of_object(object: &ApiObject) -> Self {
        let header = object.header();
        ObjectKey { namespace: header.namespace.clone(), name: header.name.clone() }
    }

    /// The namespace as requests take it: `None` for cluster scope.
    pub fn namespace_opt(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|n| !n.is_empty())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
