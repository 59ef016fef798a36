//! What authentication and authorization read of the plane's own objects.

use kubewright_core::{ApiError, ApiObject, GroupVersionResource};
use std::sync::Arc;

/// Reads the present objects without asking who may; the server's object cache is one.
pub trait ObjectReader: Send + Sync + 'static {
    /// An object; the namespace is empty for cluster scope.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    fn get(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ApiObject>>, ApiError>;

    /// The objects of a namespace, of all when it is empty.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    fn list(&self, resource: &GroupVersionResource, namespace: &str)
    -> Result<Vec<Arc<ApiObject>>, ApiError>;

    /// A number that changes whenever an object of the resource does.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    fn changed_at(&self, resource: &GroupVersionResource) -> Result<u64, ApiError>;

    /// The pods that are bound to a node.
    ///
    /// # Errors
    /// 404 where pods are not served.
    fn pods_on(&self, node: &str) -> Result<Vec<Arc<ApiObject>>, ApiError> {
        let mut found = self.list(&GroupVersionResource::new("", "v1", "pods"), "")?;
        found.retain(|pod| pod.value().is_ok_and(|pod| pod["spec"]["nodeName"] == node));
        Ok(found)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parking_lot::Mutex;
    use serde_json::Value;
    use std::collections::BTreeMap;

    type Key = (GroupVersionResource, String, String);

    /// Objects in a map.
    #[derive(Default)]
    pub(crate) struct Objects(Mutex<(u64, BTreeMap<Key, Arc<ApiObject>>)>);

    impl Objects {
        pub(crate) fn put(&self, group: &str, resource: &str, value: &Value) {
            let object = Arc::new(ApiObject::from_value(value).unwrap());
            let header = object.header();
            let gvr = GroupVersionResource::new(group, "v1", resource);
            let key = (gvr, header.namespace.to_string(), header.name.to_string());
            let mut inner = self.0.lock();
            inner.0 += 1;
            inner.1.insert(key, object);
        }

        pub(crate) fn remove(&self, group: &str, resource: &str, namespace: &str, name: &str) {
            let gvr = GroupVersionResource::new(group, "v1", resource);
            let mut inner = self.0.lock();
            inner.0 += 1;
            inner.1.remove(&(gvr, namespace.to_owned(), name.to_owned()));
        }
    }

    impl ObjectReader for Objects {
        fn get(
            &self,
            resource: &GroupVersionResource,
            namespace: &str,
            name: &str,
        ) -> Result<Option<Arc<ApiObject>>, ApiError> {
            let key = (resource.clone(), namespace.to_owned(), name.to_owned());
            Ok(self.0.lock().1.get(&key).cloned())
        }

        fn list(
            &self,
            resource: &GroupVersionResource,
            namespace: &str,
        ) -> Result<Vec<Arc<ApiObject>>, ApiError> {
            let inner = self.0.lock();
            let wanted = |k: &Key| k.0 == *resource && (namespace.is_empty() || k.1 == namespace);
            Ok(inner.1.iter().filter(|(k, _)| wanted(k)).map(|(_, o)| o.clone()).collect())
        }

        fn changed_at(&self, _: &GroupVersionResource) -> Result<u64, ApiError> {
            Ok(self.0.lock().0)
        }
    }
}
