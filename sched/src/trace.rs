//! Traces: the facts that a scheduler was told, recorded, written as lines of JSON, and replayed under any configuration.
//!
//! The same trace and seed give the same placements; another profile shows what would be different ([`what_if`]).

use crate::cluster::ClusterObject;
use crate::extender::Consultation;
use crate::pod::PodKey;
use crate::scheduler::{Decision, Scheduler};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A fact.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fact {
    /// A node came or changed.
    Node(Value),
    /// A node went.
    NodeGone(String),
    /// A pod came or changed.
    Pod(Value),
    /// A pod went.
    PodGone(String, String),
    /// Another object came or changed; its resource.
    Object(String, Value),
    /// Another object went.
    ObjectGone(String, Value),
}

/// A fact with its time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    /// When the scheduler was told.
    pub at: Timestamp,
    /// What.
    pub fact: Fact,
}

/// The facts that a scheduler was told, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The entries, the oldest first.
    pub entries: Vec<Entry>,
}

/// A line of a trace that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {source}")]
pub struct TraceError {
    /// Counted from 1.
    pub line: usize,
    /// Why.
    pub source: serde_json::Error,
}

/// Where the pods of a replay went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The node of each pod that was placed by the replay.
    pub placed: BTreeMap<PodKey, SmolStr>,
    /// Why each pod that was left over was last refused.
    pub refused: BTreeMap<PodKey, String>,
    /// Pods that were evicted for others.
    pub evicted: Vec<PodKey>,
}

/// A pod that fared otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The pod.
    pub pod: PodKey,
    /// Its node before; `None` where it had none.
    pub before: Option<SmolStr>,
    /// Its node after.
    pub after: Option<SmolStr>,
}

impl Trace {
    /// The trace as lines of JSON.
    pub fn to_lines(&self) -> String {
        let lines = self.entries.iter().filter_map(|e| serde_json::to_string(e).ok());
        lines.fold(String::new(), |mut text, line| {
            text.push_str(&line);
            text.push('\n');
            text
        })
    }

    /// Reads lines of JSON; empty ones are skipped.
    ///
    /// # Errors
    /// The first line that is no entry.
    pub fn from_lines(text: &str) -> Result<Self, TraceError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let entries = lines
            .map(|(n, line)| serde_json::from_str(line).map_err(|source| TraceError { line: n + 1, source }));
        Ok(Trace { entries: entries.collect::<Result<_, _>>()? })
    }

    /// Tells a scheduler the facts, lets it decide after each of them, and carries out what it decides: bindings succeed, victims go.
    ///
    /// Bindings that the trace itself saw are left out, so that the scheduler's own choices stand; pods that were bound before they
    /// were ever pending are facts. After the last fact so much time passes, for what backs off.
    ///
    /// # Errors
    /// An object of the trace that does not fit its type, by the number of its entry.
    pub fn replay(&self, scheduler: &mut Scheduler, after: SignedDuration) -> Result<Outcome, TraceError> {
        let mut replay = Replay { scheduler, outcome: Outcome::default(), pending: BTreeMap::new() };
        for (n, entry) in self.entries.iter().enumerate() {
            let error = |source| TraceError { line: n + 1, source };
            replay.scheduler.advance(entry.at);
            replay.tell(&entry.fact, entry.at).map_err(error)?;
            replay.decide(entry.at);
        }
        let end = self.entries.last().map_or(Timestamp::UNIX_EPOCH, |e| e.at);
        let end = end.checked_add(after).unwrap_or(Timestamp::MAX);
        while let Some(wake) = replay.scheduler.next_wake().filter(|wake| *wake <= end) {
            replay.scheduler.advance(wake);
            replay.decide(wake);
        }
        Ok(replay.outcome)
    }
}

struct Replay<'a> {
    scheduler: &'a mut Scheduler,
    outcome: Outcome,
    /// Pods that were seen without a node, by name.
    pending: BTreeMap<PodKey, ()>,
}

impl Replay<'_> {
    fn tell(&mut self, fact: &Fact, at: Timestamp) -> Result<(), serde_json::Error> {
        match fact {
            Fact::Node(node) => {
                let node: Node = Deserialize::deserialize(node)?;
                self.scheduler.apply_node(Arc::new(node), at);
            }
            Fact::NodeGone(name) => self.scheduler.remove_node(name, at),
            Fact::Pod(pod) => {
                let pod: Pod = Deserialize::deserialize(pod)?;
                self.pod(pod, at);
            }
            Fact::PodGone(namespace, name) => {
                let key = PodKey::new(namespace, name);
                self.outcome.refused.remove(&key);
                self.scheduler.remove_pod(&key, at);
            }
            Fact::Object(resource, object) => {
                if let Some(object) = ClusterObject::from_value(resource, object)? {
                    self.scheduler.apply_object(&object, at);
                }
            }
            Fact::ObjectGone(resource, object) => {
                if let Some(object) = ClusterObject::from_value(resource, object)? {
                    self.scheduler.remove_object(&object, at);
                }
            }
        }
        Ok(())
    }

    fn pod(&mut self, mut pod: Pod, at: Timestamp) {
        let key = PodKey::of(&pod);
        let bound = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        if !bound {
            self.pending.insert(key, ());
        } else if self.pending.contains_key(&key) {
            // Its end is a fact, its node is not.
            let Some(spec) = &mut pod.spec else { return };
            match self.outcome.placed.get(&key) {
                Some(node) => spec.node_name = Some(node.to_string()),
                None => return,
            }
        }
        self.scheduler.apply_pod(Arc::new(pod), at);
    }

    fn decide(&mut self, at: Timestamp) {
        loop {
            let mut decisions = self.scheduler.take_prepared(at);
            decisions.extend(self.scheduler.schedule_one(at));
            if decisions.is_empty() {
                return;
            }
            decisions.into_iter().for_each(|d| self.carry_out(d, at));
        }
    }

    fn carry_out(&mut self, decision: Decision, at: Timestamp) {
        match decision {
            Decision::Bind { pod, node, .. } => {
                self.scheduler.bound(&pod.key);
                self.outcome.refused.remove(&pod.key);
                self.outcome.placed.insert(pod.key.clone(), node);
            }
            Decision::Prepare { pod, .. } => {
                if let Some(next) = self.scheduler.prepared(&pod.key, at) {
                    self.carry_out(next, at);
                }
            }
            // Nobody is there to be asked.
            Decision::Consult { pod, nodes, .. } => {
                let answer = Ok(Consultation::of(&nodes));
                if let Some(next) = self.scheduler.consulted(&pod.key, answer, at) {
                    self.carry_out(next, at);
                }
            }
            Decision::Wait { .. } => {}
            Decision::Unschedulable { pod, diagnosis, nominated, .. } => {
                self.outcome.refused.insert(pod.key.clone(), diagnosis.to_string());
                for victim in nominated.into_iter().flat_map(|(_, victims)| victims) {
                    self.scheduler.remove_pod(&victim, at);
                    self.outcome.placed.remove(&victim);
                    self.outcome.evicted.push(victim);
                }
            }
        }
    }
}

/// Replays a trace on two schedulers and says which pods fare otherwise on the second.
///
/// # Errors
/// An object of the trace that does not fit its type.
pub fn what_if(
    trace: &Trace,
    before: &mut Scheduler,
    after: &mut Scheduler,
) -> Result<Vec<Difference>, TraceError> {
    const SETTLE: SignedDuration = SignedDuration::from_secs(600);
    let (first, second) = (trace.replay(before, SETTLE)?, trace.replay(after, SETTLE)?);
    let mut pods: Vec<&PodKey> = first.placed.keys().chain(second.placed.keys()).collect();
    pods.sort_unstable();
    pods.dedup();
    let pairs = pods.into_iter().map(|pod| Difference {
        pod: pod.clone(),
        before: first.placed.get(pod).cloned(),
        after: second.placed.get(pod).cloned(),
    });
    Ok(pairs.filter(|d| d.before != d.after).collect())
}
