//! Values while an expression runs. They borrow from the JSON they come from; only what an expression makes is owned.

use super::opaque::Opaque;
use super::types::{DYN, Decl, Listing, Type};
use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde_json::Value;
use smol_str::SmolStr;
use std::ops::Deref;
use std::sync::Arc;

/// A value.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// Text.
    Text(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A moment.
    Timestamp(Timestamp),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A type.
    Type(SmolStr),
    /// A value that may be absent.
    Optional(Option<Arc<Val<'a>>>),
    /// A value of a library.
    Opaque(Arc<Opaque>),
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// From the input.
    Ref(&'a str),
    /// Made by the expression.
    Own(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Ref(text) => text,
            Text::Own(text) => text,
        }
    }
}

/// A list, borrowed from JSON or made.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// The items with their declaration, and how the list compares.
    Json(&'a [Value], &'a Decl, &'a Listing),
    /// Made by the expression.
    Own(Arc<Vec<Val<'a>>>),
}

/// A map or object, borrowed from JSON or made.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// The entries, and the declaration of the whole.
    Json(&'a serde_json::Map<String, Value>, &'a Decl),
    /// Made by the expression.
    Own(Arc<Entries<'a>>),
}

/// The entries of a map that an expression made.
#[derive(Clone, Debug, Default)]
pub struct Entries<'a> {
    pub(crate) list: Vec<(Val<'a>, Val<'a>)>,
    index: FxHashMap<Key, usize>,
    /// The name of the message that the entries are the fields of.
    pub(crate) message: Option<SmolStr>,
    /// A key that is missing has an empty map.
    pub(crate) empty_maps: bool,
}

/// What entries are told apart by; numbers of all types compare by amount.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Bool(bool),
    Number(i128),
    Text(Box<str>),
}

fn key_of(value: &Val<'_>) -> Option<Key> {
    match value {
        Val::Bool(v) => Some(Key::Bool(*v)),
        Val::Int(v) => Some(Key::Number(i128::from(*v))),
        Val::Uint(v) => Some(Key::Number(i128::from(*v))),
        #[expect(clippy::cast_possible_truncation, reason = "the bounds are checked before")]
        Val::Double(v) if v.fract() == 0.0 && v.abs() < 1e19 => Some(Key::Number(*v as i128)),
        Val::Text(v) => Some(Key::Text((&**v).into())),
        _ => None,
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn message(name: SmolStr) -> Self {
        Entries { message: Some(name), ..Entries::default() }
    }

    /// Puts an entry in; false where the key is there already or is none.
    pub(crate) fn insert(&mut self, key: Val<'a>, value: Val<'a>) -> bool {
        let Some(k) = key_of(&key) else { return false };
        if self.index.contains_key(&k) {
            return false;
        }
        self.index.insert(k, self.list.len());
        self.list.push((key, value));
        true
    }

    fn get(&self, key: &Val<'_>) -> Option<&Val<'a>> {
        self.index.get(&key_of(key)?).and_then(|i| self.list.get(*i)).map(|(_, v)| v)
    }

    fn found(&self, key: &Val<'_>) -> Option<Val<'a>> {
        let empty = || Val::Map(Map::Own(Arc::new(Entries::default())));
        self.get(key).cloned().or_else(|| self.empty_maps.then(empty))
    }
}

impl<'a> Val<'a> {
    /// JSON as a declaration says; what does not fit it is read as it is.
    pub fn from_json(value: &'a Value, decl: &'a Decl) -> Val<'a> {
        match value {
            Value::Null => Val::Null,
            Value::Bool(v) => Val::Bool(*v),
            Value::Number(n) => match &decl.ty {
                Type::Double => n.as_f64().map_or(Val::Null, Val::Double),
                _ => match (n.as_i64(), n.as_u64()) {
                    (Some(v), _) => Val::Int(v),
                    (None, Some(v)) => Val::Uint(v),
                    (None, None) => whole_double(n.as_f64().unwrap_or(f64::NAN), &decl.ty),
                },
            },
            Value::String(text) => from_text(text, &decl.ty),
            Value::Array(list) => match &decl.ty {
                Type::List(item) => Val::List(List::Json(list, item, &decl.list)),
                _ => Val::List(List::Json(list, &DYN, &decl.list)),
            },
            Value::Object(map) => Val::Map(Map::Json(map, decl)),
        }
    }

    /// JSON with nothing declared.
    pub fn dynamic(value: &'a Value) -> Val<'a> {
        Val::from_json(value, &DYN)
    }

    /// Text that the expression owns.
    pub fn text(text: impl Into<Arc<str>>) -> Val<'static> {
        Val::Text(Text::Own(text.into()))
    }

    pub(crate) fn list(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List::Own(Arc::new(items)))
    }

    pub(crate) fn opaque(value: Opaque) -> Val<'static> {
        Val::Opaque(Arc::new(value))
    }

    pub(crate) fn some(value: Val<'a>) -> Val<'a> {
        Val::Optional(Some(Arc::new(value)))
    }

    /// The name of the value's type.
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Timestamp(_) => "google.protobuf.Timestamp",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::List(_) => "list",
            Val::Map(Map::Own(entries)) => entries.message.as_deref().unwrap_or("map"),
            Val::Map(Map::Json(_, decl)) => match &decl.ty {
                Type::Object(object) => &object.name,
                _ => "map",
            },
            Val::Type(_) => "type",
            Val::Optional(_) => "optional_type",
            Val::Opaque(opaque) => opaque.type_name(),
        }
    }

    /// What upstream charges by: characters, bytes, items or entries; one for everything else.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Val::Text(text) => text.chars().count(),
            Val::Bytes(bytes) => bytes.len(),
            Val::List(list) => list.len(),
            Val::Map(map) => map.len(),
            Val::Opaque(opaque) => return opaque.size(),
            _ => 1,
        };
        size as u64
    }

    /// The value as JSON, where it has a form there and is not beyond all measure.
    pub fn to_json(&self) -> Option<Value> {
        self.json(&mut 200_000)
    }

    fn json(&self, left: &mut u32) -> Option<Value> {
        *left = left.checked_sub(1)?;
        Some(match self {
            Val::Null => Value::Null,
            Val::Bool(v) => (*v).into(),
            Val::Int(v) => (*v).into(),
            Val::Uint(v) => (*v).into(),
            Val::Double(v) => serde_json::Number::from_f64(*v).map(Value::Number)?,
            Val::Text(text) => (**text).into(),
            Val::Bytes(bytes) => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Val::Timestamp(at) => super::lib::time::timestamp_text(*at).into(),
            Val::Duration(nanos) => super::lib::time::duration_text(*nanos).into(),
            Val::List(List::Json(list, ..)) => Value::Array(list.to_vec()),
            Val::List(List::Own(list)) => {
                Value::Array(list.iter().map(|v| v.json(left)).collect::<Option<Vec<_>>>()?)
            }
            Val::Map(Map::Json(map, _)) => Value::Object((*map).clone()),
            Val::Map(Map::Own(entries)) => {
                let mut out = serde_json::Map::new();
                for (key, value) in &entries.list {
                    let Val::Text(key) = key else { return None };
                    out.insert((**key).to_owned(), value.json(left)?);
                }
                Value::Object(out)
            }
            Val::Opaque(opaque) => opaque.to_json()?,
            Val::Type(_) | Val::Optional(_) => return None,
        })
    }
}

/// A whole number written with a fraction (`1.0`), where one is asked for.
#[expect(clippy::cast_possible_truncation, reason = "the bounds are checked before")]
fn whole_double(value: f64, ty: &Type) -> Val<'static> {
    if matches!(ty, Type::Int) && value.fract() == 0.0 && value.abs() < 9.2e18 {
        return Val::Int(value as i64);
    }
    Val::Double(value)
}

fn from_text<'a>(text: &'a str, ty: &Type) -> Val<'a> {
    match ty {
        Type::Timestamp => super::lib::time::parse_timestamp(text).map(Val::Timestamp),
        Type::Duration => super::lib::time::parse_duration(text).map(Val::Duration),
        Type::Bytes => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|b| Val::Bytes(b.into()))
        }
        _ => None,
    }
    .unwrap_or(Val::Text(Text::Ref(text)))
}

impl<'a> List<'a> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            List::Json(list, ..) => list.len(),
            List::Own(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at an index.
    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            List::Json(list, item, _) => list.get(index).map(|v| Val::from_json(v, item)),
            List::Own(list) => list.get(index).cloned(),
        }
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    pub(crate) fn listing(&self) -> &Listing {
        match self {
            List::Json(_, _, listing) => listing,
            List::Own(_) => &Listing::Plain,
        }
    }
}

impl<'a> Map<'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Own(entries) => entries.list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key that is text: the property's own name.
    pub fn property(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Map::Json(map, decl) => {
                let value = map.get(name)?;
                match &decl.ty {
                    Type::Map(_, inner) => Some(Val::from_json(value, inner)),
                    Type::Object(object) => match object.fields.get(name) {
                        Some(field) if &*field.property == name => Some(Val::from_json(value, &field.decl)),
                        _ => object
                            .fields
                            .values()
                            .find(|f| &*f.property == name)
                            .map(|f| Val::from_json(value, &f.decl)),
                    },
                    _ => Some(Val::from_json(value, &DYN)),
                }
            }
            Map::Own(entries) => entries.found(&Val::Text(Text::Ref(name))),
        }
    }

    /// The value of a field by the name that expressions use, where the type was not known before.
    pub(crate) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Map::Json(map, decl) => match &decl.ty {
                Type::Object(object) => {
                    let field = object.fields.get(name)?;
                    map.get(&*field.property).map(|v| Val::from_json(v, &field.decl))
                }
                _ => self.property(name),
            },
            Map::Own(_) => self.property(name),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match (self, key) {
            (_, Val::Text(name)) => self.property(name),
            (Map::Own(entries), key) => entries.found(key),
            (Map::Json(..), _) => None,
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Map::Json(map, _) => map.keys().map(|k| Val::Text(Text::Ref(k))).collect(),
            Map::Own(entries) => entries.list.iter().map(|(k, _)| k.clone()).collect(),
        }
    }
}
