//! Patterns: `matches` of the language, `find` and `findAll` of Kubernetes.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::Opaque;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::strings::text;
use regex::{Regex, RegexBuilder};

pub(crate) const TABLE: &[Line] = &[
    ("matches(string, string) bool", matches, Price::Matches),
    ("string::matches(string) bool", matches, Price::Matches),
    ("string::find(string) string", find, Price::Find),
    ("string::findAll(string) list<string>", find_all, Price::Find),
    ("string::findAll(string, int) list<string>", find_all, Price::Find),
];

/// The compiled form of a pattern takes no more bytes than this.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(crate) fn compile(pattern: &str) -> Result<Regex, Fault> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .nest_limit(100)
        .build()
        .map_err(|_| Fault::new(format!("error parsing regexp: `{pattern}`")))
}

fn regex<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> Result<Regex, Fault> {
    if let Some(Val::Opaque(opaque)) = args.get(1)
        && let Opaque::Pattern(pattern) = &**opaque
    {
        return Ok(pattern.regex.clone());
    }
    run.pattern(text(args, 1)?)
}

fn matches<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    if let [Val::Text(text), Val::Opaque(opaque)] = args
        && let Opaque::Pattern(pattern) = &**opaque
    {
        return Ok(Val::Bool(pattern.regex.is_match(text)));
    }
    let regex = regex(run, args)?;
    Ok(Val::Bool(regex.is_match(text(args, 0)?)))
}

fn find<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let regex = regex(run, args)?;
    Ok(Val::text(regex.find(text(args, 0)?).map_or("", |m| m.as_str())))
}

fn find_all<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let regex = regex(run, args)?;
    let most = match args.get(2) {
        Some(Val::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let found: Vec<&str> = regex.find_iter(text(args, 0)?).take(most).map(|m| m.as_str()).collect();
    super::strings::many(run, found.len())?;
    Ok(Val::list(found.into_iter().map(Val::text).collect()))
}
