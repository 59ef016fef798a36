//! From text to tokens.

use super::Issue;
use super::ast::Literal;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Literal(Literal),
    Ident(String),
    /// A field name in backquotes.
    Quoted(String),
    /// An operator or punctuation.
    Sign(&'static str),
    End,
}

/// A token and the byte where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) at: usize,
}

const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "!", "-",
    "+", "*", "/", "%", "=",
];

const RESERVED: [&str; 16] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// The words that may not be names of variables.
pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word) || word == "while"
}

pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned>, Issue> {
    let mut lexer = Lexer { text, at: 0, out: Vec::new() };
    lexer.run()?;
    Ok(lexer.out)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    out: Vec<Spanned>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn run(&mut self) -> Result<(), Issue> {
        loop {
            self.skip_blank();
            let at = self.at;
            let Some(next) = self.rest().chars().next() else {
                self.out.push(Spanned { token: Token::End, at });
                return Ok(());
            };
            let token = match next {
                '0'..='9' => self.number()?,
                '.' if self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit) => self.number()?,
                '"' | '\'' => self.text_literal(false, false)?,
                '`' => self.quoted_name()?,
                c if c == '_' || c.is_ascii_alphabetic() => self.word()?,
                other => self.sign(other)?,
            };
            self.out.push(Spanned { token, at });
        }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']).len();
            if blank > 0 {
                self.at += blank;
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else {
                return;
            }
        }
    }

    fn sign(&mut self, found: char) -> Result<Token, Issue> {
        match SIGNS.iter().find(|s| self.rest().starts_with(**s)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(Issue::new(self.at, format!("Syntax error: token recognition error at: '{found}'"))),
        }
    }

    fn word(&mut self) -> Result<Token, Issue> {
        let rest = self.rest();
        let len = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let word = rest[..len].to_owned();
        let quote = rest[len..].starts_with(['"', '\'']);
        if quote && matches!(word.to_ascii_lowercase().as_str(), "r" | "b" | "rb" | "br") {
            self.at += len;
            let lower = word.to_ascii_lowercase();
            return self.text_literal(lower.contains('r'), lower.contains('b'));
        }
        self.at += len;
        Ok(match word.as_str() {
            "true" => Token::Literal(Literal::Bool(true)),
            "false" => Token::Literal(Literal::Bool(false)),
            "null" => Token::Literal(Literal::Null),
            _ => Token::Ident(word),
        })
    }

    fn quoted_name(&mut self) -> Result<Token, Issue> {
        let inner = &self.rest()[1..];
        let end = inner.find('`').filter(|end| {
            inner[..*end].chars().all(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c)) && *end > 0
        });
        let Some(end) = end else {
            return Err(Issue::new(self.at, "Syntax error: token recognition error at: '`'".to_owned()));
        };
        let name = inner[..end].to_owned();
        self.at += end + 2;
        Ok(Token::Quoted(name))
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let at = self.at;
        let rest = self.rest();
        let (literal, len) = if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let len = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            whole(&hex[..len], 16, hex[len..].starts_with(['u', 'U']), len + 2)
        } else {
            let len = number_length(rest);
            let digits = &rest[..len];
            if digits.contains(['.', 'e', 'E']) {
                (digits.parse().ok().filter(|d: &f64| d.is_finite()).map(Literal::Double), len)
            } else {
                whole(digits, 10, rest[len..].starts_with(['u', 'U']), len)
            }
        };
        self.at += len;
        literal.map(Token::Literal).ok_or_else(|| Issue::new(at, "invalid int literal".to_owned()))
    }

    fn text_literal(&mut self, raw: bool, bytes: bool) -> Result<Token, Issue> {
        let start = self.at;
        let rest = self.rest();
        let quote = &rest[..1];
        let triple = rest.starts_with(&quote.repeat(3)) && rest.len() >= 6;
        let fence = if triple { quote.repeat(3) } else { quote.to_owned() };
        self.at += fence.len();
        let mut out = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with(fence.as_str()) {
                self.at += fence.len();
                break;
            }
            let Some(c) = rest.chars().next().filter(|c| triple || (*c != '\n' && *c != '\r')) else {
                let shown: String = self.text[start..].chars().take(20).collect();
                return Err(Issue::new(
                    start,
                    format!("Syntax error: token recognition error at: '{shown}'"),
                ));
            };
            if c == '\\' && !raw {
                let taken = escape(&rest[1..], bytes, &mut out)
                    .ok_or_else(|| Issue::new(self.at, "Syntax error: invalid escape sequence".to_owned()))?;
                self.at += 1 + taken;
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += c.len_utf8();
            }
        }
        if bytes {
            return Ok(Token::Literal(Literal::Bytes(out)));
        }
        let text = String::from_utf8(out)
            .map_err(|_| Issue::new(start, "Syntax error: invalid UTF-8".to_owned()))?;
        Ok(Token::Literal(Literal::Text(text)))
    }
}

fn whole(digits: &str, radix: u32, unsigned: bool, len: usize) -> (Option<Literal>, usize) {
    let value = u64::from_str_radix(digits, radix).ok();
    if unsigned {
        return (value.map(Literal::Uint), len + 1);
    }
    // The smallest integer is written as the negation of one that does not fit: the parser joins the two.
    let int = value.and_then(|v| match i64::try_from(v) {
        Ok(v) => Some(Literal::Int(v)),
        Err(_) if v == 1 << 63 => Some(Literal::Int(i64::MIN)),
        Err(_) => None,
    });
    (int, len)
}

fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut len = digits(0);
    if bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit) {
        len += 1 + digits(len + 1);
    }
    if matches!(bytes.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits((len + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    len
}

/// Reads what follows a backslash; gives its length.
fn escape(text: &str, bytes: bool, out: &mut Vec<u8>) -> Option<usize> {
    let first = text.chars().next()?;
    let simple = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '?' | '"' | '\'' | '`' => u8::try_from(first).ok()?,
        'x' | 'X' => return coded(text, 1, 2, 16, bytes, out),
        'u' if !bytes => return coded(text, 1, 4, 16, bytes, out),
        'U' if !bytes => return coded(text, 1, 8, 16, bytes, out),
        '0'..='3' => return coded(text, 0, 3, 8, bytes, out),
        _ => return None,
    };
    out.push(simple);
    Some(1)
}

fn coded(
    text: &str,
    skip: usize,
    digits: usize,
    radix: u32,
    bytes: bool,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let code = u32::from_str_radix(text.get(skip..skip + digits)?, radix).ok()?;
    if bytes {
        out.push(u8::try_from(code).ok()?);
    } else {
        out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(skip + digits)
}
