//! Why a pod went where it went, or nowhere: a compact value for each try, the last ones kept.

use crate::diagnosis::Diagnosis;
use crate::pod::PodKey;
use jiff::Timestamp;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::fmt;

/// What a node scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scored {
    /// The node.
    pub node: SmolStr,
    /// The sum.
    pub total: i64,
    /// Each plugin's weighted, normalized score.
    pub plugins: Vec<(&'static str, i64)>,
}

/// One try of a pod.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The pod.
    pub pod: PodKey,
    /// When.
    pub at: Timestamp,
    /// Which try it was, counted from 1.
    pub number: u32,
    /// How many nodes were feasible.
    pub feasible: usize,
    /// The node that was chosen, and how it and the next best scored; one without scores was the only one.
    pub chosen: Option<(SmolStr, Vec<Scored>)>,
    /// Why no node would do.
    pub diagnosis: Option<Diagnosis>,
}

impl Attempt {
    /// The whole of it, for a report.
    pub fn to_json(&self) -> Value {
        let mut report = json!({
            "pod": self.pod.to_string(),
            "at": self.at.to_string(),
            "attempt": self.number,
            "feasibleNodes": self.feasible,
        });
        if let Some((node, scores)) = &self.chosen {
            report["node"] = json!(node);
            report["scores"] = scores
                .iter()
                .map(|s| {
                    let plugins: serde_json::Map<String, Value> =
                        s.plugins.iter().map(|(name, score)| ((*name).to_owned(), json!(score))).collect();
                    json!({"node": s.node, "total": s.total, "plugins": plugins})
                })
                .collect();
        }
        if let Some(diagnosis) = &self.diagnosis {
            report["message"] = json!(diagnosis.to_string());
            report["refused"] = diagnosis
                .refused
                .iter()
                .map(|(r, n)| {
                    json!({"plugin": r.plugin, "nodes": n, "reasons": r.refusal.reasons, "resolvable": !r.refusal.unresolvable})
                })
                .collect();
            if let Some(considered) = &diagnosis.considered {
                let victims: Vec<String> = considered.victims.iter().map(ToString::to_string).collect();
                report["preemption"] = json!({
                    "candidates": considered.nodes,
                    "node": considered.node,
                    "victims": victims,
                    "budgetViolations": considered.violations,
                });
            }
        }
        report
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.chosen, &self.diagnosis) {
            (Some((node, _)), _) => write!(f, "{} to {node} ({} feasible)", self.pod, self.feasible),
            (None, Some(diagnosis)) => write!(f, "{}: {diagnosis}", self.pod),
            (None, None) => write!(f, "{}: no decision", self.pod),
        }
    }
}

/// The last tries.
#[derive(Debug)]
pub struct Attempts {
    ring: VecDeque<Attempt>,
    attempts_max: usize,
    /// How many nodes' scores are kept of each try.
    pub(crate) scores_max: usize,
}

impl Default for Attempts {
    fn default() -> Self {
        Attempts { ring: VecDeque::new(), attempts_max: 1024, scores_max: 3 }
    }
}

impl Attempts {
    /// Keeps so many tries, with the scores of so many nodes each; 0 tries turns it off.
    pub fn keep(&mut self, attempts_max: usize, scores_max: usize) {
        (self.attempts_max, self.scores_max) = (attempts_max, scores_max);
        self.ring.truncate(attempts_max);
    }

    /// Whether tries are kept at all.
    pub fn is_on(&self) -> bool {
        self.attempts_max > 0
    }

    pub(crate) fn push(&mut self, attempt: Attempt) {
        if self.ring.len() >= self.attempts_max {
            self.ring.pop_front();
        }
        if self.is_on() {
            self.ring.push_back(attempt);
        }
    }

    /// The kept tries, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.ring.iter()
    }

    /// The last try of a pod.
    pub fn of(&self, pod: &PodKey) -> Option<&Attempt> {
        self.ring.iter().rev().find(|a| a.pod == *pod)
    }
}
