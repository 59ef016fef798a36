//! The table of messages, parsed once.

use rustc_hash::FxHashMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("../../data/kubernetes-1.36.protobuf");

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Boolean,
    Integer,
    Number,
    Base64,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    Document,
    Texts,
    Message(&'static str),
    /// One message, or a list of them.
    OneOrMany(&'static str),
    /// A message, or a list of strings.
    OrTexts(&'static str),
    /// A message, or a boolean.
    OrBoolean(&'static str),
}

/// How often it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
    /// The message's fields belong to the one around it.
    Inline,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) shape: Shape,
    /// Go leaves the zero value out of the JSON.
    pub(super) drop_zero: bool,
}

/// The fields of a message by number.
pub(super) type Message = FxHashMap<u64, Field>;

fn table() -> &'static FxHashMap<&'static str, Message> {
    static PARSED: OnceLock<FxHashMap<&'static str, Message>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let mut all: FxHashMap<&'static str, Message> = FxHashMap::default();
        let mut current = "";
        for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
            if let Some(name) = line.strip_prefix('=') {
                current = name;
                all.entry(name).or_default();
            } else if let Some((number, field)) = field(line) {
                all.entry(current).or_default().insert(number, field);
            }
        }
        all
    })
}

fn field(line: &'static str) -> Option<(u64, Field)> {
    let mut words = line.split(' ');
    let (number, name, mut code) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let drop_zero = code.starts_with('?');
    code = code.trim_start_matches('?');
    let (shape, code) = match code.as_bytes().first()? {
        b'[' => (Shape::List, code.trim_matches(['[', ']'])),
        b'{' => (Shape::Map, code.trim_matches(['{', '}'])),
        b'^' => (Shape::Inline, &code[1..]),
        _ => (Shape::One, code),
    };
    let kind = match code {
        "s" => Type::Text,
        "b" => Type::Boolean,
        "i" => Type::Integer,
        "d" | "f" => Type::Number,
        "y" => Type::Base64,
        "t" => Type::Time,
        "u" => Type::MicroTime,
        "n" => Type::Duration,
        "q" => Type::Quantity,
        "x" => Type::IntOrString,
        "r" => Type::Document,
        "L" => Type::Texts,
        either => match either.split_once('@')? {
            ("", message) => Type::Message(message),
            ("O", message) => Type::OneOrMany(message),
            ("N", message) => Type::OrTexts(message),
            ("B", message) => Type::OrBoolean(message),
            _ => return None,
        },
    };
    Some((number, Field { name, kind, shape, drop_zero }))
}

/// The message of this name.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    table().get(name)
}

/// The message of a kind: the package is the first part of the group's name.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        return message("meta.v1.DeleteOptions");
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = if group.is_empty() { "core" } else { group.split('.').next()? };
    let known = group.is_empty() || !group.contains('.') || group.ends_with(".k8s.io");
    message(&format!("{package}.{version}.{kind}")).filter(|_| known)
}

/// Counts the messages and makes sure that every line was understood and every reference leads somewhere.
#[cfg(test)]
pub(super) fn check() -> usize {
    let fields = TABLE.lines().filter(|l| !l.starts_with(['#', '=']));
    assert_eq!(table().values().map(FxHashMap::len).sum::<usize>(), fields.count());
    for field in table().values().flat_map(FxHashMap::values) {
        if let Type::Message(name) | Type::OneOrMany(name) | Type::OrTexts(name) | Type::OrBoolean(name) =
            field.kind
        {
            assert!(message(name).is_some(), "{name} is missing");
        }
    }
    table().len()
}
