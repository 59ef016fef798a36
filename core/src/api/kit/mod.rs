//! What the kinds share: paths that cost nothing until an error occurs, look-ups in JSON, name rules, columns, descriptors.

pub(crate) mod access;
pub(crate) mod checks;
pub(crate) mod columns;
pub(crate) mod describe;
pub(crate) mod duration;
pub(crate) mod errors;
pub(crate) mod meta;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod path;
pub(crate) mod quantities;
pub(crate) mod resource_names;
pub(crate) mod selectors;

pub(crate) use access::*;
pub(crate) use columns::{column, computed, name_column};
pub(crate) use describe::{describe, field_at, names};
pub(crate) use errors::ErrorSink;
pub(crate) use path::Path;
