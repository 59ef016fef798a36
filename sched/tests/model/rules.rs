//! The filters, straight from the documentation.

use crate::cluster::VOLUMES;
use k8s_openapi::api::core::v1::{
    Namespace, Node, NodeSelectorTerm, Pod, PodAffinityTerm, Taint, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Labels = BTreeMap<String, String>;

/// All that exists.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) placed: Vec<(Pod, String)>,
}

/// What is to be decided of a pod.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) feasible: Vec<String>,
    pub(crate) refused_by: BTreeMap<String, usize>,
    /// By node and plugin, weighted and normalized.
    pub(crate) scores: BTreeMap<String, BTreeMap<&'static str, i64>>,
}

pub(crate) fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or("")
}

pub(crate) fn label<'a>(node: &'a Node, key: &str) -> Option<&'a String> {
    node.metadata.labels.as_ref()?.get(key)
}

pub(crate) fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

pub(crate) fn taints(node: &Node) -> Vec<Taint> {
    node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default()
}

/// A label selector by its documentation; an absent one selects nothing.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    equal
        && selector.match_expressions.iter().flatten().all(|e| {
            let values = e.values.clone().unwrap_or_default();
            let value = labels.get(&e.key);
            match e.operator.as_str() {
                "In" => value.is_some_and(|v| values.contains(v)),
                "NotIn" => !value.is_some_and(|v| values.contains(v)),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

/// Whether a pod with these tolerations bears a taint.
pub(crate) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
    tolerations.into_iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or("");
        let key = t.key.as_deref().unwrap_or("");
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() || key == taint.key)
            && (t.operator.as_deref() == Some("Exists")
                || t.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
    })
}

pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.clone().unwrap_or_default();
    !expressions.is_empty()
        && expressions.iter().all(|e| {
            let values = e.values.clone().unwrap_or_default();
            let value = label(node, &e.key);
            match e.operator.as_str() {
                "In" => value.is_some_and(|v| values.contains(v)),
                "NotIn" => !value.is_some_and(|v| values.contains(v)),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

/// Whether the pod's required node affinity accepts the node.
pub(crate) fn wants(pod: &Pod, node: &Node) -> bool {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

pub(crate) fn required_terms(pod: &Pod, near: bool) -> Vec<PodAffinityTerm> {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return Vec::new() };
    let list = if near {
        affinity
            .pod_affinity
            .as_ref()
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
    } else {
        affinity
            .pod_anti_affinity
            .as_ref()
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
    };
    list.unwrap_or_default()
}

pub(crate) fn constraints(pod: &Pod, hard: bool) -> Vec<TopologySpreadConstraint> {
    let all = pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.clone()).unwrap_or_default();
    all.into_iter().filter(|c| (c.when_unsatisfiable == "DoNotSchedule") == hard).collect()
}

/// The claims that a pod names.
pub(crate) fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.persistent_volume_claim.as_ref()).map(|c| c.claim_name.clone()).collect()
}

/// What a pod asks for of a resource: CPU in millicores, other things whole.
pub(crate) fn asks(pod: &Pod, resource: &str, assumed: i64) -> i64 {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let of = |amount: &str| match resource {
        "cpu" => kubewright_core::quantity::Quantity::parse(amount).unwrap().milli_value(),
        _ => kubewright_core::quantity::Quantity::parse(amount).unwrap().value(),
    };
    let one = |c: &k8s_openapi::api::core::v1::Container| {
        let requests = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        requests.and_then(|r| r.get(resource)).map_or(assumed, |q| of(&q.0))
    };
    containers.map(one).sum()
}

pub(crate) fn offers(node: &Node, resource: &str) -> i64 {
    let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let amount = list.and_then(|l| l.get(resource)).map_or("0", |q| q.0.as_str());
    let amount = kubewright_core::quantity::Quantity::parse(amount).unwrap();
    if resource == "cpu" { amount.milli_value() } else { amount.value() }
}

impl World {
    pub(crate) fn apply_node(&mut self, node: Node) {
        match self.nodes.iter_mut().find(|n| n.metadata.name == node.metadata.name) {
            Some(known) => *known = node,
            None => self.nodes.push(node),
        }
    }

    pub(crate) fn pods_on(&self, node: &Node) -> Vec<&Pod> {
        self.placed.iter().filter(|(_, on)| on == name(node)).map(|(p, _)| p).collect()
    }

    pub(crate) fn node_of(&self, on: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| name(n) == on)
    }

    pub(crate) fn judge(&self, pod: &Pod) -> Judgement {
        let mut judgement = Judgement::default();
        for node in &self.nodes {
            match self.refused(pod, node) {
                None => judgement.feasible.push(name(node).to_owned()),
                Some(plugin) => *judgement.refused_by.entry(plugin.to_owned()).or_default() += 1,
            }
        }
        judgement.feasible.sort();
        self.score(pod, &mut judgement);
        judgement
    }

    /// The first plugin, in upstream's order, that refuses the node.
    pub(crate) fn refused(&self, pod: &Pod, node: &Node) -> Option<&'static str> {
        let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        let bears = |t: &Taint| t.effect == "PreferNoSchedule" || tolerates(pod, t);
        if cordoned && !tolerates(pod, &cordon) {
            Some("NodeUnschedulable")
        } else if !taints(node).iter().all(bears) {
            Some("TaintToleration")
        } else if !wants(pod, node) {
            Some("NodeAffinity")
        } else if !self.ports_free(pod, node) {
            Some("NodePorts")
        } else if !self.fits(pod, node) {
            Some("NodeResourcesFit")
        } else if !self.reaches_volumes(pod, node) {
            Some("VolumeBinding")
        } else if !self.spreads(pod, node) {
            Some("PodTopologySpread")
        } else if !self.is_welcome(pod, node) {
            Some("InterPodAffinity")
        } else {
            None
        }
    }

    /// Whether the zones of the pod's volumes hold the node.
    fn reaches_volumes(&self, pod: &Pod, node: &Node) -> bool {
        claims(pod).iter().all(|claim| {
            let (_, zones) = VOLUMES.iter().find(|(name, _)| name == claim).expect("a volume");
            let zone = label(node, "topology.kubernetes.io/zone");
            zones.is_empty() || zone.is_some_and(|z| zones.contains(&z.as_str()))
        })
    }

    fn ports_free(&self, pod: &Pod, node: &Node) -> bool {
        let ports = |p: &Pod| -> BTreeSet<i32> {
            let containers = p.spec.iter().flat_map(|s| s.containers.clone());
            containers.flat_map(|c| c.ports.unwrap_or_default()).filter_map(|p| p.host_port).collect()
        };
        self.pods_on(node).iter().all(|p| ports(p).is_disjoint(&ports(pod)))
    }

    fn fits(&self, pod: &Pod, node: &Node) -> bool {
        let there = self.pods_on(node);
        let count = i64::try_from(there.len()).unwrap();
        count < offers(node, "pods")
            && ["cpu", "memory", "example.com/gpu"].iter().all(|resource| {
                let used: i64 = there.iter().map(|p| asks(p, resource, 0)).sum();
                let wanted = asks(pod, resource, 0);
                wanted == 0 || wanted + used <= offers(node, resource)
            })
    }

    /// Whether a pod is selected by a constraint of another pod in the same namespace.
    pub(crate) fn counted(&self, constraint: &TopologySpreadConstraint, of: &Pod, pod: &Pod) -> bool {
        let mine = labels(of);
        let same_keys = constraint.match_label_keys.iter().flatten().all(|key| match mine.get(key) {
            Some(value) => labels(pod).get(key) == Some(value),
            None => true,
        });
        of.metadata.namespace == pod.metadata.namespace
            && selects(constraint.label_selector.as_ref(), &labels(pod))
            && same_keys
    }

    /// Whether a node's pods count for a constraint.
    pub(crate) fn included(&self, constraint: &TopologySpreadConstraint, pod: &Pod, node: &Node) -> bool {
        let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
        let taint = constraint.node_taints_policy.as_deref() == Some("Honor");
        (!affinity || wants(pod, node))
            && (!taint || taints(node).iter().all(|t| t.effect == "PreferNoSchedule" || tolerates(pod, t)))
    }

    fn spreads(&self, pod: &Pod, node: &Node) -> bool {
        let constraints = constraints(pod, true);
        for constraint in &constraints {
            let Some(value) = label(node, &constraint.topology_key) else { return false };
            let mut domains: BTreeMap<&String, i64> = BTreeMap::new();
            for other in &self.nodes {
                let has_all = constraints.iter().all(|c| label(other, &c.topology_key).is_some());
                if !has_all || !self.included(constraint, pod, other) {
                    continue;
                }
                let pods = self.pods_on(other);
                let n = pods.iter().filter(|p| self.counted(constraint, pod, p)).count();
                if let Some(domain) = label(other, &constraint.topology_key) {
                    *domains.entry(domain).or_default() += i64::try_from(n).unwrap();
                }
            }
            let enough = domains.len() >= usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap();
            let smallest = if enough { domains.values().min().copied().unwrap_or(0) } else { 0 };
            let own = i64::from(self.counted(constraint, pod, pod));
            let here = domains.get(value).copied().unwrap_or(0);
            if here + own - smallest > i64::from(constraint.max_skew) {
                return false;
            }
        }
        true
    }

    /// Whether an affinity term of a pod selects another pod.
    pub(crate) fn term_selects(&self, of: &Pod, term: &PodAffinityTerm, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let listed = term.namespaces.clone().unwrap_or_default();
        let own = listed.is_empty()
            && term.namespace_selector.is_none()
            && of.metadata.namespace == pod.metadata.namespace;
        let found = self.namespaces.iter().find(|n| n.metadata.name.as_ref() == Some(&namespace));
        let namespace_labels = found.and_then(|n| n.metadata.labels.clone()).unwrap_or_default();
        (own || listed.contains(&namespace) || selects(term.namespace_selector.as_ref(), &namespace_labels))
            && selects(term.label_selector.as_ref(), &labels(pod))
    }

    /// Whether two nodes are in one domain.
    pub(crate) fn together(key: &str, a: &Node, b: &Node) -> bool {
        label(a, key).is_some() && label(a, key) == label(b, key)
    }

    /// Pods on nodes that exist, with their nodes.
    pub(crate) fn everywhere(&self) -> Vec<(&Pod, &Node)> {
        self.placed.iter().filter_map(|(p, on)| Some((p, self.node_of(on)?))).collect()
    }

    fn is_welcome(&self, pod: &Pod, node: &Node) -> bool {
        let required = required_terms(pod, true);
        let all = |p: &Pod| required.iter().all(|t| self.term_selects(pod, t, p));
        if !required.is_empty() {
            if required.iter().any(|t| label(node, &t.topology_key).is_none()) {
                return false;
            }
            let matching: Vec<(&Pod, &Node)> =
                self.everywhere().into_iter().filter(|(p, _)| all(p)).collect();
            let near =
                |t: &PodAffinityTerm| matching.iter().any(|(_, n)| Self::together(&t.topology_key, n, node));
            // No matching pod is in any domain of any term: the first of its kind may start anywhere.
            let nowhere =
                matching.iter().all(|(_, n)| required.iter().all(|t| label(n, &t.topology_key).is_none()));
            if !(required.iter().all(near) || nowhere && all(pod)) {
                return false;
            }
        }
        let forbidden = required_terms(pod, false);
        let opposed = |p: &Pod, n: &Node| {
            required_terms(p, false)
                .iter()
                .any(|t| self.term_selects(p, t, pod) && Self::together(&t.topology_key, n, node))
        };
        !self.everywhere().iter().any(|(p, n)| {
            forbidden.iter().any(|t| self.term_selects(pod, t, p) && Self::together(&t.topology_key, n, node))
                || opposed(p, n)
        })
    }
}
