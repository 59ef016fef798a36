//! Counters of how long things take, under upstream's names: atomic, made once, and turned into text only for those who read the metrics.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upstream's buckets of authentication and authorization, in microseconds: 1 ms, doubled fourteen times.
const BUCKETS: usize = 15;
const FIRST_MICROS: u64 = 1000;

/// How often something took how long.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one is for all that took longer.
    buckets: [AtomicU64; BUCKETS + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Notes one.
    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = (0..BUCKETS).find(|at| micros <= FIRST_MICROS << at).unwrap_or(BUCKETS);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// Its lines, under a name and with labels (`a="b",`, each with its comma, or nothing). One without any observation has none.
    pub(crate) fn write(&self, out: &mut String, name: &str, labels: &str) {
        if self.count() == 0 {
            return;
        }
        let mut below = 0;
        // Writing to a String cannot fail.
        for (at, bucket) in self.buckets.iter().enumerate() {
            below += bucket.load(Ordering::Relaxed);
            let le = match at {
                BUCKETS => "+Inf".to_owned(),
                at => format!("{}", (FIRST_MICROS << at) as f64 / 1e6),
            };
            let _ = writeln!(out, "{name}_bucket{{{labels}le=\"{le}\"}} {below}");
        }
        let labels = labels.trim_end_matches(',');
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {below}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let histogram = Histogram::default();
        for millis in [0, 1, 3, 100_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut out = String::new();
        histogram.write(&mut out, "x_seconds", "result=\"allowed\",");
        for line in [
            "x_seconds_bucket{result=\"allowed\",le=\"0.001\"} 2",
            "x_seconds_bucket{result=\"allowed\",le=\"0.002\"} 2",
            "x_seconds_bucket{result=\"allowed\",le=\"0.004\"} 3",
            "x_seconds_bucket{result=\"allowed\",le=\"+Inf\"} 4",
            "x_seconds_count{result=\"allowed\"} 4",
            "x_seconds_sum{result=\"allowed\"} 100.004",
        ] {
            assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
        }
    }
}
