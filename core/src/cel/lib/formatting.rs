//! `"%s is %d".format([...])`.

use super::super::fault::Fault;
use super::super::run::{Evaluation, R};
use super::super::value::{List, Map, Val};
use super::strings::text;
use super::time;
use std::fmt::Write;

/// The output grows no longer than this.
const LENGTH_MAX: usize = 1_000_000;
const PRECISION_MAX: usize = 100;

pub(super) fn format<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let form = text(args, 0)?;
    let Some(Val::List(values)) = args.get(1) else { return Err(Fault::no_overload()) };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = form;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let Some(verb) = after.chars().next() else {
            return Err(Fault::new("could not parse formatting clause: unexpected end of string"));
        };
        rest = &after[verb.len_utf8()..];
        let value = values.get(next).ok_or_else(|| Fault::new(format!("index {next} out of range")))?;
        next += 1;
        clause(&mut out, verb, precision, &value, 0)?;
        if out.len() > LENGTH_MAX {
            return Err(Fault::budget());
        }
    }
    out.push_str(rest);
    run.charge(out.len() as u64 / 100)?;
    Ok(Val::text(out))
}

fn precision(text: &str) -> Result<(Option<usize>, &str), Fault> {
    let Some(digits) = text.strip_prefix('.') else { return Ok((None, text)) };
    let len = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    match digits[..len].parse::<usize>() {
        Ok(n) if n <= PRECISION_MAX => Ok((Some(n), &digits[len..])),
        _ => Err(Fault::new("error while parsing precision")),
    }
}

fn unusable(verb: char, value: &Val<'_>) -> Fault {
    Fault::new(format!("no formatting function for '{verb}' and {}", value.type_name()))
}

fn clause(
    out: &mut String,
    verb: char,
    precision: Option<usize>,
    value: &Val<'_>,
    depth: usize,
) -> Result<(), Fault> {
    let done = match (verb, value) {
        ('s', value) => return plain(out, value, depth),
        ('d', Val::Int(v)) => write!(out, "{v}"),
        ('d', Val::Uint(v)) => write!(out, "{v}"),
        ('d', Val::Double(v)) if v.is_nan() || v.is_infinite() => write!(out, "{v}"),
        ('f', Val::Double(v)) => write!(out, "{v:.*}", precision.unwrap_or(6)),
        ('e', Val::Double(v)) => {
            out.push_str(&exponent(*v, precision.unwrap_or(6)));
            Ok(())
        }
        ('b', Val::Int(v)) => write!(out, "{}{:b}", if *v < 0 { "-" } else { "" }, v.unsigned_abs()),
        ('b', Val::Uint(v)) => write!(out, "{v:b}"),
        ('b', Val::Bool(v)) => write!(out, "{}", u8::from(*v)),
        ('o', Val::Int(v)) => write!(out, "{}{:o}", if *v < 0 { "-" } else { "" }, v.unsigned_abs()),
        ('o', Val::Uint(v)) => write!(out, "{v:o}"),
        ('x', Val::Int(v)) => write!(out, "{}{:x}", if *v < 0 { "-" } else { "" }, v.unsigned_abs()),
        ('x', Val::Uint(v)) => write!(out, "{v:x}"),
        ('X', Val::Int(v)) => write!(out, "{}{:X}", if *v < 0 { "-" } else { "" }, v.unsigned_abs()),
        ('X', Val::Uint(v)) => write!(out, "{v:X}"),
        ('x', Val::Text(v)) => v.bytes().try_for_each(|b| write!(out, "{b:02x}")),
        ('X', Val::Text(v)) => v.bytes().try_for_each(|b| write!(out, "{b:02X}")),
        ('x', Val::Bytes(v)) => v.iter().try_for_each(|b| write!(out, "{b:02x}")),
        ('X', Val::Bytes(v)) => v.iter().try_for_each(|b| write!(out, "{b:02X}")),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', value) => return Err(unusable(verb, value)),
        (other, _) => {
            return Err(Fault::new(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            )));
        }
    };
    done.map_err(|_| Fault::new("the text cannot be formatted"))
}

/// `1.500000e+03`.
fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, power)) => {
            let (sign, digits) = match power.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', power),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

fn plain(out: &mut String, value: &Val<'_>, depth: usize) -> Result<(), Fault> {
    if out.len() > LENGTH_MAX || depth > 50 {
        return Err(Fault::budget());
    }
    match value {
        Val::Text(v) => out.push_str(v),
        Val::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
        Val::Null => out.push_str("null"),
        Val::Int(v) => out.push_str(&v.to_string()),
        Val::Uint(v) => out.push_str(&v.to_string()),
        Val::Double(v) => out.push_str(&v.to_string()),
        Val::Bytes(v) => out.push_str(&String::from_utf8_lossy(v)),
        Val::Timestamp(at) => out.push_str(&time::timestamp_text(*at)),
        Val::Duration(nanos) => out.push_str(&time::duration_text(*nanos)),
        Val::Type(name) => out.push_str(name),
        Val::List(list) => list_text(out, list, depth)?,
        Val::Map(map) => map_text(out, map, depth)?,
        Val::Opaque(opaque) => match opaque.to_json() {
            Some(serde_json::Value::String(text)) => out.push_str(&text),
            _ => return Err(unusable('s', value)),
        },
        Val::Optional(_) => return Err(unusable('s', value)),
    }
    Ok(())
}

fn list_text(out: &mut String, list: &List<'_>, depth: usize) -> Result<(), Fault> {
    out.push('[');
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        plain(out, &item, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

fn map_text(out: &mut String, map: &Map<'_>, depth: usize) -> Result<(), Fault> {
    out.push('{');
    let mut keys = map.keys();
    keys.sort_by_key(super::super::ops::shown);
    for (i, key) in keys.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        plain(out, key, depth + 1)?;
        out.push_str(": ");
        plain(out, &map.get(key).unwrap_or(Val::Null), depth + 1)?;
    }
    out.push('}');
    Ok(())
}
