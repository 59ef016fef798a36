//! The functions that expressions can call: CEL's own, its extensions that Kubernetes takes, and Kubernetes' libraries.
//!
//! A library is a table of signatures with code and price; a new one is a file and a line in [`TABLES`].

mod authz;
mod convert;
mod format;
mod formatting;
mod lists;
mod net;
mod optional;
mod quantity;
pub(crate) mod regex;
mod semver;
mod sets;
mod strings;
pub(crate) mod time;
mod url;

pub(crate) use semver::parse as parse_semver;

use super::signature::Line;

pub(crate) const TABLES: &[&[Line]] = &[
    super::ops::TABLE,
    authz::TABLE,
    convert::TABLE,
    format::TABLE,
    lists::TABLE,
    net::TABLE,
    optional::TABLE,
    quantity::TABLE,
    regex::TABLE,
    semver::TABLE,
    sets::TABLE,
    strings::TABLE,
    time::TABLE,
    url::TABLE,
];
