//! What an expression may refer to.

use super::check::Checker;
use super::fault::CompileError;
use super::parse::parse;
use super::program::Program;
use super::types::{Decl, Type};
use std::sync::Arc;

/// The variables of an expression, each at the slot of its place in the order of declaration.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub(crate) variables: Vec<(Box<str>, Arc<Decl>)>,
    /// The fields of `variables`: expressions that run when they are first asked for.
    pub(crate) composed: Vec<(Box<str>, Arc<Decl>)>,
    /// Whether `Object{}` and `JSONPatch{}` can be made.
    pub(crate) messages: bool,
}

impl Env {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one variable more.
    #[must_use]
    pub fn with(self, name: &str, decl: Decl) -> Self {
        self.with_shared(name, Arc::new(decl))
    }

    /// With one variable more, whose declaration is shared.
    #[must_use]
    pub fn with_shared(mut self, name: &str, decl: Arc<Decl>) -> Self {
        self.variables.push((name.into(), decl));
        self
    }

    /// With the messages of mutating policies: `Object{...}` of any fields, and `JSONPatch{...}`.
    #[must_use]
    pub fn with_messages(mut self) -> Self {
        self.messages = true;
        self
    }

    /// Adds a field of `variables`, of the type that its expression has.
    pub fn compose(&mut self, name: &str, ty: &Type) {
        self.composed.push((name.into(), Arc::new(Decl::of(ty.clone()))));
    }

    /// The slot of a variable.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.variables.iter().rposition(|(n, _)| &**n == name)
    }

    /// Parses, checks and compiles an expression.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let expr = parse(text).map_err(|issue| CompileError::new(text, vec![issue]))?;
        Checker::new(self).program(&expr).map_err(|issues| CompileError::new(text, issues))
    }
}
