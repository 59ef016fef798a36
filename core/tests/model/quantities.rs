//! Quantities against whole numbers of billionths.

use super::check;
use kubewright_core::Quantity;
use proptest::prelude::*;

const NANO: i128 = 1_000_000_000;

/// A written quantity with the exact amount, in billionths rounded away from zero.
#[derive(Clone, Debug)]
struct Written {
    text: String,
    nanos: i128,
    binary: bool,
    exponent: bool,
}

/// Times ten to a power, what is lost rounded away from zero.
fn scaled(n: i128, power: i32) -> Option<i128> {
    if power >= 0 {
        return n.checked_mul(10_i128.checked_pow(power.unsigned_abs())?);
    }
    let by = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(n / by + (n % by).signum())
}

fn written() -> impl Strategy<Value = Written> {
    let decimal = prop::sample::select(vec![
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
    ]);
    let binary = prop::sample::select(vec![("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)]);
    let suffix = prop_oneof![
        3 => decimal.prop_map(|(s, e)| (s.to_owned(), e, 0u32, false)),
        2 => binary.prop_map(|(s, two)| (s.to_owned(), 0, two, false)),
        2 => (-9i32..12, "[eE]").prop_map(|(e, letter)| (format!("{letter}{e}"), e, 0, true)),
    ];
    let digits = prop_oneof![0u64..10, 0u64..3000, 0u64..1_000_000_000];
    let sign = prop::sample::select(vec!["", "", "", "-", "+"]);
    (sign, digits, prop::option::of("[0-9]{0,6}"), suffix).prop_filter_map(
        "too large",
        |(sign, whole, fraction, suffix)| {
            let (suffix, ten, two, exponent) = suffix;
            let point = fraction.as_ref().map(|f| format!(".{f}")).unwrap_or_default();
            let text = format!("{sign}{whole}{point}{suffix}");
            let fraction = fraction.unwrap_or_default();
            let all: i128 = format!("{whole}{fraction}").parse().ok()?;
            let signed = if sign == "-" { -all } else { all };
            let powered = signed.checked_mul(1_i128.checked_shl(two)?)?;
            let nanos = scaled(powered, 9 + ten - i32::try_from(fraction.len()).ok()?)?;
            // Binary amounts end at what 64 bits hold; that edge has cases of its own.
            let fits = nanos.abs() < i128::from(i64::MAX) * NANO;
            fits.then_some(Written { text, nanos, binary: two > 0, exponent })
        },
    )
}

/// The canonical text: the largest suffix that leaves a whole number.
fn canonical(w: &Written) -> String {
    let n = w.nanos;
    if n == 0 {
        return "0".to_owned();
    }
    if w.binary && n.abs() >= 1024 * NANO && n % NANO == 0 {
        let (mut m, mut step) = (n / NANO, 0);
        while step < 6 && m % 1024 == 0 {
            (m, step) = (m / 1024, step + 1);
        }
        return format!("{m}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
    }
    let (mut m, mut step) = (n, 0);
    while step < 9 && m % 1000 == 0 {
        (m, step) = (m / 1000, step + 1);
    }
    if w.exponent {
        let e = 3 * step as i32 - 9;
        return if e == 0 { m.to_string() } else { format!("{m}e{e}") };
    }
    format!("{m}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][step])
}

fn rounded_up(n: i128, unit: i128) -> i128 {
    n / unit + (n % unit).signum()
}

fn capped(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

#[test]
fn amounts_are_exact() {
    check(3_000, written(), |w| {
        let q = Quantity::parse(&w.text);
        prop_assert!(q.is_ok(), "{}: {:?}", w.text, q);
        let q = q.unwrap();
        prop_assert_eq!(q.to_string(), canonical(&w), "{}", w.text);
        prop_assert_eq!(q.value(), capped(rounded_up(w.nanos, NANO)), "{}", w.text);
        prop_assert_eq!(q.milli_value(), capped(rounded_up(w.nanos, NANO / 1000)), "{}", w.text);
        prop_assert_eq!((q.is_zero(), q.signum()), (w.nanos == 0, w.nanos.signum() as i32));
        let again = Quantity::parse(&q.to_string()).unwrap();
        prop_assert_eq!((again, again.to_string()), (q, q.to_string()));
        Ok(())
    });
}

#[test]
fn sums_and_order_are_exact() {
    check(3_000, (written(), written()), |(a, b)| {
        let (p, q) = (Quantity::parse(&a.text).unwrap(), Quantity::parse(&b.text).unwrap());
        prop_assert_eq!(p.cmp(&q), a.nanos.cmp(&b.nanos), "{} and {}", a.text, b.text);
        prop_assert_eq!((p + q).cmp(&p), (a.nanos + b.nanos).cmp(&a.nanos));
        let like = if a.nanos == 0 { &b } else { &a };
        for (got, nanos) in [(p + q, a.nanos + b.nanos), (p - q, a.nanos - b.nanos)] {
            prop_assert_eq!(
                got.to_string(),
                canonical(&Written { nanos, ..like.clone() }),
                "{} and {}",
                a.text,
                b.text
            );
        }
        Ok(())
    });
}

/// Texts that are nearly quantities, against the pattern by which they are told; a number that is left out is 0.
#[test]
fn what_is_a_quantity() {
    let whole = regex::Regex::new(
        r"\A[+-]?([0-9]*)(\.[0-9]*)?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,6})?\z",
    )
    .unwrap();
    let text = "[+-]{0,1}[0-9]{0,2}[.]{0,1}[0-9]{0,2}([eEinumkKMGTP]{0,2}|[eE][+-]{0,1}[0-9]{0,2})";
    check(3_000, text, |text| {
        let found = whole.captures(&text);
        let part = |n: usize| found.as_ref().and_then(|c| c.get(n)).map_or("", |m| m.as_str());
        let exponent = part(3).strip_prefix(['e', 'E']).and_then(|e| e.parse::<i64>().ok());
        // Of what is that small or that large upstream does not read an empty number.
        let odd = matches!(part(3), "Pi" | "Ei") || exponent.is_some_and(|e| e < -9);
        let empty = part(1).is_empty() && matches!(part(2), "" | ".");
        let want = found.is_some() && !text.is_empty() && !(empty && odd);
        prop_assert_eq!(Quantity::parse(&text).is_ok(), want, "{:?}", text);
        Ok(())
    });
}
