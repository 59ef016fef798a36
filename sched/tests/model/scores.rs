//! The scores, straight from the documentation and upstream's formulas.

use crate::cluster::SERVED;
use crate::rules::{
    Judgement, World, asks, constraints, label, labels, name, offers, required_terms, taints, term_matches,
    tolerates,
};
use k8s_openapi::api::core::v1::{Node, Pod, TopologySpreadConstraint, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};

type Raw = BTreeMap<String, i64>;

/// By the largest; `reverse` makes it the worst.
fn by_max(raw: &mut Raw, reverse: bool) {
    let max = raw.values().copied().max().unwrap_or(0);
    for score in raw.values_mut() {
        let part = if max == 0 { if reverse { 0 } else { *score } } else { 100 * *score / max };
        *score = if reverse { 100 - part } else { part };
    }
}

fn preferred(pod: &Pod, near: bool) -> Vec<WeightedPodAffinityTerm> {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return Vec::new() };
    let list = if near {
        affinity
            .pod_affinity
            .as_ref()
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone())
    } else {
        affinity
            .pod_anti_affinity
            .as_ref()
            .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone())
    };
    list.unwrap_or_default()
}

impl World {
    pub(crate) fn score(&self, pod: &Pod, judgement: &mut Judgement) {
        let feasible: Vec<&Node> = judgement.feasible.iter().filter_map(|n| self.node_of(n)).collect();
        let mut put = |plugin: &'static str, weight: i64, raw: Raw| {
            for (node, score) in raw {
                judgement.scores.entry(node).or_default().insert(plugin, weight * score);
            }
        };
        let each = |score: &dyn Fn(&Node) -> i64| -> Raw {
            feasible.iter().map(|n| (name(n).to_owned(), score(n))).collect()
        };
        put("NodeResourcesFit", 1, each(&|n| self.least_allocated(pod, n)));
        if asks(pod, "cpu", 0) + asks(pod, "memory", 0) > 0 {
            put("NodeResourcesBalancedAllocation", 1, each(&|n| self.balanced(pod, n)));
        }
        put("ImageLocality", 1, each(&|n| self.images(pod, n)));
        let mut raw = each(&|n| {
            let soft = taints(n).into_iter().filter(|t| t.effect == "PreferNoSchedule");
            i64::try_from(soft.filter(|t| !bears_softly(pod, t)).count()).unwrap()
        });
        by_max(&mut raw, true);
        put("TaintToleration", 3, raw);
        let mut raw = each(&|n| prefers(pod, n));
        by_max(&mut raw, false);
        put("NodeAffinity", 2, raw);
        if let Some(raw) = self.spread_scores(pod, &feasible) {
            put("PodTopologySpread", 2, raw);
        }
        put("InterPodAffinity", 2, self.liking(pod, &feasible));
    }

    fn least_allocated(&self, pod: &Pod, node: &Node) -> i64 {
        let mut sum = 0;
        for (resource, assumed) in [("cpu", 100), ("memory", 200 * 1024 * 1024)] {
            let have = offers(node, resource);
            let there: i64 = self.pods_on(node).iter().map(|p| asks(p, resource, assumed)).sum();
            let used = there + asks(pod, resource, assumed);
            sum += if used > have { 0 } else { (have - used) * 100 / have };
        }
        sum / 2
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream counts in doubles"
    )]
    fn balanced(&self, pod: &Pod, node: &Node) -> i64 {
        let part = |resource: &str| {
            let there: i64 = self.pods_on(node).iter().map(|p| asks(p, resource, 0)).sum();
            ((there + asks(pod, resource, 0)) as f64 / offers(node, resource) as f64).min(1.0)
        };
        ((1.0 - ((part("cpu") - part("memory")) / 2.0).abs()) * 100.0) as i64
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream counts in doubles"
    )]
    fn images(&self, pod: &Pod, node: &Node) -> i64 {
        const MB: i64 = 1024 * 1024;
        let wanted: Vec<String> = pod
            .spec
            .iter()
            .flat_map(|s| &s.containers)
            .map(|c| c.image.clone().unwrap_or_default())
            .map(|i| if i.contains(':') { i } else { format!("{i}:latest") })
            .collect();
        let size = |node: &Node, image: &String| -> Option<i64> {
            let images = node.status.as_ref()?.images.as_ref()?;
            let mut sizes: Vec<i64> = images
                .iter()
                .filter(|i| i.names.iter().flatten().any(|n| n == image))
                .filter_map(|i| i.size_bytes)
                .collect();
            sizes.sort_unstable();
            sizes.first().copied()
        };
        let sum: i64 = wanted
            .iter()
            .filter_map(|image| {
                let having = self.nodes.iter().filter(|n| size(n, image).is_some()).count();
                let part = having as f64 / self.nodes.len() as f64;
                size(node, image).map(|s| (s as f64 * part) as i64)
            })
            .sum();
        let most = 1000 * MB * i64::try_from(wanted.len()).unwrap();
        100 * (sum.clamp(23 * MB, most) - 23 * MB) / (most - 23 * MB)
    }

    /// The soft constraints; `None` where the pod has none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream counts in doubles"
    )]
    fn spread_scores(&self, pod: &Pod, feasible: &[&Node]) -> Option<Raw> {
        let own = constraints(pod, false);
        // Pods of a service that say nothing themselves spread a little; nodes need not have all the labels then.
        let by_default = own.is_empty() && constraints(pod, true).is_empty() && is_served(pod);
        let soft = if by_default { defaults() } else { own };
        if soft.is_empty() {
            return None;
        }
        let has_all = |n: &Node| by_default || soft.iter().all(|c| label(n, &c.topology_key).is_some());
        let scored: Vec<&Node> = feasible.iter().copied().filter(|n| has_all(n)).collect();
        let count = |c: &TopologySpreadConstraint, n: &Node| {
            self.pods_on(n).iter().filter(|p| self.counted(c, pod, p)).count() as f64
        };
        let mut raw: BTreeMap<&str, i64> = BTreeMap::new();
        for node in &scored {
            let mut sum = 0.0;
            for c in &soft {
                if label(node, &c.topology_key).is_none() {
                    continue;
                }
                // Nodes without the label are one domain more.
                let values: BTreeSet<Option<&String>> =
                    scored.iter().map(|n| label(n, &c.topology_key)).collect();
                let host = c.topology_key == "kubernetes.io/hostname";
                let size = if host { scored.len() } else { values.len() };
                let matching = if host {
                    count(c, node)
                } else {
                    let domain = self.nodes.iter().filter(|n| {
                        has_all(n) && Self::together(&c.topology_key, n, node) && self.included(c, pod, n)
                    });
                    domain.map(|n| count(c, n)).sum()
                };
                sum += matching * ((size + 2) as f64).ln() + f64::from(c.max_skew - 1);
            }
            raw.insert(name(node), sum.round() as i64);
        }
        let (min, max) = (raw.values().min().copied().unwrap_or(0), raw.values().max().copied().unwrap_or(0));
        let score = |n: &Node| match raw.get(name(n)) {
            None => 0,
            Some(_) if max == 0 => 100,
            Some(s) => 100 * (max + min - s) / max,
        };
        Some(feasible.iter().map(|n| (name(n).to_owned(), score(n))).collect())
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream counts in doubles"
    )]
    fn liking(&self, pod: &Pod, feasible: &[&Node]) -> Raw {
        let mut raw = Raw::new();
        for node in feasible {
            let mut sum = 0;
            for (other, on) in self.everywhere() {
                for (near, sign) in [(true, 1), (false, -1)] {
                    for t in preferred(pod, near) {
                        let term = &t.pod_affinity_term;
                        if self.term_selects(pod, term, other) && Self::together(&term.topology_key, on, node)
                        {
                            sum += sign * i64::from(t.weight);
                        }
                    }
                    for t in preferred(other, near) {
                        let term = &t.pod_affinity_term;
                        if self.term_selects(other, term, pod) && Self::together(&term.topology_key, on, node)
                        {
                            sum += sign * i64::from(t.weight);
                        }
                    }
                }
                for term in required_terms(other, true) {
                    if self.term_selects(other, &term, pod) && Self::together(&term.topology_key, on, node) {
                        sum += 1;
                    }
                }
            }
            raw.insert(name(node).to_owned(), sum);
        }
        let min = raw.values().min().copied().unwrap_or(0);
        let span = raw.values().max().copied().unwrap_or(0) - min;
        for score in raw.values_mut() {
            *score = if span > 0 { (100.0 * ((*score - min) as f64 / span as f64)) as i64 } else { 0 };
        }
        raw
    }
}

/// Whether the service has the pod.
fn is_served(pod: &Pod) -> bool {
    let (namespace, colour) = SERVED;
    pod.metadata.namespace.as_deref() == Some(namespace)
        && labels(pod).get("colour").is_some_and(|c| c == colour)
}

/// Upstream's default constraints, over the pods of the service.
fn defaults() -> Vec<TopologySpreadConstraint> {
    let one = |key: &str, max_skew: i32| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some([("colour".to_owned(), SERVED.1.to_owned())].into()),
            match_expressions: None,
        }),
        ..TopologySpreadConstraint::default()
    };
    vec![one("kubernetes.io/hostname", 3), one("topology.kubernetes.io/zone", 5)]
}

/// Tolerations that speak of a hard effect say nothing about preferences.
fn bears_softly(pod: &Pod, taint: &k8s_openapi::api::core::v1::Taint) -> bool {
    let _ = labels(pod);
    tolerates(pod, taint)
}

fn prefers(pod: &Pod, node: &Node) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    let list = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone());
    let matching = list.unwrap_or_default().into_iter().filter(|p| term_matches(&p.preference, node));
    matching.map(|p| i64::from(p.weight)).sum()
}
