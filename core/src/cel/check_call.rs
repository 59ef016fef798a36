//! Checking calls: which overloads fit, and what they give.

use super::ast::{Expr, Kind};
use super::check::{Checked, Checker, dotted, held};
use super::cost::{Estimate, Price, Range, estimate, price};
use super::opaque::{Opaque, Pattern as Regex};
use super::program::Code;
use super::run::Evaluation;
use super::signature::{Bindings, Overload, overloads};
use super::types::Type;
use super::value::Val;

/// Calls that are made when the expression is compiled, where all arguments are constants.
const FOLDED: [&str; 7] = ["quantity", "ip", "cidr", "semver", "url", "duration", "timestamp"];

impl Checker<'_> {
    pub(crate) fn call(
        &mut self,
        at: usize,
        target: Option<&Expr>,
        function: &str,
        args: &[Expr],
    ) -> Checked {
        match (target, function, args) {
            (None, "_&&_" | "_||_", _) => return self.logical(at, function, args),
            (None, "_?_:_", [condition, then, otherwise]) => {
                return self.choice(at, condition, then, otherwise);
            }
            (None, "_[_]" | "_[?_]", [operand, index]) => {
                return self.index(at, operand, index, function == "_[?_]");
            }
            (None, "dyn", [arg]) => {
                let checked = self.check(arg);
                let cost = checked.estimate.cost.plus(Range::ONE);
                return Checked::new(checked.code, Type::Dyn, Estimate { cost, ..checked.estimate });
            }
            _ => {}
        }
        // A receiver that is no variable may be the package of a function.
        let package = target.and_then(dotted).filter(|name| {
            let first = name.split('.').next().unwrap_or("");
            !self.is_variable(first)
        });
        if let Some(package) = package {
            let name = format!("{package}.{function}");
            if !overloads(&name).is_empty() {
                return self.invoke(at, &name, None, args);
            }
        }
        self.invoke(at, function, target, args)
    }

    fn invoke(&mut self, at: usize, function: &str, target: Option<&Expr>, args: &[Expr]) -> Checked {
        let member = target.is_some();
        let mut checked: Vec<Checked> = target.into_iter().map(|e| self.check(e)).collect();
        for arg in args {
            self.mixed = function == "format" && matches!(arg.kind, Kind::List(_));
            checked.push(self.check(arg));
        }
        let candidates = overloads(function);
        if candidates.is_empty() {
            if self.has_issues() {
                return Checked::failed();
            }
            return self.issue(at, format!("undeclared reference to '{function}' (in container '')"));
        }
        let mut found: Vec<&'static Overload> = Vec::new();
        let mut result: Option<Type> = None;
        for overload in candidates.iter().filter(|o| o.member == member && o.args.len() == checked.len()) {
            let mut bound = Bindings::default();
            if overload.args.iter().zip(&checked).all(|(p, c)| p.takes(&c.ty, &mut bound)) {
                let ty = overload.result.filled(&bound);
                result = Some(result.map_or(ty.clone(), |held| held.join(&ty).unwrap_or(Type::Dyn)));
                found.push(overload);
            }
        }
        let Some(ty) = result else { return self.no_overload(at, function, member, &checked) };
        let estimate = estimate_of(&found, &checked);
        let literals: Vec<usize> = args.iter().map(|a| a.at).collect();
        let mut codes: Vec<Code> = checked.into_iter().map(|c| c.code).collect();
        if let Some(problem) = prepare(function, &mut codes) {
            return self.issue(literals.last().copied().unwrap_or(at), problem);
        }
        let code = match fold(function, &found, &codes) {
            Some(Ok((value, cost))) => Code::Folded(value, cost),
            Some(Err(())) if matches!(function, "duration" | "timestamp") => {
                let at = literals.last().copied().unwrap_or(at);
                return self.issue(at, format!("invalid {function} argument"));
            }
            _ => Code::Call { overloads: found.into(), args: codes.into() },
        };
        Checked::new(code, ty, estimate)
    }

    fn no_overload(&mut self, at: usize, function: &str, member: bool, args: &[Checked]) -> Checked {
        let mut types: Vec<String> = args.iter().map(|c| c.ty.to_string()).collect();
        let applied = if member && !types.is_empty() {
            let receiver = types.remove(0);
            format!("{receiver}.({})", types.join(", "))
        } else {
            format!("({})", types.join(", "))
        };
        self.issue(at, format!("found no matching overload for '{function}' applied to '{applied}'"))
    }

    fn logical(&mut self, at: usize, function: &str, args: &[Expr]) -> Checked {
        let parts: Vec<Checked> = args.iter().map(|a| self.check(a)).collect();
        if parts.iter().any(|p| !p.ty.fits(&Type::Bool)) {
            return self.no_overload(at, function, false, &parts);
        }
        let cost = parts.iter().fold(Range::ZERO, |sum, p| sum.plus(p.estimate.cost));
        let min = parts.first().map_or(0, |p| p.estimate.cost.min);
        let codes: Box<[Code]> = parts.into_iter().map(|p| p.code).collect();
        let code = if function == "_&&_" { Code::And(codes) } else { Code::Or(codes) };
        Checked::new(code, Type::Bool, Estimate { cost: Range { min, ..cost }, ..Estimate::default() })
    }

    fn choice(&mut self, at: usize, condition: &Expr, then: &Expr, otherwise: &Expr) -> Checked {
        let parts = [self.check(condition), self.check(then), self.check(otherwise)];
        let [c, t, o] = &parts;
        let joined = t.ty.join(&o.ty).filter(|_| c.ty.fits(&Type::Bool));
        let Some(ty) = joined else { return self.no_overload(at, "_?_:_", false, &parts) };
        let estimate = Estimate {
            cost: c.estimate.cost.plus(t.estimate.cost.union(o.estimate.cost)),
            size: Some(t.estimate.size_or_unknown().union(o.estimate.size_or_unknown())),
            entry: t.estimate.entry.zip(o.estimate.entry).map(|(a, b)| (a.0.union(b.0), a.1.union(b.1))),
            decl: None,
        };
        Checked::new(Code::Choice(Box::new(parts.map(|p| p.code))), ty, estimate)
    }

    fn index(&mut self, at: usize, operand: &Expr, index: &Expr, optional: bool) -> Checked {
        let name = if optional { "_[?_]" } else { "_[_]" };
        let parts = [self.check(operand), self.check(index)];
        let [o, i] = &parts;
        let (inner, was_optional) = match &o.ty {
            Type::Optional(inner) => (inner.ty.clone(), true),
            ty => (ty.clone(), false),
        };
        let value = match held(&inner) {
            _ if inner.is_dyn() => None,
            Some((item, None)) if matches!(i.ty, Type::Int | Type::Dyn) => Some(item.clone()),
            Some((value, Some(key))) if i.ty.fits(&key.ty) => Some(value.clone()),
            _ => return self.no_overload(at, name, false, &parts),
        };
        let ty = value.as_ref().map_or(Type::Dyn, |d| d.ty.clone());
        let [o, i] = parts;
        let estimate = Estimate {
            cost: o.estimate.cost.plus(i.estimate.cost).plus(Range::ONE),
            size: o.estimate.entry.map(|(_, v)| v),
            decl: value.filter(|_| o.estimate.decl.is_some()),
            entry: None,
        };
        let optional = optional || was_optional;
        let code = Code::Index { operand: Box::new(o.code), index: Box::new(i.code), optional };
        Checked::new(code, if optional { Type::optional(ty) } else { ty }, estimate)
    }
}

fn estimate_of(found: &[&'static Overload], args: &[Checked]) -> Estimate {
    let known: Vec<(&Estimate, &Type)> = args.iter().map(|c| (&c.estimate, &c.ty)).collect();
    let mut cost: Option<Range> = None;
    let mut size: Option<Range> = None;
    for overload in found {
        let (own, result) = estimate(overload.price, &known);
        cost = Some(cost.map_or(own, |c| c.union(own)));
        if let Some(result) = result {
            size = Some(size.map_or(result, |s| s.union(result)));
        }
    }
    let sum = args.iter().fold(cost.unwrap_or(Range::ONE), |sum, a| sum.plus(a.estimate.cost));
    let entry = match (found, args) {
        ([one], [a, b]) if matches!(one.price, Price::AddList) => {
            a.estimate.entry.zip(b.estimate.entry).map(|(a, b)| (a.0.union(b.0), a.1.union(b.1)))
        }
        _ => None,
    };
    Estimate { cost: sum, size, entry, decl: None }
}

/// Compiles a constant pattern; the problem, where it is none.
fn prepare(function: &str, args: &mut [Code]) -> Option<String> {
    if !matches!(function, "matches" | "find" | "findAll") {
        return None;
    }
    let arg = args.get_mut(1)?;
    let Code::Const(Val::Text(text)) = arg else { return None };
    match super::lib::regex::compile(text) {
        Ok(regex) => {
            let pattern = Regex { text: text.to_string(), regex };
            *arg = Code::Const(Val::opaque(Opaque::Pattern(Box::new(pattern))));
            None
        }
        Err(_) => Some(format!("invalid {function} argument")),
    }
}

type Made = Result<(Val<'static>, u64), ()>;

fn fold(function: &str, found: &[&'static Overload], args: &[Code]) -> Option<Made> {
    if !FOLDED.contains(&function) {
        return None;
    }
    let values: Option<Vec<Val<'static>>> = args
        .iter()
        .map(|code| match code {
            Code::Const(value) => Some(value.clone()),
            _ => None,
        })
        .collect();
    let (values, overload) = (values?, found.first()?);
    let mut run = Evaluation::new(u64::MAX);
    let cost = price(overload.price, &values, &Val::Null);
    Some((overload.native)(&mut run, &values).map(|value| (value, cost)).map_err(drop))
}
