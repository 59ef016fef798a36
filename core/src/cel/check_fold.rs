//! Checking comprehensions and bindings.

use super::ast::{Expr, Fold, FoldKind};
use super::check::{Checked, Checker, Local, held};
use super::cost::{Estimate, Range};
use super::program::{Code, FoldCode};
use super::types::Type;

impl Checker<'_> {
    pub(crate) fn bind(&mut self, name: &str, value: &Expr, body: &Expr) -> Checked {
        let value = self.check(value);
        let estimate = Estimate { cost: Range::ZERO, ..value.estimate.clone() };
        let slot = self.push(Local { name: name.to_owned(), ty: value.ty, estimate });
        let body = self.check(body);
        self.scope.pop();
        // Upstream's binding is a comprehension over an empty list.
        let cost = value.estimate.cost.plus(body.estimate.cost).plus(Range::of(10));
        let code = Code::Bind { slot, value: Box::new(value.code), body: Box::new(body.code) };
        Checked::new(code, body.ty, Estimate { cost, ..body.estimate })
    }

    pub(crate) fn fold(&mut self, fold: &Fold) -> Checked {
        let range = self.check(&fold.range);
        let (first, second) = match &range.ty {
            Type::List(item) => (Type::Int, item.ty.clone()),
            Type::Map(key, value) => (key.ty.clone(), value.ty.clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let detail = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.issue(fold.range.at, detail);
            }
        };
        let slot = self.enter(fold, &range, first.clone(), second);
        let filter = fold.filter.as_ref().map(|f| self.check(f));
        let body = self.check(&fold.body);
        self.scope.truncate(slot);
        let two = fold.second.is_some();
        if let Some(filter) = filter.as_ref().filter(|f| !f.ty.fits(&Type::Bool)) {
            let at = fold.filter.as_ref().map_or(0, |f| f.at);
            let detail = format!(
                "found no matching overload for '_?_:_' applied to '({}, list(dyn), list(dyn))'",
                filter.ty
            );
            return self.issue(at, detail);
        }
        let ty = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne | FoldKind::Filter
                if !body.ty.fits(&Type::Bool) =>
            {
                let function = if fold.kind == FoldKind::Exists { "_||_" } else { "_&&_" };
                let detail =
                    format!("found no matching overload for '{function}' applied to '(bool, {})'", body.ty);
                return self.issue(fold.body.at, detail);
            }
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::Filter => match &range.ty {
                Type::Map(key, _) => Type::List(key.clone()),
                Type::List(item) => Type::List(item.clone()),
                _ => Type::list(Type::Dyn),
            },
            FoldKind::Map => Type::list(body.ty.clone()),
            FoldKind::TransformMap => Type::map(first, body.ty.clone()),
            FoldKind::TransformMapEntry => match &body.ty {
                Type::Map(key, value) => Type::Map(key.clone(), value.clone()),
                Type::Dyn => Type::map(Type::Dyn, Type::Dyn),
                other => {
                    let detail = format!("expected type 'map(dyn, dyn)' but found '{other}'");
                    return self.issue(fold.body.at, detail);
                }
            },
        };
        let estimate = estimate(fold.kind, &range.estimate, filter.as_ref(), &body);
        let code = FoldCode {
            kind: fold.kind,
            range: range.code,
            slot,
            two,
            filter: filter.map(|f| f.code),
            body: body.code,
        };
        Checked::new(Code::Fold(Box::new(code)), ty, estimate)
    }

    /// Brings the variables of a comprehension into scope; gives the slot of the first.
    fn enter(&mut self, fold: &Fold, range: &Checked, key: Type, value: Type) -> usize {
        let declared = range.estimate.decl.as_ref().and_then(|d| held(&d.ty));
        let (key_size, value_size) = range.estimate.entry.unzip();
        let value_estimate = Estimate {
            size: value_size,
            decl: declared.map(|(value, _)| value.clone()),
            ..Estimate::default()
        };
        let key_estimate = Estimate {
            size: key_size,
            decl: declared.and_then(|(_, key)| key.cloned()),
            ..Estimate::default()
        };
        let list = !matches!(range.ty, Type::Map(..));
        let local = |name: &str, ty: Type, estimate: Estimate| Local {
            name: name.to_owned(),
            estimate: prefer_declared(estimate).settled(&ty),
            ty,
        };
        match &fold.second {
            Some(second) => {
                let slot = self.push(local(&fold.first, key, key_estimate));
                self.push(local(second, value, value_estimate));
                slot
            }
            None if list => self.push(local(&fold.first, value, value_estimate)),
            None => self.push(local(&fold.first, key, key_estimate)),
        }
    }
}

/// A declared bound goes before one that was worked out.
fn prefer_declared(mut estimate: Estimate) -> Estimate {
    if estimate.decl.as_ref().is_some_and(|d| d.max != u64::MAX) {
        estimate.size = None;
    }
    estimate
}

fn estimate(kind: FoldKind, range: &Estimate, filter: Option<&Checked>, body: &Checked) -> Estimate {
    let cost = body.estimate.cost;
    let count = range.size_or_unknown();
    // Each kind's loop as upstream's general comprehension spells it: condition, step, start and result.
    let kept = |made: Range| match filter {
        Some(filter) => filter.estimate.cost.plus(made.union(Range::ONE)),
        None => made,
    };
    let shorted = |before: u64| Range { min: before, max: cost.max.saturating_add(before) };
    let (start, step) = match kind {
        FoldKind::All => (0, Range::of(2).plus(shorted(1))),
        FoldKind::Exists => (0, Range::of(3).plus(shorted(1))),
        FoldKind::ExistsOne => (1, cost.plus(Range { min: 1, max: 2 })),
        FoldKind::Map => (10, kept(cost.plus(Range::of(12)))),
        FoldKind::Filter => (10, cost.plus(Range { min: 1, max: 13 })),
        FoldKind::TransformMap => (30, kept(cost.plus(Range::of(3)))),
        FoldKind::TransformMapEntry => (30, kept(cost.plus(Range::of(2)))),
    };
    let total = range.cost.plus(Range::of(start + 1)).plus(count.times(step));
    let quantifier = matches!(kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne);
    let item = match kind {
        FoldKind::Map => Some(body.estimate.size_or_unknown()),
        FoldKind::Filter => range.entry.map(|(_, v)| v),
        _ => None,
    };
    Estimate {
        cost: total,
        size: if quantifier { Some(Range::ONE) } else { Some(count) },
        entry: item.map(|v| (Range::ONE, Range { min: 0, max: v.max })),
        decl: None,
    }
}
