//! Equality, order and arithmetic.

use super::cost::Price;
use super::fault::Fault;
use super::run::{Evaluation, R};
use super::signature::Line;
use super::types::Listing;
use super::value::{List, Map, Val};
use serde_json::Value;
use std::cmp::Ordering;

pub(crate) const TABLE: &[Line] = &[
    ("_==_(A, A) bool", equal, Price::Compare),
    ("_!=_(A, A) bool", unequal, Price::Compare),
    ("@in(A, list<A>) bool", in_list, Price::In),
    ("@in(A, map<A, B>) bool", in_map, Price::One),
    ("!_(bool) bool", not, Price::One),
    ("-_(int) int", negate, Price::One),
    ("-_(double) double", negate, Price::One),
    ("_<_(bool, bool) bool", less, Price::One),
    ("_<_(int, int) bool", less, Price::One),
    ("_<_(int, uint) bool", less, Price::One),
    ("_<_(int, double) bool", less, Price::One),
    ("_<_(uint, uint) bool", less, Price::One),
    ("_<_(uint, int) bool", less, Price::One),
    ("_<_(uint, double) bool", less, Price::One),
    ("_<_(double, double) bool", less, Price::One),
    ("_<_(double, int) bool", less, Price::One),
    ("_<_(double, uint) bool", less, Price::One),
    ("_<_(string, string) bool", less, Price::Compare),
    ("_<_(bytes, bytes) bool", less, Price::Compare),
    ("_<_(timestamp, timestamp) bool", less, Price::One),
    ("_<_(duration, duration) bool", less, Price::One),
    ("_<=_(bool, bool) bool", at_most, Price::One),
    ("_<=_(int, int) bool", at_most, Price::One),
    ("_<=_(int, uint) bool", at_most, Price::One),
    ("_<=_(int, double) bool", at_most, Price::One),
    ("_<=_(uint, uint) bool", at_most, Price::One),
    ("_<=_(uint, int) bool", at_most, Price::One),
    ("_<=_(uint, double) bool", at_most, Price::One),
    ("_<=_(double, double) bool", at_most, Price::One),
    ("_<=_(double, int) bool", at_most, Price::One),
    ("_<=_(double, uint) bool", at_most, Price::One),
    ("_<=_(string, string) bool", at_most, Price::Compare),
    ("_<=_(bytes, bytes) bool", at_most, Price::Compare),
    ("_<=_(timestamp, timestamp) bool", at_most, Price::One),
    ("_<=_(duration, duration) bool", at_most, Price::One),
    ("_>_(bool, bool) bool", more, Price::One),
    ("_>_(int, int) bool", more, Price::One),
    ("_>_(int, uint) bool", more, Price::One),
    ("_>_(int, double) bool", more, Price::One),
    ("_>_(uint, uint) bool", more, Price::One),
    ("_>_(uint, int) bool", more, Price::One),
    ("_>_(uint, double) bool", more, Price::One),
    ("_>_(double, double) bool", more, Price::One),
    ("_>_(double, int) bool", more, Price::One),
    ("_>_(double, uint) bool", more, Price::One),
    ("_>_(string, string) bool", more, Price::Compare),
    ("_>_(bytes, bytes) bool", more, Price::Compare),
    ("_>_(timestamp, timestamp) bool", more, Price::One),
    ("_>_(duration, duration) bool", more, Price::One),
    ("_>=_(bool, bool) bool", at_least, Price::One),
    ("_>=_(int, int) bool", at_least, Price::One),
    ("_>=_(int, uint) bool", at_least, Price::One),
    ("_>=_(int, double) bool", at_least, Price::One),
    ("_>=_(uint, uint) bool", at_least, Price::One),
    ("_>=_(uint, int) bool", at_least, Price::One),
    ("_>=_(uint, double) bool", at_least, Price::One),
    ("_>=_(double, double) bool", at_least, Price::One),
    ("_>=_(double, int) bool", at_least, Price::One),
    ("_>=_(double, uint) bool", at_least, Price::One),
    ("_>=_(string, string) bool", at_least, Price::Compare),
    ("_>=_(bytes, bytes) bool", at_least, Price::Compare),
    ("_>=_(timestamp, timestamp) bool", at_least, Price::One),
    ("_>=_(duration, duration) bool", at_least, Price::One),
    ("_+_(int, int) int", add, Price::One),
    ("_+_(uint, uint) uint", add, Price::One),
    ("_+_(double, double) double", add, Price::One),
    ("_+_(string, string) string", add, Price::AddText),
    ("_+_(bytes, bytes) bytes", add, Price::AddText),
    ("_+_(list<A>, list<A>) list<A>", add_lists, Price::AddList),
    ("_+_(timestamp, duration) timestamp", add, Price::One),
    ("_+_(duration, timestamp) timestamp", add, Price::One),
    ("_+_(duration, duration) duration", add, Price::One),
    ("_-_(int, int) int", subtract, Price::One),
    ("_-_(uint, uint) uint", subtract, Price::One),
    ("_-_(double, double) double", subtract, Price::One),
    ("_-_(timestamp, timestamp) duration", subtract, Price::One),
    ("_-_(timestamp, duration) timestamp", subtract, Price::One),
    ("_-_(duration, duration) duration", subtract, Price::One),
    ("_*_(int, int) int", multiply, Price::One),
    ("_*_(uint, uint) uint", multiply, Price::One),
    ("_*_(double, double) double", multiply, Price::One),
    ("_/_(int, int) int", divide, Price::One),
    ("_/_(uint, uint) uint", divide, Price::One),
    ("_/_(double, double) double", divide, Price::One),
    ("_%_(int, int) int", remainder, Price::One),
    ("_%_(uint, uint) uint", remainder, Price::One),
];

/// A value in a message.
pub(crate) fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Text(text) => text.to_string(),
        Val::Bool(v) => v.to_string(),
        Val::Int(v) => v.to_string(),
        Val::Uint(v) => v.to_string(),
        Val::Double(v) => v.to_string(),
        other => other.type_name().to_owned(),
    }
}

/// Values that share parts can be far larger than what made them: comparing ends after so many steps.
const STEPS_MAX: u64 = 2_000_000;

/// Whether two values are equal; numbers of all types compare by amount, and what has different types is not equal.
pub(crate) fn equals(a: &Val<'_>, b: &Val<'_>) -> Result<bool, Fault> {
    let mut left = STEPS_MAX;
    let equal = same(a, b, &mut left);
    if left == 0 { Err(Fault::budget()) } else { Ok(equal) }
}

fn same(a: &Val<'_>, b: &Val<'_>, left: &mut u64) -> bool {
    *left = left.saturating_sub(1);
    if *left == 0 {
        return false;
    }
    match (a, b) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            order(a, b) == Some(Ordering::Equal)
        }
        (Val::Text(a), Val::Text(b)) => **a == **b,
        (Val::Bytes(a), Val::Bytes(b)) => a == b,
        (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
        (Val::Duration(a), Val::Duration(b)) => a == b,
        (Val::Type(a), Val::Type(b)) => a == b,
        (Val::List(a), Val::List(b)) => equal_lists(a, b, left),
        (Val::Map(a), Val::Map(b)) => equal_maps(a, b, left),
        (Val::Optional(a), Val::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => same(a, b, left),
            _ => false,
        },
        (Val::Opaque(a), Val::Opaque(b)) => a.equals(b),
        _ => false,
    }
}

fn equal_lists(a: &List<'_>, b: &List<'_>, left: &mut u64) -> bool {
    if let (List::Json(x, _, Listing::Plain), List::Json(y, _, Listing::Plain)) = (a, b)
        && std::ptr::eq(*x, *y)
    {
        return true;
    }
    if a.len() != b.len() {
        return false;
    }
    match a.listing() {
        Listing::Plain => a.iter().zip(b.iter()).all(|(x, y)| same(&x, &y, left)),
        Listing::Set => {
            let others: Vec<Val<'_>> = b.iter().collect();
            a.iter().all(|x| others.iter().any(|y| same(&x, y, left)))
        }
        Listing::Map(keys) => {
            let others: Vec<Val<'_>> = b.iter().collect();
            a.iter().all(|x| others.iter().any(|y| same_entry(&x, y, keys) && same(&x, y, left)))
        }
    }
}

fn same_entry(a: &Val<'_>, b: &Val<'_>, keys: &[Box<str>]) -> bool {
    let (Val::Map(a), Val::Map(b)) = (a, b) else { return false };
    keys.iter().all(|key| match (a.property(key), b.property(key)) {
        (Some(a), Some(b)) => same(&a, &b, &mut 1_000),
        (None, None) => true,
        _ => false,
    })
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>, left: &mut u64) -> bool {
    if let (Map::Json(x, _), Map::Json(y, _)) = (a, b)
        && std::ptr::eq(*x, *y)
    {
        return true;
    }
    a.len() == b.len()
        && a.keys().iter().all(|key| match (a.get(key), b.get(key)) {
            (Some(x), Some(y)) => same(&x, &y, left),
            _ => false,
        })
}

/// The order of two values of one kind.
pub(crate) fn order(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Int(a), Val::Double(b)) => with_double(i128::from(*a), *b),
        (Val::Uint(a), Val::Double(b)) => with_double(i128::from(*a), *b),
        (Val::Double(a), Val::Int(b)) => with_double(i128::from(*b), *a).map(Ordering::reverse),
        (Val::Double(a), Val::Uint(b)) => with_double(i128::from(*b), *a).map(Ordering::reverse),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        (Val::Text(a), Val::Text(b)) => Some((**a).cmp(&**b)),
        (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
        (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
        (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "casts saturate")]
fn with_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    let floor = double.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order.is_eq() && double > floor { Ordering::Less } else { order })
}

fn equal<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    two(args).and_then(|(a, b)| equals(a, b)).map(Val::Bool)
}

fn unequal<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    two(args).and_then(|(a, b)| equals(a, b)).map(|equal| Val::Bool(!equal))
}

fn two<'v, 'a>(args: &'v [Val<'a>]) -> Result<(&'v Val<'a>, &'v Val<'a>), Fault> {
    match args {
        [a, b] => Ok((a, b)),
        _ => Err(Fault::no_overload()),
    }
}

fn in_list<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        // Text against texts of the input is compared in place.
        [Val::Text(text), Val::List(List::Json(items, ..))] => {
            Ok(Val::Bool(items.iter().any(|v| matches!(v, Value::String(s) if **s == **text))))
        }
        [value, Val::List(list)] => contains(list.iter(), value).map(Val::Bool),
        _ => Err(Fault::no_overload()),
    }
}

/// Whether an item equals a value.
pub(crate) fn contains<'a>(items: impl Iterator<Item = Val<'a>>, value: &Val<'a>) -> Result<bool, Fault> {
    for item in items {
        if equals(value, &item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_map<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [key, Val::Map(map)] => Ok(Val::Bool(map.get(key).is_some())),
        _ => Err(Fault::no_overload()),
    }
}

fn not<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Bool(v)] => Ok(Val::Bool(!v)),
        _ => Err(Fault::no_overload()),
    }
}

fn negate<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Int(v)] => v.checked_neg().map(Val::Int).ok_or_else(overflow),
        [Val::Double(v)] => Ok(Val::Double(-v)),
        _ => Err(Fault::no_overload()),
    }
}

fn compare<'a>(args: &[Val<'a>], holds: fn(Ordering) -> bool) -> R<'a> {
    let (a, b) = two(args)?;
    match order(a, b) {
        Some(order) => Ok(Val::Bool(holds(order))),
        None if matches!((a, b), (Val::Double(_), _) | (_, Val::Double(_))) => Ok(Val::Bool(false)),
        None => Err(Fault::no_overload()),
    }
}

fn less<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    compare(args, Ordering::is_lt)
}

fn at_most<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    compare(args, Ordering::is_le)
}

fn more<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    compare(args, Ordering::is_gt)
}

fn at_least<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    compare(args, Ordering::is_ge)
}

fn overflow() -> Fault {
    Fault::new("integer overflow")
}

pub(crate) fn add<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match two(args)? {
        (Val::Int(a), Val::Int(b)) => a.checked_add(*b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => {
            a.checked_add(*b).map(Val::Uint).ok_or_else(|| Fault::new("unsigned integer overflow"))
        }
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::Text(a), Val::Text(b)) => {
            let mut out = String::with_capacity(a.len() + b.len());
            out.push_str(a);
            out.push_str(b);
            Ok(Val::text(out))
        }
        (Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&**a, &**b].concat().into())),
        (Val::Duration(a), Val::Duration(b)) => {
            a.checked_add(*b).map(Val::Duration).ok_or_else(|| Fault::new("duration overflow"))
        }
        (Val::Timestamp(at), Val::Duration(d)) | (Val::Duration(d), Val::Timestamp(at)) => {
            super::lib::time::moved(*at, *d)
        }
        _ => Err(Fault::no_overload()),
    }
}

fn subtract<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match two(args)? {
        (Val::Int(a), Val::Int(b)) => a.checked_sub(*b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => {
            a.checked_sub(*b).map(Val::Uint).ok_or_else(|| Fault::new("unsigned integer overflow"))
        }
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (Val::Duration(a), Val::Duration(b)) => {
            a.checked_sub(*b).map(Val::Duration).ok_or_else(|| Fault::new("duration overflow"))
        }
        (Val::Timestamp(a), Val::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            i64::try_from(nanos).map(Val::Duration).map_err(|_| Fault::new("duration overflow"))
        }
        (Val::Timestamp(at), Val::Duration(d)) => {
            let back = d.checked_neg().ok_or_else(|| Fault::new("duration overflow"))?;
            super::lib::time::moved(*at, back)
        }
        _ => Err(Fault::no_overload()),
    }
}

fn multiply<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match two(args)? {
        (Val::Int(a), Val::Int(b)) => a.checked_mul(*b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => {
            a.checked_mul(*b).map(Val::Uint).ok_or_else(|| Fault::new("unsigned integer overflow"))
        }
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        _ => Err(Fault::no_overload()),
    }
}

fn divide<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match two(args)? {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err(Fault::new("division by zero")),
        (Val::Int(a), Val::Int(b)) => a.checked_div(*b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a / b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        _ => Err(Fault::no_overload()),
    }
}

fn remainder<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match two(args)? {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => Err(Fault::new("modulus by zero")),
        (Val::Int(a), Val::Int(b)) => a.checked_rem(*b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a % b)),
        _ => Err(Fault::no_overload()),
    }
}

/// Lists of type set and map merge when they are added; others follow each other.
fn add_lists<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (Val::List(a), Val::List(b)) = two(args)? else { return Err(Fault::no_overload()) };
    let total = (a.len() + b.len()) as u64;
    if total > 1_000 {
        // Upstream joins without copying; here a bound on what is held at once has to come from the price.
        run.charge(total / 4)?;
    }
    let mut out: Vec<Val<'a>> = a.iter().collect();
    match a.listing() {
        Listing::Plain => out.extend(b.iter()),
        Listing::Set => {
            for item in b.iter() {
                run.charge(1 + out.len() as u64 / 10)?;
                if !contains(out.iter().cloned(), &item)? {
                    out.push(item);
                }
            }
        }
        Listing::Map(keys) => {
            let keys = keys.clone();
            for item in b.iter() {
                run.charge(1 + out.len() as u64 / 10)?;
                match out.iter().position(|held| same_entry(held, &item, &keys)) {
                    Some(at) => out[at] = item,
                    None => out.push(item),
                }
            }
        }
    }
    Ok(Val::list(out))
}
