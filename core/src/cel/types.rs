//! The types of values: what an environment declares, what the checker infers, and how large values can get.

use super::lexer::is_reserved;
use rustc_hash::FxHashMap;
use std::fmt;
use std::sync::Arc;

/// The largest body of a request, from which the sizes of unbounded values follow (upstream's figure).
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// A type.
#[derive(Clone, Debug, Default)]
pub enum Type {
    /// Known at run time only.
    #[default]
    Dyn,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// `int`, 64 bits.
    Int,
    /// `uint`, 64 bits.
    Uint,
    /// `double`.
    Double,
    /// `string`.
    Text,
    /// `bytes`.
    Bytes,
    /// A moment.
    Timestamp,
    /// A span of time.
    Duration,
    /// The type of types.
    Type,
    /// A list of items.
    List(Arc<Decl>),
    /// A map from keys to values.
    Map(Arc<Decl>, Arc<Decl>),
    /// An object with named fields.
    Object(Arc<Object>),
    /// A value that may be absent.
    Optional(Arc<Decl>),
    /// A type of a library, by its name (`kubernetes.Quantity`).
    Opaque(&'static str),
}

/// A type with what a declaration says beyond it: bounds, and how lists compare.
#[derive(Clone, Debug)]
pub struct Decl {
    /// The type.
    pub ty: Type,
    /// The most characters, bytes, items or entries that a value has; `u64::MAX` where nothing is known.
    pub max: u64,
    /// The fewest bytes that a value takes in a request.
    pub min_bytes: u64,
    /// How the list compares and adds.
    pub list: Listing,
}

/// How a list behaves under `==` and `+`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Item by item.
    #[default]
    Plain,
    /// As a set: order does not matter.
    Set,
    /// As a map by these fields.
    Map(Vec<Box<str>>),
}

/// An object type.
#[derive(Debug, Default)]
pub struct Object {
    /// Its name in messages.
    pub name: String,
    /// The fields by the names that expressions use.
    pub fields: FxHashMap<Box<str>, Field>,
}

/// A field of an object type.
#[derive(Clone, Debug)]
pub struct Field {
    /// The property's own name, before escaping.
    pub property: Box<str>,
    /// What it holds.
    pub decl: Arc<Decl>,
}

impl Decl {
    /// A type with no known bounds.
    pub fn of(ty: Type) -> Self {
        Decl { ty, max: u64::MAX, min_bytes: 0, list: Listing::Plain }
    }

    /// Anything.
    pub fn dynamic() -> Arc<Decl> {
        Arc::new(Decl::of(Type::Dyn))
    }
}

/// What undeclared JSON is read by.
pub(crate) static DYN: Decl = Decl { ty: Type::Dyn, max: u64::MAX, min_bytes: 0, list: Listing::Plain };

impl Type {
    /// A list of `item`.
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(Decl::of(item)))
    }

    /// A map from `key` to `value`.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(Decl::of(key)), Arc::new(Decl::of(value)))
    }

    pub(crate) fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(Decl::of(inner)))
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    /// Whether a value of `self` can stand where `wanted` is asked for; what is dynamic always can.
    pub(crate) fn fits(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, Type::Null)
            | (
                Type::Null,
                Type::Object(_) | Type::Timestamp | Type::Duration | Type::Opaque(_) | Type::Optional(_),
            )
            | (Type::Bool, Type::Bool)
            | (Type::Int, Type::Int)
            | (Type::Uint, Type::Uint)
            | (Type::Double, Type::Double)
            | (Type::Text, Type::Text)
            | (Type::Bytes, Type::Bytes)
            | (Type::Timestamp, Type::Timestamp)
            | (Type::Duration, Type::Duration)
            | (Type::Type, Type::Type) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.ty.fits(&b.ty),
            (Type::Map(ak, av), Type::Map(bk, bv)) => ak.ty.fits(&bk.ty) && av.ty.fits(&bv.ty),
            (Type::Object(a), Type::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            _ => false,
        }
    }

    /// The type that covers both, where there is one.
    pub(crate) fn join(&self, other: &Type) -> Option<Type> {
        if self.is_dyn() || other.is_dyn() {
            return Some(Type::Dyn);
        }
        if other.fits(self) {
            return Some(match (self, other) {
                (Type::List(a), Type::List(b)) => Type::list(a.ty.join(&b.ty)?),
                (Type::Map(ak, av), Type::Map(bk, bv)) => Type::map(ak.ty.join(&bk.ty)?, av.ty.join(&bv.ty)?),
                (Type::Optional(a), Type::Optional(b)) => Type::optional(a.ty.join(&b.ty)?),
                _ => self.clone(),
            });
        }
        self.fits(other).then(|| other.clone())
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::Text => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::Type => f.write_str("type"),
            Type::List(item) => write!(f, "list({})", item.ty),
            Type::Map(key, value) => write!(f, "map({}, {})", key.ty, value.ty),
            Type::Object(object) => f.write_str(&object.name),
            Type::Optional(inner) => write!(f, "optional_type({})", inner.ty),
            Type::Opaque(name) => f.write_str(name),
        }
    }
}

/// The name that expressions use for a property (`foo-bar` is `foo__dash__bar`), where it has one.
pub fn escape(property: &str) -> Option<String> {
    const LITERALS: [&str; 4] = ["true", "false", "null", "in"];
    if property.is_empty() || property.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if LITERALS.contains(&property) || is_reserved(property) {
        return Some(format!("__{property}__"));
    }
    let mut out = String::with_capacity(property.len());
    let mut chars = property.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '_' if chars.peek() == Some(&'_') => {
                chars.next();
                out.push_str("__underscores__");
            }
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c == '_' || c.is_ascii_alphanumeric() => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}
