//! Label selectors, compiled to symbols once and matched many times.

use crate::intern::{Interner, Symbol};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Written;
use std::collections::BTreeMap;

/// Labels as symbols, ordered by key.
pub type Labels = Box<[(Symbol, Symbol)]>;

/// Reads labels into symbols.
pub(crate) fn intern_labels(labels: Option<&BTreeMap<String, String>>, symbols: &mut Interner) -> Labels {
    let labels = labels.into_iter().flatten();
    let mut labels: Vec<_> = labels.map(|(k, v)| (symbols.intern(k), symbols.intern(v))).collect();
    labels.sort_unstable();
    labels.into()
}

/// The value of a label.
pub(crate) fn value_of(labels: &[(Symbol, Symbol)], key: Symbol) -> Option<Symbol> {
    // Few labels: walking them is faster than halving.
    labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: Symbol,
    operator: Operator,
    values: Vec<Symbol>,
}

/// A label selector. One without requirements matches everything; one that is absent or makes no sense matches nothing, as upstream has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Compiles a selector; `None` matches nothing.
    pub(crate) fn compile(written: Option<&Written>, symbols: &mut Interner) -> Self {
        let Some(written) = written else { return Selector { nothing: true, ..Self::default() } };
        let mut selector = Self::of_labels(written.match_labels.as_ref(), symbols);
        for expression in written.match_expressions.iter().flatten() {
            let values = expression.values.as_deref().unwrap_or_default();
            let operator = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Operator::In,
                ("NotIn", false) => Operator::NotIn,
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                _ => {
                    selector.nothing = true;
                    continue;
                }
            };
            let values = values.iter().map(|v| symbols.intern(v)).collect();
            selector.requirements.push(Requirement {
                key: symbols.intern(&expression.key),
                operator,
                values,
            });
        }
        selector
    }

    /// A selector of equal labels.
    pub(crate) fn of_labels(labels: Option<&BTreeMap<String, String>>, symbols: &mut Interner) -> Self {
        let mut selector = Selector::default();
        for (key, value) in intern_labels(labels, symbols) {
            selector.require(key, value, true);
        }
        selector
    }

    /// Demands a value of a label, or anything but it.
    pub(crate) fn require(&mut self, key: Symbol, value: Symbol, wanted: bool) {
        let operator = if wanted { Operator::In } else { Operator::NotIn };
        let requirement = Requirement { key, operator, values: vec![value] };
        if !self.requirements.contains(&requirement) {
            self.requirements.push(requirement);
        }
    }

    /// Demands what another selector demands too.
    pub(crate) fn require_all(&mut self, other: &Selector) {
        self.nothing |= other.nothing;
        for requirement in &other.requirements {
            if !self.requirements.contains(requirement) {
                self.requirements.push(requirement.clone());
            }
        }
    }

    /// Whether it demands nothing, so that it matches everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it can't match anything.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether the labels match.
    pub fn matches(&self, labels: &[(Symbol, Symbol)]) -> bool {
        !self.nothing
            && self.requirements.iter().all(|r| {
                let value = value_of(labels, r.key);
                match r.operator {
                    Operator::In => value.is_some_and(|v| r.values.contains(&v)),
                    Operator::NotIn => value.is_none_or(|v| !r.values.contains(&v)),
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(selector: Value, labels: Value, expected: bool) {
        let mut symbols = Interner::default();
        let written: Option<Written> = serde_json::from_value(selector.clone()).unwrap();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        let selector_read = Selector::compile(written.as_ref(), &mut symbols);
        let labels_read = intern_labels(Some(&labels), &mut symbols);
        assert_eq!(selector_read.matches(&labels_read), expected, "{selector} of {labels:?}");
    }

    #[test]
    fn selectors_match_as_upstreams_do() {
        let expression = |op: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": op, "values": values}]});
        check(json!(null), json!({}), false);
        check(json!({}), json!({}), true);
        check(json!({"matchLabels": {"a": "1"}}), json!({"a": "1", "b": "2"}), true);
        check(json!({"matchLabels": {"a": "1"}}), json!({"a": "2"}), false);
        check(expression("In", json!(["1", "2"])), json!({"a": "2"}), true);
        check(expression("In", json!(["1", "2"])), json!({}), false);
        check(expression("NotIn", json!(["1"])), json!({}), true);
        check(expression("NotIn", json!(["1"])), json!({"a": "1"}), false);
        check(expression("Exists", json!([])), json!({"a": ""}), true);
        check(expression("DoesNotExist", json!([])), json!({"a": ""}), false);
        check(expression("In", json!([])), json!({"a": "1"}), false);
        check(expression("Near", json!(["1"])), json!({"a": "1"}), false);
    }
}
