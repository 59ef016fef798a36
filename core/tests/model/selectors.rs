//! Selectors against a naive evaluation of what their texts were written from.

use super::check;
use kubewright_core::{FieldSelector, Selector};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Term {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[a-d]", 1 => "[a-b]\\.io/[c-d]", 1 => Just("in".to_owned()), 1 => Just("notin".to_owned())]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[x-z]", 3 => "[0-9]{1,2}", 1 => Just(String::new()), 1 => Just("in".to_owned())]
}

fn term() -> impl Strategy<Value = Term> {
    let values = || vec(value(), 1..4);
    prop_oneof![
        (key(), value()).prop_map(|(k, v)| Term::Is(k, v)),
        (key(), value()).prop_map(|(k, v)| Term::IsNot(k, v)),
        (key(), values()).prop_map(|(k, v)| Term::In(k, v)),
        (key(), values()).prop_map(|(k, v)| Term::NotIn(k, v)),
        key().prop_map(Term::Exists),
        key().prop_map(Term::Absent),
        (key(), 0i64..50).prop_map(|(k, n)| Term::Greater(k, n)),
        (key(), 0i64..50).prop_map(|(k, n)| Term::Less(k, n)),
    ]
}

impl Term {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is = |k: &String, v: &String| labels.get(k) == Some(v);
        let number = |k: &String| labels.get(k).and_then(|v| v.parse::<i64>().ok());
        match self {
            Term::Is(k, v) => is(k, v),
            Term::IsNot(k, v) => !is(k, v),
            Term::In(k, list) => list.iter().any(|v| is(k, v)),
            Term::NotIn(k, list) => !list.iter().any(|v| is(k, v)),
            Term::Exists(k) => labels.contains_key(k),
            Term::Absent(k) => !labels.contains_key(k),
            Term::Greater(k, n) => number(k).is_some_and(|have| have > *n),
            Term::Less(k, n) => number(k).is_some_and(|have| have < *n),
        }
    }

    /// One of the ways to write it.
    fn text(&self, variant: usize, space: &str) -> String {
        let s = space;
        match self {
            Term::Is(k, v) => format!("{s}{k}{s}{}{s}{v}", ["=", "=="][variant % 2]),
            Term::IsNot(k, v) => format!("{k}{s}!={s}{v}"),
            Term::In(k, list) => format!("{k} in{s}({s}{}{s})", list.join(&format!("{s},{s}"))),
            Term::NotIn(k, list) => format!("{k} notin {s}({})", list.join(",")),
            Term::Exists(k) => format!("{s}{k}{s}"),
            Term::Absent(k) => format!("!{s}{k}"),
            Term::Greater(k, n) => format!("{k}{s}>{s}{n}"),
            Term::Less(k, n) => format!("{k}{s}<{s}{n}"),
        }
    }
}

#[test]
fn label_selectors_select_what_they_say() {
    let space = prop::sample::select(vec!["", " ", "  ", "\t"]);
    let labels = vec(btree_map(key(), value(), 0..5), 1..6);
    check(1_000, (vec((term(), 0usize..2), 0..5), space, labels), |(terms, space, labels)| {
        let texts: Vec<String> = terms.iter().map(|(t, variant)| t.text(*variant, space)).collect();
        let text = texts.join(",");
        let selector = Selector::parse(&text);
        prop_assert!(selector.is_ok(), "{:?}: {:?}", text, selector);
        let selector = selector.unwrap();
        let printed = selector.to_string();
        let again = Selector::parse(&printed);
        prop_assert!(again.is_ok(), "{:?}, written from {:?}: {:?}", printed, text, again);
        let again = again.unwrap();
        prop_assert_eq!(again.to_string(), printed);
        for set in labels {
            let want = terms.iter().all(|(t, _)| t.matches(&set));
            prop_assert_eq!(selector.matches(&set), want, "{:?} on {:?}", text, set);
            prop_assert_eq!(again.matches(&set), want);
        }
        let keys: BTreeSet<&str> = selector.requirements().iter().map(|r| r.key()).collect();
        prop_assert_eq!(selector.requirements().len(), terms.len());
        prop_assert!(keys.len() <= terms.len());
        Ok(())
    });
}

/// Whatever the text, there is an answer; and what was taken is written so that it is taken again.
#[test]
fn no_text_is_too_odd() {
    let text = "([abin]|notin|in|[ =!(),<>\t\u{e9}.0-9/-]|==|!=){0,14}";
    check(3_000, text, |text| {
        if let Ok(selector) = Selector::parse(&text) {
            let printed = selector.to_string();
            let again = Selector::parse(&printed);
            prop_assert!(again.is_ok(), "{:?} is written as {:?}: {:?}", text, printed, again);
            prop_assert_eq!(again.unwrap().to_string(), printed);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            let printed = selector.to_string();
            let again = FieldSelector::parse(&printed);
            prop_assert!(again.is_ok(), "{:?} is written as {:?}: {:?}", text, printed, again);
            prop_assert_eq!(again.unwrap().to_string(), printed);
        }
        Ok(())
    });
}

#[test]
fn field_selectors_select_what_they_say() {
    let field = || prop_oneof![Just("metadata.name".to_owned()), "spec\\.[a-c]"];
    let value = || prop_oneof![3 => "[x-z]", 1 => Just(String::new()), 1 => "[,=\\\\a!]{1,3}"];
    let operator = prop::sample::select(vec!["=", "==", "!="]);
    let terms = vec((field(), operator, value()), 0..4);
    check(1_000, (terms, btree_map(field(), value(), 0..4)), |(terms, object)| {
        let escaped = |v: &str| v.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let texts: Vec<String> = terms.iter().map(|(f, o, v)| format!("{f}{o}{}", escaped(v))).collect();
        let text = texts.join(",");
        let selector = FieldSelector::parse(&text);
        prop_assert!(selector.is_ok(), "{:?}: {:?}", text, selector);
        let selector = selector.unwrap();
        let have = |f: &str| object.get(f).cloned().unwrap_or_default();
        let want = terms.iter().all(|(f, o, v)| (have(f) == *v) == (*o != "!="));
        prop_assert_eq!(selector.matches(have), want, "{:?} on {:?}", text, object);
        let again = FieldSelector::parse(&selector.to_string()).unwrap();
        prop_assert_eq!(again.matches(have), want, "{:?} as {:?}", text, selector.to_string());
        Ok(())
    });
}
