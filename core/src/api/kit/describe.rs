//! The frame of a built-in kind's descriptor, which each kind fills in.

use crate::resource::{FieldValue, NoRules, Origin, Scope, SelectableField};
use crate::{KindDescriptor, Resource};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// A descriptor with a type's own names and schema and no rules of its own.
pub(crate) fn describe<K: Resource + schemars::JsonSchema>(scope: Scope) -> KindDescriptor {
    KindDescriptor {
        group: K::GROUP.into(),
        version: K::VERSION.into(),
        kind: K::KIND.into(),
        list_kind: SmolStr::from(format!("{}List", K::KIND)),
        plural: K::URL_PATH_SEGMENT.into(),
        singular: SmolStr::from(K::KIND.to_ascii_lowercase()),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        status: false,
        scale: None,
        generation: false,
        schema: crate::Schema::of::<K>(),
        strategy: Arc::new(NoRules),
        columns: Vec::new(),
        selectable_fields: Vec::new(),
        origin: Origin::BuiltIn,
        stored_as: None,
        conversion: None,
    }
}

/// Short names or categories.
pub(crate) fn names(names: &[&str]) -> Vec<SmolStr> {
    names.iter().map(|name| SmolStr::from(*name)).collect()
}

/// A selectable field that is computed.
pub(crate) fn field_at(name: &str, value: fn(&Value) -> String) -> SelectableField {
    SelectableField { name: name.into(), value: FieldValue::Computed(value) }
}
