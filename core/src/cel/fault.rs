//! What goes wrong: while an expression is compiled, and while it runs.

use super::authz::Check;
use std::borrow::Cow;
use std::fmt;

/// One thing wrong with an expression, and the byte where it is.
#[derive(Clone, Debug)]
pub(crate) struct Issue {
    pub(crate) at: usize,
    pub(crate) detail: String,
}

impl Issue {
    pub(crate) fn new(at: usize, detail: String) -> Self {
        Issue { at, detail }
    }
}

/// Why an expression does not compile, in upstream's form: each problem with its place and the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    text: String,
}

impl CompileError {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|i| i.at);
        let texts: Vec<String> = issues.iter().take(100).map(|issue| show(source, issue)).collect();
        CompileError { text: texts.join("\n") }
    }

    /// A problem of the whole.
    pub(crate) fn plain(text: String) -> Self {
        CompileError { text }
    }
}

fn show(source: &str, issue: &Issue) -> String {
    let before = source.get(..issue.at).unwrap_or(source);
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or("").chars().count();
    let text = source.split('\n').nth(line).unwrap_or("").replace('\t', " ");
    let dots = ".".repeat(column);
    format!("ERROR: <input>:{}:{}: {}\n | {text}\n | {dots}^", line + 1, column + 1, issue.detail)
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CompileError {}

/// Why an evaluation has no value.
#[derive(Clone, Debug)]
pub struct Fault(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: FaultKind,
    text: Cow<'static, str>,
}

/// Whether an expression can go on after a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An ordinary error of the expression; `&&`, `||` and comprehensions may absorb it.
    Error,
    /// The evaluation cost more than it may.
    Budget,
    /// The authorizer has no answer to this check yet: ask, and evaluate again.
    Pending(Box<Check>),
}

impl Fault {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Fault(Box::new(Inner { kind: FaultKind::Error, text: text.into() }))
    }

    pub(crate) fn no_overload() -> Self {
        Fault::new("no such overload")
    }

    pub(crate) fn no_key(key: &str) -> Self {
        Fault::new(format!("no such key: {key}"))
    }

    pub(crate) fn budget() -> Self {
        let text = "operation cancelled: actual cost limit exceeded";
        Fault(Box::new(Inner { kind: FaultKind::Budget, text: text.into() }))
    }

    pub(crate) fn pending(check: Check) -> Self {
        let text = "the authorizer was not asked yet";
        Fault(Box::new(Inner { kind: FaultKind::Pending(Box::new(check)), text: text.into() }))
    }

    /// What kind of fault it is.
    pub fn kind(&self) -> &FaultKind {
        &self.0.kind
    }

    pub(crate) fn is_final(&self) -> bool {
        self.0.kind != FaultKind::Error
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Fault {}
