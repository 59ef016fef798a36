//! Conversions between types, and sizes.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::Opaque;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::time;

pub(crate) const TABLE: &[Line] = &[
    ("size(string) int", size, Price::One),
    ("size(bytes) int", size, Price::One),
    ("size(list<A>) int", size, Price::One),
    ("size(map<A, B>) int", size, Price::One),
    ("string::size() int", size, Price::One),
    ("bytes::size() int", size, Price::One),
    ("list<A>::size() int", size, Price::One),
    ("map<A, B>::size() int", size, Price::One),
    ("type(A) type", type_of, Price::One),
    ("bool(bool) bool", same, Price::One),
    ("bool(string) bool", to_bool, Price::One),
    ("bytes(bytes) bytes", same, Price::One),
    ("bytes(string) bytes", to_bytes, Price::ToBytes),
    ("double(double) double", same, Price::One),
    ("double(int) double", to_double, Price::One),
    ("double(uint) double", to_double, Price::One),
    ("double(string) double", to_double, Price::One),
    ("int(int) int", same, Price::One),
    ("int(uint) int", to_int, Price::One),
    ("int(double) int", to_int, Price::One),
    ("int(string) int", to_int, Price::One),
    ("int(timestamp) int", to_int, Price::One),
    ("int(duration) int", to_int, Price::One),
    ("uint(uint) uint", same, Price::One),
    ("uint(int) uint", to_uint, Price::One),
    ("uint(double) uint", to_uint, Price::One),
    ("uint(string) uint", to_uint, Price::One),
    ("string(string) string", same, Price::One),
    ("string(bool) string", to_text, Price::Show(5)),
    ("string(int) string", to_text, Price::Show(20)),
    ("string(uint) string", to_text, Price::Show(20)),
    ("string(double) string", to_text, Price::Show(24)),
    ("string(bytes) string", to_text, Price::FromBytes),
    ("string(timestamp) string", to_text, Price::Show(30)),
    ("string(duration) string", to_text, Price::Show(30)),
    ("string(Ip) string", to_text, Price::Show(39)),
    ("string(Cidr) string", to_text, Price::Show(43)),
];

/// A number of 64 bits for a count.
pub(super) fn count(n: usize) -> Val<'static> {
    Val::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn size<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [value @ (Val::Text(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) | Val::Opaque(_))] => {
            Ok(Val::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
        }
        _ => Err(Fault::no_overload()),
    }
}

fn type_of<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    args.first().map(|v| Val::Type(v.type_name().into())).ok_or_else(Fault::no_overload)
}

fn same<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    args.first().cloned().ok_or_else(Fault::no_overload)
}

fn wrong(value: &Val<'_>, wanted: &str) -> Fault {
    match value {
        Val::Text(text) => Fault::new(format!("type conversion error from '{}' to {wanted}", &**text)),
        other => Fault::new(format!("type conversion error from '{}' to {wanted}", other.type_name())),
    }
}

fn to_bool<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [value @ Val::Text(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            _ => Err(wrong(value, "bool")),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn to_bytes<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Text(text)] => Ok(Val::Bytes(text.as_bytes().into())),
        _ => Err(Fault::no_overload()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "as the language says")]
fn to_double<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Int(v)] => Ok(Val::Double(*v as f64)),
        [Val::Uint(v)] => Ok(Val::Double(*v as f64)),
        [value @ Val::Text(text)] => text.parse().map(Val::Double).map_err(|_| wrong(value, "double")),
        _ => Err(Fault::no_overload()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the bounds are checked before")]
fn to_int<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Uint(v)] => i64::try_from(*v).map(Val::Int).map_err(|_| Fault::new("integer overflow")),
        [Val::Double(v)] if *v > -9.223_372_036_854_775e18 && *v < 9.223_372_036_854_775e18 => {
            Ok(Val::Int(*v as i64))
        }
        [Val::Double(_)] => Err(Fault::new("integer overflow")),
        [value @ Val::Text(text)] => {
            text.strip_prefix('+').unwrap_or(text).parse().map(Val::Int).map_err(|_| wrong(value, "int"))
        }
        [Val::Timestamp(at)] => Ok(Val::Int(at.as_second())),
        [Val::Duration(nanos)] => Ok(Val::Int(*nanos)),
        _ => Err(Fault::no_overload()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the bounds are checked before")]
fn to_uint<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Int(v)] => {
            u64::try_from(*v).map(Val::Uint).map_err(|_| Fault::new("unsigned integer overflow"))
        }
        [Val::Double(v)] if *v >= 0.0 && *v < 1.844_674_407_370_955e19 => Ok(Val::Uint(*v as u64)),
        [Val::Double(_)] => Err(Fault::new("unsigned integer overflow")),
        [value @ Val::Text(text)] => text.parse().map(Val::Uint).map_err(|_| wrong(value, "uint")),
        _ => Err(Fault::no_overload()),
    }
}

fn to_text<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Bool(v)] => Ok(Val::text(v.to_string())),
        [Val::Int(v)] => Ok(Val::text(v.to_string())),
        [Val::Uint(v)] => Ok(Val::text(v.to_string())),
        [Val::Double(v)] => Ok(Val::text(v.to_string())),
        [Val::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Val::text(text)),
            Err(_) => Err(Fault::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [Val::Timestamp(at)] => Ok(Val::text(time::timestamp_text(*at))),
        [Val::Duration(nanos)] => Ok(Val::text(time::duration_text(*nanos))),
        [Val::Opaque(opaque)] => match &**opaque {
            Opaque::Ip(ip) => Ok(Val::text(ip.to_string())),
            Opaque::Cidr(cidr) => Ok(Val::text(cidr.to_string())),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}
