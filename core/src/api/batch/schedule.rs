//! The schedule of a CronJob: five fields of minutes, hours, days, months and weekdays, or a word for a usual one.
//!
//! What is taken, and what is said of the rest, is that of upstream's cron library.

/// The names of months and weekdays, each at its number.
const MONTHS: [&str; 13] =
    ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When a CronJob is due. Each set has a bit for each number that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that all five sets hold.
    Calendar {
        /// Minutes of an hour, 0 to 59.
        minutes: u64,
        /// Hours of a day, 0 to 23.
        hours: u64,
        /// Days of a month, 1 to 31.
        days: u64,
        /// Whether the days were written as all of them; a day is due by either of days and weekdays where neither was.
        any_day: bool,
        /// Months of a year, 1 to 12.
        months: u64,
        /// Days of a week, 0 (Sunday) to 6.
        weekdays: u64,
        /// Whether the weekdays were written as all of them.
        any_weekday: bool,
    },
    /// Again and again after so many seconds, at least one.
    Every {
        /// The seconds between two times.
        seconds: u64,
    },
}

struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTH: Bounds = Bounds { min: 1, max: 12, names: &MONTHS };
const WEEKDAY: Bounds = Bounds { min: 0, max: 6, names: &WEEKDAYS };

impl Schedule {
    /// Reads a schedule. A time zone before it (`TZ=Asia/Tokyo `) is passed over.
    ///
    /// # Errors
    /// What is wrong with it, in the words of upstream's cron library.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let text = if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            text.split_once(' ').map_or("", |(_, rest)| rest).trim()
        } else {
            text
        };
        if text.starts_with('@') {
            return described(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let (minutes, _) = set(minutes, &MINUTES)?;
        let (hours, _) = set(hours, &HOURS)?;
        let (days, any_day) = set(days, &DAYS)?;
        let (months, _) = set(months, &MONTH)?;
        let (weekdays, any_weekday) = set(weekdays, &WEEKDAY)?;
        Ok(Schedule::Calendar { minutes, hours, days, any_day, months, weekdays, any_weekday })
    }
}

fn described(text: &str) -> Result<Schedule, String> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            return match text.strip_prefix("@every ") {
                Some(duration) => match go_duration(duration) {
                    Ok(seconds) => Ok(Schedule::Every { seconds: seconds.max(1) }),
                    Err(why) => Err(format!("failed to parse duration {text}: {why}")),
                },
                None => Err(format!("unrecognized descriptor: {text}")),
            };
        }
    };
    Schedule::parse(fields)
}

/// The numbers of a field, and whether it stands for all.
fn set(field: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let (some, all) = range(part, bounds)?;
        bits |= some;
        any |= all;
    }
    Ok((bits, any))
}

/// One part of a field: `*`, `3`, `1-5`, `*/10`, `0-30/5`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let mut parts = text.split('/');
    let span = parts.next().unwrap_or("");
    let (step_text, more) = (parts.next(), parts.next());
    let mut ends = span.split('-');
    let (low, high, rest) = (ends.next().unwrap_or(""), ends.next(), ends.next());
    let mut any = matches!(low, "*" | "?");
    let (start, mut end) = if any {
        (bounds.min, bounds.max)
    } else {
        let start = number_or_name(low, bounds)?;
        match high {
            None => (start, start),
            Some(_) if rest.is_some() => return Err(format!("too many hyphens: {text}")),
            Some(high) => (start, number_or_name(high, bounds)?),
        }
    };
    let step = match step_text {
        None => 1,
        Some(_) if more.is_some() => return Err(format!("too many slashes: {text}")),
        Some(step_text) => {
            let step = number(step_text)?;
            // `7/10` runs from 7 to the end.
            if high.is_none() {
                end = bounds.max;
            }
            if step > 1 {
                any = false;
            }
            step
        }
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok(((start..=end).step_by(step).fold(0, |bits, n| bits | 1 << n), any))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| !name.is_empty() && *name == lower) {
        Some(at) => Ok(at as u64),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Ok(n) => u64::try_from(n).map_err(|_| format!("negative number ({n}) not allowed: {text}")),
        Err(e) => {
            let why = match e.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    "value out of range"
                }
                _ => "invalid syntax",
            };
            Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"))
        }
    }
}

/// A duration as Go writes it (`1h30m`), in whole seconds.
fn go_duration(text: &str) -> Result<u64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let amount: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += amount * unit;
        rest = &rest[letters..];
    }
    // Below the range of Go's durations, so it fits.
    if total > 9_223_372_036.0 {
        Err(invalid())
    } else {
        Ok(if text.starts_with('-') { 0 } else { total as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read() {
        let check = |text: &str, wanted: Schedule| assert_eq!(Schedule::parse(text), Ok(wanted), "{text}");
        let bits = |numbers: &[u64]| numbers.iter().fold(0_u64, |b, n| b | 1 << n);
        let all = Schedule::Calendar {
            minutes: (1 << 60) - 1,
            hours: (1 << 24) - 1,
            days: ((1 << 32) - 1) & !1,
            any_day: true,
            months: ((1 << 13) - 1) & !1,
            weekdays: (1 << 7) - 1,
            any_weekday: true,
        };
        check("* * * * *", all);
        check("TZ=Asia/Tokyo * * ? * ?", all);
        check("@every 1h30m", Schedule::Every { seconds: 5400 });
        check("@every 10ms", Schedule::Every { seconds: 1 });
        let Ok(Schedule::Calendar { minutes, hours, days, any_day, months, weekdays, any_weekday }) =
            Schedule::parse("*/20 8-10 1,15 JAN-mar mon-FRI/2")
        else {
            panic!("not a calendar");
        };
        assert_eq!((minutes, hours, days), (bits(&[0, 20, 40]), bits(&[8, 9, 10]), bits(&[1, 15])));
        assert_eq!((months, weekdays), (bits(&[1, 2, 3]), bits(&[1, 3, 5])));
        assert_eq!((any_day, any_weekday), (false, false));
        assert_eq!(Schedule::parse("@daily"), Schedule::parse("0 0 * * *"));
    }

    #[test]
    fn wrong_schedules_are_explained() {
        let check = |text: &str, why: &str| assert_eq!(Schedule::parse(text), Err(why.to_owned()), "{text}");
        check("", "empty spec string");
        check("0.1 * * * * *", "expected exactly 5 fields, found 6: [0.1 * * * * *]");
        check("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
        check("60 * * * *", "end of range (60) above maximum (59): 60");
        check("* * 0 * *", "beginning of range (0) below minimum (1): 0");
        check("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1");
        check("*/0 * * * *", "step of range should be a positive number: */0");
        check("1-2-3 * * * *", "too many hyphens: 1-2-3");
        check("1/2/3 * * * *", "too many slashes: 1/2/3");
        check("@never", "unrecognized descriptor: @never");
        check("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\"");
    }
}
