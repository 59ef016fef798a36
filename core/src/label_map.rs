//! The labels of one object, held small: every cached object has some, and most have few.

use crate::selector::Labels;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use smol_str::SmolStr;
use std::fmt;

/// Labels in the order of their keys, in one allocation; none without labels.
///
/// A tree map would take half a kilobyte for the first label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelMap(Box<[(SmolStr, SmolStr)]>);

impl LabelMap {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&SmolStr> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All labels, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &SmolStr)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &SmolStr> {
        self.0.iter().map(|(key, _)| key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(SmolStr, SmolStr)> for LabelMap {
    /// Of a key that comes twice the last value stays.
    fn from_iter<I: IntoIterator<Item = (SmolStr, SmolStr)>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        if labels.is_sorted_by(|(a, _), (b, _)| a < b) {
            return LabelMap(labels.into_boxed_slice());
        }
        labels.reverse();
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        labels.dedup_by(|(later, _), (first, _)| later == first);
        LabelMap(labels.into_boxed_slice())
    }
}

impl Labels for LabelMap {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(SmolStr::as_str)
    }
}

impl<'de> Deserialize<'de> for LabelMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = LabelMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LabelMap, A::Error> {
                let mut labels = Vec::new();
                while let Some(label) = map.next_entry()? {
                    labels.push(label);
                }
                Ok(labels.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[(&str, &str)]) {
        let labels: LabelMap = serde_json::from_str(json).unwrap();
        let got: Vec<_> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, expected, "{json}");
        assert_eq!((labels.len(), labels.is_empty()), (expected.len(), expected.is_empty()));
        for (key, value) in expected {
            assert_eq!(labels.label(key), Some(*value));
        }
        assert_eq!(labels.label("absent"), None);
        assert!(labels.keys().map(SmolStr::as_str).eq(expected.iter().map(|(k, _)| *k)));
    }

    #[test]
    fn labels_are_found_by_key_and_the_last_of_a_key_stays() {
        check("{}", &[]);
        check(r#"{"a":"1","b":""}"#, &[("a", "1"), ("b", "")]);
        check(r#"{"b":"2","a":"1"}"#, &[("a", "1"), ("b", "2")]);
        check(r#"{"b":"2","a":"1","b":"3"}"#, &[("a", "1"), ("b", "3")]);
        check(r#"{"a":"1","a":"2"}"#, &[("a", "2")]);
        assert!(serde_json::from_str::<LabelMap>("[]").is_err());
    }
}
