//! The compiled form: names are slots, calls are code, constants are values.

use super::ast::FoldKind;
use super::cost::Range;
use super::signature::Overload;
use super::types::{Decl, Type};
use super::value::Val;
use smol_str::SmolStr;
use std::sync::Arc;

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    pub(crate) code: Code,
    pub(crate) ty: Type,
    pub(crate) cost: Range,
    /// The slots of the variables that the expression names.
    pub(crate) uses: Vec<usize>,
    /// How many local variables are alive at once.
    pub(crate) locals: usize,
}

impl Program {
    /// The type of its value.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// What a run costs, by the bounds of what was declared.
    pub fn cost(&self) -> Range {
        self.cost
    }

    /// Whether it names the variable at a slot.
    pub fn uses(&self, slot: usize) -> bool {
        self.uses.contains(&slot)
    }
}

#[derive(Debug)]
pub(crate) enum Code {
    Const(Val<'static>),
    /// A call of constants that was made when the expression was compiled, and what the call costs all the same.
    Folded(Val<'static>, u64),
    Variable(usize),
    Local(usize),
    /// A field of `variables`.
    Composed(usize),
    /// A field of an object whose type is known.
    Property {
        operand: Box<Code>,
        property: Box<str>,
        decl: Arc<Decl>,
    },
    /// A key by name.
    Key {
        operand: Box<Code>,
        name: Box<str>,
    },
    Has {
        operand: Box<Code>,
        /// The property's own name where the type is known.
        property: Option<Box<str>>,
        name: Box<str>,
    },
    /// `operand.?name`; the optional is absent where the key is.
    OptionalKey {
        operand: Box<Code>,
        name: Box<str>,
    },
    Index {
        operand: Box<Code>,
        index: Box<Code>,
        optional: bool,
    },
    And(Box<[Code]>),
    Or(Box<[Code]>),
    Choice(Box<[Code; 3]>),
    Call {
        overloads: Box<[&'static Overload]>,
        args: Box<[Code]>,
    },
    List(Box<[(Code, bool)]>),
    Map(Box<[(Code, Code, bool)]>),
    Message {
        name: SmolStr,
        fields: Box<[(Box<str>, Code, bool)]>,
    },
    Fold(Box<FoldCode>),
    Bind {
        slot: usize,
        value: Box<Code>,
        body: Box<Code>,
    },
}

#[derive(Debug)]
pub(crate) struct FoldCode {
    pub(crate) kind: FoldKind,
    pub(crate) range: Code,
    /// The first local of the comprehension; a second one follows it.
    pub(crate) slot: usize,
    pub(crate) two: bool,
    pub(crate) filter: Option<Code>,
    pub(crate) body: Code,
}
