//! HTTP extenders as a port: what to ask them, in upstream's words, and how their answers count. The program around the scheduler does the
//! talking; meanwhile the pod is set aside ([`Decision::Consult`]).

use crate::config::ExtenderConfig;
use crate::cycle::Choice;
use crate::diagnosis::{Diagnosis, NodeRefusal, Refusal};
use crate::node::NodeIndex;
use crate::pod::{PodInfo, PodKey};
use crate::queue::QueuedPod;
use crate::scheduler::{Decision, Scheduler};
use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// The highest score that an extender gives.
const EXTENDER_SCORE_MAX: i64 = 10;

/// What all extenders together said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consultation {
    /// The nodes that all of them accept.
    pub nodes: Vec<SmolStr>,
    /// Why the others were refused; whether removing pods can't help.
    pub refused: Vec<(SmolStr, String, bool)>,
    /// What the accepted ones score, weighted, on the scheduler's scale of 0 to 100 for each weight.
    pub scores: BTreeMap<SmolStr, i64>,
}

/// The answer to a filter call.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FilterResult {
    nodes: Option<NodeItems>,
    #[serde(rename = "nodenames", alias = "nodeNames")]
    node_names: Option<Vec<SmolStr>>,
    failed_nodes: BTreeMap<SmolStr, String>,
    failed_and_unresolvable_nodes: BTreeMap<SmolStr, String>,
    error: String,
}

#[derive(Debug, Deserialize)]
struct NodeItems {
    items: Vec<k8s_openapi::api::core::v1::Node>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostPriority {
    #[serde(alias = "Host")]
    host: SmolStr,
    #[serde(alias = "Score")]
    score: i64,
}

impl Consultation {
    /// Before anyone was asked: all nodes.
    pub fn of(nodes: &[SmolStr]) -> Self {
        Consultation { nodes: nodes.to_vec(), ..Consultation::default() }
    }

    /// Takes in the answer to a filter call.
    ///
    /// # Errors
    /// The answer is none, names nodes that were not asked about, or says that the extender failed.
    pub fn filtered(&mut self, answer: &Value) -> Result<(), String> {
        let answer: FilterResult =
            Deserialize::deserialize(answer).map_err(|e| format!("the extender's answer: {e}"))?;
        if !answer.error.is_empty() {
            return Err(answer.error);
        }
        let names = answer.node_names.or_else(|| {
            let items = answer.nodes?.items.into_iter();
            Some(items.filter_map(|n| n.metadata.name.map(SmolStr::from)).collect())
        });
        let names = names.unwrap_or_default();
        if let Some(unknown) = names.iter().find(|n| !self.nodes.contains(n)) {
            return Err(format!(
                "the extender claims a filtered node {unknown} which is not found in the input node list"
            ));
        }
        self.nodes = names;
        self.refused.extend(answer.failed_nodes.into_iter().map(|(n, why)| (n, why, false)));
        self.refused.extend(answer.failed_and_unresolvable_nodes.into_iter().map(|(n, why)| (n, why, true)));
        Ok(())
    }

    /// Takes in the answer to a prioritize call.
    ///
    /// # Errors
    /// The answer is none.
    pub fn prioritized(&mut self, answer: &Value, weight: i64) -> Result<(), String> {
        let answer: Vec<HostPriority> =
            Deserialize::deserialize(answer).map_err(|e| format!("the extender's answer: {e}"))?;
        for entry in answer {
            let score = entry.score.clamp(0, EXTENDER_SCORE_MAX) * weight;
            *self.scores.entry(entry.host).or_default() +=
                score * crate::framework::MAX_NODE_SCORE / EXTENDER_SCORE_MAX;
        }
        Ok(())
    }
}

impl ExtenderConfig {
    /// Whether the pod is this extender's business.
    pub fn is_interested(&self, pod: &PodInfo) -> bool {
        if self.managed_resources.is_empty() {
            return true;
        }
        let spec = pod.pod.as_ref().and_then(|p| p.spec.as_ref());
        let containers = spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
        containers.into_iter().filter_map(|c| c.resources.as_ref()).any(|r| {
            let lists = [&r.requests, &r.limits].into_iter().flatten();
            lists.into_iter().any(|l| self.managed_resources.iter().any(|m| l.contains_key(&m.name)))
        })
    }

    /// The body of a filter or prioritize call: the pod, and the nodes by name or whole.
    pub fn arguments(&self, pod: &PodInfo, nodes: &[SmolStr], scheduler: &Scheduler) -> Value {
        let table = scheduler.nodes();
        if self.node_cache_capable {
            return json!({"pod": pod.pod, "nodenames": nodes});
        }
        let items: Vec<Value> = nodes
            .iter()
            .filter_map(|name| serde_json::to_value(table.node(table.find(name)?)?).ok())
            .collect();
        json!({"pod": pod.pod, "nodes": {"apiVersion": "v1", "kind": "NodeList", "items": items}})
    }
}

impl Scheduler {
    /// Adds extenders, which are consulted in this order for the pods that are their business.
    #[must_use]
    pub fn with_extenders(mut self, extenders: Vec<ExtenderConfig>) -> Self {
        self.profiles.iter_mut().for_each(|(_, cache)| cache.all_wanted = !extenders.is_empty());
        self.extenders = extenders;
        self
    }

    /// The extenders.
    pub fn extenders(&self) -> &[ExtenderConfig] {
        &self.extenders
    }

    /// Sets a pod aside until the extenders have answered; `None` where it is nobody's business.
    pub(crate) fn consult(&mut self, pod: &QueuedPod) -> Option<Decision> {
        let asked = self.extenders.iter().enumerate().filter(|(_, e)| {
            (!e.filter_verb.is_empty() || !e.prioritize_verb.is_empty()) && e.is_interested(&pod.info)
        });
        let extenders: Vec<usize> = asked.map(|(at, _)| at).collect();
        if extenders.is_empty() {
            return None;
        }
        let (_, cache) = self.profiles.iter().find(|(p, _)| p.name() == pod.info.scheduler_name())?;
        let mut nodes: Vec<SmolStr> = cache.feasible_rows().map(|n| self.nodes.name(n).clone()).collect();
        nodes.sort_unstable();
        self.consulting.insert(pod.info.key.clone(), pod.clone());
        Some(Decision::Consult { pod: pod.info.clone(), extenders, nodes })
    }

    /// The extenders have answered; an error stands for one that failed and is not ignorable. Gives the next decision, or `None` where the
    /// pod is not set aside any more.
    pub fn consulted(
        &mut self,
        key: &PodKey,
        answer: Result<Consultation, String>,
        now: Timestamp,
    ) -> Option<Decision> {
        let pod = self.consulting.remove(key)?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(text) => {
                let refused = NodeRefusal { plugin: "Extender", refusal: Refusal::error(text) };
                let diagnosis =
                    Diagnosis { nodes: self.nodes.len(), pod: Some(refused), ..Diagnosis::default() };
                return Some(self.refuse_pod(pod, diagnosis, now));
            }
        };
        match self.find_among(&pod.info, &answer) {
            Ok(choice) => {
                self.note_choice(&pod, choice, now);
                Some(self.commit(pod, choice.node, now))
            }
            Err(diagnosis) => Some(self.refuse_pod(pod, *diagnosis, now)),
        }
    }

    fn find_among(&mut self, pod: &PodInfo, answer: &Consultation) -> Result<Choice, Box<Diagnosis>> {
        let mut extra: FxHashMap<NodeIndex, i64> = FxHashMap::default();
        for name in &answer.nodes {
            if let Some(node) = self.nodes.find(name) {
                extra.insert(node, answer.scores.get(name).copied().unwrap_or(0));
            }
        }
        let tie = self.next_tie();
        let found = self.profiles.iter_mut().find(|(p, _)| p.name() == pod.scheduler_name());
        let Some((profile, cache)) = found else { return Err(Box::default()) };
        cache.run(profile, pod, &mut self.nodes, tie)?;
        if let Some(choice) = cache.best_among(&extra, tie) {
            return Ok(choice);
        }
        let mut counts: FxHashMap<(String, bool), usize> = FxHashMap::default();
        for (_, why, unresolvable) in &answer.refused {
            *counts.entry((why.clone(), *unresolvable)).or_default() += 1;
        }
        let refused = counts.into_iter().map(|((why, unresolvable), n)| {
            let refusal = Refusal { unresolvable, ..Refusal::new(why) };
            (NodeRefusal { plugin: "Extender", refusal }, n)
        });
        Err(Box::new(Diagnosis {
            nodes: self.nodes.len(),
            refused: refused.collect(),
            ..Diagnosis::default()
        }))
    }
}
