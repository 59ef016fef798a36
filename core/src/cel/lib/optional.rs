//! Values that may be absent.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;

pub(crate) const TABLE: &[Line] = &[
    ("optional.of(A) optional<A>", of, Price::One),
    ("optional.ofNonZeroValue(A) optional<A>", of_non_zero, Price::One),
    ("optional.none() optional<A>", none, Price::One),
    ("optional.unwrap(list<optional<A>>) list<A>", unwrap, Price::One),
    ("list<optional<A>>::unwrapOpt() list<A>", unwrap, Price::One),
    ("optional<A>::hasValue() bool", has_value, Price::One),
    ("optional<A>::value() A", value, Price::One),
    ("optional<A>::orValue(A) A", or_value, Price::One),
    ("optional<A>::or(optional<A>) optional<A>", or, Price::One),
];

fn of<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    args.first().cloned().map(Val::some).ok_or_else(Fault::no_overload)
}

fn of_non_zero<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let value = args.first().ok_or_else(Fault::no_overload)?;
    let zero = match value {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(v) => *v == 0.0,
        Val::Text(v) => v.is_empty(),
        Val::Bytes(v) => v.is_empty(),
        Val::List(v) => v.is_empty(),
        Val::Map(v) => v.is_empty(),
        Val::Optional(v) => v.is_none(),
        _ => false,
    };
    Ok(if zero { Val::Optional(None) } else { Val::some(value.clone()) })
}

fn none<'a>(_: &mut Evaluation<'a>, _: &[Val<'a>]) -> R<'a> {
    Ok(Val::Optional(None))
}

fn unwrap<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let Some(Val::List(list)) = args.first() else { return Err(Fault::no_overload()) };
    let mut out = Vec::new();
    for item in list.iter() {
        match item {
            Val::Optional(inner) => out.extend(inner.map(|v| (*v).clone())),
            _ => return Err(Fault::no_overload()),
        }
    }
    Ok(Val::list(out))
}

fn has_value<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Optional(inner)] => Ok(Val::Bool(inner.is_some())),
        _ => Err(Fault::no_overload()),
    }
}

fn value<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Optional(Some(inner))] => Ok((**inner).clone()),
        [Val::Optional(None)] => Err(Fault::new("optional.none() dereference")),
        _ => Err(Fault::no_overload()),
    }
}

fn or_value<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Optional(Some(inner)), _] => Ok((**inner).clone()),
        [Val::Optional(None), other] => Ok(other.clone()),
        _ => Err(Fault::no_overload()),
    }
}

fn or<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [first @ Val::Optional(Some(_)), Val::Optional(_)] => Ok(first.clone()),
        [Val::Optional(None), other @ Val::Optional(_)] => Ok(other.clone()),
        _ => Err(Fault::no_overload()),
    }
}
