//! What plugins know of the cluster beyond nodes and pods: namespaces, the selectors of services and controllers, disruption budgets, volumes.

use crate::devices::DeviceObjects;
use crate::intern::{Interner, Symbol};
use crate::labels::{Labels, Selector, intern_labels};
use crate::pod::PodKey;
use crate::volumes::VolumeObjects;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::ops::BitOr;

/// Kinds of objects whose changes void what plugins found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched(u8);

impl Watched {
    /// Nothing but nodes and pods.
    pub const NOTHING: Watched = Watched(0);
    /// Labels of namespaces.
    pub const NAMESPACES: Watched = Watched(1);
    /// Selectors of services, replica sets, replication controllers and stateful sets.
    pub const SELECTORS: Watched = Watched(1 << 1);
    /// Disruption budgets.
    pub const BUDGETS: Watched = Watched(1 << 2);
    /// Claims, volumes, storage classes, CSI nodes and drivers.
    pub const VOLUMES: Watched = Watched(1 << 3);
    /// Which nodes exist.
    pub const NODES: Watched = Watched(1 << 4);

    /// Claims, classes and slices of devices.
    pub const DEVICES: Watched = Watched(1 << 5);

    const ALL: [Watched; 6] = [
        Watched::NAMESPACES,
        Watched::SELECTORS,
        Watched::BUDGETS,
        Watched::VOLUMES,
        Watched::NODES,
        Watched::DEVICES,
    ];

    pub(crate) fn has(self, other: Watched) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Watched {
    type Output = Watched;

    fn bitor(self, other: Watched) -> Watched {
        Watched(self.0 | other.0)
    }
}

/// A disruption budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Namespace.
    pub namespace: Symbol,
    /// The pods under it; an empty one matches none.
    pub selector: Selector,
    /// How many may be evicted now.
    pub allowed: i32,
    /// Pods whose eviction was counted already.
    pub disrupted: FxHashSet<SmolStr>,
}

/// The objects.
#[derive(Debug, Default)]
pub struct Objects {
    namespaces: FxHashMap<Symbol, Labels>,
    /// Selectors of services by namespace and name.
    services: FxHashMap<Symbol, BTreeMap<SmolStr, Labels>>,
    /// Selectors of controllers by kind (`apps/v1/ReplicaSet`), namespace and name.
    controllers: FxHashMap<(SmolStr, Symbol, SmolStr), Selector>,
    budgets: BTreeMap<PodKey, Budget>,
    /// Claims, volumes and what belongs to them.
    pub volumes: VolumeObjects,
    /// Devices and who claims them.
    pub devices: DeviceObjects,
    changes: [u64; 6],
}

impl Objects {
    /// Counts the changes of what is watched: equal counts mean that nothing changed.
    pub fn changes(&self, watched: Watched) -> u64 {
        let kinds = Watched::ALL.iter().zip(self.changes);
        kinds.filter(|(kind, _)| watched.has(**kind)).map(|(_, n)| n).sum()
    }

    pub(crate) fn changed(&mut self, watched: Watched) {
        for (at, kind) in Watched::ALL.iter().enumerate() {
            self.changes[at] += u64::from(watched.has(*kind));
        }
    }

    /// The labels of a namespace; none where it is not known.
    pub fn namespace_labels(&self, namespace: Symbol) -> &[(Symbol, Symbol)] {
        self.namespaces.get(&namespace).map_or(&[], |labels| labels)
    }

    /// The disruption budgets, ordered by namespace and name.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.budgets.values()
    }

    /// The selectors of the services of a namespace.
    pub(crate) fn services(&self, namespace: Symbol) -> impl Iterator<Item = &Labels> {
        self.services.get(&namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// The selector of a controller.
    pub(crate) fn controller(&self, kind: &SmolStr, namespace: Symbol, name: &SmolStr) -> Option<&Selector> {
        self.controllers.get(&(kind.clone(), namespace, name.clone()))
    }

    pub(crate) fn apply_namespace(&mut self, namespace: &Namespace, symbols: &mut Interner) -> bool {
        let name = symbols.intern(namespace.metadata.name.as_deref().unwrap_or(""));
        let labels = intern_labels(namespace.metadata.labels.as_ref(), symbols);
        let before = self.namespaces.insert(name, labels.clone());
        let changed = before.map_or(!labels.is_empty(), |b| b != labels);
        if changed {
            self.changed(Watched::NAMESPACES);
        }
        changed
    }

    pub(crate) fn apply_service(&mut self, service: &Service, symbols: &mut Interner) {
        let key = PodKey::new(
            service.metadata.namespace.as_deref().unwrap_or(""),
            service.metadata.name.as_deref().unwrap_or(""),
        );
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
        let of = self.services.entry(symbols.intern(&key.namespace)).or_default();
        // A service without a selector has no pods.
        let changed = match selector {
            None => of.remove(&key.name).is_some(),
            Some(selector) => {
                let labels = intern_labels(Some(selector), symbols);
                of.insert(key.name, labels.clone()) != Some(labels)
            }
        };
        if changed {
            self.changed(Watched::SELECTORS);
        }
    }

    pub(crate) fn remove_service(&mut self, key: &PodKey, symbols: &mut Interner) {
        let of = self.services.get_mut(&symbols.intern(&key.namespace));
        if of.and_then(|s| s.remove(&key.name)).is_some() {
            self.changed(Watched::SELECTORS);
        }
    }

    /// Sets or (with `None`) forgets a controller's selector.
    pub(crate) fn set_controller(
        &mut self,
        kind: &str,
        key: &PodKey,
        selector: Option<&LabelSelector>,
        symbols: &mut Interner,
    ) {
        let place = (kind.into(), symbols.intern(&key.namespace), key.name.clone());
        let changed = match selector {
            None => self.controllers.remove(&place).is_some(),
            Some(selector) => {
                let selector = Selector::compile(Some(selector), symbols);
                self.controllers.insert(place, selector.clone()) != Some(selector)
            }
        };
        if changed {
            self.changed(Watched::SELECTORS);
        }
    }

    pub(crate) fn apply_budget(&mut self, budget: &PodDisruptionBudget, symbols: &mut Interner) {
        let meta = &budget.metadata;
        let key = PodKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let status = budget.status.as_ref();
        let read = Budget {
            namespace: symbols.intern(&key.namespace),
            selector: Selector::compile(selector, symbols),
            allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: status
                .iter()
                .flat_map(|s| s.disrupted_pods.iter().flatten())
                .map(|(name, _)| SmolStr::new(name))
                .collect(),
        };
        if self.budgets.get(&key) != Some(&read) {
            self.budgets.insert(key, read);
            self.changed(Watched::BUDGETS);
        }
    }

    pub(crate) fn remove_budget(&mut self, key: &PodKey) {
        if self.budgets.remove(key).is_some() {
            self.changed(Watched::BUDGETS);
        }
    }
}
