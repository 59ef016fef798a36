//! The syntax tree of an expression, macros already expanded into their own nodes.

/// An expression and the byte at which its operator or first token stands.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    /// A name; with a leading dot it is never a local variable.
    Ident {
        name: String,
        rooted: bool,
    },
    /// `operand.field`; `has(operand.field)` with `test`, `operand.?field` with `optional`.
    Select {
        operand: Box<Expr>,
        field: String,
        test: bool,
        optional: bool,
    },
    Call {
        target: Option<Box<Expr>>,
        function: String,
        args: Vec<Expr>,
    },
    List(Vec<Item>),
    Map(Vec<Entry>),
    /// `Name{field: value}`.
    Struct {
        name: String,
        fields: Vec<Field>,
    },
    Fold(Box<Fold>),
    /// `cel.bind(name, value, body)`.
    Bind {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) at: usize,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A comprehension: what the macros over lists and maps become.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) kind: FoldKind,
    pub(crate) range: Expr,
    /// The variable of the item, key or index.
    pub(crate) first: String,
    /// The variable of the value, in comprehensions of two variables.
    pub(crate) second: Option<String>,
    /// Keeps only what it holds for (`map`, `transformList`, ... with a filter).
    pub(crate) filter: Option<Expr>,
    /// The predicate, or what each element becomes.
    pub(crate) body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformMap,
    TransformMapEntry,
}

impl Expr {
    pub(crate) fn new(at: usize, kind: Kind) -> Self {
        Expr { at, kind }
    }

    pub(crate) fn call(at: usize, function: &str, args: Vec<Expr>) -> Self {
        Expr::new(at, Kind::Call { target: None, function: function.to_owned(), args })
    }

    pub(crate) fn method(at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Self {
        Expr::new(at, Kind::Call { target: Some(Box::new(target)), function: function.to_owned(), args })
    }

    /// The name, where the expression is nothing but one.
    pub(crate) fn as_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident { name, rooted: false } => Some(name),
            _ => None,
        }
    }
}
