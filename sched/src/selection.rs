//! Node selectors and node affinity, compiled to symbols once a pod and matched once a node.

use crate::intern::{Interner, Symbol};
use crate::node::{NodeIndex, NodeTable};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// How an expression compares a node's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    /// An operator or bound that makes no sense: matches nothing, as upstream does.
    Never,
}

/// One condition on a label or a field of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Expression {
    key: Symbol,
    operator: Operator,
    values: Vec<Symbol>,
    /// The number of `Gt` and `Lt`.
    bound: i64,
}

impl Expression {
    fn compile(requirement: &NodeSelectorRequirement, symbols: &mut Interner) -> Self {
        let texts = requirement.values.as_deref().unwrap_or_default();
        let bound = texts.first().and_then(|v| v.parse().ok());
        let operator = match (requirement.operator.as_str(), bound) {
            ("In", _) => Operator::In,
            ("NotIn", _) => Operator::NotIn,
            ("Exists", _) => Operator::Exists,
            ("DoesNotExist", _) => Operator::DoesNotExist,
            ("Gt", Some(_)) => Operator::Gt,
            ("Lt", Some(_)) => Operator::Lt,
            _ => Operator::Never,
        };
        Expression {
            key: symbols.intern(&requirement.key),
            operator,
            values: texts.iter().map(|v| symbols.intern(v)).collect(),
            bound: bound.unwrap_or(0),
        }
    }

    fn matches(&self, value: Option<Symbol>, symbols: &Interner) -> bool {
        let number = || value.and_then(|v| symbols.text(v).parse::<i64>().ok());
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(&v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(&v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => number().is_some_and(|n| n > self.bound),
            Operator::Lt => number().is_some_and(|n| n < self.bound),
            Operator::Never => false,
        }
    }
}

/// A term: all its expressions must hold; one without any matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    labels: Vec<Expression>,
    /// On `metadata.name`, the one field that upstream allows.
    fields: Vec<Expression>,
}

impl NodeTerm {
    fn compile(term: &NodeSelectorTerm, symbols: &mut Interner) -> Self {
        let mut compile = |list: &Option<Vec<NodeSelectorRequirement>>| {
            list.iter().flatten().map(|r| Expression::compile(r, symbols)).collect()
        };
        NodeTerm { labels: compile(&term.match_expressions), fields: compile(&term.match_fields) }
    }

    /// Whether the node matches.
    pub fn matches(&self, nodes: &NodeTable, node: NodeIndex) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let symbols = nodes.symbols();
        self.labels.iter().all(|e| e.matches(nodes.label(node, e.key), symbols))
            && self.fields.iter().all(|e| {
                symbols.text(e.key) == "metadata.name" && e.matches(Some(nodes.name_symbol(node)), symbols)
            })
    }

    /// The nodes that the term's fields name, where it pins any.
    fn pinned(&self) -> Option<&[Symbol]> {
        self.fields.iter().find(|e| e.operator == Operator::In).map(|e| e.values.as_slice())
    }
}

/// What a pod demands of its node: `nodeSelector` and required node affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeDemand {
    selector: Vec<(Symbol, Symbol)>,
    /// Any of them must match; `None` where the pod has no required affinity.
    terms: Option<Vec<NodeTerm>>,
}

impl NodeDemand {
    /// Whether every node will do.
    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.terms.is_none()
    }

    /// Whether the node will do.
    pub fn matches(&self, nodes: &NodeTable, node: NodeIndex) -> bool {
        self.selector.iter().all(|(key, value)| nodes.label(node, *key) == Some(*value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(nodes, node)))
    }

    /// The only nodes that can match, where every term pins names (as DaemonSet pods do).
    pub fn pinned(&self) -> Option<Vec<Symbol>> {
        let terms = self.terms.as_ref().filter(|t| !t.is_empty())?;
        let mut names = Vec::new();
        for term in terms {
            names.extend_from_slice(term.pinned()?);
        }
        Some(names)
    }
}

/// Compiles what a pod demands of its node and what it prefers, with weights.
pub(crate) fn compile(spec: &PodSpec, symbols: &mut Interner) -> (NodeDemand, Vec<(i64, NodeTerm)>) {
    let mut selector: Vec<_> = spec
        .node_selector
        .iter()
        .flatten()
        .map(|(key, value)| (symbols.intern(key), symbols.intern(value)))
        .collect();
    selector.sort_unstable();
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let terms = affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|s| s.node_selector_terms.iter().map(|t| NodeTerm::compile(t, symbols)).collect());
    let preferred = affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
        .map(|list| {
            list.iter().map(|p| (i64::from(p.weight), NodeTerm::compile(&p.preference, symbols))).collect()
        })
        .unwrap_or_default();
    (NodeDemand { selector, terms }, preferred)
}

/// A term kept as text, for what does not come from a pod: a profile has no table to compile against.
#[derive(Clone, Debug, PartialEq)]
pub struct TextTerm(NodeSelectorTerm);

impl TextTerm {
    /// A term.
    pub fn new(term: &NodeSelectorTerm) -> Self {
        TextTerm(term.clone())
    }

    /// Whether the node matches; a term without requirements matches nothing.
    pub fn matches(&self, nodes: &NodeTable, node: NodeIndex) -> bool {
        let (labels, fields) =
            (self.0.match_expressions.iter().flatten(), self.0.match_fields.iter().flatten());
        let symbols = nodes.symbols();
        let label = |key: &str| symbols.get(key).and_then(|key| nodes.label(node, key));
        let mut any = false;
        for requirement in labels {
            any = true;
            if !text_matches(requirement, label(&requirement.key).map(|v| symbols.text(v).as_str())) {
                return false;
            }
        }
        for requirement in fields {
            any = true;
            if requirement.key != "metadata.name" || !text_matches(requirement, Some(nodes.name(node))) {
                return false;
            }
        }
        any
    }
}

fn text_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |v: &str| values.iter().any(|w| w == v);
    let numbers = || {
        let bound = values.first()?.parse::<i64>().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => value.is_none_or(|v| !among(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(n, bound)| n > bound),
        "Lt" => numbers().is_some_and(|(n, bound)| n < bound),
        _ => false,
    }
}
