//! How long a container waits before it is started again, and an image before it is pulled again.

use jiff::{SignedDuration, Timestamp};
use rustc_hash::FxHashMap;
use std::hash::Hash;

/// The first wait.
pub(crate) const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait.
pub(crate) const MAX: SignedDuration = SignedDuration::from_secs(300);
/// A key that was quiet for this long begins anew.
pub(crate) const RESET: SignedDuration = SignedDuration::from_secs(600);
/// How many keys are kept; old ones go first.
const KEYS_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: SignedDuration,
    since: Timestamp,
}

/// Doubling waits by key. Time comes in with each call.
#[derive(Debug)]
pub(crate) struct Backoff<K> {
    entries: FxHashMap<K, Entry>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Backoff { entries: FxHashMap::default() }
    }
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// Notes a failure at `now`; the wait doubles.
    pub(crate) fn failed(&mut self, key: &K, now: Timestamp) {
        let wait = match self.entries.get(key) {
            Some(e) if now.duration_since(e.since) <= RESET => (e.wait * 2).min(MAX),
            _ => INITIAL,
        };
        if self.entries.len() >= KEYS_MAX {
            self.entries.retain(|_, e| now.duration_since(e.since) <= RESET);
        }
        self.entries.insert(key.clone(), Entry { wait, since: now });
    }

    /// Until when a key must wait after something that ended at `ended`; `None` where it need not. The first wait
    /// (before any failure was noted) is none.
    pub(crate) fn until(&self, key: &K, ended: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key)?;
        if now.duration_since(ended) > RESET {
            return None;
        }
        let until = ended.checked_add(entry.wait).ok()?;
        (until > now).then_some(until)
    }

    /// When a key failed last.
    pub(crate) fn since(&self, key: &K) -> Option<Timestamp> {
        self.entries.get(key).map(|e| e.since)
    }

    /// The present wait of a key.
    pub(crate) fn wait(&self, key: &K) -> SignedDuration {
        self.entries.get(key).map_or(SignedDuration::ZERO, |e| e.wait)
    }

    /// Forgets the keys that do not hold.
    pub(crate) fn retain(&mut self, hold: impl Fn(&K) -> bool) {
        self.entries.retain(|k, _| hold(k));
    }
}

/// A wait as Go prints it, which events and statuses show: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(wait: SignedDuration) -> String {
    let seconds = wait.as_secs();
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn waits_double_to_five_minutes_and_are_forgotten() {
        let mut b = Backoff::default();
        assert_eq!(b.until(&"k", at(0), at(0)), None);
        let mut seen = Vec::new();
        for i in 0..7 {
            b.failed(&"k", at(i * 300));
            seen.push(b.wait(&"k").as_secs());
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(b.until(&"k", at(1800), at(1801)), Some(at(2100)));
        assert_eq!(b.until(&"k", at(1800), at(2100)), None);
        assert_eq!(b.until(&"k", at(1000), at(1601)), None, "ten quiet minutes");
        b.failed(&"k", at(1800 + 601));
        assert_eq!(b.wait(&"k").as_secs(), 10);
        b.retain(|_| false);
        assert_eq!(b.wait(&"k"), SignedDuration::ZERO);
    }

    #[test]
    fn durations_print_as_in_go() {
        let check = |s: i64, wanted: &str| assert_eq!(go_duration(SignedDuration::from_secs(s)), wanted);
        check(10, "10s");
        check(80, "1m20s");
        check(300, "5m0s");
    }
}
