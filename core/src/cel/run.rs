//! Running a compiled expression.

use super::authz::Authorizer;
use super::cost::price;
use super::fault::Fault;
use super::program::{Code, Program};
use super::signature::Overload;
use super::value::{Entries, List, Map, Val};
use regex::Regex;
use std::sync::Arc;

/// A value, or why there is none.
pub(crate) type R<'a> = Result<Val<'a>, Fault>;

/// How many patterns that are no constants are kept compiled.
const PATTERNS_MAX: usize = 8;

/// The variables of a run, and what it has cost. Several expressions may run one after the other on the same variables.
pub struct Evaluation<'a> {
    variables: Vec<Val<'a>>,
    pub(crate) locals: Vec<R<'a>>,
    /// The expressions behind the fields of `variables`, and the values of those that ran.
    composed: &'a [Program],
    values: Vec<Option<R<'a>>>,
    cost: u64,
    limit: u64,
    authorizer: Option<&'a dyn Authorizer>,
    patterns: Vec<(String, Regex)>,
}

impl<'a> Evaluation<'a> {
    /// No variables yet; each run may cost `limit`.
    pub fn new(limit: u64) -> Self {
        Evaluation {
            variables: Vec::new(),
            locals: Vec::new(),
            composed: &[],
            values: Vec::new(),
            cost: 0,
            limit,
            authorizer: None,
            patterns: Vec::new(),
        }
    }

    /// Sets the variable at a slot.
    pub fn set(&mut self, slot: usize, value: Val<'a>) {
        if self.variables.len() <= slot {
            self.variables.resize(slot + 1, Val::Null);
        }
        self.variables[slot] = value;
    }

    /// Sets the expressions behind the fields of `variables`, in the order in which they were composed.
    pub fn compose(&mut self, programs: &'a [Program]) {
        self.composed = programs;
        self.values = programs.iter().map(|_| None).collect();
    }

    /// Sets who answers the checks of expressions.
    pub fn ask(&mut self, authorizer: &'a dyn Authorizer) {
        self.authorizer = Some(authorizer);
    }

    pub(crate) fn authorizer(&self) -> Option<&'a dyn Authorizer> {
        self.authorizer
    }

    /// Runs an expression.
    ///
    /// # Errors
    /// What the expression met.
    pub fn run(&mut self, program: &'a Program) -> Result<Val<'a>, Fault> {
        self.cost = 0;
        self.inner(program)
    }

    fn inner(&mut self, program: &'a Program) -> R<'a> {
        let before = std::mem::take(&mut self.locals);
        self.locals = (0..program.locals).map(|_| Ok(Val::Null)).collect();
        let result = self.eval(&program.code);
        self.locals = before;
        result
    }

    /// Runs an expression that has to be true or false.
    ///
    /// # Errors
    /// What the expression met, or that its value is neither.
    pub fn test(&mut self, program: &'a Program) -> Result<bool, Fault> {
        match self.run(program)? {
            Val::Bool(value) => Ok(value),
            _ => Err(Fault::new("cel expression evaluated to a value that is no bool")),
        }
    }

    /// What the last run cost.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Fault::budget()) } else { Ok(()) }
    }

    /// A pattern, compiled once a run where it repeats.
    pub(crate) fn pattern(&mut self, text: &str) -> Result<Regex, Fault> {
        if let Some((_, regex)) = self.patterns.iter().find(|(t, _)| t == text) {
            return Ok(regex.clone());
        }
        let regex = super::lib::regex::compile(text)?;
        if self.patterns.len() < PATTERNS_MAX {
            self.patterns.push((text.to_owned(), regex.clone()));
        }
        Ok(regex)
    }

    pub(crate) fn eval(&mut self, code: &'a Code) -> R<'a> {
        match code {
            Code::Const(value) => Ok(value.clone()),
            Code::Folded(value, cost) => {
                self.charge(*cost)?;
                Ok(value.clone())
            }
            Code::Variable(slot) => {
                self.charge(1)?;
                Ok(self.variables.get(*slot).cloned().unwrap_or(Val::Null))
            }
            Code::Local(slot) => {
                self.charge(1)?;
                self.locals.get(*slot).cloned().unwrap_or(Ok(Val::Null))
            }
            Code::Composed(index) => self.composed(*index),
            Code::Property { operand, property, decl } => self.property(operand, property, decl),
            Code::Key { operand, name } => {
                let operand = self.eval(operand)?;
                self.key(operand, name)
            }
            Code::Has { operand, property, name } => self.has(operand, property.as_deref(), name),
            Code::OptionalKey { operand, name } => {
                let operand = self.eval(operand)?;
                self.optional_key(operand, name)
            }
            Code::Index { operand, index, optional } => self.index(operand, index, *optional),
            Code::And(parts) => self.logical(parts, false),
            Code::Or(parts) => self.logical(parts, true),
            Code::Choice(parts) => match self.eval(&parts[0])? {
                Val::Bool(true) => self.eval(&parts[1]),
                Val::Bool(false) => self.eval(&parts[2]),
                _ => Err(Fault::no_overload()),
            },
            Code::Call { overloads, args } => self.call(overloads, args),
            Code::List(items) => self.list(items),
            Code::Map(entries) => self.map(entries),
            Code::Message { name, fields } => self.message(name, fields),
            Code::Fold(fold) => self.fold(fold),
            Code::Bind { slot, value, body } => {
                // A value that is never asked for may fail.
                let value = match self.eval(value) {
                    Err(fault) if fault.is_final() => return Err(fault),
                    value => value,
                };
                self.assign(*slot, value);
                self.eval(body)
            }
        }
    }

    fn message(&mut self, name: &smol_str::SmolStr, fields: &'a [(Box<str>, Code, bool)]) -> R<'a> {
        let mut out = Entries::message(name.clone());
        for (field, value, optional) in fields {
            if let Some(value) = self.item(value, *optional)? {
                out.insert(Val::text(&**field), value);
            }
        }
        self.charge(40)?;
        Ok(Val::Map(Map::Own(Arc::new(out))))
    }

    fn property(&mut self, operand: &'a Code, property: &'a str, decl: &'a super::types::Decl) -> R<'a> {
        match self.eval(operand)? {
            Val::Map(Map::Json(map, _)) => {
                self.charge(1)?;
                match map.get(property) {
                    Some(value) => Ok(Val::from_json(value, decl)),
                    None => Err(Fault::no_key(property)),
                }
            }
            other => self.key(other, property),
        }
    }

    pub(crate) fn assign(&mut self, slot: usize, value: R<'a>) {
        if let Some(local) = self.locals.get_mut(slot) {
            *local = value;
        }
    }

    /// A field of `variables`, which costs what its expression costs when it is asked for first.
    fn composed(&mut self, index: usize) -> R<'a> {
        self.charge(2)?;
        if let Some(value) = self.values.get(index).cloned().flatten() {
            return value;
        }
        let composed = self.composed;
        let Some(program) = composed.get(index) else { return Err(Fault::new("no such variable")) };
        let value = self.inner(program);
        if value.as_ref().is_err_and(Fault::is_final) {
            return value;
        }
        if let Some(slot) = self.values.get_mut(index) {
            *slot = Some(value.clone());
        }
        value
    }

    fn key(&mut self, operand: Val<'a>, name: &str) -> R<'a> {
        match operand {
            Val::Map(map) => {
                self.charge(1)?;
                map.field(name).ok_or_else(|| Fault::no_key(name))
            }
            // What follows an optional is optional itself.
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => self.optional_key((*inner).clone(), name),
            _ => Err(Fault::no_overload()),
        }
    }

    fn optional_key(&mut self, operand: Val<'a>, name: &str) -> R<'a> {
        self.charge(1)?;
        match operand {
            Val::Map(map) => Ok(Val::Optional(map.field(name).map(Arc::new))),
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => match &*inner {
                Val::Map(map) => Ok(Val::Optional(map.field(name).map(Arc::new))),
                _ => Err(Fault::no_overload()),
            },
            _ => Err(Fault::no_overload()),
        }
    }

    fn has(&mut self, operand: &'a Code, property: Option<&str>, name: &str) -> R<'a> {
        let mut operand = self.eval(operand)?;
        if let Val::Optional(inner) = &operand {
            match inner {
                None => return Ok(Val::Bool(false)),
                Some(inner) => operand = (**inner).clone(),
            }
        }
        match (&operand, property) {
            (Val::Map(Map::Json(map, _)), Some(property)) => Ok(Val::Bool(map.contains_key(property))),
            (Val::Map(map), _) => Ok(Val::Bool(map.field(name).is_some())),
            _ => Err(Fault::no_overload()),
        }
    }

    fn index(&mut self, operand: &'a Code, index: &'a Code, optional: bool) -> R<'a> {
        let mut operand = self.eval(operand)?;
        let index = self.eval(index)?;
        self.charge(1)?;
        let mut optional = optional;
        if let Val::Optional(inner) = &operand {
            optional = true;
            match inner {
                None => return Ok(Val::Optional(None)),
                Some(inner) => operand = (**inner).clone(),
            }
        }
        let found = match &operand {
            Val::List(list) => item_at(list, &index),
            Val::Map(map) => match &index {
                Val::Text(_) | Val::Int(_) | Val::Uint(_) | Val::Bool(_) | Val::Double(_) => {
                    map.get(&index).ok_or_else(|| Fault::no_key(&super::ops::shown(&index)))
                }
                _ => Err(Fault::no_overload()),
            },
            _ => return Err(Fault::no_overload()),
        };
        match (optional, found) {
            (true, found) => Ok(Val::Optional(found.ok().map(Arc::new))),
            (false, found) => found,
        }
    }

    /// `&&` and `||`: one part that decides is enough, whatever errors the others meet.
    fn logical(&mut self, parts: &'a [Code], decisive: bool) -> R<'a> {
        let mut failed = None;
        for part in parts {
            match self.eval(part) {
                Ok(Val::Bool(value)) if value == decisive => return Ok(Val::Bool(decisive)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Fault::no_overload())),
                Err(fault) if fault.is_final() => return Err(fault),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        failed.map_or(Ok(Val::Bool(!decisive)), Err)
    }

    fn call(&mut self, overloads: &'a [&'static Overload], args: &'a [Code]) -> R<'a> {
        match args {
            [] => self.invoke(overloads, &[]),
            [a] => {
                let args = [self.eval(a)?];
                self.invoke(overloads, &args)
            }
            [a, b] => {
                let args = [self.eval(a)?, self.eval(b)?];
                self.invoke(overloads, &args)
            }
            many => {
                let args = many.iter().map(|a| self.eval(a)).collect::<Result<Vec<_>, _>>()?;
                self.invoke(overloads, &args)
            }
        }
    }

    fn invoke(&mut self, overloads: &[&'static Overload], args: &[Val<'a>]) -> R<'a> {
        let Some(overload) = overloads.iter().find(|o| o.accepts(args)) else {
            return Err(Fault::no_overload());
        };
        // Dear calls are refused before they are made; only a joined list is priced by what it became.
        let joins = matches!(overload.price, super::cost::Price::Join);
        if !joins {
            self.charge(price(overload.price, args, &Val::Null))?;
        }
        let result = (overload.native)(self, args)?;
        if joins {
            self.charge(price(overload.price, args, &result))?;
        }
        Ok(result)
    }

    /// An item of a literal; an absent optional one is left out.
    fn item(&mut self, code: &'a Code, optional: bool) -> Result<Option<Val<'a>>, Fault> {
        let value = self.eval(code)?;
        match (optional, value) {
            (false, value) => Ok(Some(value)),
            (true, Val::Optional(inner)) => Ok(inner.map(|v| (*v).clone())),
            (true, _) => Err(Fault::no_overload()),
        }
    }

    fn list(&mut self, items: &'a [(Code, bool)]) -> R<'a> {
        let mut out = Vec::with_capacity(items.len());
        for (item, optional) in items {
            out.extend(self.item(item, *optional)?);
        }
        self.charge(10)?;
        Ok(Val::list(out))
    }

    fn map(&mut self, entries: &'a [(Code, Code, bool)]) -> R<'a> {
        let mut out = Entries::default();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            if let Some(value) = self.item(value, *optional)? {
                let shown = super::ops::shown(&key);
                if !out.insert(key, value) {
                    return Err(Fault::new(format!("Failed with repeated key {shown}")));
                }
            }
        }
        self.charge(30)?;
        Ok(Val::Map(Map::Own(Arc::new(out))))
    }
}

fn item_at<'a>(list: &List<'a>, index: &Val<'a>) -> R<'a> {
    let at = match index {
        Val::Int(i) => *i,
        Val::Uint(i) => i64::try_from(*i).unwrap_or(i64::MAX),
        #[expect(clippy::cast_possible_truncation, reason = "casts saturate")]
        Val::Double(d) if d.fract() == 0.0 => *d as i64,
        _ => return Err(Fault::no_overload()),
    };
    let found = usize::try_from(at).ok().and_then(|i| list.get(i));
    found.ok_or_else(|| Fault::new(format!("index out of bounds: {at}")))
}
