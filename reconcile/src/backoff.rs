//! Exponential delays between attempts.

use kubewright_core::Entropy;
use std::time::Duration;

/// Delays that double from `base` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub base: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Default for Backoff {
    /// 5 ms to 1,000 s, the defaults of client-go's work queues.
    fn default() -> Self {
        Backoff { base: Duration::from_millis(5), max: Duration::from_secs(1000) }
    }
}

impl Backoff {
    /// The delay after `failures` failures in a row; the first failure waits for the base.
    ///
    /// ```
    /// use std::time::Duration;
    /// let backoff = kubewright_reconcile::Backoff::default();
    /// assert_eq!(backoff.delay(1), Duration::from_millis(5));
    /// assert_eq!(backoff.delay(3), Duration::from_millis(20));
    /// assert_eq!(backoff.delay(99), Duration::from_secs(1000));
    /// ```
    pub fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(40);
        let nanos = self.base.as_nanos().saturating_mul(1u128 << doublings).min(self.max.as_nanos());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// As [`Backoff::delay`], lengthened by up to half at random, so that many clients do not come back at once.
    pub fn jittered(&self, failures: u32, entropy: &Entropy) -> Duration {
        let delay = self.delay(failures);
        let thousandths = u32::try_from(entropy.next_u64() % 500).unwrap_or(0);
        delay + delay / 1000 * thousandths
    }
}
