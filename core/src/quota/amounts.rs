//! Named amounts: what upstream calls a resource list.

use crate::Quantity;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Amounts by the name of what is counted, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<String, Quantity>);

impl Amounts {
    /// Reads `{"cpu": "1", ...}`; what is no quantity is left out, for validation has refused it before.
    pub fn parse(list: &Value) -> Self {
        let read = |(name, amount): (&String, &Value)| Some((name.clone(), quantity(amount)?));
        Amounts(list.as_object().into_iter().flatten().filter_map(read).collect())
    }

    /// The JSON of it.
    pub fn to_value(&self) -> Value {
        let all: Map<String, Value> = self.0.iter().map(|(n, q)| (n.clone(), q.to_string().into())).collect();
        Value::Object(all)
    }

    /// Sets one amount.
    pub fn set(&mut self, name: impl Into<String>, amount: Quantity) {
        self.0.insert(name.into(), amount);
    }

    /// Sets one count.
    pub fn count(&mut self, name: impl Into<String>, count: i64) {
        self.set(name, Quantity::new(count, crate::quantity::Format::DecimalSI));
    }

    /// One amount.
    pub fn get(&self, name: &str) -> Option<&Quantity> {
        self.0.get(name)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds every amount of `other`.
    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(sum) => *sum += *amount,
                None => self.set(name.clone(), *amount),
            }
        }
    }

    /// Takes the larger one of each amount.
    pub fn raise(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            if self.0.get(name).is_none_or(|own| amount > own) {
                self.set(name.clone(), *amount);
            }
        }
    }

    /// What is above `before`; nothing is below zero.
    #[must_use]
    pub fn above(&self, before: &Amounts) -> Amounts {
        let rest = |(name, amount): (&String, &Quantity)| {
            let left = before.get(name).map_or(*amount, |b| *amount - *b);
            (name.clone(), if left.signum() > 0 { left } else { Quantity::ZERO })
        };
        Amounts(self.0.iter().map(rest).collect())
    }

    /// Only what `keep` tells.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Amounts {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Amounts(kept.map(|(name, amount)| (name.clone(), *amount)).collect())
    }

    /// Without the zeros.
    #[must_use]
    pub fn without_zeros(mut self) -> Amounts {
        self.0.retain(|_, amount| !amount.is_zero());
        self
    }

    /// The names whose amount is above that of `limits`.
    pub fn exceeding<'a>(&self, limits: &'a Amounts) -> Vec<&'a str> {
        let above = |(name, limit): &(&String, &Quantity)| self.get(name).is_some_and(|a| a > *limit);
        limits.0.iter().filter(above).map(|(name, _)| name.as_str()).collect()
    }
}

/// A quantity out of JSON: a text, or a number as lenient clients send it.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// `cpu=1,pods=2`.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, amount)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={amount}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_add_and_compare() {
        let a = Amounts::parse(&json!({"cpu": "500m", "pods": "1", "odd": "x", "n": 3}));
        assert_eq!(a.to_string(), "cpu=500m,n=3,pods=1");
        let mut sum = a.clone();
        sum.add(&Amounts::parse(&json!({"cpu": "1500m", "memory": "1Gi"})));
        assert_eq!(sum.to_value(), json!({"cpu": "2", "memory": "1Gi", "n": "3", "pods": "1"}));
        let limits = Amounts::parse(&json!({"cpu": "1", "memory": "2Gi", "secrets": "0"}));
        assert_eq!(sum.exceeding(&limits), ["cpu"]);
        let above = a.above(&Amounts::parse(&json!({"cpu": "1", "pods": "0"})));
        assert_eq!(above.without_zeros().to_string(), "n=3,pods=1");
    }
}
