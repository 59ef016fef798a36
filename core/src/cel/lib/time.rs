//! Moments and spans of time.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

pub(crate) const TABLE: &[Line] = &[
    ("timestamp(timestamp) timestamp", same, Price::One),
    ("timestamp(string) timestamp", timestamp, Price::One),
    ("timestamp(int) timestamp", timestamp, Price::One),
    ("duration(duration) duration", same, Price::One),
    ("duration(string) duration", duration, Price::One),
    ("duration(int) duration", duration, Price::One),
    ("timestamp::getFullYear() int", year, Price::One),
    ("timestamp::getFullYear(string) int", year, Price::One),
    ("timestamp::getMonth() int", month, Price::One),
    ("timestamp::getMonth(string) int", month, Price::One),
    ("timestamp::getDate() int", date, Price::One),
    ("timestamp::getDate(string) int", date, Price::One),
    ("timestamp::getDayOfMonth() int", day_of_month, Price::One),
    ("timestamp::getDayOfMonth(string) int", day_of_month, Price::One),
    ("timestamp::getDayOfWeek() int", day_of_week, Price::One),
    ("timestamp::getDayOfWeek(string) int", day_of_week, Price::One),
    ("timestamp::getDayOfYear() int", day_of_year, Price::One),
    ("timestamp::getDayOfYear(string) int", day_of_year, Price::One),
    ("timestamp::getHours() int", hours, Price::One),
    ("timestamp::getHours(string) int", hours, Price::One),
    ("timestamp::getMinutes() int", minutes, Price::One),
    ("timestamp::getMinutes(string) int", minutes, Price::One),
    ("timestamp::getSeconds() int", seconds, Price::One),
    ("timestamp::getSeconds(string) int", seconds, Price::One),
    ("timestamp::getMilliseconds() int", milliseconds, Price::One),
    ("timestamp::getMilliseconds(string) int", milliseconds, Price::One),
    ("duration::getHours() int", hours, Price::One),
    ("duration::getMinutes() int", minutes, Price::One),
    ("duration::getSeconds() int", seconds, Price::One),
    ("duration::getMilliseconds() int", milliseconds, Price::One),
];

/// `2024-01-02T03:04:05Z`, or the day alone.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        let day: jiff::civil::Date = text.parse().ok()?;
        return day.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp());
    }
    crate::meta::parse_time(text)
}

/// `1h30m`, `-1.5s`, `250ms`: Go's form.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (whole, fraction) = rest[..len].split_once('.').unwrap_or((&rest[..len], ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
            return None;
        }
        rest = &rest[len..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit: i128 = match &rest[..unit_len] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = &rest[unit_len..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.bytes().take(15) {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

pub(crate) fn timestamp_text(at: Timestamp) -> String {
    at.to_string()
}

/// Seconds, as protocol buffers write spans: `90s`, `1.5s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let (sign, all) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (whole, rest) = (all / 1_000_000_000, all % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{whole}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

/// A moment, moved by so many nanoseconds.
pub(crate) fn moved(at: Timestamp, nanos: i64) -> R<'static> {
    at.checked_add(SignedDuration::from_nanos(nanos))
        .map(Val::Timestamp)
        .map_err(|_| Fault::new("timestamp overflow"))
}

fn same<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    args.first().cloned().ok_or_else(Fault::no_overload)
}

fn timestamp<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Text(text)] => crate::meta::parse_time(text)
            .map(Val::Timestamp)
            .ok_or_else(|| Fault::new(format!("type conversion error from '{}' to timestamp", &**text))),
        [Val::Int(seconds)] => {
            Timestamp::from_second(*seconds).map(Val::Timestamp).map_err(|_| Fault::new("timestamp overflow"))
        }
        _ => Err(Fault::no_overload()),
    }
}

fn duration<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Text(text)] => parse_duration(text)
            .map(Val::Duration)
            .ok_or_else(|| Fault::new(format!("type conversion error from '{}' to duration", &**text))),
        [Val::Int(nanos)] => Ok(Val::Duration(*nanos)),
        _ => Err(Fault::no_overload()),
    }
}

fn zone(name: &str) -> Result<TimeZone, Fault> {
    if matches!(name, "UTC" | "Z" | "") {
        return Ok(TimeZone::UTC);
    }
    let (sign, rest) = match name.as_bytes().first() {
        Some(b'-') => (-1, &name[1..]),
        Some(b'+') => (1, &name[1..]),
        _ => (1, name),
    };
    let offset = rest.split_once(':').and_then(|(h, m)| {
        let (hours, minutes): (u8, u8) = (h.parse().ok()?, m.parse().ok()?);
        Offset::from_seconds(sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60)).ok()
    });
    offset.map(TimeZone::fixed).ok_or_else(|| Fault::new(format!("unknown time zone {name}")))
}

fn at<'a>(args: &[Val<'a>]) -> Result<DateTime, Fault> {
    match args {
        [Val::Timestamp(at)] => Ok(TimeZone::UTC.to_datetime(*at)),
        [Val::Timestamp(at), Val::Text(name)] => Ok(zone(name)?.to_datetime(*at)),
        _ => Err(Fault::no_overload()),
    }
}

fn int<'a>(value: impl Into<i64>) -> R<'a> {
    Ok(Val::Int(value.into()))
}

fn year<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(at(args)?.year())
}

fn month<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(at(args)?.month() - 1)
}

fn date<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(at(args)?.day())
}

fn day_of_month<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(at(args)?.day() - 1)
}

fn day_of_week<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(at(args)?.weekday().to_sunday_zero_offset())
}

fn day_of_year<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    int(at(args)?.day_of_year() - 1)
}

fn hours<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Duration(nanos)] => int(nanos / 3_600_000_000_000),
        _ => int(at(args)?.hour()),
    }
}

fn minutes<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Duration(nanos)] => int(nanos / 60_000_000_000),
        _ => int(at(args)?.minute()),
    }
}

fn seconds<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Duration(nanos)] => int(nanos / 1_000_000_000),
        _ => int(at(args)?.second()),
    }
}

fn milliseconds<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    match args {
        [Val::Duration(nanos)] => int((nanos / 1_000_000) % 1_000),
        _ => int(at(args)?.millisecond()),
    }
}
