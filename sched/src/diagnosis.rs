//! Why a pod was not scheduled, node by node: a value cheap enough to be kept for every try.

use crate::extender::Candidate;
use crate::pod::PodKey;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;

/// Why a plugin refused a node, a pod or a try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The sentences, in upstream's words.
    pub reasons: Vec<SmolStr>,
    /// Whether removing pods from the node can't help (`UnschedulableAndUnresolvable`).
    pub unresolvable: bool,
    /// Whether the plugin failed rather than refused (`Error`): the pod is tried again after a back-off, without waiting for an event.
    pub error: bool,
}

impl Refusal {
    /// A refusal that preemption may lift.
    pub fn new(reason: impl Into<SmolStr>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: false, error: false }
    }

    /// A refusal that preemption can't lift.
    pub fn unresolvable(reason: impl Into<SmolStr>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: true, error: false }
    }

    /// A failure of the plugin itself.
    pub fn error(reason: impl Into<SmolStr>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: false, error: true }
    }
}

/// A plugin's refusal of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeRefusal {
    /// The plugin.
    pub plugin: &'static str,
    /// Its words.
    pub refusal: Refusal,
}

/// What a PostFilter looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Considered {
    /// How many nodes it could have made room on.
    pub nodes: usize,
    /// The node that it chose.
    pub node: Option<SmolStr>,
    /// Whom it evicts there.
    pub victims: Vec<PodKey>,
    /// How many of them against a disruption budget.
    pub violations: usize,
    /// The best candidates with the chosen one first, where others are asked about them.
    pub candidates: Vec<Candidate>,
}

/// Why no node would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes exist.
    pub nodes: usize,
    /// How many nodes were refused for each reason. Nodes ruled out by PreFilter's restriction are not among them.
    pub refused: Vec<(NodeRefusal, usize)>,
    /// What refused the pod before any node was looked at, or the whole try after one was chosen.
    pub pod: Option<NodeRefusal>,
    /// How many nodes PreFilter's restriction ruled out, and the plugin.
    pub restricted: Option<(usize, &'static str)>,
    /// What PostFilter considered.
    pub considered: Option<Box<Considered>>,
    /// What PostFilter adds (`preemption: ...`).
    pub post_filter: String,
}

/// What is said of a pod whose victims are still there.
pub(crate) const AWAITS_VICTIMS: &str =
    "preemption: not eligible due to a terminating pod on the nominated node.";

impl Diagnosis {
    /// Whether room was made for the pod in an earlier try, and its victims are not gone yet.
    pub fn awaits_victims(&self) -> bool {
        self.post_filter == AWAITS_VICTIMS
    }

    /// The plugins that refused something, each once, in order of their names.
    pub fn plugins(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.refused.iter().map(|(r, _)| r.plugin).collect();
        names.extend(self.pod.as_ref().map(|r| r.plugin));
        names.extend(self.restricted.map(|(_, plugin)| plugin));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a plugin failed, rather than refused.
    pub fn is_error(&self) -> bool {
        self.pod.as_ref().is_some_and(|r| r.refusal.error)
            || self.refused.iter().any(|(r, _)| r.refusal.error)
    }

    /// How many nodes were refused for reasons that removing pods may lift, and how many for others.
    pub fn resolvable(&self) -> (usize, usize) {
        let of = |unresolvable: bool| {
            let refused = self.refused.iter().filter(|(r, _)| r.refusal.unresolvable == unresolvable);
            refused.map(|(_, n)| n).sum::<usize>()
        };
        (of(false), of(true) + self.restricted.map_or(0, |(n, _)| n))
    }
}

/// Upstream's sentence about nodes: how many for each reason, in order.
pub(crate) fn sentence(nodes: usize, counts: &BTreeMap<&str, usize>) -> String {
    let mut texts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    texts.sort();
    let tail = if texts.is_empty() { String::new() } else { format!(": {}", texts.join(", ")) };
    format!("0/{nodes} nodes are available{tail}.")
}

impl fmt::Display for Diagnosis {
    /// Upstream's message: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        if let Some(refusal) = &self.pod {
            write!(f, "0/{} nodes are available: {}.", self.nodes, refusal.refusal.reasons.join(", "))?;
        } else {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (refused, n) in &self.refused {
                for reason in &refused.refusal.reasons {
                    *counts.entry(reason).or_default() += n;
                }
            }
            let restricted = self.restricted.filter(|(n, _)| *n > 0);
            let text = restricted.map(|(_, plugin)| format!("node(s) didn't satisfy plugin(s) [{plugin}]"));
            if let (Some((n, _)), Some(text)) = (restricted, &text) {
                *counts.entry(text).or_default() += n;
            }
            f.write_str(&sentence(self.nodes, &counts))?;
        }
        if !self.post_filter.is_empty() {
            write!(f, " {}", self.post_filter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_upstreams() {
        let refused = |n, reason: &str| (NodeRefusal { plugin: "P", refusal: Refusal::new(reason) }, n);
        let d = Diagnosis {
            nodes: 3,
            refused: vec![refused(2, "node(s) were unschedulable"), refused(1, "Insufficient cpu")],
            ..Diagnosis::default()
        };
        assert_eq!(
            d.to_string(),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."
        );
        assert_eq!(Diagnosis::default().to_string(), "no nodes available to schedule pods");
        assert_eq!(d.plugins(), ["P"]);
    }
}
