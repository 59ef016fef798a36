//! What the benches share: the measures of this process, and the table of figures beside those of upstream's Kubernetes.
//!
//! The peer's figures are Kubernetes 1.36 with etcd 3.6.8 on a quiet machine of two cores with a disk of 1.7 ms per `fdatasync`.

#![allow(dead_code, reason = "each bench uses its part")]

use std::time::Duration;

/// Ticks per second of `/proc/self/stat`; the same on every Linux of the last twenty years.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of this process so far, user and system.
pub(crate) fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a proc file system");
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Resident memory of this process in MB (10^6 bytes).
pub(crate) fn resident_megabytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("a proc file system");
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a resident size");
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024.0 / 1e6
}

/// The middle of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// As milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One row: what was measured, and the peer's figure where there is one.
pub(crate) fn row(what: &str, ours: f64, unit: &str, peer: Option<f64>) {
    match peer {
        None => println!("{what:<58} {ours:>12.2} {unit}"),
        Some(peer) => {
            let (more, less) = if ours > peer { (ours / peer, "more") } else { (peer / ours, "less") };
            println!("{what:<58} {ours:>12.2} {unit:<6} (upstream {peer:.2}: {more:.1} times {less})");
        }
    }
}
