//! Time and randomness as values that come in from outside, so that a whole plane can run from one seed in virtual time.
//!
//! This is the only place that reads the wall clock or the operating system's randomness for object identity.

use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that moves only when told, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock standing at `start`.
    pub fn new(start: Timestamp) -> Self {
        ManualClock(AtomicI64::new(start.as_microsecond()))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: std::time::Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }
}

/// A source of names and uids; not for secrets.
#[derive(Debug)]
pub struct Entropy(AtomicU64);

impl Entropy {
    /// A source that gives the same sequence for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Entropy(AtomicU64::new(seed))
    }

    /// A source seeded by the operating system.
    pub fn from_system() -> Self {
        Self::from_seed(uuid::Uuid::new_v4().as_u64_pair().0)
    }

    /// The next 64 bits (splitmix64: one atomic add, no lock).
    pub fn next_u64(&self) -> u64 {
        let mut z =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A version 4 UUID in text, for `metadata.uid`.
    pub fn uid(&self) -> String {
        uuid::Builder::from_random_bytes(
            ((u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())).to_be_bytes(),
        )
        .into_uuid()
        .to_string()
    }

    /// `n` characters that cannot spell a word, as upstream appends to `generateName` (it takes 5).
    pub fn suffix(&self, n: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..n).map(|_| char::from(ALPHABET[(self.next_u64() % ALPHABET.len() as u64) as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b) = (Entropy::from_seed(7), Entropy::from_seed(7));
        assert_eq!((a.uid(), a.suffix(5)), (b.uid(), b.suffix(5)));
        assert_ne!(a.uid(), a.uid());
        assert_eq!(a.uid().as_bytes()[14], b'4');
    }
}
