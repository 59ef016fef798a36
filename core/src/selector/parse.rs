//! The grammar of label selectors, with upstream's messages.

use super::SelectorError;
use super::labels::{Operator, Requirement, Selector};
use crate::meta::validate_qualified_name;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Word,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
    /// Special characters that are no token.
    Wrong,
}

struct Parser<'a> {
    items: Vec<(Token, &'a str)>,
    at: usize,
}

/// Parses a whole selector.
pub(super) fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser { items: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek_value() {
            (Token::Word | Token::Not, _) => {
                let requirement = parser
                    .requirement()
                    .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                requirements.push(requirement);
                match parser.take_value() {
                    (Token::End, _) => break,
                    (Token::Comma, _) => {
                        let (token, text) = parser.peek_value();
                        if !matches!(token, Token::Word | Token::Not) {
                            return fail(format!("found '{text}', expected: identifier after ','"));
                        }
                    }
                    (_, text) => {
                        return fail(format!("found '{text}', expected: ',' or 'end of string'"));
                    }
                }
            }
            (Token::End, _) => break,
            (_, text) => {
                return fail(format!("found '{text}', expected: !, identifier, or 'end of string'"));
            }
        }
    }
    Ok(Selector::from_requirements(requirements))
}

fn fail<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}

fn special(c: u8) -> bool {
    matches!(c, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

/// Cuts a text into tokens; the last is always [`Token::End`].
fn scan(text: &str) -> Vec<(Token, &str)> {
    let bytes = text.as_bytes();
    let mut items = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let c = bytes[at];
        if space(c) {
            at += 1;
            continue;
        }
        if special(c) {
            let two = text.get(at..at + 2).unwrap_or("");
            let (token, len) = match (c, two) {
                (_, "==") => (Token::DoubleEquals, 2),
                (_, "!=") => (Token::NotEquals, 2),
                (b'=', _) => (Token::Equals, 1),
                (b'!', _) => (Token::Not, 1),
                (b'(', _) => (Token::Open, 1),
                (b')', _) => (Token::Close, 1),
                (b',', _) => (Token::Comma, 1),
                (b'>', _) => (Token::Greater, 1),
                (b'<', _) => (Token::Less, 1),
                _ => (Token::Wrong, 1),
            };
            items.push((token, &text[at..at + len]));
            at += len;
            continue;
        }
        // Only ASCII ends a word, so the cut is at a character's start.
        let len = bytes[at..].iter().position(|c| special(*c) || space(*c)).unwrap_or(bytes.len() - at);
        let word = &text[at..at + len];
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ => Token::Word,
        };
        items.push((token, word));
        at += len;
    }
    items.push((Token::End, ""));
    items
}

impl<'a> Parser<'a> {
    fn peek(&self) -> (Token, &'a str) {
        self.items.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    /// The next token where `in` and `notin` are words like any other.
    fn peek_value(&self) -> (Token, &'a str) {
        match self.peek() {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            other => other,
        }
    }

    fn take(&mut self) -> (Token, &'a str) {
        let item = self.peek();
        self.at += 1;
        item
    }

    fn take_value(&mut self) -> (Token, &'a str) {
        let item = self.peek_value();
        self.at += 1;
        item
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.take_value();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take_value();
        }
        if token != Token::Word {
            return fail(format!("found '{key}', expected: identifier"));
        }
        let wrong = validate_qualified_name(key);
        if !wrong.is_empty() {
            return fail(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, &[]);
        }
        if matches!(self.peek_value().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, &[]);
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => BTreeSet::from([self.exact_value()?]),
        };
        let values: Vec<&str> = values.into_iter().collect();
        Requirement::new(key, operator, &values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.take() {
            (Token::In, _) => Ok(Operator::In),
            (Token::NotIn, _) => Ok(Operator::NotIn),
            (Token::Equals, _) => Ok(Operator::Equals),
            (Token::DoubleEquals, _) => Ok(Operator::DoubleEquals),
            (Token::NotEquals, _) => Ok(Operator::NotEquals),
            (Token::Greater, _) => Ok(Operator::GreaterThan),
            (Token::Less, _) => Ok(Operator::LessThan),
            (_, text) => fail(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn exact_value(&mut self) -> Result<&'a str, SelectorError> {
        if matches!(self.peek_value().0, Token::End | Token::Comma) {
            return Ok("");
        }
        match self.take_value() {
            (Token::Word, text) => Ok(text),
            (_, text) => fail(format!("found '{text}', expected: identifier")),
        }
    }

    /// `(x,y)`; a value between two commas, or beside a parenthesis, may be empty.
    fn values(&mut self) -> Result<BTreeSet<&'a str>, SelectorError> {
        if let (token, text) = self.take_value()
            && token != Token::Open
        {
            return fail(format!("found '{text}' expected: '('"));
        }
        let mut values = BTreeSet::new();
        loop {
            match self.take_value() {
                (Token::Word, text) => {
                    values.insert(text);
                    match self.take_value() {
                        (Token::Comma, _) if self.peek_value().0 == Token::Close => {
                            values.insert("");
                        }
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return fail(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    values.insert("");
                }
                (Token::Close, _) => {
                    values.insert("");
                    return Ok(values);
                }
                (_, text) => return fail(format!("found '{text}', expected: ',', ')' or identifier")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_upstream_reads_them() {
        let check = |text: &str, want: &str| {
            assert_eq!(Selector::parse(text).map(|s| s.to_string()).as_deref(), Ok(want), "{text}");
        };
        check("", "");
        check(" x = a , y ", "x=a,y");
        check("z,a==b", "a==b,z");
        check("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()");
        check("x in (in, notin)", "x in (in,notin)");
        check("x=", "x=");
        check("x=,z", "x=,z");
        check("x in (,)", "x in ()");
        check("x in (a,)", "x in (,a)");
        check("x>1,y<2", "x>1,y<2");
        check("!example.com/x", "!example.com/x");
    }

    #[test]
    fn bad_texts_are_refused_in_upstreams_words() {
        let check = |text: &str, want: &str| {
            let e = Selector::parse(text).unwrap_err().to_string();
            assert!(e.starts_with(want), "{text} gives {e}");
        };
        check("=x", "found '=', expected: !, identifier, or 'end of string'");
        check("x,", "found '', expected: identifier after ','");
        check("x==a==b", "found '==', expected: ',' or 'end of string'");
        check("x in", "unable to parse requirement: found '' expected: '('");
        check("x in (a", "unable to parse requirement: found '', expected: ',' or ')'");
        check("x a", "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt");
        check("!", "unable to parse requirement: found '', expected: identifier");
        check("-x=a", "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist");
        check("x=-a", "unable to parse requirement: values[0][x]: Invalid value: \"-a\": a valid label");
        check("x>a", "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt'");
        check("é=1", "unable to parse requirement: <nil>: Invalid value");
    }
}
