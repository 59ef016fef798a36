//! API servers behind this one: what APIServices with a Service say is answered there.
//!
//! The APIServices are compiled into a table when they change. Requests of a version in it are passed on as they came, with the user in
//! headers that the other server believes because of this one's client certificate; those that begin in this process are written down
//! first. A task looks regularly whether the others answer, and fetches what they serve for discovery and OpenAPI.

mod forward;
mod inside;
mod local;
mod probe;
mod remote;

pub(crate) use local::ensure;
pub(crate) use probe::run;
pub(crate) use remote::{Fetched, Remote};

use crate::cache::{CacheEvent, Listener, ObjectCache, ResourceCache, Snapshot};
use crate::keys::ResourceId;
use crate::tls::FrontProxy;
use arc_swap::ArcSwap;
use kubewright_core::{GroupVersionResource, Target};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";

pub(crate) fn resource() -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", PLURAL)
}

type Table = FxHashMap<(SmolStr, SmolStr), Arc<Remote>>;

/// The versions that others answer for.
pub(crate) struct Aggregator {
    table: ArcSwap<Table>,
    /// Counts changes of what is known of others, for the documents made of it.
    generation: AtomicU64,
    /// Told when there is something to look at.
    changed: Notify,
    /// How this server shows itself to others.
    front_proxy: Option<FrontProxy>,
}

impl Aggregator {
    pub(crate) fn new(front_proxy: Option<FrontProxy>) -> Self {
        Aggregator {
            table: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changed: Notify::new(),
            front_proxy,
        }
    }

    /// Whom others know this server by.
    pub(crate) fn front_proxy(&self) -> Option<&FrontProxy> {
        self.front_proxy.as_ref()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Who answers for a version of a group, where it is not this server.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let table = self.table.load();
        if table.is_empty() {
            return None;
        }
        table.get(&(SmolStr::new(group), SmolStr::new(version))).cloned()
    }

    /// Who answers a request, where it is not this server.
    pub(crate) fn of(&self, target: &Target) -> Option<Arc<Remote>> {
        if self.table.load().is_empty() {
            return None;
        }
        match target {
            Target::Resource { resource, .. } => self.find(&resource.group, &resource.version),
            Target::Path(path) => {
                let path = path.split('?').next().unwrap_or("");
                let mut segments = path.trim_start_matches('/').split('/');
                match (segments.next()?, segments.next()?, segments.next()?) {
                    ("apis", group, version) => self.find(group, version),
                    ("openapi", "v3", "apis") => self.find(segments.next()?, segments.next()?),
                    _ => None,
                }
            }
        }
    }

    /// All others, by group and version.
    pub(crate) fn remotes(&self) -> Vec<Arc<Remote>> {
        let mut all: Vec<Arc<Remote>> = self.table.load().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn touched(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, snapshot: &Snapshot) {
        let before = self.table.load();
        let mut table = Table::default();
        for (_, entry) in snapshot.range(b"", b"") {
            let Ok(object) = entry.shape.object.value() else { continue };
            let Some(made) = Remote::of(&object, self.front_proxy.as_ref()) else { continue };
            let key = (made.group.clone(), made.version.clone());
            let kept = before.get(&key).filter(|r| r.is_same(&made)).cloned();
            table.insert(key, kept.unwrap_or_else(|| Arc::new(made)));
        }
        let same = table.len() == before.len()
            && table.iter().all(|(key, remote)| before.get(key).is_some_and(|r| Arc::ptr_eq(r, remote)));
        if !same {
            self.table.store(Arc::new(table));
            self.touched();
        }
        self.changed.notify_one();
    }
}

impl Listener for Aggregator {
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]) {
        if events.is_empty() {
            return;
        }
        match (resource.id.group.as_str(), resource.id.resource.as_str()) {
            (GROUP, PLURAL) => self.take(&resource.snapshot()),
            ("apiextensions.k8s.io", "customresourcedefinitions") => self.changed.notify_one(),
            ("", "services") | ("discovery.k8s.io", "endpointslices") => {
                let table = self.table.load();
                let concerns = |key: &[u8]| table.values().any(|r| key.starts_with(r.service_key()));
                if !table.is_empty() && events.iter().any(|e| concerns(&e.key)) {
                    self.changed.notify_one();
                }
            }
            _ => {}
        }
    }

    fn reloaded(&self, cache: &ObjectCache) {
        let id = ResourceId { group: GROUP.into(), resource: PLURAL.into() };
        self.take(&cache.resource(&id).snapshot());
    }
}
