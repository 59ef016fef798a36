//! The limit of events, which needs a clock of its own; the others stand in the tests of the API.

use super::*;
use jiff::{SignedDuration, Timestamp};

#[test]
fn tokens_come_back_with_time() {
    let limit = EventLimit { kind: EventLimitKind::Server, qps: 2, burst: 3 };
    let mut buckets = Default::default();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut take =
        |milliseconds: i64| limit.take(&mut buckets, "", start + SignedDuration::from_millis(milliseconds));
    assert_eq!([take(0), take(0), take(0), take(0)], [true, true, true, false]);
    assert_eq!([take(400), take(500), take(600)], [false, true, false]);
    assert_eq!([take(60_000), take(60_000), take(60_000), take(60_000)], [true, true, true, false]);
}
