//! Field selectors: `metadata.name=a,spec.nodeName!=b`.

use super::SelectorError;
use smol_str::SmolStr;
use std::fmt;

/// How a field compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldOperator {
    /// `=` or `==`.
    Equals,
    /// `!=`.
    NotEquals,
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// `spec.nodeName`.
    pub field: SmolStr,
    /// How it compares.
    pub operator: FieldOperator,
    /// With what.
    pub value: SmolStr,
}

/// Conditions that must all hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects by one field.
    pub fn equals(field: &str, value: &str) -> Self {
        let requirement =
            FieldRequirement { field: field.into(), operator: FieldOperator::Equals, value: value.into() };
        FieldSelector { requirements: vec![requirement] }
    }

    /// Parses `a=b,c!=d`; a backslash takes `,`, `=` or `\` literally in a value.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let Some((field, operator, value)) = split_term(term) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            requirements.push(FieldRequirement {
                field: field.into(),
                operator,
                value: unescape(value)?.into(),
            });
        }
        Ok(FieldSelector { requirements })
    }

    /// The conditions, in the order written.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The one value that a field must have.
    pub fn requires(&self, field: &str) -> Option<&str> {
        let found =
            self.requirements.iter().find(|r| r.field == field && r.operator == FieldOperator::Equals);
        found.map(|r| r.value.as_str())
    }

    /// Whether the fields that `value` gives fulfil it; an absent field is empty text.
    pub fn matches<S: AsRef<str>>(&self, mut value: impl FnMut(&str) -> S) -> bool {
        self.requirements.iter().all(|r| {
            let equal = value(&r.field).as_ref() == r.value;
            equal == (r.operator == FieldOperator::Equals)
        })
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let sign = if r.operator == FieldOperator::Equals { "=" } else { "!=" };
            write!(f, "{comma}{}{sign}{}", r.field, escape(&r.value))?;
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(other) => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    )));
                }
                None => {
                    return Err(SelectorError(
                        "invalid field selector: invalid escape sequence: \\".to_owned(),
                    ));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// At the first operator.
fn split_term(term: &str) -> Option<(&str, FieldOperator, &str)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (sign, operator) in
            [("!=", FieldOperator::NotEquals), ("==", FieldOperator::Equals), ("=", FieldOperator::Equals)]
        {
            if let Some(value) = rest.strip_prefix(sign) {
                return Some((&term[..i], operator, value));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_written() {
        let check = |text: &str, want: &str| {
            assert_eq!(FieldSelector::parse(text).map(|s| s.to_string()).as_deref(), Ok(want), "{text}");
        };
        check("", "");
        check("a=b,c!=d,e==f", "a=b,c!=d,e=f");
        check("a=b,", "a=b");
        check(r"a=x\,y\=z\\", r"a=x\,y\=z\\");
        check("a=", "a=");
        for bad in ["a", "a>b", r"a=b\c", "a=b=c", "a==b==c", r"a=b\"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            FieldSelector::parse("x,y=z").unwrap_err().to_string(),
            "invalid selector: 'x,y=z'; can't understand 'x'"
        );
    }

    #[test]
    fn absent_fields_are_empty() {
        let selector = FieldSelector::parse("a=1,b!=2,c=").unwrap();
        assert!(selector.matches(|f| if f == "a" { "1" } else { "" }));
        assert!(!selector.matches(|f| if f == "a" { "1" } else { "2" }));
        assert_eq!((selector.requires("a"), selector.requires("b")), (Some("1"), None));
    }
}
