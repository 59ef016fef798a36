//! Amounts of resources in objects, compared exactly down to a billionth.

use super::{ErrorSink, Path};
use crate::ErrorList;
pub(crate) use crate::quantity::MALFORMED;
use crate::quantity::Quantity;
use serde_json::Value;

/// An amount in billionths, capped far above what a quantity may hold; `None` where the value is no quantity.
pub(crate) fn nanos(value: &Value) -> Option<i128> {
    let quantity = match value {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => return None,
    };
    quantity.ok().map(|q| q.nanos())
}

/// Validates that an amount is one and not negative.
pub(crate) fn validate_non_negative(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match nanos(value) {
        None => errors.invalid(path, value.clone(), MALFORMED),
        Some(n) if n < 0 => errors.invalid(path, value.clone(), super::meta::NEGATIVE),
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NANO: i128 = 1_000_000_000;

    #[test]
    fn amounts_are_read_exactly() {
        let check = |value: Value, wanted: Option<i128>| assert_eq!(nanos(&value), wanted, "{value}");
        check(json!("1"), Some(NANO));
        check(json!(2), Some(2 * NANO));
        check(json!("100m"), Some(NANO / 10));
        check(json!("1.5Gi"), Some(3 * (NANO << 29)));
        check(json!("-1k"), Some(-1000 * NANO));
        check(json!("1e3"), Some(1000 * NANO));
        check(json!("1E"), Some(NANO * NANO * NANO));
        check(json!("1n"), Some(1));
        // Upstream reads a number without digits as none.
        check(json!("."), Some(0));
        check(json!("-"), Some(0));
        for bad in ["", "x", "1.2.3", "1Kb", "1e"] {
            check(json!(bad), None);
        }
        check(json!(null), None);
    }
}
