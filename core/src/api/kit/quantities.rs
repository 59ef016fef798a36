//! Amounts of resources in objects, compared exactly down to a billionth.

use super::{ErrorSink, Path};
use crate::ErrorList;
use serde_json::Value;

const NANO: i128 = 1_000_000_000;

/// An amount in billionths, saturating far above what a quantity may hold; `None` where the text is no quantity.
pub(crate) fn nanos(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    let digits: i128 = format!("{whole}{fraction}").parse().unwrap_or(i128::MAX);
    let places = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?).unwrap_or(i128::MAX);
    let scaled = digits.saturating_mul(NANO).saturating_mul(multiplier) / divisor.saturating_mul(places);
    Some(if negative { -scaled } else { scaled })
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (NANO * 1000, 1),
        "P" => (NANO * 1_000_000, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = 10_i128.checked_pow(power.unsigned_abs()).unwrap_or(i128::MAX);
            if power >= 0 { (ten, 1) } else { (1, ten) }
        }
    })
}

/// What the server's decoder says of a text that is no quantity.
pub(crate) const MALFORMED: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

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
        for bad in ["", "x", "1.2.3", "1Kb", ".", "-", "1e"] {
            check(json!(bad), None);
        }
        check(json!(null), None);
    }
}
