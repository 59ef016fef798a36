//! Why a pod was not scheduled, node by node: a value cheap enough to be kept for every try.

use crate::node::NodeIndex;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;

/// Why a plugin refused a node, a pod or a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The sentences, in upstream's words.
    pub reasons: Vec<SmolStr>,
    /// Whether removing pods from the node can't help (`UnschedulableAndUnresolvable`).
    pub unresolvable: bool,
}

impl Refusal {
    /// A refusal that preemption may lift.
    pub fn new(reason: impl Into<SmolStr>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: false }
    }

    /// A refusal that preemption can't lift.
    pub fn unresolvable(reason: impl Into<SmolStr>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: true }
    }
}

/// A plugin's refusal of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRefusal {
    /// The plugin.
    pub plugin: &'static str,
    /// Its words.
    pub refusal: Refusal,
}

/// Why no node would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes exist.
    pub nodes: usize,
    /// What refused each node, in row order. Nodes ruled out by PreFilter's restriction are not listed.
    pub refused: Vec<(NodeIndex, NodeRefusal)>,
    /// What refused the pod before any node was looked at, or the whole try after one was chosen.
    pub pod: Option<NodeRefusal>,
    /// How many nodes PreFilter's restriction ruled out, and the plugin.
    pub restricted: Option<(usize, &'static str)>,
    /// What PostFilter adds (`preemption: ...`).
    pub post_filter: String,
}

impl Diagnosis {
    /// The plugins that refused something, each once.
    pub fn plugins(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.refused.iter().map(|(_, r)| r.plugin).collect();
        names.extend(self.pod.as_ref().map(|r| r.plugin));
        names.extend(self.restricted.map(|(_, plugin)| plugin));
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl fmt::Display for Diagnosis {
    /// Upstream's message: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.nodes)?;
        if let Some(refusal) = &self.pod {
            write!(f, ": {}", refusal.refusal.reasons.join(", "))?;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.refused.iter().flat_map(|(_, r)| &r.refusal.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        if let Some((n, _)) = self.restricted.filter(|(n, _)| *n > 0) {
            *counts.entry("node(s) didn't satisfy plugin(s) [NodeAffinity]").or_default() += n;
        }
        let mut texts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        texts.sort();
        if !texts.is_empty() {
            write!(f, ": {}", texts.join(", "))?;
        }
        f.write_str(".")?;
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
        let refused =
            |n, reason: &str| (NodeIndex(n), NodeRefusal { plugin: "P", refusal: Refusal::new(reason) });
        let d = Diagnosis {
            nodes: 3,
            refused: vec![
                refused(0, "node(s) were unschedulable"),
                refused(1, "Insufficient cpu"),
                refused(2, "node(s) were unschedulable"),
            ],
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
