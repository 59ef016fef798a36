//! Absolute URLs and paths.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::{Opaque, Url};
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::{Entries, Map, Val};
use super::strings::text;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

pub(crate) const TABLE: &[Line] = &[
    ("url(string) Url", url, Price::Scan),
    ("isURL(string) bool", is_url, Price::One),
    ("Url::getScheme() string", scheme, Price::One),
    ("Url::getHost() string", host, Price::One),
    ("Url::getHostname() string", hostname, Price::One),
    ("Url::getPort() string", port, Price::One),
    ("Url::getEscapedPath() string", path, Price::One),
    ("Url::getQuery() map<string, list<string>>", query, Price::One),
];

/// As Go's `ParseRequestURI`: a scheme with what follows it, or an absolute path.
fn parse(text: &str) -> Option<Url> {
    if text.is_empty() || text.contains(|c: char| c.is_ascii_control() || c == ' ') || broken_escape(text) {
        return None;
    }
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
        _ if text.starts_with('/') => (String::new(), text),
        _ => return None,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) if !scheme.is_empty() => {
            let end = rest.find('/').unwrap_or(rest.len());
            (rest[..end].rsplit('@').next().unwrap_or(""), &rest[end..])
        }
        _ if rest.starts_with('/') => ("", rest),
        // What has a scheme but no slash is opaque, which an absolute URL is not.
        _ => return None,
    };
    let has_port = host.rsplit_once(':').filter(|(h, _)| !h.contains(':') || h.ends_with(']'));
    if has_port.is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    if host.starts_with('[') && !host.contains(']') {
        return None;
    }
    Some(Url { scheme, host: host.to_owned(), path: path.to_owned(), query: query.to_owned() })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn broken_escape(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .any(|after| !after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)))
}

fn url<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let text = text(args, 0)?;
    match parse(text) {
        Some(url) => Ok(Val::opaque(Opaque::Url(url))),
        None => Err(Fault::new(format!(
            "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
        ))),
    }
}

fn is_url<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(parse(text(args, 0)?).is_some()))
}

fn part<'a>(args: &[Val<'a>], part: fn(&Url) -> String) -> R<'a> {
    match args {
        [Val::Opaque(opaque)] => match &**opaque {
            Opaque::Url(url) => Ok(Val::text(part(url))),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn split_host(host: &str) -> (String, String) {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return (name.to_owned(), rest.strip_prefix(':').unwrap_or("").to_owned());
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    (name.to_owned(), port.to_owned())
}

fn scheme<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    part(args, |url| url.scheme.clone())
}

fn host<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    part(args, |url| url.host.clone())
}

fn hostname<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    part(args, |url| split_host(&url.host).0)
}

fn port<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    part(args, |url| split_host(&url.host).1)
}

fn path<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    part(args, |url| url.path.clone())
}

fn query<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let [Val::Opaque(opaque)] = args else { return Err(Fault::no_overload()) };
    let Opaque::Url(url) = &**opaque else { return Err(Fault::no_overload()) };
    let mut found: Vec<(String, Vec<Val<'a>>)> = Vec::new();
    for pair in url.query.split('&').filter(|p| !p.is_empty()).take(1_000) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |t: &str| percent_decode_str(&t.replace('+', " ")).decode_utf8_lossy().into_owned();
        let (key, value) = (decode(key), Val::text(decode(value)));
        match found.iter_mut().find(|(k, _)| *k == key) {
            Some((_, values)) => values.push(value),
            None => found.push((key, vec![value])),
        }
    }
    let mut out = Entries::default();
    for (key, values) in found {
        out.insert(Val::text(key), Val::list(values));
    }
    Ok(Val::Map(Map::Own(Arc::new(out))))
}
