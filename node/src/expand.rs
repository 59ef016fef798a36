//! `$(NAME)` in commands, arguments, values and subPathExpr.

/// Replaces `$(NAME)` by what `lookup` gives; an unknown name stays as it stands, and `$$` is one `$`.
pub(crate) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced() {
        let lookup = |name: &str| match name {
            "A" => Some("1"),
            "B" => Some("$(A)"),
            "E" => Some(""),
            _ => None,
        };
        let check = |text: &str, wanted: &str| assert_eq!(expand(text, lookup), wanted, "{text}");
        check("plain", "plain");
        check("$(A)-$(A)", "1-1");
        check("$(B)", "$(A)");
        check("$(E)", "");
        check("$(NONE)", "$(NONE)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$A $", "$A $");
        check("$(A", "$(A");
        check("ü$(A)ü", "ü1ü");
        check("", "");
    }
}
