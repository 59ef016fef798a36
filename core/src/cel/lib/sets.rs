//! Lists as sets.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::ops::contains as holds;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::{List, Val};

pub(crate) const TABLE: &[Line] = &[
    ("sets.contains(list<A>, list<A>) bool", contains, Price::One),
    ("sets.equivalent(list<A>, list<A>) bool", equivalent, Price::One),
    ("sets.intersects(list<A>, list<A>) bool", intersects, Price::One),
];

fn lists<'v, 'a>(
    run: &mut Evaluation<'a>,
    args: &'v [Val<'a>],
) -> Result<(&'v List<'a>, &'v List<'a>), Fault> {
    let [Val::List(a), Val::List(b)] = args else { return Err(Fault::no_overload()) };
    run.charge((a.len() as u64).saturating_mul(b.len() as u64))?;
    Ok((a, b))
}

fn includes<'a>(a: &List<'a>, b: &List<'a>) -> Result<bool, Fault> {
    for item in b.iter() {
        if !holds(a.iter(), &item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (a, b) = lists(run, args)?;
    includes(a, b).map(Val::Bool)
}

fn equivalent<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (a, b) = lists(run, args)?;
    Ok(Val::Bool(includes(a, b)? && includes(b, a)?))
}

fn intersects<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (a, b) = lists(run, args)?;
    for item in b.iter() {
        if holds(a.iter(), &item)? {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}
