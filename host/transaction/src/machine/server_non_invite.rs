//! The server transaction of a request other than INVITE (RFC 3261 §17.2.2, RFC 4320).

use portcullis_sip::Transport;

use super::steps::{OnRetransmission, ServerTimer};
use crate::time::Time;
use crate::timers::Timers;

/// RFC 3261 figure 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerNonInvite {
    /// No response yet.
    Trying {
        /// When a 100 is due (RFC 4320 §4.1).
        trying: Time,
    },
    /// A 100 was sent.
    Proceeding,
    /// A final response was sent.
    Completed {
        /// Until then retransmissions of the request are answered with it.
        j: Time,
    },
    /// The end.
    Terminated,
}

impl ServerNonInvite {
    /// The state after the request came.
    pub fn start(now: Time, timers: &Timers) -> Self {
        Self::Trying {
            trying: now + timers.late_trying(),
        }
    }

    /// A response with this code is to be sent. Returns whether it may be: no provisional response but the 100 that
    /// [`ServerTimer::Trying`] demands, and no 408 (RFC 4320 §4.1, §4.2).
    pub fn respond(&mut self, now: Time, code: u16, timers: &Timers, transport: Transport) -> bool {
        if code < 200 || code == 408 {
            return false;
        }
        match self {
            Self::Trying { .. } | Self::Proceeding => {
                let linger = timers.linger(transport);
                *self = linger.map_or(Self::Terminated, |linger| Self::Completed {
                    j: now + linger,
                });
                true
            }
            Self::Completed { .. } | Self::Terminated => false,
        }
    }

    /// A retransmission of the request came.
    pub fn retransmission(&self) -> OnRetransmission {
        match self {
            Self::Proceeding | Self::Completed { .. } => OnRetransmission::Resend,
            Self::Trying { .. } | Self::Terminated => OnRetransmission::Absorb,
        }
    }

    /// Handles the timers that are due.
    pub fn expire(&mut self, now: Time) -> ServerTimer {
        match self {
            Self::Trying { trying } if *trying <= now => {
                *self = Self::Proceeding;
                ServerTimer::Trying
            }
            Self::Completed { j } if *j <= now => {
                *self = Self::Terminated;
                ServerTimer::Ended
            }
            Self::Trying { .. } | Self::Proceeding | Self::Completed { .. } | Self::Terminated => {
                ServerTimer::Nothing
            }
        }
    }

    /// When [`ServerNonInvite::expire`] should be called next.
    pub fn deadline(&self) -> Option<Time> {
        match *self {
            Self::Trying { trying } => Some(trying),
            Self::Completed { j } => Some(j),
            Self::Proceeding | Self::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Udp};

    fn start() -> ServerNonInvite {
        ServerNonInvite::start(Time::ZERO, &Timers::default())
    }

    fn respond(machine: &mut ServerNonInvite, at: u64, code: u16, transport: Transport) -> bool {
        machine.respond(Time::from_millis(at), code, &Timers::default(), transport)
    }

    #[test]
    fn a_100_is_due_after_3_5_seconds_and_not_before() {
        let mut machine = start();
        assert_eq!(machine.deadline(), Some(Time::from_millis(3_500)));
        assert_eq!(
            machine.expire(Time::from_millis(3_499)),
            ServerTimer::Nothing
        );
        assert_eq!(machine.retransmission(), OnRetransmission::Absorb);
        assert_eq!(
            machine.expire(Time::from_millis(3_500)),
            ServerTimer::Trying
        );
        assert_eq!(machine.retransmission(), OnRetransmission::Resend);
        assert_eq!(machine.deadline(), None);
    }

    #[test]
    fn neither_provisional_responses_nor_a_408_are_sent() {
        let mut machine = start();
        for code in [100, 180, 199, 408] {
            assert!(!respond(&mut machine, 10, code, Udp), "{code}");
        }
        assert_eq!(machine, start());
    }

    #[test]
    fn retransmissions_are_answered_with_the_final_response_until_timer_j() {
        let mut machine = start();
        assert!(respond(&mut machine, 1_000, 200, Udp));
        assert!(!respond(&mut machine, 1_000, 200, Udp));
        assert_eq!(machine.retransmission(), OnRetransmission::Resend);
        assert_eq!(machine.deadline(), Some(Time::from_millis(33_000)));
        assert_eq!(
            machine.expire(Time::from_millis(33_000)),
            ServerTimer::Ended
        );
        assert_eq!(machine, ServerNonInvite::Terminated);
    }

    #[test]
    fn a_final_response_over_a_reliable_transport_ends_the_transaction() {
        let mut machine = start();
        assert!(respond(&mut machine, 1_000, 404, Tcp));
        assert_eq!(machine, ServerNonInvite::Terminated);
    }
}
