//! DefaultPreemption: where no node will do, the node is found where the least is lost by evicting pods of lower priority.
//!
//! Upstream tries a sample of the nodes in each attempt. Here what was found out about a node is kept for the class of pods until the
//! node changes, so that all nodes are candidates, and each attempt tries only those that changed.

use crate::diagnosis::{AWAITS_VICTIMS, Considered, Diagnosis, NodeRefusal, sentence};
use crate::extender::Candidate;
use crate::framework::{Plugin, Points, PostFilter, State, Trial};
use crate::node::{NodeIndex, NodeTable};
use crate::objects::{Budget, Watched};
use crate::pod::{PodInfo, PodKey};
use jiff::Timestamp;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Evicts pods of lower priority where no node will do.
#[derive(Clone, Copy, Debug)]
pub struct DefaultPreemption {
    /// For pods whose filters look beyond one node, so that every try costs: so much of the nodes are candidates, in percent,
    pub candidates_percentage: usize,
    /// but at least so many.
    pub candidates_min: usize,
}

impl Default for DefaultPreemption {
    /// Upstream's.
    fn default() -> Self {
        DefaultPreemption { candidates_percentage: 10, candidates_min: 100 }
    }
}

/// What is lost on a node, in the order in which upstream weighs it: the least comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    /// Pods whose disruption budget is spent.
    violations: usize,
    /// The highest priority among the victims.
    highest: i32,
    /// The sum of the priorities, each counted from the lowest possible.
    sum: i64,
    victims: usize,
    /// When the first of the most important victims started: the latest is best.
    started: Reverse<Timestamp>,
}

/// What was found out about a node.
#[derive(Clone, Debug)]
enum Finding {
    Candidate(Loss, Vec<PodKey>),
    /// Why evicting does not help.
    Hopeless(Vec<SmolStr>),
}

/// What is kept for a class of pods.
#[derive(Debug, Default)]
struct Memory {
    generation: u64,
    budgets: u64,
    findings: FxHashMap<NodeIndex, Finding>,
    order: BTreeSet<(Loss, NodeIndex)>,
    /// How many nodes are hopeless for each reason.
    hopeless: FxHashMap<SmolStr, usize>,
}

impl Memory {
    fn set(&mut self, node: NodeIndex, finding: Option<Finding>) {
        match self.findings.remove(&node) {
            Some(Finding::Candidate(loss, _)) => {
                self.order.remove(&(loss, node));
            }
            Some(Finding::Hopeless(reasons)) => {
                for reason in reasons {
                    if let Some(n) = self.hopeless.get_mut(&reason) {
                        *n -= 1;
                    }
                }
            }
            None => {}
        }
        match &finding {
            Some(Finding::Candidate(loss, _)) => {
                self.order.insert((loss.clone(), node));
            }
            Some(Finding::Hopeless(reasons)) => {
                for reason in reasons {
                    *self.hopeless.entry(reason.clone()).or_default() += 1;
                }
            }
            None => return,
        }
        self.findings.extend(finding.map(|f| (node, f)));
    }

    /// Upstream's message where no candidate is left.
    fn message(&self, nodes: usize) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (reason, n) in self.hopeless.iter().filter(|(_, n)| **n > 0) {
            counts.insert(reason, *n);
        }
        let rest = nodes.saturating_sub(self.findings.len());
        if rest > 0 {
            *counts.entry(NOT_HELPFUL).or_default() += rest;
        }
        format!("preemption: {}", sentence(nodes, &counts))
    }
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn points(&self) -> Points {
        Points::POST_FILTER
    }

    fn post_filter(&self, pod: &PodInfo, diagnosis: &mut Diagnosis, trial: &mut dyn Trial) -> PostFilter {
        if !pod.may_preempt() {
            return PostFilter::Nothing("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
        }
        if let Some(node) = trial.nodes().nomination(&pod.key)
            && waits_for_victims(pod, trial.nodes(), node)
        {
            return PostFilter::Nothing(AWAITS_VICTIMS.to_owned());
        }
        let known = trial.memory().take();
        let mut memory: Box<Memory> = known.and_then(|m| m.downcast().ok()).unwrap_or_default();
        let budgets = trial.nodes().objects.changes(Watched::BUDGETS);
        if memory.budgets != budgets || !trial.is_local() {
            *memory = Memory { budgets, ..Memory::default() };
        }
        self.look(pod, &mut memory, trial);
        let result = choose(&memory, diagnosis, trial.nodes(), trial.candidates_wanted());
        *trial.memory() = Some(memory as State);
        result
    }
}

impl DefaultPreemption {
    /// Tries the nodes that changed.
    fn look(&self, pod: &PodInfo, memory: &mut Memory, trial: &mut dyn Trial) {
        let (all, rows) = trial.resolvable_since(memory.generation);
        if all {
            *memory = Memory { budgets: memory.budgets, ..Memory::default() };
        }
        let most = if trial.is_local() {
            usize::MAX
        } else {
            self.candidates_min.max(rows.len() * self.candidates_percentage / 100)
        };
        for (node, resolvable) in rows {
            if memory.order.len() >= most {
                break;
            }
            let finding = resolvable.then(|| try_node(pod, node, trial));
            memory.set(node, finding);
        }
        memory.generation = trial.nodes().generation();
    }
}

/// Whether pods of lower priority are still leaving the node that room was made on.
fn waits_for_victims(pod: &PodInfo, nodes: &NodeTable, node: NodeIndex) -> bool {
    nodes.pods_on(node).iter().any(|p| p.priority() < pod.priority() && p.is_being_preempted())
}

fn candidates(memory: &Memory, nodes: &NodeTable, most: usize) -> Vec<Candidate> {
    let candidate = |(loss, node): &(Loss, NodeIndex)| match memory.findings.get(node) {
        Some(Finding::Candidate(_, victims)) => Some(Candidate {
            node: nodes.name(*node).clone(),
            victims: victims.clone(),
            violations: loss.violations,
        }),
        _ => None,
    };
    memory.order.iter().take(most).filter_map(candidate).collect()
}

fn choose(memory: &Memory, diagnosis: &mut Diagnosis, nodes: &NodeTable, wanted: usize) -> PostFilter {
    let mut considered = Considered { nodes: memory.order.len(), ..Considered::default() };
    let best = memory.order.first().and_then(|(loss, node)| match memory.findings.get(node) {
        Some(Finding::Candidate(_, victims)) => Some((loss, *node, victims)),
        _ => None,
    });
    let Some((loss, node, victims)) = best else {
        diagnosis.considered = Some(Box::new(considered));
        return PostFilter::Nothing(memory.message(nodes.len()));
    };
    considered.node = Some(nodes.name(node).clone());
    considered.victims.clone_from(victims);
    considered.violations = loss.violations;
    considered.candidates = candidates(memory, nodes, wanted);
    diagnosis.considered = Some(Box::new(considered));
    PostFilter::Nominate { node, victims: victims.clone() }
}

/// The fewest and least important pods that must go from a node.
fn try_node(pod: &PodInfo, node: NodeIndex, trial: &mut dyn Trial) -> Finding {
    let pods = trial.nodes().pods_on(node).iter();
    let mut victims: Vec<Arc<PodInfo>> = pods.filter(|p| p.priority() < pod.priority()).cloned().collect();
    if victims.is_empty() {
        return Finding::Hopeless(vec![SmolStr::new_static(NO_VICTIMS)]);
    }
    victims.sort_by_key(|v| Reverse(importance(v)));
    victims.iter().for_each(|v| trial.remove(v, node));
    match trial.fits(node) {
        Err(NodeRefusal { refusal, .. }) => {
            victims.iter().for_each(|v| trial.add(v, node));
            Finding::Hopeless(refusal.reasons)
        }
        Ok(()) => reprieve(node, &victims, trial),
    }
}

/// Puts back every pod that can stay, those first whose going breaks a budget, the most important first.
fn reprieve(node: NodeIndex, potential: &[Arc<PodInfo>], trial: &mut dyn Trial) -> Finding {
    let breaks = breaks_budget(potential, trial.nodes().objects.budgets());
    let mut goes = vec![false; potential.len()];
    let mut violations = 0;
    for breaking in [true, false] {
        for (at, victim) in potential.iter().enumerate().filter(|(at, _)| breaks[*at] == breaking) {
            trial.add(victim, node);
            if trial.fits(node).is_err() {
                trial.remove(victim, node);
                goes[at] = true;
                violations += usize::from(breaking);
            }
        }
    }
    let victims: Vec<&Arc<PodInfo>> =
        potential.iter().zip(&goes).filter(|(_, g)| **g).map(|(v, _)| v).collect();
    victims.iter().for_each(|v| trial.add(v, node));
    let highest = victims.iter().map(|v| v.priority()).max().unwrap_or(i32::MIN);
    let first = victims.iter().filter(|v| v.priority() == highest).map(|v| start(v)).min();
    let loss = Loss {
        violations,
        highest,
        sum: victims.iter().map(|v| i64::from(v.priority()) + i64::from(i32::MAX) + 1).sum(),
        victims: victims.len(),
        started: Reverse(first.unwrap_or(Timestamp::MAX)),
    };
    Finding::Candidate(loss, victims.iter().map(|v| v.key.clone()).collect())
}

/// The higher the priority and the longer it runs, the more important a pod is.
fn importance(pod: &PodInfo) -> (i32, Reverse<Timestamp>) {
    (pod.priority(), Reverse(start(pod)))
}

/// A pod that has not started counts as starting now.
fn start(pod: &PodInfo) -> Timestamp {
    pod.started.unwrap_or(Timestamp::MAX)
}

/// Which of the pods, taken in this order, can't go without breaking a disruption budget.
fn breaks_budget<'a>(pods: &[Arc<PodInfo>], budgets: impl Iterator<Item = &'a Budget>) -> Vec<bool> {
    let mut breaks = vec![false; pods.len()];
    for budget in budgets.filter(|b| !b.selector.is_empty()) {
        let mut allowed = budget.allowed;
        for (at, pod) in pods.iter().enumerate() {
            let labels = pod.class.labels();
            let under = budget.namespace == pod.class.namespace()
                && !labels.is_empty()
                && budget.selector.matches(labels)
                && !budget.disrupted.contains(&pod.key.name);
            if under {
                allowed -= 1;
                breaks[at] |= allowed < 0;
            }
        }
    }
    breaks
}
