//! Text: the standard functions and the string extensions, second version.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::convert::count;

pub(crate) const TABLE: &[Line] = &[
    ("string::startsWith(string) bool", starts_with, Price::ScanSecond),
    ("string::endsWith(string) bool", ends_with, Price::ScanSecond),
    ("string::contains(string) bool", contains, Price::Contains),
    ("string::charAt(int) string", char_at, Price::One),
    ("string::indexOf(string) int", index_of, Price::DeepText),
    ("string::indexOf(string, int) int", index_of, Price::DeepText),
    ("string::lastIndexOf(string) int", last_index_of, Price::DeepText),
    ("string::lastIndexOf(string, int) int", last_index_of, Price::DeepText),
    ("string::lowerAscii() string", lower, Price::Scan),
    ("string::upperAscii() string", upper, Price::Scan),
    ("string::replace(string, string) string", replace, Price::Replace),
    ("string::replace(string, string, int) string", replace, Price::Replace),
    ("string::split(string) list<string>", split, Price::Split),
    ("string::split(string, int) list<string>", split, Price::Split),
    ("string::substring(int) string", substring, Price::Scan),
    ("string::substring(int, int) string", substring, Price::Scan),
    ("string::trim() string", trim, Price::Scan),
    ("string::format(list<dyn>) string", super::formatting::format, Price::Format),
    ("strings.quote(string) string", quote, Price::Quote),
    ("list<string>::join() string", join, Price::Join),
    ("list<string>::join(string) string", join, Price::Join),
    ("jsonpatch.escapeKey(string) string", escape_key, Price::Scan),
];

pub(super) fn text<'v, 'a>(args: &'v [Val<'a>], at: usize) -> Result<&'v str, Fault> {
    match args.get(at) {
        Some(Val::Text(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

/// A count or place that may be left out.
fn number(args: &[Val<'_>], at: usize) -> Result<Option<i64>, Fault> {
    match args.get(at) {
        Some(Val::Int(v)) => Ok(Some(*v)),
        None => Ok(None),
        Some(_) => Err(Fault::no_overload()),
    }
}

fn out_of_range(at: i64) -> Fault {
    Fault::new(format!("index out of range: {at}"))
}

fn starts_with<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
}

fn ends_with<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
}

fn contains<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(text(args, 0)?.contains(text(args, 1)?)))
}

fn char_at<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let at = number(args, 1)?.unwrap_or(0);
    let text = text(args, 0)?;
    let place = usize::try_from(at).map_err(|_| out_of_range(at))?;
    match text.chars().nth(place) {
        Some(c) => Ok(Val::text(c.to_string())),
        None if place == text.chars().count() => Ok(Val::text("")),
        None => Err(out_of_range(at)),
    }
}

/// The byte at which a character stands; the end for the place behind the last.
fn byte_at(text: &str, at: i64) -> Result<usize, Fault> {
    let place = usize::try_from(at).map_err(|_| out_of_range(at))?;
    let mut ends = text.char_indices().map(|(i, _)| i).chain(std::iter::once(text.len()));
    ends.nth(place).ok_or_else(|| out_of_range(at))
}

fn place<'a>(text: &str, byte: Option<usize>) -> R<'a> {
    Ok(byte.and_then(|b| text.get(..b)).map_or(Val::Int(-1), |before| count(before.chars().count())))
}

fn index_of<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (text, needle) = (text(args, 0)?, text(args, 1)?);
    let from = byte_at(text, number(args, 2)?.unwrap_or(0))?;
    place(text, text[from..].find(needle).map(|b| b + from))
}

fn last_index_of<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (text, needle) = (text(args, 0)?, text(args, 1)?);
    match number(args, 2)? {
        None => place(text, text.rfind(needle)),
        Some(at) => {
            let last = byte_at(text, at)?;
            let end = (last + needle.len()).min(text.len());
            let end = (end..=text.len()).find(|e| text.is_char_boundary(*e)).unwrap_or(text.len());
            place(text, text[..end].rfind(needle).filter(|b| *b <= last))
        }
    }
}

fn lower<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::text(text(args, 0)?.to_ascii_lowercase()))
}

fn upper<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::text(text(args, 0)?.to_ascii_uppercase()))
}

fn limit(value: Option<i64>) -> usize {
    value.map_or(usize::MAX, |v| usize::try_from(v).unwrap_or(usize::MAX))
}

fn replace<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (text, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = limit(number(args, 3)?);
    let hits = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(limit);
    // What comes out can be far longer than what went in.
    run.charge(hits.saturating_mul(new.len()) as u64 / 20)?;
    Ok(Val::text(text.replacen(old, new, limit)))
}

fn split<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (text, by) = (text(args, 0)?, text(args, 1)?);
    let limit = limit(number(args, 2)?);
    many(run, if by.is_empty() { text.len() } else { text.matches(by).count() }.min(limit))?;
    let parts: Vec<Val<'a>> = match limit {
        0 => Vec::new(),
        _ if by.is_empty() => by_character(text, limit),
        limit => text.splitn(limit, by).map(Val::text).collect(),
    };
    Ok(Val::list(parts))
}

/// A list of very many items weighs more than the text that it is made of: more than upstream's price keeps it within bounds.
pub(super) fn many(run: &mut Evaluation<'_>, items: usize) -> Result<(), Fault> {
    if items > 1_000 { run.charge(items as u64 / 2) } else { Ok(()) }
}

fn by_character<'a>(text: &str, limit: usize) -> Vec<Val<'a>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if parts.len() + 1 == limit {
            parts.push(Val::text(rest));
            break;
        }
        let (head, tail) = rest.split_at(c.len_utf8());
        parts.push(Val::text(head));
        rest = tail;
    }
    parts
}

fn substring<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let text = text(args, 0)?;
    let (from, to) = (number(args, 1)?.unwrap_or(0), number(args, 2)?);
    let start = byte_at(text, from)?;
    let end = to.map_or(Ok(text.len()), |to| byte_at(text, to))?;
    match text.get(start..end) {
        Some(part) => Ok(Val::text(part)),
        None => Err(Fault::new(format!("invalid substring range. start: {from}, end: {}", to.unwrap_or(0)))),
    }
}

fn trim<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::text(text(args, 0)?.trim()))
}

fn quote<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let mut out = String::from("\"");
    for c in text(args, 0)?.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(Val::text(out))
}

fn join<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let Some(Val::List(list)) = args.first() else { return Err(Fault::no_overload()) };
    let between = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut out = String::new();
    for (i, item) in list.iter().enumerate() {
        let Val::Text(item) = &item else { return Err(Fault::no_overload()) };
        if i > 0 {
            out.push_str(between);
        }
        out.push_str(item);
        if out.len() > 10_000_000 {
            run.charge(u64::MAX)?;
        }
    }
    Ok(Val::text(out))
}

/// A key as a step of a JSON pointer.
fn escape_key<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::text(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
}
