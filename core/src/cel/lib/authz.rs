//! Asking the authorizer.

use super::super::authz::{Answer, Check, Stage};
use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::Opaque;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::strings::text;

/// What a check costs: two fit into an expression.
const CHECK: Price = Price::Fixed(350_000);

pub(crate) const TABLE: &[Line] = &[
    ("Authorizer::path(string) PathCheck", path, Price::One),
    ("Authorizer::group(string) GroupCheck", group, Price::One),
    ("Authorizer::serviceAccount(string, string) Authorizer", service_account, Price::One),
    ("GroupCheck::resource(string) ResourceCheck", resource, Price::One),
    ("ResourceCheck::subresource(string) ResourceCheck", subresource, Price::One),
    ("ResourceCheck::namespace(string) ResourceCheck", namespace, Price::One),
    ("ResourceCheck::name(string) ResourceCheck", name, Price::One),
    ("ResourceCheck::fieldSelector(string) ResourceCheck", field_selector, Price::One),
    ("ResourceCheck::labelSelector(string) ResourceCheck", label_selector, Price::One),
    ("PathCheck::check(string) Decision", check, CHECK),
    ("ResourceCheck::check(string) Decision", check, CHECK),
    ("Decision::allowed() bool", allowed, Price::One),
    ("Decision::reason() string", reason, Price::One),
    ("Decision::error() string", error, Price::One),
    ("Decision::errored() bool", errored, Price::One),
];

fn own<'v>(args: &'v [Val<'_>]) -> Result<&'v Check, Fault> {
    match args.first() {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Check(check) => Ok(check),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn with<'a>(args: &[Val<'a>], change: fn(&mut Check, String)) -> R<'a> {
    let mut check = own(args)?.clone();
    change(&mut check, text(args, 1)?.to_owned());
    Ok(Val::opaque(Opaque::Check(Box::new(check))))
}

fn path<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    if text(args, 1)?.trim().is_empty() {
        return Err(Fault::new("path must not be empty"));
    }
    with(args, |check, text| {
        check.stage = Stage::Path;
        check.path = text;
    })
}

fn group<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    with(args, |check, text| {
        check.stage = Stage::Group;
        check.group = text;
    })
}

fn service_account<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    if !crate::meta::is_dns1123_subdomain(name) {
        return Err(Fault::new("Invalid service account name"));
    }
    if !crate::meta::is_dns1123_label(namespace) {
        return Err(Fault::new("Invalid service account namespace"));
    }
    let check =
        Check { service_account: Some((namespace.to_owned(), name.to_owned())), ..own(args)?.clone() };
    Ok(Val::opaque(Opaque::Check(Box::new(check))))
}

fn resource<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    if text(args, 1)?.trim().is_empty() {
        return Err(Fault::new("resource must not be empty"));
    }
    with(args, |check, text| {
        check.stage = Stage::Resource;
        check.resource = text;
    })
}

fn subresource<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    with(args, |check, text| check.subresource = text)
}

fn namespace<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    with(args, |check, text| check.namespace = text)
}

fn name<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    with(args, |check, text| check.name = text)
}

fn field_selector<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    with(args, |check, text| check.field_selector = text)
}

fn label_selector<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    with(args, |check, text| check.label_selector = text)
}

fn check<'a>(run: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let check = Check { verb: text(args, 1)?.to_owned(), ..own(args)?.clone() };
    let Some(authorizer) = run.authorizer() else { return Err(Fault::new("there is no authorizer")) };
    match authorizer.answer(&check) {
        Some(answer) => Ok(Val::opaque(Opaque::Answer(Box::new(answer)))),
        None => Err(Fault::pending(check)),
    }
}

fn answer<'v>(args: &'v [Val<'_>]) -> Result<&'v Answer, Fault> {
    match args.first() {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Answer(answer) => Ok(answer),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn allowed<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    answer(args).map(|a| Val::Bool(a.allowed))
}

fn reason<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    answer(args).map(|a| Val::text(a.reason.as_str()))
}

fn error<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    answer(args).map(|a| Val::text(a.error.as_deref().unwrap_or("")))
}

fn errored<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    answer(args).map(|a| Val::Bool(a.error.is_some()))
}
