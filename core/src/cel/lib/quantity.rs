//! Quantities.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::Opaque;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::strings::text;
use crate::Quantity;
use crate::quantity::Format;
use std::cmp::Ordering;

pub(crate) const TABLE: &[Line] = &[
    ("quantity(string) Quantity", quantity, Price::Parse),
    ("isQuantity(string) bool", is_quantity, Price::Parse),
    ("Quantity::sign() int", sign, Price::One),
    ("Quantity::isInteger() bool", is_integer, Price::One),
    ("Quantity::asInteger() int", as_integer, Price::One),
    ("Quantity::asApproximateFloat() double", as_float, Price::One),
    ("Quantity::add(Quantity) Quantity", add, Price::One),
    ("Quantity::add(int) Quantity", add, Price::One),
    ("Quantity::sub(Quantity) Quantity", sub, Price::One),
    ("Quantity::sub(int) Quantity", sub, Price::One),
    ("Quantity::isGreaterThan(Quantity) bool", greater, Price::One),
    ("Quantity::isLessThan(Quantity) bool", less, Price::One),
    ("Quantity::compareTo(Quantity) int", compare, Price::One),
];

fn quantity<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match Quantity::parse(text(args, 0)?) {
        Ok(quantity) => Ok(Val::opaque(Opaque::Quantity(quantity))),
        Err(e) => Err(Fault::new(e.to_string())),
    }
}

fn is_quantity<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(Quantity::parse(text(args, 0)?).is_ok()))
}

fn own(args: &[Val<'_>], at: usize) -> Result<Quantity, Fault> {
    match args.get(at) {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Quantity(quantity) => Ok(*quantity),
            _ => Err(Fault::no_overload()),
        },
        Some(Val::Int(v)) => Ok(Quantity::new(*v, Format::DecimalSI)),
        _ => Err(Fault::no_overload()),
    }
}

fn sign<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Int(i64::from(own(args, 0)?.signum())))
}

fn whole(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (Quantity::new(value, quantity.format()) == quantity).then_some(value)
}

fn is_integer<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(whole(own(args, 0)?).is_some()))
}

fn as_integer<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    whole(own(args, 0)?).map(Val::Int).ok_or_else(|| Fault::new("cannot convert value to integer"))
}

fn as_float<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Double(own(args, 0)?.as_f64()))
}

fn add<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::opaque(Opaque::Quantity(own(args, 0)? + own(args, 1)?)))
}

fn sub<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::opaque(Opaque::Quantity(own(args, 0)? - own(args, 1)?)))
}

fn order(args: &[Val<'_>]) -> Result<Ordering, Fault> {
    Ok(own(args, 0)?.cmp(&own(args, 1)?))
}

fn greater<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(order(args)?.is_gt()))
}

fn less<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(order(args)?.is_lt()))
}

fn compare<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Int(order(args)? as i64))
}
