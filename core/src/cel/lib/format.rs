//! Named formats.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::Opaque;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::strings::text;
use crate::meta;

pub(crate) const TABLE: &[Line] = &[
    ("format.named(string) optional<Format>", named, Price::One),
    ("format.dns1123Label() Format", |_, _| known("dns1123Label"), Price::One),
    ("format.dns1123Subdomain() Format", |_, _| known("dns1123Subdomain"), Price::One),
    ("format.dns1035Label() Format", |_, _| known("dns1035Label"), Price::One),
    ("format.qualifiedName() Format", |_, _| known("qualifiedName"), Price::One),
    ("format.dns1123LabelPrefix() Format", |_, _| known("dns1123LabelPrefix"), Price::One),
    ("format.dns1123SubdomainPrefix() Format", |_, _| known("dns1123SubdomainPrefix"), Price::One),
    ("format.dns1035LabelPrefix() Format", |_, _| known("dns1035LabelPrefix"), Price::One),
    ("format.labelValue() Format", |_, _| known("labelValue"), Price::One),
    ("format.uri() Format", |_, _| known("uri"), Price::One),
    ("format.uuid() Format", |_, _| known("uuid"), Price::One),
    ("format.byte() Format", |_, _| known("byte"), Price::One),
    ("format.date() Format", |_, _| known("date"), Price::One),
    ("format.datetime() Format", |_, _| known("datetime"), Price::One),
    ("Format::validate(string) optional<list<string>>", validate, Price::ScanSecond),
];

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

fn known<'a>(name: &'static str) -> R<'a> {
    Ok(Val::opaque(Opaque::Format(name)))
}

fn named<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let wanted = text(args, 0)?;
    let found = NAMES.iter().find(|n| **n == wanted);
    Ok(Val::Optional(found.map(|name| Val::opaque(Opaque::Format(name)).into())))
}

fn problems(format: &str, text: &str) -> Vec<String> {
    // A prefix is judged with something behind it.
    let whole = || format!("{text}a");
    match format {
        "dns1123Label" => meta::validate_dns1123_label(text),
        "dns1123LabelPrefix" => meta::validate_dns1123_label(&whole()),
        "dns1123Subdomain" => meta::validate_dns1123_subdomain(text),
        "dns1123SubdomainPrefix" => meta::validate_dns1123_subdomain(&whole()),
        "dns1035Label" => meta::validate_dns1035_label(text),
        "dns1035LabelPrefix" => meta::validate_dns1035_label(&whole()),
        "qualifiedName" => meta::validate_qualified_name(text),
        "labelValue" => meta::validate_label_value(text),
        other => {
            let accepted = crate::schema::accepts_format(other, text);
            if accepted { Vec::new() } else { vec![format!("invalid {other}")] }
        }
    }
}

fn validate<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let Some(Val::Opaque(opaque)) = args.first() else { return Err(Fault::no_overload()) };
    let Opaque::Format(format) = &**opaque else { return Err(Fault::no_overload()) };
    let found = problems(format, text(args, 1)?);
    if found.is_empty() {
        return Ok(Val::Optional(None));
    }
    Ok(Val::some(Val::list(found.into_iter().map(Val::text).collect())))
}
