//! Time that only goes forward, for a scheduler behind a clock that people set.

use jiff::{SignedDuration, Timestamp};

/// Turns a clock's times into ones that never go back: a clock that is set back goes on from where it was, so that no back-off lasts a
/// day longer. One that is set forward is followed; what waits then ends early, which does no harm.
///
/// ```
/// use jiff::Timestamp;
/// use kubewright_sched::SteadyTime;
///
/// let at = |seconds| Timestamp::from_second(seconds).unwrap();
/// let mut time = SteadyTime::default();
/// assert_eq!(time.of(at(100)), at(100));
/// assert_eq!(time.of(at(40)), at(100));
/// assert_eq!(time.of(at(45)), at(105));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SteadyTime {
    last: Option<Timestamp>,
    /// What is added to the clock.
    ahead: SignedDuration,
}

impl SteadyTime {
    /// The steady time at a time of the clock.
    pub fn of(&mut self, clock: Timestamp) -> Timestamp {
        let now = clock.checked_add(self.ahead).unwrap_or(Timestamp::MAX);
        let last = self.last.unwrap_or(now);
        if now < last {
            self.ahead = last.duration_since(clock);
        }
        let steady = now.max(last);
        self.last = Some(steady);
        steady
    }
}
