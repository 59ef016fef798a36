//! Ages as `kubectl get` shows them (`k8s.io/apimachinery/pkg/util/duration`).

use jiff::Timestamp;
use serde_json::Value;

/// The time passed between two instants, in at most two units: `45s`, `3m20s`, `5h`, `2d3h`, `1y30d`.
pub fn human_duration(from: Timestamp, to: Timestamp) -> String {
    let nanos = to.as_nanosecond() - from.as_nanosecond();
    let seconds = nanos / 1_000_000_000;
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    // A clock that runs a second ahead is no error.
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

fn two(big: i128, big_unit: &str, small: i128, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
}

/// The age of a timestamp in JSON; `<unknown>` when it is absent or unreadable.
pub(crate) fn age_of(value: &Value, now: Timestamp) -> String {
    match parse(value) {
        Some(from) => human_duration(from, now),
        None => "<unknown>".to_owned(),
    }
}

/// A timestamp in JSON.
pub(crate) fn parse(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn ages_change_units_where_upstreams_do() {
        let (minute, hour, day) = (60, 3600, 86_400);
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (3 * minute + 20, "3m20s"),
            (10 * minute + 20, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 5 * minute, "3h5m"),
            (8 * hour + 5 * minute, "8h"),
            (47 * hour, "47h"),
            (48 * hour, "2d"),
            (50 * hour, "2d2h"),
            (8 * day + hour, "8d"),
            (729 * day, "729d"),
            (731 * day, "2y1d"),
            (8 * 365 * day + day, "8y"),
        ];
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, wanted) in cases {
            let from = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap();
            assert_eq!(human_duration(from, now), wanted, "{seconds} s");
        }
        assert_eq!(age_of(&Value::Null, now), "<unknown>");
    }
}
