//! The rules of an object's own name; the rest of metadata is the same for every kind and checked by `crate::meta`.

use super::access::{sub, text};
use super::names::NameRule;
use super::{ErrorSink, Path};
use crate::ErrorList;
use serde_json::Value;

/// Validates `metadata.name` where it is set.
pub(crate) fn validate_name(object: &Value, rule: NameRule, errors: &mut ErrorList) {
    let name = text(sub(object, "metadata"), "name");
    if name.is_empty() {
        return;
    }
    for problem in rule.problems(name) {
        errors.invalid(&Path::Root.child("metadata").child("name"), name, &problem);
    }
}

/// Records that a field changed that may not.
pub(crate) fn immutable(new: &Value, old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if !super::same(new, old) {
        errors.invalid(path, new.clone(), IMMUTABLE);
    }
}

/// What upstream says of a field that may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// What upstream says of a negative number.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";

/// Validates that a number, where set, is not negative.
pub(crate) fn non_negative(owner: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(number) = super::int(owner, field).filter(|n| *n < 0) {
        errors.invalid(&path.child(field), number, NEGATIVE);
    }
}
