//! The macros: calls that the parser turns into other expressions.

use super::Issue;
use super::ast::{Expr, Fold, FoldKind, Kind};

/// A call without a receiver.
pub(crate) fn global(at: usize, name: &str, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    if name == "has" && args.len() == 1 {
        return match args.remove(0) {
            Expr { at, kind: Kind::Select { operand, field, test: false, optional: false } } => {
                Ok(Expr::new(at, Kind::Select { operand, field, test: true, optional: false }))
            }
            other => Err(Issue::new(other.at, "invalid argument to has() macro".to_owned())),
        };
    }
    Ok(Expr::call(at, name, args))
}

/// A call with a receiver.
pub(crate) fn method(at: usize, target: Expr, name: &str, args: Vec<Expr>) -> Result<Expr, Issue> {
    let two = |kind: FoldKind| (kind, true);
    let one = |kind: FoldKind| (kind, false);
    let shape = match (name, args.len()) {
        ("bind", 3) if target.as_name() == Some("cel") => return bind(at, args),
        ("optMap" | "optFlatMap", 2) => return optional(at, target, name, args),
        ("all", 2) => one(FoldKind::All),
        ("exists", 2) => one(FoldKind::Exists),
        ("exists_one" | "existsOne", 2) => one(FoldKind::ExistsOne),
        ("map", 2 | 3) => one(FoldKind::Map),
        ("filter", 2) => one(FoldKind::Filter),
        ("all", 3) => two(FoldKind::All),
        ("exists", 3) => two(FoldKind::Exists),
        ("exists_one" | "existsOne", 3) => two(FoldKind::ExistsOne),
        ("transformList", 3 | 4) => two(FoldKind::Map),
        ("transformMap", 3 | 4) => two(FoldKind::TransformMap),
        ("transformMapEntry", 3 | 4) => two(FoldKind::TransformMapEntry),
        _ => return Ok(Expr::method(at, target, name, args)),
    };
    fold(at, target, shape, args)
}

fn variable(expr: &Expr) -> Result<String, Issue> {
    match expr.as_name() {
        Some("__result__" | "@result") | None => {
            Err(Issue::new(expr.at, "argument must be a simple name".to_owned()))
        }
        Some(name) => Ok(name.to_owned()),
    }
}

fn fold(at: usize, range: Expr, shape: (FoldKind, bool), args: Vec<Expr>) -> Result<Expr, Issue> {
    let (kind, two) = shape;
    let mut args = args.into_iter();
    let mut next = || args.next().ok_or_else(|| Issue::new(at, "a macro lacks an argument".to_owned()));
    let first = variable(&next()?)?;
    let second = if two { Some(variable(&next()?)?) } else { None };
    if second.as_ref() == Some(&first) {
        return Err(Issue::new(at, format!("duplicate variable name: {first}")));
    }
    let third = next()?;
    let (filter, body) = match args.next() {
        Some(body) => (Some(third), body),
        None => (None, third),
    };
    Ok(Expr::new(at, Kind::Fold(Box::new(Fold { kind, range, first, second, filter, body }))))
}

fn bind(at: usize, args: Vec<Expr>) -> Result<Expr, Issue> {
    let mut args = args.into_iter();
    let (Some(name), Some(value), Some(body)) = (args.next(), args.next(), args.next()) else {
        return Err(Issue::new(at, "a macro lacks an argument".to_owned()));
    };
    let Some(name) = name.as_name().map(str::to_owned) else {
        return Err(Issue::new(name.at, "cel.bind() variable names must be simple identifiers".to_owned()));
    };
    Ok(Expr::new(at, Kind::Bind { name, value: Box::new(value), body: Box::new(body) }))
}

/// `target.optMap(x, e)`: `target` with `e` of its value, or none.
fn optional(at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Result<Expr, Issue> {
    const HELD: &str = "@target";
    let mut args = args.into_iter();
    let (Some(name), Some(body)) = (args.next(), args.next()) else {
        return Err(Issue::new(at, "a macro lacks an argument".to_owned()));
    };
    let Some(name) = name.as_name().map(str::to_owned) else {
        let detail = format!("{function}() variable name must be a simple identifier");
        return Err(Issue::new(name.at, detail));
    };
    let held = || Expr::new(at, Kind::Ident { name: HELD.to_owned(), rooted: false });
    let optional = |function: &str, args: Vec<Expr>| {
        let package = Expr::new(at, Kind::Ident { name: "optional".to_owned(), rooted: false });
        Expr::method(at, package, function, args)
    };
    let value = Expr::method(at, held(), "value", Vec::new());
    let mapped = Expr::new(at, Kind::Bind { name, value: Box::new(value), body: Box::new(body) });
    let mapped = if function == "optMap" { optional("of", vec![mapped]) } else { mapped };
    let has = Expr::method(at, held(), "hasValue", Vec::new());
    let choice = Expr::call(at, "_?_:_", vec![has, mapped, optional("none", Vec::new())]);
    Ok(Expr::new(at, Kind::Bind { name: HELD.to_owned(), value: Box::new(target), body: Box::new(choice) }))
}
