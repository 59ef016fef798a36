//! Checking types, compiling and estimating, in one walk over the syntax tree.

use super::ast::{Expr, Kind, Literal};
use super::cost::{Estimate, Range};
use super::env::Env;
use super::fault::Issue;
use super::program::{Code, Program};
use super::types::{Decl, Type};
use super::value::Val;
use std::sync::Arc;

/// An expression that was checked.
pub(crate) struct Checked {
    pub(crate) code: Code,
    pub(crate) ty: Type,
    pub(crate) estimate: Estimate,
}

impl Checked {
    pub(crate) fn new(code: Code, ty: Type, estimate: Estimate) -> Self {
        let estimate = estimate.settled(&ty);
        Checked { code, ty, estimate }
    }

    /// What stands for an expression that has a problem, so that more problems can be found.
    pub(crate) fn failed() -> Self {
        Checked { code: Code::Const(Val::Null), ty: Type::Dyn, estimate: Estimate::default() }
    }
}

/// A variable of a comprehension or binding.
pub(crate) struct Local {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) estimate: Estimate,
}

pub(crate) struct Checker<'e> {
    env: &'e Env,
    pub(crate) scope: Vec<Local>,
    issues: Vec<Issue>,
    uses: Vec<usize>,
    locals: usize,
    /// The list that is checked next may hold values of several types (the arguments of `format`).
    pub(crate) mixed: bool,
}

impl<'e> Checker<'e> {
    pub(crate) fn new(env: &'e Env) -> Self {
        Checker { env, scope: Vec::new(), issues: Vec::new(), uses: Vec::new(), locals: 0, mixed: false }
    }

    pub(crate) fn program(mut self, expr: &Expr) -> Result<Program, Vec<Issue>> {
        let checked = self.check(expr);
        if !self.issues.is_empty() {
            return Err(self.issues);
        }
        Ok(Program {
            code: checked.code,
            ty: checked.ty,
            cost: checked.estimate.cost,
            uses: self.uses,
            locals: self.locals,
        })
    }

    pub(crate) fn issue(&mut self, at: usize, detail: String) -> Checked {
        self.issues.push(Issue::new(at, detail));
        Checked::failed()
    }

    pub(crate) fn has_issues(&self) -> bool {
        !self.issues.is_empty()
    }

    /// Brings a local into scope; gives its slot.
    pub(crate) fn push(&mut self, local: Local) -> usize {
        self.scope.push(local);
        self.locals = self.locals.max(self.scope.len());
        self.scope.len() - 1
    }

    pub(crate) fn check(&mut self, expr: &Expr) -> Checked {
        match &expr.kind {
            Kind::Literal(literal) => constant(literal),
            Kind::Ident { name, rooted } => self.ident(expr.at, name, *rooted),
            Kind::Select { operand, field, test, optional } => {
                self.select(expr, operand, field, *test, *optional)
            }
            Kind::Call { target, function, args } => self.call(expr.at, target.as_deref(), function, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(expr.at, name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, value, body } => self.bind(name, value, body),
        }
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.scope.iter().rposition(|l| l.name == name)
    }

    /// Whether a name is that of a variable.
    pub(crate) fn is_variable(&self, name: &str) -> bool {
        self.local(name).is_some()
            || self.env.slot(name).is_some()
            || (name == "variables" && !self.env.composed.is_empty())
    }

    fn ident(&mut self, at: usize, name: &str, rooted: bool) -> Checked {
        let cost = Range::ONE;
        if let Some(slot) = self.local(name).filter(|_| !rooted)
            && let Some(local) = self.scope.get(slot)
        {
            let estimate = Estimate { cost, ..local.estimate.clone() };
            return Checked::new(Code::Local(slot), local.ty.clone(), estimate);
        }
        if let Some(slot) = self.env.slot(name)
            && let Some((_, decl)) = self.env.variables.get(slot)
        {
            if !self.uses.contains(&slot) {
                self.uses.push(slot);
            }
            let estimate = Estimate { cost, decl: Some(decl.clone()), ..Estimate::default() };
            return Checked::new(Code::Variable(slot), decl.ty.clone(), estimate);
        }
        if let Some(name) = type_of_name(name) {
            let estimate = Estimate { cost, ..Estimate::default() };
            return Checked::new(Code::Const(Val::Type(name.into())), Type::Type, estimate);
        }
        self.issue(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool, optional: bool) -> Checked {
        if let Some(name) = dotted(expr)
            && let Some(name) = type_of_name(&name)
        {
            return Checked::new(
                Code::Const(Val::Type(name.into())),
                Type::Type,
                Estimate { cost: Range::ONE, ..Estimate::default() },
            );
        }
        if let Some(name) = dotted(expr).filter(|n| self.env.slot(n).is_some())
            && !test
            && !optional
        {
            // `authorizer.requestResource` is a variable whose name has a dot.
            return self.ident(expr.at, &name, true);
        }
        if operand.as_name() == Some("variables")
            && self.local("variables").is_none()
            && self.env.slot("variables").is_none()
            && !self.env.composed.is_empty()
        {
            return self.composed(expr.at, field, test, optional);
        }
        let operand = self.check(operand);
        let (inner, was_optional) = match &operand.ty {
            Type::Optional(inner) => (inner.ty.clone(), true),
            ty => (ty.clone(), false),
        };
        let decl = match &inner {
            Type::Object(object) => match object.fields.get(field) {
                Some(found) => Some((found.decl.clone(), Some(found.property.clone()))),
                None => return self.issue(expr.at, format!("undefined field '{field}'")),
            },
            Type::Map(_, value) => Some((value.clone(), None)),
            Type::Dyn => None,
            other => {
                let detail = format!("type '{other}' does not support field selection");
                return self.issue(expr.at, detail);
            }
        };
        let cost = operand.estimate.cost;
        let ty = decl.as_ref().map_or(Type::Dyn, |(d, _)| d.ty.clone());
        let property = decl.as_ref().and_then(|(_, p)| p.clone());
        if test {
            let code = Code::Has { operand: Box::new(operand.code), property, name: field.into() };
            return Checked::new(code, Type::Bool, Estimate { cost, ..Estimate::default() });
        }
        let step = u64::from(!inner.is_dyn());
        let estimate = Estimate {
            cost: cost.plus(Range::of(step)),
            // Upstream follows declarations through named fields and subscripts, not through keys that are written as fields.
            decl: decl
                .as_ref()
                .filter(|(_, property)| property.is_some() && operand.estimate.decl.is_some())
                .map(|(d, _)| d.clone()),
            ..Estimate::default()
        };
        let operand = Box::new(operand.code);
        if optional || was_optional {
            let code = Code::OptionalKey { operand, name: field.into() };
            return Checked::new(code, Type::optional(ty), estimate);
        }
        let code = match (decl, property) {
            (Some((decl, _)), Some(property)) => Code::Property { operand, property, decl },
            _ => Code::Key { operand, name: field.into() },
        };
        Checked::new(code, ty, estimate)
    }

    fn composed(&mut self, at: usize, field: &str, test: bool, optional: bool) -> Checked {
        let found = self.env.composed.iter().position(|(n, _)| &**n == field);
        let Some((index, (_, decl))) = found.and_then(|i| Some((i, self.env.composed.get(i)?))) else {
            return self.issue(at, format!("undefined field '{field}'"));
        };
        let estimate = Estimate { cost: Range::of(2), ..Estimate::default() };
        if test {
            return Checked::new(Code::Const(Val::Bool(true)), Type::Bool, estimate);
        }
        if optional {
            return self.issue(at, "variables are always there".to_owned());
        }
        Checked::new(Code::Composed(index), decl.ty.clone(), estimate)
    }

    fn list(&mut self, items: &[super::ast::Item]) -> Checked {
        let mixed = std::mem::take(&mut self.mixed);
        let mut cost = Range::of(10);
        let (mut ty, mut size): (Option<Type>, Option<Range>) = (None, None);
        let mut codes = Vec::with_capacity(items.len());
        for item in items {
            let checked = self.check(&item.value);
            cost = cost.plus(checked.estimate.cost);
            let own = checked.estimate.size_or_unknown();
            size = Some(size.map_or(own, |s| s.union(own)));
            let found = self.unwrapped(item.value.at, &checked.ty, item.optional);
            ty = Some(if mixed { Type::Dyn } else { self.same(item.value.at, ty, found) });
            codes.push((checked.code, item.optional));
        }
        let estimate = Estimate {
            cost,
            size: Some(Range::of(items.len() as u64)),
            entry: Some((Range::ONE, size.unwrap_or(Range::ZERO))),
            decl: None,
        };
        let ty = Type::list(ty.unwrap_or(Type::Dyn));
        let constants: Option<Vec<Val<'static>>> = codes
            .iter()
            .map(|(code, optional)| match code {
                Code::Const(value) if !optional => Some(value.clone()),
                _ => None,
            })
            .collect();
        let code = match constants {
            // A list of constants is made once.
            Some(values) => Code::Const(Val::list(values)),
            None => Code::List(codes.into()),
        };
        Checked::new(code, ty, estimate)
    }

    fn unwrapped(&mut self, at: usize, ty: &Type, optional: bool) -> Type {
        match ty {
            ty if !optional => ty.clone(),
            Type::Optional(inner) => inner.ty.clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.issue(at, format!("expected type 'optional_type({other})' but found '{other}'"));
                Type::Dyn
            }
        }
    }

    /// Literals have elements of one type.
    fn same(&mut self, at: usize, held: Option<Type>, found: Type) -> Type {
        let Some(held) = held else { return found };
        match held.join(&found) {
            Some(joined) => joined,
            None => {
                self.issue(at, format!("expected type '{held}' but found '{found}'"));
                held
            }
        }
    }

    fn map(&mut self, entries: &[super::ast::Entry]) -> Checked {
        let mut cost = Range::of(30);
        let (mut key_ty, mut value_ty): (Option<Type>, Option<Type>) = (None, None);
        let mut sizes: Option<(Range, Range)> = None;
        let mut codes = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = self.check(&entry.key);
            let value = self.check(&entry.value);
            cost = cost.plus(key.estimate.cost).plus(value.estimate.cost);
            let own = (key.estimate.size_or_unknown(), value.estimate.size_or_unknown());
            sizes = Some(sizes.map_or(own, |(k, v)| (k.union(own.0), v.union(own.1))));
            if !matches!(key.ty, Type::Text | Type::Int | Type::Uint | Type::Bool | Type::Dyn) {
                self.issue(entry.key.at, format!("unsupported map key type: {}", key.ty));
            }
            let found = self.unwrapped(entry.value.at, &value.ty, entry.optional);
            key_ty = Some(self.same(entry.key.at, key_ty, key.ty));
            value_ty = Some(self.same(entry.value.at, value_ty, found));
            codes.push((key.code, value.code, entry.optional));
        }
        let estimate = Estimate {
            cost,
            size: Some(Range::of(entries.len() as u64)),
            entry: Some(sizes.unwrap_or_default()),
            decl: None,
        };
        let ty = Type::map(key_ty.unwrap_or(Type::Dyn), value_ty.unwrap_or(Type::Dyn));
        Checked::new(Code::Map(codes.into()), ty, estimate)
    }

    fn message(&mut self, at: usize, name: &str, fields: &[super::ast::Field]) -> Checked {
        let patch = name == "JSONPatch";
        let object = name == "Object" || name.starts_with("Object.");
        if !self.env.messages || !(patch || object) {
            return self.issue(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        let mut cost = Range::of(40);
        let mut codes = Vec::with_capacity(fields.len());
        for field in fields {
            let value = self.check(&field.value);
            cost = cost.plus(value.estimate.cost);
            let wanted = match (patch, field.name.as_str()) {
                (false, _) | (true, "value") => Type::Dyn,
                (true, "op" | "path" | "from") => Type::Text,
                (true, other) => {
                    self.issue(field.at, format!("undefined field '{other}'"));
                    continue;
                }
            };
            let found = self.unwrapped(field.value.at, &value.ty, field.optional);
            if !found.fits(&wanted) {
                let detail = format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{found}'",
                    field.name
                );
                self.issue(field.at, detail);
            }
            codes.push((field.name.as_str().into(), value.code, field.optional));
        }
        let ty = message_type(name);
        Checked::new(
            Code::Message { name: name.into(), fields: codes.into() },
            ty,
            Estimate { cost, ..Estimate::default() },
        )
    }
}

/// Messages are told apart by name; what fields an `Object` has is known only where it is merged.
pub(crate) fn message_type(name: &str) -> Type {
    match name {
        "JSONPatch" => Type::Opaque("JSONPatch"),
        "Object" => Type::Opaque("Object"),
        _ => Type::Dyn,
    }
}

fn constant(literal: &Literal) -> Checked {
    let (value, ty, size) = match literal {
        Literal::Null => (Val::Null, Type::Null, 1),
        Literal::Bool(v) => (Val::Bool(*v), Type::Bool, 1),
        Literal::Int(v) => (Val::Int(*v), Type::Int, 1),
        Literal::Uint(v) => (Val::Uint(*v), Type::Uint, 1),
        Literal::Double(v) => (Val::Double(*v), Type::Double, 1),
        Literal::Text(v) => (Val::text(v.as_str()), Type::Text, v.chars().count()),
        Literal::Bytes(v) => (Val::Bytes(Arc::from(v.as_slice())), Type::Bytes, v.len()),
    };
    let estimate = Estimate::sized(Range::ZERO, Range::of(size as u64));
    Checked::new(Code::Const(value), ty, estimate)
}

/// The name that `type()` gives, for the names that stand for types.
fn type_of_name(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 18] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "optional_type",
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
        "kubernetes.Quantity",
        "kubernetes.URL",
        "kubernetes.Semver",
        "net.IP",
        "net.CIDR",
    ];
    NAMES.into_iter().find(|n| *n == name)
}

/// The dotted name that a chain of selections spells.
pub(crate) fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident { name, .. } => Some(name.clone()),
        Kind::Select { operand, field, test: false, optional: false } => {
            Some(format!("{}.{field}", dotted(operand)?))
        }
        _ => None,
    }
}

/// The declaration of what a container holds under a subscript.
pub(crate) fn held(ty: &Type) -> Option<(&Arc<Decl>, Option<&Arc<Decl>>)> {
    match ty {
        Type::List(item) => Some((item, None)),
        Type::Map(key, value) => Some((value, Some(key))),
        _ => None,
    }
}
