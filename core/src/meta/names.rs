//! Names in upstream's rules and words (`k8s.io/apimachinery/pkg/util/validation`).

const SUBDOMAIN_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Which rule the names of a kind follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    /// An RFC 1123 subdomain: most kinds.
    #[default]
    Subdomain,
    /// An RFC 1123 label: namespaces, nodes' zones.
    Label,
    /// An RFC 1035 label: services.
    Dns1035,
    /// Anything that can stand in a URL path: RBAC kinds.
    PathSegment,
}

impl NameRule {
    /// What is wrong with a whole name.
    pub fn problems(self, name: &str) -> Vec<String> {
        self.check(name, false)
    }

    /// What is wrong with a name; with `prefix`, with a `generateName` that characters will follow.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked = mask_trailing_dash(name, prefix && self != NameRule::PathSegment);
        match self {
            NameRule::Subdomain => validate_dns1123_subdomain(&masked),
            NameRule::Label => validate_dns1123_label(&masked),
            NameRule::Dns1035 => validate_dns1035_label(&masked),
            NameRule::PathSegment if prefix => path_characters(name),
            NameRule::PathSegment => validate_path_segment(name),
        }
    }
}

/// A prefix may end in a dash, because something follows it.
fn mask_trailing_dash(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(head) if prefix && !head.is_empty() => {
            let keep = head.char_indices().next_back().map_or(0, |(i, _)| i);
            format!("{}a", &head[..keep]).into()
        }
        _ => name.into(),
    }
}

fn alphanumeric_ends(text: &str, inner: impl Fn(u8) -> bool, outer: impl Fn(u8) -> bool) -> bool {
    let b = text.as_bytes();
    match (b.first(), b.last()) {
        (Some(first), Some(last)) => outer(*first) && outer(*last) && b.iter().all(|c| inner(*c)),
        _ => false,
    }
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_shape(text: &str) -> bool {
    alphanumeric_ends(text, |b| lower(b) || b == b'-', lower)
}

fn qualified_shape(text: &str) -> bool {
    alphanumeric_ends(
        text,
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
        |b| b.is_ascii_alphanumeric(),
    )
}

/// Whether a text is an RFC 1123 label.
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && label_shape(text)
}

/// Whether a text is an RFC 1123 subdomain.
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_BYTES_MAX && text.split('.').all(label_shape)
}

/// Whether a text is an RFC 1035 label.
pub fn is_dns1035_label(text: &str) -> bool {
    is_dns1123_label(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
}

/// `must be no more than <n> bytes`.
pub(crate) fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn shape_error(what: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{what} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

/// What keeps a text from being an RFC 1123 label.
pub fn validate_dns1123_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_BYTES_MAX {
        errors.push(too_long(LABEL_BYTES_MAX));
    }
    if !label_shape(text) {
        let what = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        errors.push(shape_error(what, "[a-z0-9]([-a-z0-9]*[a-z0-9])?", &["my-name", "123-abc"]));
    }
    errors
}

/// What keeps a text from being an RFC 1123 subdomain.
pub fn validate_dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_BYTES_MAX {
        errors.push(too_long(SUBDOMAIN_BYTES_MAX));
    }
    if !text.split('.').all(label_shape) {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        let pattern = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
        errors.push(shape_error(what, pattern, &["example.com"]));
    }
    errors
}

/// What keeps a text from being an RFC 1035 label.
pub fn validate_dns1035_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_BYTES_MAX {
        errors.push(too_long(LABEL_BYTES_MAX));
    }
    if !(label_shape(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        let what = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        errors.push(shape_error(what, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    errors
}

/// What keeps a text from being one segment of a URL path.
pub fn validate_path_segment(text: &str) -> Vec<String> {
    match text {
        "." => vec!["may not be '.'".to_owned()],
        ".." => vec!["may not be '..'".to_owned()],
        _ => path_characters(text),
    }
}

fn path_characters(text: &str) -> Vec<String> {
    ['/', '%'].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// What keeps a text from being a label key: a name with an optional DNS prefix.
pub fn validate_qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                let found = validate_dns1123_subdomain(first);
                errors.extend(found.into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            let shape = shape_error(QUALIFIED, QUALIFIED_PATTERN, &examples);
            let tail = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {shape} {tail}")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        errors.push(format!("name part {}", too_long(LABEL_BYTES_MAX)));
    }
    if !qualified_shape(name) {
        errors.push(format!("name part {}", shape_error(QUALIFIED, QUALIFIED_PATTERN, &examples)));
    }
    errors
}

/// What keeps a text from being a label's value.
pub fn validate_label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_BYTES_MAX {
        errors.push(too_long(LABEL_BYTES_MAX));
    }
    if !text.is_empty() && !qualified_shape(text) {
        let what = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        let pattern = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
        errors.push(shape_error(what, pattern, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// What keeps a text from being an annotation's key: as a label key, but case does not matter in the prefix.
pub fn validate_annotation_key(text: &str) -> Vec<String> {
    validate_qualified_name(&text.to_lowercase())
}

/// What keeps a text from being a finalizer's name. One without a domain is allowed, as upstream allows it with a warning.
pub fn validate_finalizer_name(text: &str) -> Vec<String> {
    validate_qualified_name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_accept_and_refuse() {
        let check = |rule: NameRule, good: &[&str], bad: &[&str]| {
            for name in good {
                assert_eq!(rule.check(name, false), Vec::<String>::new(), "{rule:?} {name}");
            }
            for name in bad {
                assert!(!rule.check(name, false).is_empty(), "{rule:?} {name}");
            }
        };
        let long = "a".repeat(64);
        check(
            NameRule::Subdomain,
            &["a", "a.b-c.d", "1", &long],
            &["", "A", "a..b", "-a", "a-", "a_b", &"a".repeat(254)],
        );
        check(NameRule::Label, &["a", "1a", "a-b"], &["", "a.b", &long, "é"]);
        check(NameRule::Dns1035, &["a", "a1"], &["1a", "", "a.b"]);
        check(NameRule::PathSegment, &["a:b", "A B", "..."], &[".", "..", "a/b", "a%b"]);
        let check = |rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]| {
            for text in good {
                assert_eq!(rule(text), Vec::<String>::new(), "{text}");
            }
            for text in bad {
                assert!(!rule(text).is_empty(), "{text}");
            }
        };
        check(
            validate_qualified_name,
            &["a", "A_b.c", "x.y/Z"],
            &["", "/a", "a/", "a/b/c", "A/b", "-a", &long],
        );
        check(validate_label_value, &["", "A", "a_b.c"], &["-", "a b", &long]);
    }

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert!(NameRule::Subdomain.check("web-", true).is_empty());
        assert!(NameRule::Dns1035.check("web-", true).is_empty());
        assert!(!NameRule::Subdomain.check("Web-", true).is_empty());
        assert!(!NameRule::Subdomain.check("-", true).is_empty());
    }

    #[test]
    fn messages_have_upstreams_shape() {
        assert_eq!(
            validate_dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(validate_qualified_name("/a")[0], "prefix part must be non-empty");
        assert!(validate_qualified_name("a/b/c")[0].starts_with("a qualified name must consist"));
        assert_eq!(validate_label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(validate_annotation_key("Example.COM/x").is_empty());
        assert!(
            validate_finalizer_name("cleanup").is_empty() && !validate_finalizer_name("a/b/c").is_empty()
        );
        assert!(validate_finalizer_name("example.com/cleanup").is_empty());
    }
}
