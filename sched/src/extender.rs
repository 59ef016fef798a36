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
use k8s_openapi::api::core::v1::{Node, Pod};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The highest score that an extender gives.
const EXTENDER_SCORE_MAX: i64 = 10;

/// How many candidates extenders are asked about in a preemption; the best come first.
const CANDIDATES_MAX: usize = 100;

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
#[serde(default)]
struct FilterResult {
    nodes: Option<NodeItems>,
    nodenames: Option<Vec<SmolStr>>,
    failednodes: Option<BTreeMap<SmolStr, String>>,
    failedandunresolvablenodes: Option<BTreeMap<SmolStr, String>>,
    error: String,
}

#[derive(Debug, Deserialize)]
struct NodeItems {
    items: Vec<k8s_openapi::api::core::v1::Node>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostPriority {
    host: SmolStr,
    score: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PreemptionResult {
    nodenametometavictims: Option<BTreeMap<SmolStr, MetaVictims>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MetaVictims {
    #[serde(alias = "Pods")]
    pods: Vec<MetaPod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MetaPod {
    #[serde(alias = "UID")]
    uid: SmolStr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BindingResult {
    error: String,
}

/// Reads an answer as Go does, which takes the names of fields in any case.
fn read<T: serde::de::DeserializeOwned>(answer: &Value) -> Result<T, String> {
    let lower = |v: &Value| match v {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.clone())).collect())
        }
        other => other.clone(),
    };
    let folded = match answer {
        Value::Array(entries) => Value::Array(entries.iter().map(lower).collect()),
        other => lower(other),
    };
    serde_json::from_value(folded).map_err(|e| format!("the extender's answer: {e}"))
}

/// A node on which a preemption could make room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: SmolStr,
    /// Who would have to go.
    pub victims: Vec<PodKey>,
    /// How many of them against a disruption budget.
    pub violations: usize,
}

/// What one answer to a preempt call leaves: of the candidates, in their order, those that it names, with the victims that it names.
///
/// # Errors
/// The answer is none, or names nodes or pods that were not asked about.
pub fn preempted(
    answer: &Value,
    candidates: &[Candidate],
    uid_of: impl Fn(&PodKey) -> Option<SmolStr>,
) -> Result<Vec<Candidate>, String> {
    let named = read::<PreemptionResult>(answer)?.nodenametometavictims.unwrap_or_default();
    if let Some(unknown) = named.keys().find(|n| !candidates.iter().any(|c| c.node == **n)) {
        return Err(format!("the extender names node {unknown}, which is no candidate"));
    }
    let mut left = Vec::new();
    for candidate in candidates {
        let Some(wanted) = named.get(&candidate.node) else { continue };
        let mut victims = Vec::new();
        for pod in &wanted.pods {
            let known = candidate.victims.iter().find(|key| uid_of(key).as_ref() == Some(&pod.uid));
            let Some(key) = known else {
                return Err(format!(
                    "the extender names pod {:?}, which is no victim on {}",
                    pod.uid, candidate.node
                ));
            };
            victims.push(key.clone());
        }
        left.push(Candidate { victims, ..candidate.clone() });
    }
    Ok(left)
}

/// The body of a bind call.
pub fn binding_arguments(pod: &PodInfo, node: &str) -> Value {
    json!({"podName": pod.key.name, "podNamespace": pod.key.namespace, "podUID": pod.uid, "node": node})
}

/// Whether the answer to a bind call says that the pod is bound.
///
/// # Errors
/// What the extender says went wrong.
pub fn bound_answer(answer: &Value) -> Result<(), String> {
    match read::<BindingResult>(answer)?.error {
        error if error.is_empty() => Ok(()),
        error => Err(error),
    }
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
        let answer: FilterResult = read(answer)?;
        if !answer.error.is_empty() {
            return Err(answer.error);
        }
        let names = answer.nodenames.or_else(|| {
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
        self.refused.extend(answer.failednodes.into_iter().flatten().map(|(n, why)| (n, why, false)));
        self.refused
            .extend(answer.failedandunresolvablenodes.into_iter().flatten().map(|(n, why)| (n, why, true)));
        Ok(())
    }

    /// Takes in the answer to a prioritize call.
    ///
    /// # Errors
    /// The answer is none.
    pub fn prioritized(&mut self, answer: &Value, weight: i64) -> Result<(), String> {
        let answer: Vec<HostPriority> = read(answer)?;
        for entry in answer {
            let score = entry.score.clamp(0, EXTENDER_SCORE_MAX) * weight;
            *self.scores.entry(entry.host).or_default() +=
                score.saturating_mul(crate::framework::MAX_NODE_SCORE) / EXTENDER_SCORE_MAX;
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

    /// The body of a filter or prioritize call: the pod, and the nodes by name, or whole where the extender keeps none itself.
    pub fn arguments(&self, pod: &PodInfo, nodes: &[SmolStr], whole: &[Arc<Node>]) -> Value {
        if self.node_cache_capable {
            return json!({"pod": pod.pod, "nodenames": nodes});
        }
        let named: FxHashSet<&str> = nodes.iter().map(SmolStr::as_str).collect();
        let asked = |n: &&Arc<Node>| n.metadata.name.as_deref().is_some_and(|name| named.contains(name));
        let items: Vec<Value> =
            whole.iter().filter(asked).filter_map(|n| serde_json::to_value(n).ok()).collect();
        json!({"pod": pod.pod, "nodes": {"apiVersion": "v1", "kind": "NodeList", "items": items}})
    }

    /// The body of a preempt call. `pods` gives the victims whole, for an extender that keeps no nodes itself.
    pub fn preemption_arguments(
        &self,
        pod: &PodInfo,
        candidates: &[Candidate],
        pods: impl Fn(&PodKey) -> Option<Arc<Pod>>,
    ) -> Value {
        let mut by_node = serde_json::Map::new();
        for candidate in candidates {
            let victims = candidate.victims.iter().filter_map(&pods);
            let victims: Vec<Value> = match self.node_cache_capable {
                true => victims.map(|p| json!({"uid": p.metadata.uid})).collect(),
                false => victims.filter_map(|p| serde_json::to_value(&p).ok()).collect(),
            };
            let entry = json!({"pods": victims, "numPDBViolations": candidate.violations});
            by_node.insert(candidate.node.to_string(), entry);
        }
        let field = if self.node_cache_capable { "nodeNameToMetaVictims" } else { "nodeNameToVictims" };
        json!({"pod": pod.pod, field: by_node})
    }
}

impl Scheduler {
    /// Adds extenders, which are consulted in this order for the pods that are their business.
    #[must_use]
    pub fn with_extenders(mut self, extenders: Vec<ExtenderConfig>) -> Self {
        let preempts = extenders.iter().any(|e| !e.preempt_verb.is_empty());
        for (_, cache) in &mut self.profiles {
            cache.all_wanted = !extenders.is_empty();
            cache.candidates_wanted = if preempts { CANDIDATES_MAX } else { 0 };
        }
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

    /// The extenders chose another node to make room on, other victims, or none at all.
    pub fn renominate(&mut self, key: &PodKey, choice: Option<(&str, Vec<PodKey>)>) {
        self.settle_nomination(key);
        let Some((node, victims)) = choice else { return };
        let info = self.queue.get(key).map(|queued| queued.info.clone());
        if let (Some(info), Some(node)) = (info, self.nodes.find(node)) {
            self.nodes.nominate(info, node);
            self.await_victims(key, victims);
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
