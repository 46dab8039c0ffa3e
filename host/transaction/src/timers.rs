//! The timer values of RFC 3261 table 4.

use std::time::Duration;

use portcullis_sip::Transport;

/// The values that all timers derive from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Estimated round-trip time: the first interval between two copies.
    pub t1: Duration,
    /// Largest interval between two copies of a response to INVITE, and of a request other than INVITE.
    pub t2: Duration,
    /// How long a message may remain in the network.
    pub t4: Duration,
}

impl Timers {
    /// Timers B, F, H, J, L and M: 64·T1. Also timer D, which must be at least 32 seconds over UDP.
    pub fn timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// Timers D, J and others that wait for copies: none can come over a reliable transport.
    pub(crate) fn linger(&self, transport: Transport) -> Option<Duration> {
        (!transport.is_reliable()).then(|| self.timeout())
    }

    /// Timers I and K: T4, or none over a reliable transport.
    pub(crate) fn short_linger(&self, transport: Transport) -> Option<Duration> {
        (!transport.is_reliable()).then_some(self.t4)
    }

    /// When a request other than INVITE must be answered 100 if it has no other answer yet: the time after which timer E of its sender has
    /// the interval T2 (RFC 4320 §4.1). 3.5 seconds with the default values.
    pub fn late_trying(&self) -> Duration {
        let mut sum = Duration::ZERO;
        let mut interval = self.t1;
        while interval < self.t2 && !interval.is_zero() {
            sum += interval;
            interval *= 2;
        }
        sum
    }
}

impl Default for Timers {
    /// 500 ms, 4 s and 5 s.
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_100_is_sent_when_timer_e_has_reached_t2() {
        assert_eq!(
            Timers::default().late_trying(),
            Duration::from_millis(3_500)
        );
        let slow = Timers {
            t1: Duration::from_secs(5),
            ..Timers::default()
        };
        assert_eq!(slow.late_trying(), Duration::ZERO);
    }
}
