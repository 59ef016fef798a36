//! What device classes and claims have in common: selectors and opaque parameters of drivers.

use crate::ErrorList;
use crate::api::kit::names::subdomain;
use crate::api::kit::{ErrorSink, Path, get, list, sub, text};
use crate::cel::{DEVICE_COST_MAX, DeviceSelector};
use serde_json::Value;
use std::collections::BTreeSet;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
const DRIVER_BYTES_MAX: usize = 63;
/// How many configurations a class or claim may have.
pub(super) const CONFIG_MAX: usize = 32;

/// Validates the name of a driver.
pub(super) fn validate_driver(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > DRIVER_BYTES_MAX {
        errors.too_long(path, DRIVER_BYTES_MAX);
    }
    for problem in subdomain(&name.to_lowercase()) {
        errors.invalid(path, name, &problem);
    }
}

/// Validates `selectors`: their expressions compile, and cost no more than they may.
pub(super) fn validate_selectors(owner: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("selectors");
    let selectors = list(owner, "selectors");
    if selectors.len() > SELECTORS_MAX {
        errors.too_many(&at, selectors.len(), SELECTORS_MAX);
    }
    for (i, selector) in selectors.iter().enumerate() {
        let item = at.index(i);
        let cel = item.child("cel");
        match get(selector, "cel") {
            None => errors.required(&cel, ""),
            Some(expression) => {
                validate_expression(text(expression, "expression"), &cel.child("expression"), errors);
            }
        }
    }
}

fn validate_expression(expression: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if expression.len() > EXPRESSION_BYTES_MAX {
        errors.too_long(path, EXPRESSION_BYTES_MAX);
        return;
    }
    if expression.is_empty() {
        errors.required(path, "");
        return;
    }
    match DeviceSelector::compile(expression) {
        Err(why) => errors.invalid(path, expression, &format!("compilation failed: {why}")),
        Ok(selector) if selector.cost().max > DEVICE_COST_MAX => {
            errors.forbidden(path, "too complex, exceeds cost limit");
        }
        Ok(_) => {}
    }
}

/// Validates one configuration: the parameters of a driver, which only that reads.
pub(super) fn validate_configuration(config: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("opaque");
    let Some(opaque) = get(config, "opaque") else {
        errors.required(&at, "");
        return;
    };
    validate_driver(text(opaque, "driver"), &at.child("driver"), errors);
    let parameters = sub(opaque, "parameters");
    let at_parameters = at.child("parameters");
    match parameters {
        Value::Null => errors.required(&at_parameters, ""),
        Value::Object(_) => {
            if parameters.to_string().len() > PARAMETERS_BYTES_MAX {
                errors.too_long(&at_parameters, PARAMETERS_BYTES_MAX);
            }
        }
        other => errors.invalid(&at_parameters, other.clone(), "parameters must be a valid JSON object"),
    }
}

/// Bounds a list, and refuses items whose key comes twice.
pub(super) fn validate_set<'a>(
    items: &'a [Value],
    most: usize,
    key: impl Fn(&'a Value) -> &'a str,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    if items.len() > most {
        errors.too_many(path, items.len(), most);
    }
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = key(item);
        if !seen.insert(key) {
            errors.duplicate(&path.index(i), key);
        }
    }
}
