//! The kinds that a plane serves.

use crate::{GroupVersionResource, KindDescriptor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every kind by group, version and plural. Cloning shares the descriptors; a change makes a new registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    kinds: BTreeMap<GroupVersionResource, Arc<KindDescriptor>>,
}

impl Registry {
    /// A registry without kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind.
    ///
    /// # Errors
    /// Gives the kind back where its resource is taken.
    pub fn insert(&mut self, kind: KindDescriptor) -> Result<(), Box<KindDescriptor>> {
        let key = kind.resource();
        if self.kinds.contains_key(&key) {
            return Err(Box::new(kind));
        }
        self.kinds.insert(key, Arc::new(kind));
        Ok(())
    }

    /// Takes a kind out.
    pub fn remove(&mut self, resource: &GroupVersionResource) -> Option<Arc<KindDescriptor>> {
        self.kinds.remove(resource)
    }

    /// The kind of a resource.
    pub fn get(&self, resource: &GroupVersionResource) -> Option<&Arc<KindDescriptor>> {
        self.kinds.get(resource)
    }

    /// The kind with this group, version and kind name.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<KindDescriptor>> {
        self.kinds.values().find(|d| d.kind == kind && d.group == group && d.version == version)
    }

    /// All kinds, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KindDescriptor>> {
        self.kinds.values()
    }
}
