//! The kinds served now: the built-in ones, the host's own, and those that CustomResourceDefinitions add at run time.

use crate::cache::{ObjectCache, ResourceCache};
use crate::keys::ResourceId;
use arc_swap::ArcSwap;
use kubewright_core::{ApiError, GroupVersionResource, KindDescriptor, Registry};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Resources that upstream calls deprecated, with what every request for them is warned of.
const DEPRECATED: [(&str, &str, &str, &str); 2] = [
    ("", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("", "v1", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

fn deprecation(kind: &KindDescriptor) -> Option<&'static str> {
    let found = DEPRECATED.iter().find(|(group, version, plural, _)| {
        kind.plural == *plural && kind.group == *group && kind.version == *version
    });
    found.map(|(.., warning)| *warning)
}

/// One resource in one version, with all that a request for it needs.
pub(crate) struct Served {
    pub(crate) descriptor: Arc<KindDescriptor>,
    /// The descriptor of the shape in which objects are stored; the same one for a kind that stores its own.
    pub(crate) storage: Arc<KindDescriptor>,
    pub(crate) cache: Arc<ResourceCache>,
    /// Whether its definition is being deleted: there are no new ones any more.
    pub(crate) ending: bool,
    /// What every request for it is warned of.
    pub(crate) deprecated: Option<&'static str>,
}

impl Served {
    pub(crate) fn group(&self) -> &str {
        &self.descriptor.group
    }

    pub(crate) fn plural(&self) -> &str {
        &self.descriptor.plural
    }

    /// Whether this is a resource of this group and plural, in any version.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.descriptor.group == group && self.descriptor.plural == plural
    }

    /// 404 for an object of this resource.
    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(self.group(), self.plural(), name)
    }
}

/// All kinds at one moment.
pub(crate) struct Kinds {
    pub(crate) registry: Registry,
    by_resource: FxHashMap<GroupVersionResource, Arc<Served>>,
    /// Counts changes, so that documents made of the kinds know when they are out of date.
    pub(crate) generation: u64,
}

impl Kinds {
    pub(crate) fn get(&self, resource: &GroupVersionResource) -> Option<&Arc<Served>> {
        self.by_resource.get(resource)
    }
}

/// The kinds, changeable while requests run.
pub(crate) struct KindTable {
    current: ArcSwap<Kinds>,
    builtin: Registry,
    cache: Arc<ObjectCache>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl KindTable {
    pub(crate) fn new(builtin: Registry, cache: Arc<ObjectCache>) -> Result<Self, ApiError> {
        let empty = Kinds { registry: Registry::new(), by_resource: FxHashMap::default(), generation: 0 };
        let table =
            KindTable { current: ArcSwap::from_pointee(empty), builtin, cache, changing: Mutex::new(()) };
        table.replace_custom(Vec::new(), &[])?;
        Ok(table)
    }

    pub(crate) fn load(&self) -> Arc<Kinds> {
        self.current.load_full()
    }

    /// The kind of a resource.
    pub(crate) fn get(&self, resource: &GroupVersionResource) -> Option<Arc<Served>> {
        self.current.load().get(resource).cloned()
    }

    /// Whether a kind is compiled in.
    pub(crate) fn is_builtin(&self, resource: &GroupVersionResource) -> bool {
        self.builtin.get(resource).is_some()
    }

    /// Serves the built-in kinds and these; no new objects of the resources that are ending.
    pub(crate) fn replace_custom(
        &self,
        custom: Vec<Arc<KindDescriptor>>,
        ending: &[ResourceId],
    ) -> Result<(), ApiError> {
        let _changing = self.changing.lock();
        let before = self.load();
        let mut registry = self.builtin.clone();
        for kind in custom {
            if let Err(taken) = registry.insert(KindDescriptor::clone(&kind)) {
                tracing::warn!(kind = ?taken, "a custom kind hides behind one that is served already");
            }
        }
        let mut by_resource = FxHashMap::default();
        for descriptor in registry.iter() {
            let storage = match &descriptor.stored_as {
                Some(other) => registry.get(&other.resource).unwrap_or(descriptor).clone(),
                None => descriptor.clone(),
            };
            let id = ResourceId::of(descriptor);
            let ending = ending.contains(&id);
            let cache = self.cache.resource(&id);
            if descriptor.stored_as.is_none() {
                let same = cache.kind().is_some_and(|k| Arc::ptr_eq(&k, descriptor));
                if !same {
                    cache.set_kind(descriptor.clone())?;
                }
            }
            let deprecated = deprecation(descriptor);
            let served = Served { descriptor: descriptor.clone(), storage, cache, ending, deprecated };
            by_resource.insert(descriptor.resource(), Arc::new(served));
        }
        let generation = before.generation + 1;
        self.current.store(Arc::new(Kinds { registry, by_resource, generation }));
        Ok(())
    }
}
