//! From objects to sets of paths: what an object sets, and what differs between two.

use super::element;
use super::set::{Entry, FieldSet};
use crate::schema::{ListType, Node};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};
use smol_str::{SmolStr, format_smolstr};

/// Whether a place is replaced as a whole.
pub(super) fn is_atomic(node: Option<&Node>, value: &Value) -> bool {
    match value {
        Value::Array(_) => node.is_none_or(|n| n.list_type() == ListType::Atomic),
        Value::Object(_) => node.is_some_and(Node::is_atomic_map),
        _ => true,
    }
}

/// The node of a field, where the schema knows it.
pub(super) fn field<'a>(node: Option<&'a Node>, name: &str) -> Option<&'a Node> {
    node.and_then(|n| n.field(name))
}

/// The element of an item, or its index where it has no key.
pub(super) fn item(node: Option<&Node>, at: usize, item: &Value) -> SmolStr {
    let keyed = node.and_then(|n| element::of_item(n, item).ok());
    keyed.unwrap_or_else(|| format_smolstr!("i:{at}"))
}

/// The paths that an object sets.
///
/// # Errors
/// Where an item of a keyed list has no key, in upstream's words.
pub(super) fn fields_of(node: &Node, object: &Value) -> Result<FieldSet, String> {
    owned(Some(node), object).map(|entry| entry.below)
}

fn owned(node: Option<&Node>, value: &Value) -> Result<Entry, String> {
    let leaf = Entry { member: true, below: FieldSet::default() };
    match value {
        Value::Object(map) if !is_atomic(node, value) => owned_fields(node, map),
        Value::Array(items) if !is_atomic(node, value) => owned_items(node, items),
        Value::Null if node.is_some_and(|n| n.items().is_some()) => Ok(Entry::default()),
        _ => Ok(leaf),
    }
}

fn owned_fields(node: Option<&Node>, map: &Map<String, Value>) -> Result<Entry, String> {
    let mut below = FieldSet::default();
    for (name, value) in map {
        let mut entry = owned(field(node, name), value)
            .map_err(|e| if e.starts_with('.') { format!(".{name}{e}") } else { format!(".{name}: {e}") })?;
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        // A key of a map is owned by itself; a named field only by what is in it.
        entry.member |= empty || !node.is_some_and(|n| n.names(name));
        below.put(element::field(name), entry);
    }
    Ok(Entry { member: false, below })
}

fn owned_items(node: Option<&Node>, items: &[Value]) -> Result<Entry, String> {
    let mut below = FieldSet::default();
    for (at, value) in items.iter().enumerate() {
        let list = node.ok_or_else(|| format!("element {at}: the list has no schema"))?;
        let element = element::of_item(list, value).map_err(|e| format!("element {at}: {e}"))?;
        let mut entry = owned(list.items(), value)?;
        entry.member = true;
        if below.get(&element).is_some() {
            // Items that are there twice are owned as one.
            entry.below = FieldSet::default();
        }
        below.put(element, entry);
    }
    Ok(Entry { member: false, below })
}

/// What differs between two objects; no path is in two of the sets.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    /// Compares two objects of a kind.
    pub(super) fn of(node: &Node, old: &Value, new: &Value) -> Self {
        let difference = compare(Some(node), Some(old), Some(new));
        Comparison {
            removed: difference.removed.below,
            modified: difference.modified.below,
            added: difference.added.below,
        }
    }

    /// Leaves out what stands at or below these paths.
    pub(super) fn ignoring(self, fields: &FieldSet) -> Self {
        Comparison {
            removed: self.removed.without_all_below(fields),
            modified: self.modified.without_all_below(fields),
            added: self.added.without_all_below(fields),
        }
    }
}

#[derive(Default)]
struct Difference {
    removed: Entry,
    modified: Entry,
    added: Entry,
}

impl Difference {
    /// The place itself came, went or changed.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut out = Difference::default();
        match (old, new) {
            (None, _) => out.added.member = true,
            (_, None) => out.removed.member = true,
            (Some(old), Some(new)) => out.modified.member = old != new,
        }
        out
    }

    /// Puts in what differs at a place. Most places are the same in both objects: their element is not even made.
    fn put(&mut self, element: impl FnOnce() -> SmolStr, below: Difference) {
        let parts = [
            (&mut self.removed, below.removed),
            (&mut self.modified, below.modified),
            (&mut self.added, below.added),
        ];
        let mut parts = parts.into_iter().filter(|(_, entry)| !entry.is_empty()).peekable();
        if parts.peek().is_none() {
            return;
        }
        let element = element();
        parts.for_each(|(set, entry)| set.below.put(element.clone(), entry));
    }
}

fn compare(node: Option<&Node>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    if old == new {
        return Difference::default();
    }
    let shape = new.filter(|v| !v.is_null()).or(old).unwrap_or(&Value::Null);
    let mut out = match shape {
        Value::Object(_) if !is_atomic(node, shape) => {
            let (Some(a), Some(b)) = (fields(old), fields(new)) else { return Difference::leaf(old, new) };
            if a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return Difference::leaf(old, new);
            }
            compare_fields(node, a, b)
        }
        Value::Array(_) if !is_atomic(node, shape) => {
            let (Some(a), Some(b)) = (items(old), items(new)) else { return Difference::leaf(old, new) };
            if a.is_empty() && b.is_empty() {
                return Difference::leaf(old, new);
            }
            compare_items(node, a, b)
        }
        _ => return Difference::leaf(old, new),
    };
    out.added.member |= old.is_none();
    out.removed.member |= new.is_none();
    out
}

/// The fields of an object, where there is one; `None` for a value of another shape.
fn fields(value: Option<&Value>) -> Option<Option<&Map<String, Value>>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(Value::Object(map)) => Some(Some(map)),
        Some(_) => None,
    }
}

/// The items of a list; `None` for a value of another shape.
fn items(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(items)) => Some(items),
        Some(_) => None,
    }
}

fn compare_fields(
    node: Option<&Node>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
) -> Difference {
    let mut out = Difference::default();
    for (name, value) in old.into_iter().flatten() {
        let other = new.and_then(|n| n.get(name));
        out.put(|| element::field(name), compare(field(node, name), Some(value), other));
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_none_or(|o| !o.contains_key(name)) {
            out.put(|| element::field(name), compare(field(node, name), None, Some(value)));
        }
    }
    out
}

fn compare_items(node: Option<&Node>, old: &[Value], new: &[Value]) -> Difference {
    let mut out = Difference::default();
    let child = node.and_then(Node::items);
    let (old, new) = (by_element(node, old), by_element(node, new));
    let none = Vec::new();
    let elements = old.keys().chain(new.keys().filter(|e| !old.contains_key(*e)));
    for element in elements {
        let before = old.get(element).unwrap_or(&none);
        let after = new.get(element).unwrap_or(&none);
        let difference = match (before.as_slice(), after.as_slice()) {
            ([] | [_], [] | [_]) => compare(child, before.first().copied(), after.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let mut twice = Difference::default();
                twice.modified.member = before != after;
                twice
            }
            ([_, _, ..], _) => {
                let mut once =
                    after.first().map_or_else(Difference::default, |v| compare(child, None, Some(v)));
                once.removed.member = true;
                once
            }
            _ => {
                let mut twice =
                    before.first().map_or_else(Difference::default, |v| compare(child, Some(v), None));
                twice.added.member = true;
                twice
            }
        };
        out.put(|| element.clone(), difference);
    }
    out
}

fn by_element<'a>(node: Option<&Node>, items: &'a [Value]) -> FxHashMap<SmolStr, Vec<&'a Value>> {
    let mut out: FxHashMap<SmolStr, Vec<&Value>> = FxHashMap::default();
    for (at, value) in items.iter().enumerate() {
        out.entry(item(node, at, value)).or_default().push(value);
    }
    out
}
