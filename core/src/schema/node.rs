//! The compiled form of a schema: a tree of nodes that the passes over objects walk.
//!
//! A node of a built-in definition refers to the definition, which is compiled at its first use and shared by every kind that contains it.

use super::facts::Definition;
use super::rules::Rules;
use rustc_hash::FxHashMap;
use serde_json::Value;

/// One place in a schema: a type, and the facts that pruning, merging and validating need.
#[derive(Debug, Default)]
pub struct Node {
    pub(crate) ty: Type,
    /// Unknown fields below stay.
    pub(crate) preserve: bool,
    /// The object below is a resource with its own apiVersion, kind and metadata.
    pub(crate) embedded: bool,
    /// `null` is a value of its own.
    pub(crate) nullable: bool,
    pub(crate) default: Option<Box<Value>>,
    /// Whether a default stands anywhere at or below this node.
    pub(crate) has_defaults: bool,
    /// Whether a rule that is an expression stands anywhere at or below this node.
    pub(crate) rules_below: bool,
    pub(crate) merge: Option<Box<MergeFacts>>,
    /// Value validation of custom kinds; built-in kinds have their rules in their strategy.
    pub(crate) rules: Option<Box<Rules>>,
}

/// What JSON a node accepts.
#[derive(Debug, Default)]
pub(crate) enum Type {
    /// Anything.
    #[default]
    Any,
    Boolean,
    Int32,
    Int64,
    Number,
    String,
    /// Text in base64.
    Bytes,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    List(Box<Node>),
    /// Any keys, one type of value.
    Map(Box<Node>),
    Struct(Box<Struct>),
    /// A built-in definition.
    Ref(&'static Definition),
    /// Anything, but an object (or a list of them) is one of this definition: a JSON schema where `false` may stand as well.
    ObjectOr(&'static Definition),
}

/// Named fields, and perhaps one type for all other keys.
#[derive(Debug, Default)]
pub(crate) struct Struct {
    /// The type's short name for messages (`PodSpec`); empty for an anonymous one.
    pub(crate) name: Box<str>,
    pub(crate) fields: FxHashMap<Box<str>, Node>,
    /// The names, sorted, of fields that are required.
    pub(crate) required: Vec<Box<str>>,
    /// The names of fields that have defaults at or below them, sorted.
    pub(crate) defaulted: Vec<Box<str>>,
    /// The type of keys that are no fields (custom kinds only).
    pub(crate) additional: Option<Box<Node>>,
}

/// How a list or map takes part in merges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeFacts {
    pub(crate) list: ListType,
    /// The schema says that the list is atomic, instead of saying nothing.
    pub(crate) said_atomic: bool,
    pub(crate) keys: Vec<Box<str>>,
    pub(crate) atomic_map: bool,
    pub(crate) patch_key: Option<Box<str>>,
    pub(crate) patch_merge: bool,
    pub(crate) retain_keys: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole (also where nothing is said).
    #[default]
    Atomic,
    /// Items are unique values.
    Set,
    /// Items are objects, told apart by [`Node::map_keys`].
    Map,
}

impl Node {
    pub(crate) fn of(ty: Type) -> Self {
        Node { ty, ..Node::default() }
    }

    /// The node with a reference followed; facts that stand beside a reference stay on `self`.
    pub(crate) fn target(&self) -> &Node {
        match &self.ty {
            Type::Ref(definition) => definition.node(),
            _ => self,
        }
    }

    pub(crate) fn as_struct(&self) -> Option<&Struct> {
        match &self.target().ty {
            Type::Struct(s) => Some(s),
            _ => None,
        }
    }

    /// The node of a field of an object, or of any key of a map.
    pub fn field(&self, name: &str) -> Option<&Node> {
        match &self.target().ty {
            Type::Struct(s) => s.fields.get(name).or(s.additional.as_deref()),
            Type::Map(value) => Some(value),
            _ => None,
        }
    }

    /// Whether the schema names this field, unlike a key of a map.
    pub fn names(&self, field: &str) -> bool {
        self.as_struct().is_some_and(|s| s.fields.contains_key(field))
    }

    /// The node of a list's items.
    pub fn items(&self) -> Option<&Node> {
        match &self.target().ty {
            Type::List(item) => Some(item),
            _ => None,
        }
    }

    /// The node that a dotted path of field names leads to; lists are entered by `[]` (`spec.containers.[].name`).
    pub fn at(&self, path: &str) -> Option<&Node> {
        path.split('.')
            .filter(|s| !s.is_empty())
            .try_fold(self, |node, step| if step == "[]" { node.items() } else { node.field(step) })
    }

    fn facts(&self) -> Option<&MergeFacts> {
        self.merge.as_deref().or(self.target().merge.as_deref())
    }

    /// How a list merges.
    pub fn list_type(&self) -> ListType {
        self.facts().map_or(ListType::Atomic, |f| f.list)
    }

    /// The keys of a list of type map.
    pub fn map_keys(&self) -> impl Iterator<Item = &str> {
        self.facts().into_iter().flat_map(|f| f.keys.iter().map(|k| &**k))
    }

    /// Whether a map or object is replaced as a whole by server-side apply.
    pub fn is_atomic_map(&self) -> bool {
        self.facts().is_some_and(|f| f.atomic_map)
    }

    /// The merge key of a list under strategic merge.
    pub fn patch_merge_key(&self) -> Option<&str> {
        self.facts().and_then(|f| f.patch_key.as_deref())
    }

    /// Whether strategic merge merges this list instead of replacing it.
    pub fn patch_merges(&self) -> bool {
        self.facts().is_some_and(|f| f.patch_merge)
    }

    /// Whether strategic merge honours `$retainKeys` here.
    pub fn retains_keys(&self) -> bool {
        self.facts().is_some_and(|f| f.retain_keys)
    }

    /// Whether nothing is known of the fields below, so that all of them stay.
    pub fn preserves_unknown(&self) -> bool {
        let target = self.target();
        self.preserve || target.preserve || matches!(target.ty, Type::Any | Type::ObjectOr(_))
    }

    /// Whether this is a quantity, a number or text that compares by amount.
    pub fn is_quantity(&self) -> bool {
        matches!(self.target().ty, Type::Quantity)
    }

    /// The JSON schema type: `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty for several.
    pub fn json_type(&self) -> &'static str {
        match &self.target().ty {
            Type::Any | Type::IntOrString | Type::Quantity | Type::Ref(_) | Type::ObjectOr(_) => "",
            Type::Boolean => "boolean",
            Type::Int32 | Type::Int64 => "integer",
            Type::Number => "number",
            Type::String | Type::Bytes | Type::Time | Type::MicroTime => "string",
            Type::List(_) => "array",
            Type::Map(_) | Type::Struct(_) => "object",
        }
    }
}

/// Sorts the lists of names and works out where defaults are, once the fields are in.
pub(crate) fn seal(s: &mut Struct) {
    s.required.sort();
    s.required.dedup();
    s.defaulted = s.fields.iter().filter(|(_, n)| n.has_defaults).map(|(k, _)| k.clone()).collect();
    s.defaulted.sort();
}
