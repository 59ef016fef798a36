//! The syntax of names in the bodies of the built-in kinds: that of metadata, and what only bodies have, in upstream's words
//! (`k8s.io/apimachinery/pkg/util/validation`).

use crate::meta::too_long;
pub(crate) use crate::meta::{
    NameRule, validate_dns1035_label as label_1035, validate_dns1123_label as label,
    validate_dns1123_subdomain as subdomain, validate_label_value as label_value,
    validate_path_segment as path_segment, validate_qualified_name as qualified,
};

/// What is wrong with the key of a ConfigMap or Secret.
pub(crate) fn config_map_key(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > 253 {
        problems.push(too_long(253));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        problems.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or \
             'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    problems.extend(dots(text));
    problems
}

fn dots(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// What is wrong with an environment variable's name: any printable ASCII but `=`.
pub(crate) fn env_var(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.is_empty() || !text.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned(),
        );
    }
    problems
}

/// What is wrong with a port name (IANA service name).
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > 15 {
        problems.push(too_long(15));
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// What is wrong with a port number.
pub(crate) fn port_number(port: i64) -> Option<String> {
    (!(1..=65535).contains(&port)).then(|| between(1, 65535))
}

/// `must be between <low> and <high>, inclusive`.
pub(crate) fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let check = |rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]| {
            for text in good {
                assert_eq!(rule(text), Vec::<String>::new(), "{text}");
            }
            for text in bad {
                assert!(!rule(text).is_empty(), "{text}");
            }
        };
        check(config_map_key, &["a", ".a", "A_b-c.d"], &["", ".", "..", "..a", "a/b"]);
        check(port_name, &["http", "a-1"], &["1", "a--b", "-a", "A", "abcdefghijklmnop"]);
        check(env_var, &["A", "a.b-c", "1"], &["", "a=b", "\u{e9}"]);
    }
}
