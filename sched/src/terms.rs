//! What a pod says of other pods: affinity terms and spreading constraints, compiled once a class.

use crate::class::PodClass;
use crate::intern::{Interner, Symbol};
use crate::labels::{Labels, Selector, value_of};
use crate::objects::Objects;
use k8s_openapi::api::core::v1::{
    PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm,
};

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// The topology key.
    pub key: Symbol,
    namespaces: Vec<Symbol>,
    namespace_selector: Selector,
    selector: Selector,
}

impl AffinityTerm {
    fn compile(term: &PodAffinityTerm, namespace: Symbol, labels: &Labels, symbols: &mut Interner) -> Self {
        let listed = term.namespaces.as_deref().unwrap_or_default();
        let mut namespaces: Vec<Symbol> = listed.iter().map(|n| symbols.intern(n)).collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace);
        }
        let mut selector = Selector::compile(term.label_selector.as_ref(), symbols);
        // The API server merges these into the selector; doing it again changes nothing.
        merge_keys(&mut selector, term.match_label_keys.as_deref(), labels, true, symbols);
        merge_keys(&mut selector, term.mismatch_label_keys.as_deref(), labels, false, symbols);
        AffinityTerm {
            key: symbols.intern(&term.topology_key),
            namespaces,
            namespace_selector: Selector::compile(term.namespace_selector.as_ref(), symbols),
            selector,
        }
    }

    /// Whether pods of a class match, wherever they are.
    pub fn matches(&self, class: &PodClass, objects: &Objects) -> bool {
        self.selector.matches(class.labels())
            && (self.namespaces.contains(&class.namespace())
                || self.namespace_selector.matches(objects.namespace_labels(class.namespace())))
    }

    /// Whether it looks at the labels of namespaces.
    pub fn selects_namespaces(&self) -> bool {
        !self.namespace_selector.is_nothing()
    }
}

fn merge_keys(
    selector: &mut Selector,
    keys: Option<&[String]>,
    labels: &Labels,
    wanted: bool,
    symbols: &mut Interner,
) {
    for key in keys.unwrap_or_default() {
        let key = symbols.intern(key);
        if let Some(value) = value_of(labels, key) {
            selector.require(key, value, wanted);
        }
    }
}

/// Everything that a pod demands and prefers of the pods around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityTerms {
    /// Pods that must be near; a pod must match all of them to count.
    pub required: Vec<AffinityTerm>,
    /// Pods that must not be near.
    pub forbidden: Vec<AffinityTerm>,
    /// Pods that are liked near (weight above 0) or not (below 0).
    pub preferred: Vec<(i64, AffinityTerm)>,
}

impl AffinityTerms {
    pub(crate) fn compile(
        spec: &PodSpec,
        namespace: Symbol,
        labels: &Labels,
        symbols: &mut Interner,
    ) -> Self {
        let affinity = spec.affinity.as_ref();
        let (near, far) = (
            affinity.and_then(|a| a.pod_affinity.as_ref()),
            affinity.and_then(|a| a.pod_anti_affinity.as_ref()),
        );
        let mut read = |list: Option<&Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            list.into_iter().flatten().map(|t| AffinityTerm::compile(t, namespace, labels, symbols)).collect()
        };
        let required =
            read(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()));
        let forbidden =
            read(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()));
        let mut preferred = Vec::new();
        let mut weigh = |list: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
            for term in list.into_iter().flatten() {
                let compiled = AffinityTerm::compile(&term.pod_affinity_term, namespace, labels, symbols);
                preferred.push((sign * i64::from(term.weight), compiled));
            }
        };
        weigh(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        weigh(far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1);
        AffinityTerms { required, forbidden, preferred }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.forbidden.is_empty() && self.preferred.is_empty()
    }

    /// Whether any term looks at the labels of namespaces.
    pub fn selects_namespaces(&self) -> bool {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        self.required.iter().chain(&self.forbidden).chain(preferred).any(AffinityTerm::selects_namespaces)
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    /// How far apart the counts of two domains may be.
    pub max_skew: i64,
    /// The topology key.
    pub key: Symbol,
    /// Whether it filters (`DoNotSchedule`) or scores (`ScheduleAnyway`).
    pub hard: bool,
    /// The pods that are counted.
    pub selector: Selector,
    /// With fewer domains than this the smallest count is taken for 0.
    pub min_domains: usize,
    /// Whether nodes that the pod's node affinity excludes are left out.
    pub honor_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate are left out.
    pub honor_taints: bool,
}

impl SpreadConstraint {
    /// Compiles a constraint; the labels are those of the pod, for `matchLabelKeys`.
    pub(crate) fn compile(
        written: &TopologySpreadConstraint,
        labels: &Labels,
        symbols: &mut Interner,
    ) -> Self {
        let mut selector = Selector::compile(written.label_selector.as_ref(), symbols);
        merge_keys(&mut selector, written.match_label_keys.as_deref(), labels, true, symbols);
        let honors = |policy: Option<&str>, default: bool| policy.map_or(default, |p| p == "Honor");
        SpreadConstraint {
            max_skew: i64::from(written.max_skew),
            key: symbols.intern(&written.topology_key),
            hard: written.when_unsatisfiable == "DoNotSchedule",
            selector,
            min_domains: written.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            honor_affinity: honors(written.node_affinity_policy.as_deref(), true),
            honor_taints: honors(written.node_taints_policy.as_deref(), false),
        }
    }
}
