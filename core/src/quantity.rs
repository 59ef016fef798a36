//! Upstream's fixed-point numbers with suffixes: `500m`, `1536Mi`, `12e6` (`k8s.io/apimachinery/pkg/api/resource`).
//!
//! A value is a 128-bit mantissa times a power of ten, never a float. Results beyond 38 digits are capped.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

/// The finest power of ten that parsing keeps.
const NANO: i32 = -9;

/// What is said of a text that has not the shape of a quantity.
pub(crate) const MALFORMED: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `12e6`.
    DecimalExponent,
    /// `12Mi`.
    BinarySI,
    /// `12M`.
    #[default]
    DecimalSI,
}

/// A number with a unit suffix. Equality and order are by amount, whatever the format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    /// The amount is `mantissa * 10^exponent`.
    exponent: i32,
    format: Format,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// The text has not the shape of a quantity.
    Format,
    /// The digits are no number.
    Numeric,
    /// The suffix is unknown.
    Suffix,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuantityError::Format => MALFORMED,
            QuantityError::Numeric => "unable to parse numeric part of quantity",
            QuantityError::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for QuantityError {}

/// The parts of a written quantity.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        None => return Err(QuantityError::Format),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.find(|c| !"eEinumkKMGTP".contains(c)).unwrap_or(suffix.len());
    let tail = &suffix[letters..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if tail.bytes().all(|b| b.is_ascii_digit()) {
        Ok(Parts { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
    } else {
        Err(QuantityError::Format)
    }
}

/// Base, exponent and format of a suffix.
fn interpret(suffix: &str) -> Option<(u8, i32, Format)> {
    const BINARY: &[(&str, i32)] = &[("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
    if let Some((_, e)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((10, *e, Format::DecimalSI));
    }
    if let Some((_, e)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some((2, *e, Format::BinarySI));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
    // Wider exponents than this are beyond any cap of ours.
    let exponent = i32::try_from(exponent.clamp(-1_000_000, 1_000_000)).ok()?;
    Some((10, exponent, Format::DecimalExponent))
}

const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Zero, written in decimal.
    pub const ZERO: Quantity = Quantity { mantissa: 0, exponent: 0, format: Format::DecimalSI };

    /// A whole number.
    pub const fn new(value: i64, format: Format) -> Self {
        Quantity { mantissa: value as i128, exponent: 0, format }
    }

    /// So many thousandths.
    pub const fn from_milli(value: i64, format: Format) -> Self {
        Quantity { mantissa: value as i128, exponent: -3, format }
    }

    /// Parses `500m`, `1.5Gi`, `12e6`. Finer than nano rounds away from zero; binary amounts are capped at 2^63-1.
    ///
    /// # Errors
    /// In upstream's words, when the text is no quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let parts = split(text)?;
        let (base, exponent, format) = interpret(parts.suffix).ok_or(QuantityError::Suffix)?;
        if parts.whole.is_empty() && parts.fraction.is_empty() {
            // `+`, `.`, `Ki`: upstream reads a missing number as 0, unless it has to do with more digits than 64 bits hold.
            let zeros = text.strip_prefix(['-', '+']).unwrap_or(text).starts_with('0');
            let short = if base == 10 { exponent >= NANO } else { exponent <= 40 };
            return if zeros || short {
                Ok(Quantity { format, ..Self::ZERO })
            } else {
                Err(QuantityError::Numeric)
            };
        }
        let mut mantissa: i128 = 0;
        let mut dropped = 0_i32;
        for digit in parts.whole.bytes().chain(parts.fraction.bytes()).map(|b| i128::from(b - b'0')) {
            match mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)).filter(|_| dropped == 0) {
                Some(m) => mantissa = m,
                None => dropped = dropped.saturating_add(1),
            }
        }
        let fraction = i32::try_from(parts.fraction.len()).unwrap_or(i32::MAX);
        let mut q = Quantity { mantissa, exponent: dropped.saturating_sub(fraction), format };
        if base == 10 {
            q.exponent = q.exponent.saturating_add(exponent);
        } else {
            q = q.binary(exponent);
        }
        q = q.rounded_up(NANO);
        if format == Format::BinarySI {
            q = q.binary_caps();
        }
        q.mantissa = if parts.negative { -q.mantissa } else { q.mantissa };
        Ok(q)
    }

    /// Times a power of two.
    fn binary(self, exponent: i32) -> Self {
        let (mut m, mut e) = (self.mantissa, self.exponent);
        for _ in 0..exponent {
            match m.checked_mul(2) {
                Some(doubled) => m = doubled,
                // Beyond 38 digits the last ones go; what is left is far above the cap or below nano.
                None => {
                    m = (m / 10).saturating_mul(2);
                    e = e.saturating_add(1);
                }
            }
        }
        Quantity { mantissa: m, exponent: e, ..self }
    }

    fn binary_caps(self) -> Self {
        let max = Quantity::new(i64::MAX, Format::BinarySI);
        if self > max {
            return max;
        }
        let below_one = self.mantissa > 0 && self < Quantity::new(1, Format::BinarySI);
        Quantity { format: if below_one { Format::DecimalSI } else { self.format }, ..self }
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether the amount is zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// The whole number, rounded away from zero, capped to 64 bits.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The number of thousandths, rounded away from zero, capped to 64 bits.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// The number of `10^exponent`, rounded away from zero, capped to 64 bits.
    pub fn scaled_value(&self, exponent: i32) -> i64 {
        let m = if self.exponent >= exponent {
            times_power(self.mantissa, self.exponent.saturating_sub(exponent))
        } else {
            self.rounded_up(exponent).mantissa
        };
        i64::try_from(m).unwrap_or(if m < 0 { i64::MIN } else { i64::MAX })
    }

    /// The number of billionths, capped to 128 bits.
    pub(crate) fn nanos(&self) -> i128 {
        times_power(self.rounded_up(NANO).mantissa, self.exponent.max(NANO).saturating_sub(NANO))
    }

    /// The nearest float.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10_f64.powi(self.exponent)
    }

    /// The same amount with nothing below `10^exponent`, rounded away from zero.
    #[must_use]
    pub fn rounded_up(self, exponent: i32) -> Self {
        if self.exponent >= exponent {
            return self;
        }
        let steps = exponent.saturating_sub(self.exponent);
        let Some(power) = power_of_ten(steps) else {
            return Quantity { mantissa: self.mantissa.signum(), exponent, ..self };
        };
        let (whole, rest) = (self.mantissa / power, self.mantissa % power);
        Quantity { mantissa: whole + rest.signum(), exponent, ..self }
    }

    /// The sum, in this format unless this is zero.
    fn plus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        let (a, b, exponent) = aligned(self, other);
        Quantity { mantissa: a.saturating_add(b), exponent, format }
    }

    /// Mantissa without trailing zeros, and its exponent.
    fn reduced(&self) -> (i128, i32) {
        let (mut m, mut e) = (self.mantissa, self.exponent);
        while m != 0 && m % 10 == 0 {
            m /= 10;
            e += 1;
        }
        (m, if m == 0 { 0 } else { e })
    }

    /// The whole amount for binary writing: only for whole amounts of 1024 and more.
    fn whole_binary(&self) -> Option<i128> {
        let limit = Quantity::new(1024, self.format);
        if self.format != Format::BinarySI || (*self < limit && *self > -limit) {
            return None;
        }
        let (m, e) = self.reduced();
        if e < 0 { None } else { m.checked_mul(power_of_ten(e)?) }
    }
}

fn power_of_ten(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

fn times_power(mantissa: i128, exponent: i32) -> i128 {
    match power_of_ten(exponent) {
        Some(power) => mantissa.saturating_mul(power),
        None if mantissa == 0 => 0,
        None if mantissa < 0 => i128::MIN,
        None => i128::MAX,
    }
}

/// Both mantissas at the finer exponent; where that overflows, at the coarser one, losing the finer digits.
fn aligned(a: Quantity, b: Quantity) -> (i128, i128, i32) {
    if a.exponent == b.exponent {
        return (a.mantissa, b.mantissa, a.exponent);
    }
    if a.exponent < b.exponent {
        let (b, a, e) = aligned(b, a);
        return (a, b, e);
    }
    let (m, e) = a.reduced();
    if m == 0 {
        return (0, b.mantissa, b.exponent);
    }
    let up = e.saturating_sub(b.exponent);
    match power_of_ten(up).and_then(|p| m.checked_mul(p)) {
        _ if up < 0 => (m, times_power(b.mantissa, -up), e),
        Some(m) => (m, b.mantissa, b.exponent),
        None => (a.mantissa, b.rounded_up(a.exponent).mantissa, a.exponent),
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs.is_ne() || self.mantissa == 0 {
            return signs;
        }
        let ((a, ea), (b, eb)) = (self.reduced(), other.reduced());
        if ea == eb {
            return a.cmp(&b);
        }
        // The place of the first digit decides, unless it is the same: then the digits are brought to one exponent, which fits.
        let place = |m: i128, e: i32| i64::from(e) + i64::from(m.unsigned_abs().ilog10());
        let by_place = place(a, ea).cmp(&place(b, eb));
        let magnitude = if by_place.is_ne() {
            by_place
        } else {
            let e = ea.min(eb);
            times_power(a, ea - e).abs().cmp(&times_power(b, eb - e).abs())
        };
        if a < 0 { magnitude.reverse() } else { magnitude }
    }
}

impl std::hash::Hash for Quantity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.reduced().hash(state);
    }
}

impl fmt::Display for Quantity {
    /// The canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        if let Some(mut whole) = self.whole_binary() {
            const SUFFIXES: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let mut step = 0;
            while whole % 1024 == 0 && step + 1 < SUFFIXES.len() {
                whole /= 1024;
                step += 1;
            }
            return write!(f, "{whole}{}", SUFFIXES[step]);
        }
        let (m, e) = self.reduced();
        let down = e.rem_euclid(3);
        let (m, e) = (times_power(m, down), e - down);
        match DECIMAL.iter().find(|(_, x)| *x == e) {
            Some((suffix, _)) if self.format != Format::DecimalExponent => write!(f, "{m}{suffix}"),
            _ if e == 0 => write!(f, "{m}"),
            _ => write!(f, "{m}e{e}"),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { mantissa: self.mantissa.saturating_neg(), ..self }
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        self.plus(other)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self.plus(-other)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = self.plus(other);
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = self.plus(-other);
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(items: I) -> Self {
        items.fold(Quantity::ZERO, Quantity::plus)
    }
}

impl TryFrom<&WireQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(wire: &WireQuantity) -> Result<Self, QuantityError> {
        Self::parse(wire.0.trim())
    }
}

impl From<Quantity> for WireQuantity {
    fn from(q: Quantity) -> Self {
        WireQuantity(q.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Null => "0".to_owned(),
            other => other.to_string(),
        };
        Self::parse(text.trim()).map_err(serde::de::Error::custom)
    }
}

/// A written quantity as upstream gives it back: the text itself where it is written well enough, else its canonical form.
///
/// # Errors
/// As [`Quantity::parse`].
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let q = Quantity::parse(text)?;
    let written = q.to_string();
    Ok(if written == text { Cow::Borrowed(text) } else { Cow::Owned(written) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        let check = |text: &str, want: &str| {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(want.to_owned()), "{text}");
        };
        for (text, want) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("0.5", "500m"),
            ("500m", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("100Ki", "100Ki"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("1E", "1E"),
            ("1000E", "1e21"),
            ("1.2345", "1234500u"),
            ("0.9n", "1n"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+3k", "3k"),
            ("8Ei", "9223372036854775807"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("1.1Ki", "1126400m"),
            (".5", "500m"),
            ("5.", "5"),
            ("0001000", "1k"),
            ("18446744073709551616", "18446744073709551616"),
            ("-", "0"),
            ("k", "0"),
            ("0Ei", "0"),
        ] {
            check(text, want);
        }
    }

    #[test]
    fn what_is_no_quantity() {
        let check = |text: &str, want: QuantityError| {
            assert_eq!(Quantity::parse(text), Err(want), "{text:?}");
        };
        check("", QuantityError::Format);
        check("1.2.3", QuantityError::Format);
        check("1 Gi", QuantityError::Format);
        check("0.5abc", QuantityError::Format);
        check("1Kii", QuantityError::Suffix);
        check("1e", QuantityError::Suffix);
        check("1K", QuantityError::Suffix);
        check("ten", QuantityError::Format);
        check("é", QuantityError::Format);
        check("Ei", QuantityError::Numeric);
        check("e-10", QuantityError::Numeric);
    }

    #[test]
    fn values_round_away_from_zero() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!((q("1.1").value(), q("-1.1").value(), q("1m").value()), (2, -2, 1));
        assert_eq!((q("1.5").milli_value(), q("1u").milli_value()), (1500, 1));
        assert_eq!((q("1e30").value(), q("-1e30").value()), (i64::MAX, i64::MIN));
        assert_eq!(q("1Gi").value(), 1 << 30);
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("-1") < q("1n") && q("1e40") > q("1e39"));
    }

    #[test]
    fn sums_keep_the_format_of_the_first() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("100m") - q("1")).to_string(), "-900m");
        assert_eq!((q("1Gi") - q("1Gi")), Quantity::ZERO);
    }

    proptest! {
        #[test]
        fn writing_and_parsing_keep_the_amount(m in any::<i64>(), e in -9_i32..12, binary in any::<bool>()) {
            let text = if binary { format!("{}Mi", m % 1_000_000) } else { format!("{m}e{e}") };
            let q = Quantity::parse(&text).unwrap();
            let again = Quantity::parse(&q.to_string()).unwrap();
            prop_assert_eq!(q, again);
            prop_assert_eq!(q.to_string(), again.to_string());
        }

        #[test]
        fn adding_and_taking_away_is_nothing(a in any::<i64>(), b in any::<i64>(), x in -9_i32..3, y in -9_i32..3) {
            let (a, b) = (Quantity::parse(&format!("{a}e{x}")).unwrap(), Quantity::parse(&format!("{b}e{y}")).unwrap());
            prop_assert_eq!(a + b - b, a);
            prop_assert_eq!(a + b, b + a);
            prop_assert_eq!(a.cmp(&b), (a - b).cmp(&Quantity::ZERO));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        }

        #[test]
        fn no_text_panics(text in "[0-9eEinumkKMGTP.+-]{0,50}") {
            if let Ok(q) = Quantity::parse(&text) {
                let _ = (q.to_string(), q.value(), q.milli_value(), q + q, q - Quantity::new(1, Format::BinarySI), q.as_f64());
            }
        }
    }
}
