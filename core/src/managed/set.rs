//! Sets of field paths, as a tree, and their wire form `FieldsV1`.

use super::element;
use crate::schema::Node;
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// A set of paths below some place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    entries: BTreeMap<SmolStr, Entry>,
}

/// One element: whether the path that ends here is in the set, and what is below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// The set of these paths of field names (`metadata.name`).
    pub fn of(paths: &[&str]) -> Self {
        let mut set = FieldSet::default();
        for path in paths {
            let mut at = &mut set;
            let mut steps = path.split('.').peekable();
            while let Some(step) = steps.next() {
                let entry = at.entries.entry(element::field(step)).or_default();
                entry.member |= steps.peek().is_none();
                at = &mut entry.below;
            }
        }
        set
    }

    /// Whether no path is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads `FieldsV1`; `None` where it is malformed.
    pub fn from_wire(value: &Value) -> Option<Self> {
        let mut set = FieldSet::default();
        for (key, below) in value.as_object()? {
            if key == "." {
                // Says that the place itself is in the set, which the caller notes.
                continue;
            }
            let children = Self::from_wire(below)?;
            let member = children.is_empty() || below.get(".").is_some();
            set.entries.insert(element::canonical(key)?, Entry { member, below: children });
        }
        Some(set)
    }

    /// As `FieldsV1`.
    pub fn to_wire(&self) -> Value {
        Value::Object(self.wire(false))
    }

    fn wire(&self, itself: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if itself && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, entry) in &self.entries {
            map.insert(element.as_str().to_owned(), Value::Object(entry.below.wire(entry.member)));
        }
        map
    }

    pub(super) fn get(&self, element: &str) -> Option<&Entry> {
        self.entries.get(element)
    }

    /// Puts an entry in; an empty one is left out.
    pub(super) fn put(&mut self, element: SmolStr, entry: Entry) {
        if !entry.is_empty() {
            self.entries.insert(element, entry);
        }
    }

    /// Everything in either.
    #[must_use]
    pub fn union(mut self, other: &FieldSet) -> Self {
        self.add(other);
        self
    }

    fn add(&mut self, other: &FieldSet) {
        for (element, entry) in &other.entries {
            match self.entries.get_mut(element) {
                None => drop(self.entries.insert(element.clone(), entry.clone())),
                Some(own) => {
                    own.member |= entry.member;
                    own.below.add(&entry.below);
                }
            }
        }
    }

    /// The paths in both.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> Self {
        let mut out = FieldSet::default();
        for (element, entry) in &self.entries {
            if let Some(theirs) = other.entries.get(element) {
                let below = entry.below.intersection(&theirs.below);
                out.put(element.clone(), Entry { member: entry.member && theirs.member, below });
            }
        }
        out
    }

    /// The paths that are not in `other`.
    #[must_use]
    pub fn difference(mut self, other: &FieldSet) -> Self {
        self.subtract(other, false);
        self
    }

    /// The paths that are neither in `other` nor below one of its paths.
    #[must_use]
    pub fn without_all_below(mut self, other: &FieldSet) -> Self {
        self.subtract(other, true);
        self
    }

    fn subtract(&mut self, other: &FieldSet, below_too: bool) {
        if other.is_empty() {
            return;
        }
        self.entries.retain(|element, entry| {
            let Some(theirs) = other.entries.get(element) else { return true };
            if theirs.member && below_too {
                return false;
            }
            entry.member &= !theirs.member;
            entry.below.subtract(&theirs.below, below_too);
            !entry.is_empty()
        });
    }

    /// The set with the named fields on the way to its members: what is removed with them when it becomes empty.
    #[must_use]
    pub(super) fn with_named_fields(&self, node: Option<&Node>) -> Self {
        let mut out = FieldSet::default();
        for (element, entry) in &self.entries {
            let name = element.strip_prefix("f:");
            let named = name.is_some_and(|name| node.is_some_and(|n| n.names(name)));
            let child = match name {
                Some(name) => node.and_then(|n| n.field(name)),
                None => node.and_then(Node::items),
            };
            let member = entry.member || (named && !entry.below.is_empty());
            out.put(element.clone(), Entry { member, below: entry.below.with_named_fields(child) });
        }
        out
    }

    /// Calls with each path in the set, as messages print it: `.spec.containers[name="web"].image`.
    pub fn each_path(&self, visit: &mut impl FnMut(&str)) {
        self.walk(&mut String::new(), visit);
    }

    fn walk(&self, path: &mut String, visit: &mut impl FnMut(&str)) {
        for (element, entry) in &self.entries {
            let len = path.len();
            element::print(element, path);
            if entry.member {
                visit(path);
            }
            entry.below.walk(path, visit);
            path.truncate(len);
        }
    }
}
