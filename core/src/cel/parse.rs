//! From tokens to the syntax tree: precedence climbing, with bounds on depth and size.

use super::Issue;
use super::ast::{Entry, Expr, Field, Item, Kind, Literal};
use super::lexer::{Spanned, Token, is_reserved, tokens};
use super::macros;

/// Longer texts are refused, as upstream's parser does (in code points).
const LENGTH_MAX: usize = 100_000;
/// Deeper expressions are refused: every later pass recurses.
const DEPTH_MAX: usize = 100;
/// More nodes than this are refused; macros that repeat their target could double them.
const NODES_MAX: usize = 50_000;

/// Parses an expression.
pub(crate) fn parse(text: &str) -> Result<Expr, Issue> {
    if text.chars().count() > LENGTH_MAX {
        let len = text.chars().count();
        let detail = format!("expression code point size exceeds limit: size: {len}, limit {LENGTH_MAX}");
        return Err(Issue::new(0, detail));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, next: 0, depth: 0, nodes: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => {
            let detail = format!("Syntax error: extraneous input '{}' expecting <EOF>", shown(other));
            Err(Issue::new(parser.at(), detail))
        }
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Literal(Literal::Text(text)) => format!("{text:?}"),
        Token::Literal(Literal::Int(v)) => v.to_string(),
        Token::Literal(Literal::Uint(v)) => format!("{v}u"),
        Token::Literal(Literal::Double(v)) => v.to_string(),
        Token::Literal(Literal::Bool(v)) => v.to_string(),
        Token::Literal(Literal::Null) => "null".to_owned(),
        Token::Literal(Literal::Bytes(_)) => "bytes".to_owned(),
        Token::Ident(name) | Token::Quoted(name) => name.clone(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => "<EOF>".to_owned(),
    }
}

/// The binary operators, from the loosest to the tightest.
fn binary(sign: &str) -> Option<(u8, &'static str)> {
    Some(match sign {
        "||" => (1, "_||_"),
        "&&" => (2, "_&&_"),
        "<" => (3, "_<_"),
        "<=" => (3, "_<=_"),
        ">" => (3, "_>_"),
        ">=" => (3, "_>=_"),
        "==" => (3, "_==_"),
        "!=" => (3, "_!=_"),
        "in" => (3, "@in"),
        "+" => (4, "_+_"),
        "-" => (4, "_-_"),
        "*" => (5, "_*_"),
        "/" => (5, "_/_"),
        "%" => (5, "_%_"),
        _ => return None,
    })
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    depth: usize,
    nodes: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |s| &s.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |s| s.at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(s) if *s == sign);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Issue> {
        if self.eat(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Issue {
        let found = shown(self.peek());
        Issue::new(self.at(), format!("Syntax error: mismatched input '{found}' expecting {wanted}"))
    }

    fn node(&mut self, at: usize, kind: Kind) -> Result<Expr, Issue> {
        self.count(1, at)?;
        Ok(Expr::new(at, kind))
    }

    fn count(&mut self, nodes: usize, at: usize) -> Result<(), Issue> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(Issue::new(at, "the expression is too large".to_owned()));
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Issue> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Issue::new(
                self.at(),
                format!("expression recursion limit exceeded: limit {DEPTH_MAX}"),
            ));
        }
        Ok(())
    }

    fn expression(&mut self) -> Result<Expr, Issue> {
        self.enter()?;
        let condition = self.binary(1)?;
        let at = self.at();
        let out = if self.eat("?") {
            let then = self.binary(1)?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.count(1, at)?;
            Expr::call(at, "_?_:_", vec![condition, then, otherwise])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(out)
    }

    fn binary(&mut self, least: u8) -> Result<Expr, Issue> {
        let mut left = self.unary()?;
        let mut chain = 0;
        loop {
            let operator = match self.peek() {
                Token::Sign(sign) => binary(sign),
                Token::Ident(word) if word == "in" => binary("in"),
                _ => None,
            };
            let Some((level, function)) = operator.filter(|(level, _)| *level >= least) else { break };
            let at = self.at();
            self.take();
            // A chain leans to the left and is as deep as it is long.
            chain += 1;
            self.enter()?;
            let right = self.binary(level + 1)?;
            self.count(1, at)?;
            left = match left {
                // Long conjunctions are usual: they are one call of many arguments.
                Expr { at, kind: Kind::Call { target: None, function: same, mut args } }
                    if same == function && matches!(function, "_&&_" | "_||_") =>
                {
                    args.push(right);
                    self.depth -= 1;
                    chain -= 1;
                    Expr::new(at, Kind::Call { target: None, function: same, args })
                }
                left => Expr::call(at, function, vec![left, right]),
            };
        }
        self.depth -= chain;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Issue> {
        let at = self.at();
        let sign = match self.peek() {
            Token::Sign(sign @ ("!" | "-")) => *sign,
            _ => return self.member(),
        };
        let mut count = 0;
        while self.eat(sign) {
            count += 1;
        }
        if sign == "-"
            && let Token::Literal(literal @ (Literal::Int(_) | Literal::Double(_))) = self.peek().clone()
        {
            // The sign belongs to the number.
            count -= 1;
            if let Some(spanned) = self.tokens.get_mut(self.next) {
                spanned.token = Token::Literal(match literal {
                    Literal::Int(v) => Literal::Int(v.wrapping_neg()),
                    Literal::Double(v) => Literal::Double(-v),
                    other => other,
                });
            }
        } else if matches!(self.peek(), Token::Literal(Literal::Int(i64::MIN))) {
            return Err(Issue::new(self.at(), "invalid int literal".to_owned()));
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        self.count(1, at)?;
        Ok(Expr::call(at, if sign == "!" { "!_" } else { "-_" }, vec![operand]))
    }

    fn member(&mut self) -> Result<Expr, Issue> {
        if matches!(self.peek(), Token::Literal(Literal::Int(i64::MIN)))
            && !matches!(self.next.checked_sub(1).and_then(|i| self.tokens.get(i)), Some(s) if s.token == Token::Sign("-"))
        {
            return Err(Issue::new(self.at(), "invalid int literal".to_owned()));
        }
        let mut expr = self.primary()?;
        let mut chain = 0;
        loop {
            let at = self.at();
            if self.eat(".") {
                let optional = self.eat("?");
                let (name, quoted) = self.field_name()?;
                let open = self.at();
                if !optional && !quoted && self.eat("(") {
                    let args = self.arguments(")")?;
                    let call = macros::method(open, expr, &name, args)?;
                    self.count(1, open)?;
                    expr = call;
                } else {
                    let kind = Kind::Select { operand: Box::new(expr), field: name, test: false, optional };
                    expr = self.node(at, kind)?;
                }
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expression()?;
                self.expect("]")?;
                self.count(1, at)?;
                expr = Expr::call(at, if optional { "_[?_]" } else { "_[_]" }, vec![expr, index]);
            } else if matches!(self.peek(), Token::Sign("{")) && type_name(&expr).is_some() {
                expr = self.structure(at, type_name(&expr).unwrap_or_default())?;
            } else {
                break;
            }
            chain += 1;
            self.enter()?;
        }
        self.depth -= chain;
        Ok(expr)
    }

    fn field_name(&mut self) -> Result<(String, bool), Issue> {
        match self.peek().clone() {
            Token::Ident(name) if name != "in" => {
                self.take();
                Ok((name, false))
            }
            Token::Quoted(name) => {
                self.take();
                Ok((name, true))
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, Issue> {
        let mut args = Vec::new();
        if self.eat(close) {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(close)?;
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, Issue> {
        let at = self.at();
        match self.take() {
            Token::Literal(literal) => self.node(at, Kind::Literal(literal)),
            Token::Ident(name) if name != "in" => self.name(at, name, false),
            Token::Sign(".") => match self.take() {
                Token::Ident(name) => self.name(at, name, true),
                _ => {
                    self.next -= 1;
                    Err(self.unexpected("IDENTIFIER"))
                }
            },
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => self.list(at),
            Token::Sign("{") => self.map(at),
            _ => {
                self.next = self.next.saturating_sub(1);
                Err(self.unexpected("an expression"))
            }
        }
    }

    fn name(&mut self, at: usize, name: String, rooted: bool) -> Result<Expr, Issue> {
        if is_reserved(&name) {
            return Err(Issue::new(at, format!("reserved identifier: {name}")));
        }
        let open = self.at();
        if self.eat("(") {
            let args = self.arguments(")")?;
            self.count(1, open)?;
            return macros::global(open, &name, args);
        }
        self.node(at, Kind::Ident { name, rooted })
    }

    fn list(&mut self, at: usize) -> Result<Expr, Issue> {
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push(Item { value: self.expression()?, optional });
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        self.node(at, Kind::List(items))
    }

    fn map(&mut self, at: usize) -> Result<Expr, Issue> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push(Entry { key, value: self.expression()?, optional });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.node(at, Kind::Map(entries))
    }

    fn structure(&mut self, at: usize, name: String) -> Result<Expr, Issue> {
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let at = self.at();
            let (name, _) = self.field_name()?;
            self.expect(":")?;
            fields.push(Field { at, name, value: self.expression()?, optional });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.node(at, Kind::Struct { name, fields })
    }
}

/// The dotted name that stands before the braces of a message.
fn type_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident { name, .. } => Some(name.clone()),
        Kind::Select { operand, field, test: false, optional: false } => {
            Some(format!("{}.{field}", type_name(operand)?))
        }
        _ => None,
    }
}
