//! The rules of names against the regular expressions by which they are told.

use super::check;
use kubewright_core::meta::{
    NameRule, is_dns1035_label, is_dns1123_label, is_dns1123_subdomain, validate_dns1035_label,
    validate_dns1123_label, validate_dns1123_subdomain, validate_label_value, validate_qualified_name,
};
use proptest::prelude::*;
use regex::Regex;
use std::sync::LazyLock;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("\\A(?:{pattern})\\z")).unwrap()
}

static DNS1123: LazyLock<Regex> = LazyLock::new(|| whole(LABEL));
static SUBDOMAIN: LazyLock<Regex> = LazyLock::new(|| whole(&format!("{LABEL}(\\.{LABEL})*")));
static DNS1035: LazyLock<Regex> = LazyLock::new(|| whole("[a-z]([-a-z0-9]*[a-z0-9])?"));
static NAME: LazyLock<Regex> = LazyLock::new(|| whole(QUALIFIED));
static VALUE: LazyLock<Regex> = LazyLock::new(|| whole(&format!("({QUALIFIED})?")));

/// Near the rules: what is allowed mostly, of every length that matters.
fn text() -> impl Strategy<Value = String> {
    let near = "[a-c0-1A._/é -]{0,6}";
    let inner = "[a-z0-9-]{0,4}";
    prop_oneof![
        4 => near,
        2 => (near, inner, near).prop_map(|(a, b, c)| format!("{a}{b}{c}")),
        2 => ("[a-z0-9A-Z][a-z0-9A-Z_.-]{0,4}", 0usize..70).prop_map(|(a, n)| format!("{a}{}", "x".repeat(n))),
        2 => (prop::collection::vec("[a-z0-9]{1,3}", 60..70), 0usize..8).prop_map(|(l, n)| format!("{}{}", l.join("."), "y".repeat(n))),
        1 => ("[a-c.]{0,3}", "[A-C_]{0,3}").prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (250usize..256).prop_map(|n| "z".repeat(n)),
    ]
}

fn qualified(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let (prefix, name) = match parts.as_slice() {
        [name] => (None, *name),
        [prefix, name] => (Some(*prefix), *name),
        _ => return false,
    };
    prefix.is_none_or(|p| p.len() <= 253 && SUBDOMAIN.is_match(p)) && name.len() <= 63 && NAME.is_match(name)
}

#[test]
fn names_are_what_the_patterns_say() {
    check(1_000, text(), |text| {
        let t = text.as_str();
        let label = t.len() <= 63 && DNS1123.is_match(t);
        let subdomain = t.len() <= 253 && SUBDOMAIN.is_match(t);
        let old_label = t.len() <= 63 && DNS1035.is_match(t);
        prop_assert_eq!((is_dns1123_label(t), validate_dns1123_label(t).is_empty()), (label, label));
        prop_assert_eq!(
            (is_dns1123_subdomain(t), validate_dns1123_subdomain(t).is_empty()),
            (subdomain, subdomain)
        );
        prop_assert_eq!((is_dns1035_label(t), validate_dns1035_label(t).is_empty()), (old_label, old_label));
        prop_assert_eq!(validate_qualified_name(t).is_empty(), qualified(t));
        prop_assert_eq!(validate_label_value(t).is_empty(), t.len() <= 63 && VALUE.is_match(t));
        let segment = t != "." && t != ".." && !t.contains('/') && !t.contains('%');
        prop_assert_eq!(NameRule::PathSegment.problems(t).is_empty(), segment);
        Ok(())
    });
}

/// What is good in front is good with something behind it.
#[test]
fn a_prefix_is_good_if_names_made_of_it_are() {
    check(2_000, text(), |text| {
        for rule in [NameRule::Subdomain, NameRule::Label, NameRule::Dns1035] {
            // Of what ends in a dash upstream does not look at the character before.
            if text.len() < 58
                && !text.is_empty()
                && !text.ends_with('-')
                && rule.check(&text, true).is_empty()
            {
                let made = format!("{text}x1z2y");
                prop_assert!(rule.problems(&made).is_empty(), "{:?} of {:?}", rule, made);
            }
        }
        Ok(())
    });
}
