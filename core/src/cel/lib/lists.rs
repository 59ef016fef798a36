//! Kubernetes' functions over lists.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::ops::{self, equals, order};
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::{List, Val};
use super::convert::count;
use std::cmp::Ordering;

pub(crate) const TABLE: &[Line] = &[
    ("list<int>::isSorted() bool", is_sorted, Price::Deep),
    ("list<uint>::isSorted() bool", is_sorted, Price::Deep),
    ("list<double>::isSorted() bool", is_sorted, Price::Deep),
    ("list<bool>::isSorted() bool", is_sorted, Price::Deep),
    ("list<string>::isSorted() bool", is_sorted, Price::Deep),
    ("list<bytes>::isSorted() bool", is_sorted, Price::Deep),
    ("list<timestamp>::isSorted() bool", is_sorted, Price::Deep),
    ("list<duration>::isSorted() bool", is_sorted, Price::Deep),
    ("list<int>::min() int", min, Price::Deep),
    ("list<uint>::min() uint", min, Price::Deep),
    ("list<double>::min() double", min, Price::Deep),
    ("list<bool>::min() bool", min, Price::Deep),
    ("list<string>::min() string", min, Price::Deep),
    ("list<bytes>::min() bytes", min, Price::Deep),
    ("list<timestamp>::min() timestamp", min, Price::Deep),
    ("list<duration>::min() duration", min, Price::Deep),
    ("list<int>::max() int", max, Price::Deep),
    ("list<uint>::max() uint", max, Price::Deep),
    ("list<double>::max() double", max, Price::Deep),
    ("list<bool>::max() bool", max, Price::Deep),
    ("list<string>::max() string", max, Price::Deep),
    ("list<bytes>::max() bytes", max, Price::Deep),
    ("list<timestamp>::max() timestamp", max, Price::Deep),
    ("list<duration>::max() duration", max, Price::Deep),
    ("list<int>::sum() int", sum_int, Price::Deep),
    ("list<uint>::sum() uint", sum_uint, Price::Deep),
    ("list<double>::sum() double", sum_double, Price::Deep),
    ("list<duration>::sum() duration", sum_duration, Price::Deep),
    ("list<A>::indexOf(A) int", index_of, Price::Deep),
    ("list<A>::lastIndexOf(A) int", last_index_of, Price::Deep),
];

fn list<'v, 'a>(args: &'v [Val<'a>]) -> Result<&'v List<'a>, Fault> {
    match args.first() {
        Some(Val::List(list)) => Ok(list),
        _ => Err(Fault::no_overload()),
    }
}

fn is_sorted<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let mut last: Option<Val<'a>> = None;
    for item in list(args)?.iter() {
        if let Some(last) = &last {
            match order(last, &item) {
                Some(Ordering::Greater) => return Ok(Val::Bool(false)),
                Some(_) => {}
                None => return Err(Fault::no_overload()),
            }
        }
        last = Some(item);
    }
    Ok(Val::Bool(true))
}

fn extreme<'a>(args: &[Val<'a>], name: &str, wanted: Ordering) -> R<'a> {
    let mut best: Option<Val<'a>> = None;
    for item in list(args)?.iter() {
        best = match best {
            Some(held) => match order(&item, &held) {
                Some(found) if found == wanted => Some(item),
                Some(_) => Some(held),
                None => return Err(Fault::no_overload()),
            },
            None => Some(item),
        };
    }
    best.ok_or_else(|| Fault::new(format!("{name} called on empty list")))
}

fn min<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    extreme(args, "min", Ordering::Less)
}

fn max<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    extreme(args, "max", Ordering::Greater)
}

fn sum<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>], zero: Val<'a>) -> R<'a> {
    // A list whose items are not known before says itself what is summed.
    let mut total: Option<Val<'a>> = None;
    for item in list(args)?.iter() {
        total = Some(match total {
            Some(held) => ops::add(run, &[held, item])?,
            None => item,
        });
    }
    Ok(total.unwrap_or(zero))
}

fn sum_int<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    sum(run, args, Val::Int(0))
}

fn sum_uint<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    sum(run, args, Val::Uint(0))
}

fn sum_double<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    sum(run, args, Val::Double(0.0))
}

fn sum_duration<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    sum(run, args, Val::Duration(0))
}

fn position<'a>(args: &[Val<'a>], last: bool) -> R<'a> {
    let [Val::List(list), wanted] = args else { return Err(Fault::no_overload()) };
    let mut found = None;
    for (i, item) in list.iter().enumerate() {
        if equals(&item, wanted)? {
            found = Some(i);
            if !last {
                break;
            }
        }
    }
    Ok(found.map_or(Val::Int(-1), count))
}

fn index_of<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    position(args, false)
}

fn last_index_of<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    position(args, true)
}
