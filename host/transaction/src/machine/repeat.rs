//! Intervals between retransmissions.

use std::time::Duration;

use crate::time::Time;

/// A running retransmission timer: A, E or G.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Time of the next retransmission.
    pub at: Time,
    /// The interval that ends then.
    pub interval: Duration,
}

impl Repeat {
    /// The timer with its first interval.
    pub(super) fn start(now: Time, interval: Duration) -> Self {
        Self {
            at: now + interval,
            interval,
        }
    }

    /// The next interval: twice as long, at most `cap`.
    pub(super) fn doubled(self, now: Time, cap: Duration) -> Self {
        Self::start(now, self.interval.saturating_mul(2).min(cap))
    }
}
