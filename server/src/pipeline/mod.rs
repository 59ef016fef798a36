//! The one way of every write: decode, check, default, admit, validate, commit.

mod commit;
mod decode;
mod managed;
mod rules;

pub(crate) use commit::{Claim, Outcome, commit, keep, replace, writable};
pub(crate) use decode::{applied, check_size, document, object, strictness};
pub(crate) use managed::{apply, track};
pub(crate) use rules::{admission_request, admit, admit_validate, default, validate_create, validate_update};
