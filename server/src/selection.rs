//! Which objects of a resource a request is about: namespace, name, labels and fields.

use crate::cache::{Entry, Interest, Shape, Snapshot};
use crate::handlers::Call;
use crate::keys::object_key;
use bytes::Bytes;
use kubewright_core::selector::FieldOperator;
use kubewright_core::{ApiError, FieldSelector, Selector};
use smol_str::SmolStr;
use std::sync::Arc;

/// Where a selectable field's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// The place in the descriptor's selectable fields.
    At(usize),
}

#[derive(Clone, Debug)]
struct FieldTerm {
    field: Field,
    equal: bool,
    value: SmolStr,
}

/// The objects that a request selects.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// `namespace/`, or empty for everything.
    prefix: Vec<u8>,
    namespace: SmolStr,
    /// The key of the one object, where a name selects it.
    key: Option<Bytes>,
    /// Nothing can match (two names at once).
    nothing: bool,
    labels: Option<Selector>,
    fields: Vec<FieldTerm>,
    /// The value of the field that the resource has an index of.
    indexed: Option<SmolStr>,
}

impl Selection {
    /// # Errors
    /// 400 for a selector that does not parse or names a field that the kind does not select by.
    pub(crate) fn of(call: &Call) -> Result<Self, ApiError> {
        let namespace = SmolStr::new(&call.namespace);
        let prefix = if namespace.is_empty() { Vec::new() } else { format!("{namespace}/").into_bytes() };
        let labels = match call.options.label_selector.as_deref().filter(|s| !s.is_empty()) {
            None => None,
            Some(text) => Some(Selector::parse(text).map_err(|e| unreadable("labelSelector", text, &e))?),
        };
        let mut selection = Selection {
            prefix,
            namespace,
            key: None,
            nothing: false,
            labels: labels.filter(|l| !l.is_everything()),
            fields: Vec::new(),
            indexed: None,
        };
        if let Some(text) = call.options.field_selector.as_deref().filter(|s| !s.is_empty()) {
            let parsed = FieldSelector::parse(text).map_err(|e| unreadable("fieldSelector", text, &e))?;
            selection.take_fields(call, &parsed)?;
        }
        if let Some(name) = &call.name {
            selection.take_name(call, name);
        }
        Ok(selection)
    }

    fn take_fields(&mut self, call: &Call, parsed: &FieldSelector) -> Result<(), ApiError> {
        let kind = &call.kind.descriptor;
        for requirement in parsed.requirements() {
            let equal = requirement.operator != FieldOperator::NotEquals;
            let field = match requirement.field.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                other => match kind.selectable_fields.iter().position(|f| f.name == other) {
                    Some(at) => Field::At(at),
                    None => return Err(ApiError::bad_request(format!("field label not supported: {other}"))),
                },
            };
            let value = SmolStr::new(&requirement.value);
            match field {
                Field::Name if equal && (!self.namespace.is_empty() || !kind.namespaced()) => {
                    self.take_name(call, &value);
                }
                Field::At(at) if equal && kind.stored_as.is_none() && call.kind.cache.indexes(at) => {
                    self.indexed = Some(value.clone()).filter(|v| !v.is_empty());
                }
                _ => {}
            }
            self.fields.push(FieldTerm { field, equal, value });
        }
        Ok(())
    }

    fn take_name(&mut self, call: &Call, name: &str) {
        let key = object_key(&call.namespace, name);
        self.nothing |= self.key.as_ref().is_some_and(|k| *k != key);
        self.key = Some(key);
    }

    /// Whether every object of the resource is selected.
    pub(crate) fn everything(&self) -> bool {
        self.prefix.is_empty() && self.key.is_none() && !self.selects()
    }

    /// Whether labels or fields take part.
    pub(crate) fn selects(&self) -> bool {
        self.labels.is_some() || !self.fields.is_empty()
    }

    /// Whether an object, reached through [`Selection::each`] or [`Selection::interest`], is selected.
    pub(crate) fn matches(&self, shape: &Shape) -> bool {
        let header = shape.object.header();
        if self.nothing || self.labels.as_ref().is_some_and(|l| !l.matches(&header.labels)) {
            return false;
        }
        self.fields.iter().all(|term| {
            let text = match term.field {
                Field::Name => &header.name,
                Field::Namespace => &header.namespace,
                Field::At(at) => match shape.fields.get(at) {
                    Some(text) => text,
                    None => return !term.equal,
                },
            };
            (*text == term.value) == term.equal
        })
    }

    /// Which events can concern it.
    pub(crate) fn interest(&self) -> Interest {
        if let Some(key) = &self.key {
            return Interest::Key(key.clone());
        }
        if let Some(value) = &self.indexed {
            return Interest::Indexed(value.clone());
        }
        if self.namespace.is_empty() { Interest::All } else { Interest::Namespace(self.namespace.clone()) }
    }

    /// Whether an event's key can belong to it.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.key.as_ref().is_none_or(|k| k == key)
    }

    /// Visits the candidates from a key on, in key order, until `visit` gives false.
    pub(crate) fn each(
        &self,
        snapshot: &Snapshot,
        start: &[u8],
        mut visit: impl FnMut(&Bytes, &Arc<Entry>) -> Result<bool, ApiError>,
    ) -> Result<(), ApiError> {
        if let Some(key) = &self.key {
            if let Some(entry) = snapshot.get(key).filter(|_| &key[..] >= start) {
                visit(key, entry)?;
            }
            return Ok(());
        }
        if let Some(value) = self.indexed.as_ref().filter(|_| snapshot.has_index()) {
            for (key, entry) in snapshot.indexed(value) {
                if &key[..] >= start && self.covers(key) && !visit(key, entry)? {
                    break;
                }
            }
            return Ok(());
        }
        for (key, entry) in snapshot.range(&self.prefix, start) {
            if !visit(key, entry)? {
                break;
            }
        }
        Ok(())
    }

    /// How many objects follow a key, where that is known without matching them.
    pub(crate) fn count_after(&self, snapshot: &Snapshot, last: Option<&[u8]>) -> Option<u64> {
        if self.selects() {
            return None;
        }
        let start = [last?, b"\0"].concat();
        Some(snapshot.range(&self.prefix, &start).count() as u64)
    }
}

fn unreadable(parameter: &str, text: &str, why: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("unable to parse {parameter} {text:?}: {why}"))
}
