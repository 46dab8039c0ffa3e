//! The timer values of RFC 3261 table 4.

use std::time::Duration;

use portcullis_sip::Transport;

/// The values that all timers derive from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Estimated round-trip time: the first interval between two retransmissions.
    pub t1: Duration,
    /// Largest interval between two retransmissions of a response to INVITE, and of a request other than INVITE.
    pub t2: Duration,
    /// How long a message may remain in the network.
    pub t4: Duration,
}

impl Timers {
    /// Timers B, F, H, J, L and M: 64·T1.
    pub fn timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// The longest time for which retransmissions may come: timer D over an unreliable transport. A callee with the default T1 repeats its
    /// failure for 32 seconds whatever T1 is here, so that is the minimum (RFC 3261 §17.1.1.2, table 4).
    pub(crate) fn longest_linger(&self) -> Duration {
        const LEAST: Duration = Duration::from_secs(32);
        self.timeout().max(LEAST)
    }

    /// Timer D, or none over a reliable transport.
    pub(crate) fn failure_linger(&self, transport: Transport) -> Option<Duration> {
        (!transport.is_reliable()).then(|| self.longest_linger())
    }

    /// Timer J, or none over a reliable transport.
    pub(crate) fn linger(&self, transport: Transport) -> Option<Duration> {
        (!transport.is_reliable()).then(|| self.timeout())
    }

    /// Timers I and K: T4, or none over a reliable transport.
    pub(crate) fn short_linger(&self, transport: Transport) -> Option<Duration> {
        (!transport.is_reliable()).then_some(self.t4)
    }

    /// When a request other than INVITE must be answered 100 if it has no other answer yet: the time after which timer E of its sender is
    /// reset to T2 (RFC 4320 §4.1). 3.5 seconds with the default values; T1, if T1 is T2 or more.
    pub fn late_trying(&self) -> Duration {
        let (mut sum, mut interval) = (self.t1, self.t1);
        loop {
            interval = interval.saturating_mul(2);
            if interval >= self.t2 || interval.is_zero() {
                return sum;
            }
            sum = sum.saturating_add(interval);
        }
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
        assert_eq!(slow.late_trying(), Duration::from_secs(5));
        let equal = Timers {
            t1: Duration::from_secs(4),
            ..Timers::default()
        };
        assert_eq!(equal.late_trying(), Duration::from_secs(4));
        let none = Timers {
            t1: Duration::ZERO,
            ..Timers::default()
        };
        assert_eq!(none.late_trying(), Duration::ZERO);
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        let timers = Timers {
            t2: Duration::MAX,
            ..Timers::default()
        };
        assert!(timers.late_trying() > Duration::MAX / 4);
        let timers = Timers {
            t1: Duration::MAX,
            ..timers
        };
        assert_eq!(timers.late_trying(), Duration::MAX);
    }
}
