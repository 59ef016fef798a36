//! Semantic versions.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::{Opaque, Semver};
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::strings::text;
use std::cmp::Ordering;

pub(crate) const TABLE: &[Line] = &[
    ("semver(string) Semver", semver, Price::One),
    ("semver(string, bool) Semver", semver, Price::One),
    ("isSemver(string) bool", is_semver, Price::One),
    ("isSemver(string, bool) bool", is_semver, Price::One),
    ("Semver::major() int", major, Price::One),
    ("Semver::minor() int", minor, Price::One),
    ("Semver::patch() int", patch, Price::One),
    ("Semver::isGreaterThan(Semver) bool", greater, Price::One),
    ("Semver::isLessThan(Semver) bool", less, Price::One),
    ("Semver::compareTo(Semver) int", compare, Price::One),
];

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn parts(text: &str, numbers: bool) -> Option<Vec<String>> {
    text.split('.')
        .map(|part| {
            let fine = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let digits = part.bytes().all(|b| b.is_ascii_digit());
            (fine && !(numbers && digits && number(part).is_none())).then(|| part.to_owned())
        })
        .collect()
}

pub(crate) fn parse(text: &str) -> Option<Semver> {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, parts(build, false)?),
        None => (text, Vec::new()),
    };
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, parts(pre, true)?),
        None => (text, Vec::new()),
    };
    let mut numbers = core.split('.').map(number);
    let version =
        Semver { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()??, pre, build };
    numbers.next().is_none().then_some(version)
}

/// `v1.2` becomes `1.2.0`, `01.2.3` becomes `1.2.3`.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let cut = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(cut);
    let mut numbers: Vec<String> = core
        .split('.')
        .map(|n| match n.trim_start_matches('0') {
            "" if !n.is_empty() => "0".to_owned(),
            trimmed => trimmed.to_owned(),
        })
        .collect();
    while numbers.len() < 3 {
        numbers.push("0".to_owned());
    }
    format!("{}{rest}", numbers.join("."))
}

fn read(args: &[Val<'_>]) -> Result<Option<Semver>, Fault> {
    let text = text(args, 0)?;
    Ok(if matches!(args.get(1), Some(Val::Bool(true))) { parse(&normalized(text)) } else { parse(text) })
}

fn semver<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match read(args)? {
        Some(version) => Ok(Val::opaque(Opaque::Semver(version))),
        None => Err(Fault::new("invalid semantic version")),
    }
}

fn is_semver<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(read(args)?.is_some()))
}

fn own<'v>(args: &'v [Val<'_>], at: usize) -> Result<&'v Semver, Fault> {
    match args.get(at) {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Semver(version) => Ok(version),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn int<'a>(value: u64) -> R<'a> {
    Ok(Val::Int(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn major<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(own(args, 0)?.major)
}

fn minor<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(own(args, 0)?.minor)
}

fn patch<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(own(args, 0)?.patch)
}

fn order(args: &[Val<'_>]) -> Result<Ordering, Fault> {
    Ok(own(args, 0)?.order(own(args, 1)?))
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
