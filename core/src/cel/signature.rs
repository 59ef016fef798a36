//! The signatures of functions, written as text in the tables of the libraries and parsed once.

use super::cost::Price;
use super::lib;
use super::run::{Evaluation, R};
use super::types::{Decl, Type};
use super::value::{Map, Val};
use rustc_hash::FxHashMap;
use std::sync::{Arc, OnceLock};

/// What runs a call.
pub(crate) type Native = for<'a> fn(&mut Evaluation<'a>, &[Val<'a>]) -> R<'a>;

/// A line of a library's table: `"string::startsWith(string) bool"`, its code and its price.
pub(crate) type Line = (&'static str, Native, Price);

/// One way of calling a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) member: bool,
    /// The receiver first.
    pub(crate) args: Vec<Pattern>,
    pub(crate) result: Pattern,
    pub(crate) native: Native,
    pub(crate) price: Price,
}

/// A type with placeholders.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Any(usize),
    Is(Type),
    List(Box<Pattern>),
    Map(Box<Pattern>, Box<Pattern>),
    Optional(Box<Pattern>),
}

/// The types that the placeholders of a signature stand for.
pub(crate) type Bindings = [Option<Type>; 2];

/// The overloads of a function.
pub(crate) fn overloads(function: &str) -> &'static [Overload] {
    static TABLE: OnceLock<FxHashMap<&'static str, Vec<Overload>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table: FxHashMap<&'static str, Vec<Overload>> = FxHashMap::default();
        for (text, native, price) in lib::TABLES.iter().copied().flatten() {
            if let Some((name, overload)) = parse(text, *native, *price) {
                table.entry(name).or_default().push(overload);
            }
        }
        table
    });
    table.get(function).map_or(&[], Vec::as_slice)
}

/// `receiver::name(args) result`, or `name(args) result`, where a name may have dots of its own (`sets.contains`).
fn parse(text: &'static str, native: Native, price: Price) -> Option<(&'static str, Overload)> {
    let open = text.find('(')?;
    let (head, rest) = (&text[..open], &text[open + 1..]);
    let close = rest.rfind(") ")?;
    let (inner, result) = (&rest[..close], rest[close + 2..].trim());
    let (receiver, name) = match head.split_once("::") {
        Some((receiver, name)) => (Some(receiver), name),
        None => (None, head),
    };
    let mut args = Vec::new();
    if let Some(receiver) = receiver {
        args.push(pattern(receiver)?);
    }
    for part in split_top(inner) {
        args.push(pattern(part)?);
    }
    let overload = Overload { member: receiver.is_some(), args, result: pattern(result)?, native, price };
    Some((name, overload))
}

fn split_top(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (i, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn pattern(text: &'static str) -> Option<Pattern> {
    if let Some(inner) = text.strip_suffix('>') {
        let (outer, inner) = inner.split_once('<')?;
        let mut parts = split_top(inner).into_iter();
        return Some(match outer {
            "list" => Pattern::List(Box::new(pattern(parts.next()?)?)),
            "map" => Pattern::Map(Box::new(pattern(parts.next()?)?), Box::new(pattern(parts.next()?)?)),
            "optional" => Pattern::Optional(Box::new(pattern(parts.next()?)?)),
            _ => return None,
        });
    }
    Some(match text {
        "A" => Pattern::Any(0),
        "B" => Pattern::Any(1),
        "dyn" => Pattern::Is(Type::Dyn),
        "null" => Pattern::Is(Type::Null),
        "bool" => Pattern::Is(Type::Bool),
        "int" => Pattern::Is(Type::Int),
        "uint" => Pattern::Is(Type::Uint),
        "double" => Pattern::Is(Type::Double),
        "string" => Pattern::Is(Type::Text),
        "bytes" => Pattern::Is(Type::Bytes),
        "timestamp" => Pattern::Is(Type::Timestamp),
        "duration" => Pattern::Is(Type::Duration),
        "type" => Pattern::Is(Type::Type),
        "Quantity" => Pattern::Is(Type::Opaque("kubernetes.Quantity")),
        "Url" => Pattern::Is(Type::Opaque("kubernetes.URL")),
        "Ip" => Pattern::Is(Type::Opaque("net.IP")),
        "Cidr" => Pattern::Is(Type::Opaque("net.CIDR")),
        "Semver" => Pattern::Is(Type::Opaque("kubernetes.Semver")),
        "Format" => Pattern::Is(Type::Opaque("kubernetes.NamedFormat")),
        "Authorizer" => Pattern::Is(Type::Opaque("kubernetes.authorization.Authorizer")),
        "PathCheck" => Pattern::Is(Type::Opaque("kubernetes.authorization.PathCheck")),
        "GroupCheck" => Pattern::Is(Type::Opaque("kubernetes.authorization.GroupCheck")),
        "ResourceCheck" => Pattern::Is(Type::Opaque("kubernetes.authorization.ResourceCheck")),
        "Decision" => Pattern::Is(Type::Opaque("kubernetes.authorization.Decision")),
        _ => return None,
    })
}

impl Pattern {
    /// Whether a type fits, noting what placeholders stand for.
    pub(crate) fn takes(&self, ty: &Type, bound: &mut Bindings) -> bool {
        match (self, ty) {
            (Pattern::Any(i), ty) => {
                let Some(slot) = bound.get_mut(*i) else { return false };
                match slot.as_ref().map(|held| held.join(ty)) {
                    None => *slot = Some(ty.clone()),
                    Some(Some(joined)) => *slot = Some(joined),
                    Some(None) => return false,
                }
                true
            }
            (_, Type::Dyn) => true,
            (Pattern::Is(wanted), ty) => ty.fits(wanted),
            (Pattern::List(inner), Type::List(item)) | (Pattern::Optional(inner), Type::Optional(item)) => {
                inner.takes(&item.ty, bound)
            }
            (Pattern::Map(key, value), Type::Map(k, v)) => {
                key.takes(&k.ty, bound) && value.takes(&v.ty, bound)
            }
            _ => false,
        }
    }

    /// The type with its placeholders filled in.
    pub(crate) fn filled(&self, bound: &Bindings) -> Type {
        match self {
            Pattern::Any(i) => bound.get(*i).cloned().flatten().unwrap_or(Type::Dyn),
            Pattern::Is(ty) => ty.clone(),
            Pattern::List(inner) => Type::List(Arc::new(Decl::of(inner.filled(bound)))),
            Pattern::Map(key, value) => Type::map(key.filled(bound), value.filled(bound)),
            Pattern::Optional(inner) => Type::optional(inner.filled(bound)),
        }
    }

    /// Whether a value fits, as far as its outermost type tells.
    pub(crate) fn accepts(&self, value: &Val<'_>) -> bool {
        match (self, value) {
            (Pattern::Any(_) | Pattern::Is(Type::Dyn), _)
            | (Pattern::Is(Type::Null), Val::Null)
            | (Pattern::Is(Type::Bool), Val::Bool(_))
            | (Pattern::Is(Type::Int), Val::Int(_))
            | (Pattern::Is(Type::Uint), Val::Uint(_))
            | (Pattern::Is(Type::Double), Val::Double(_))
            | (Pattern::Is(Type::Text), Val::Text(_))
            | (Pattern::Is(Type::Bytes), Val::Bytes(_))
            | (Pattern::Is(Type::Timestamp), Val::Timestamp(_))
            | (Pattern::Is(Type::Duration), Val::Duration(_))
            | (Pattern::Is(Type::Type), Val::Type(_))
            | (Pattern::List(_), Val::List(_))
            | (Pattern::Map(..), Val::Map(Map::Json(..) | Map::Own(_)))
            | (Pattern::Optional(_), Val::Optional(_)) => true,
            (Pattern::Is(Type::Opaque(name)), Val::Opaque(opaque)) => opaque.type_name() == *name,
            (Pattern::Is(Type::Text), Val::Opaque(opaque)) => opaque.type_name() == "string",
            _ => false,
        }
    }
}

impl Overload {
    pub(crate) fn accepts(&self, args: &[Val<'_>]) -> bool {
        self.args.len() == args.len() && self.args.iter().zip(args).all(|(p, v)| p.accepts(v))
    }
}
