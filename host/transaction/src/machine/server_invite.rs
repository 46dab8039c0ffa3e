//! The server transaction of an INVITE (RFC 3261 §17.2.1, RFC 6026 §8.5).

use std::time::Duration;

use portcullis_sip::Transport;

use super::repeat::Repeat;
use super::steps::{OnAck, OnRetransmission, ServerTimer};
use crate::time::Time;
use crate::timers::Timers;

/// RFC 6026 figure 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerInvite {
    /// No final response yet.
    Proceeding {
        /// When a 100 (Trying) is due; `None` after any response.
        trying: Option<Time>,
    },
    /// A failure was sent.
    Completed {
        /// The next retransmission of it; `None` over a reliable transport.
        g: Option<Repeat>,
        /// Limit of the time without an ACK.
        h: Time,
    },
    /// The failure was acknowledged.
    Confirmed {
        /// Until then retransmissions of the ACK are absorbed.
        i: Time,
    },
    /// A 2xx response was sent; its retransmissions are sent by the callee.
    Accepted {
        /// Until then retransmissions of the INVITE are absorbed, and further 2xx responses are sent.
        l: Time,
    },
    /// The end.
    Terminated,
}

impl ServerInvite {
    /// The state after the INVITE came. A 100 (Trying) is due after `trying`, which should be at most 200 ms (RFC 3261 §17.2.1), or never.
    pub fn start(now: Time, trying: Option<Duration>) -> Self {
        Self::Proceeding {
            trying: trying.map(|trying| now + trying),
        }
    }

    /// A response with this code is to be sent. Returns whether it may be.
    pub fn respond(&mut self, now: Time, code: u16, timers: &Timers, transport: Transport) -> bool {
        match self {
            Self::Proceeding { .. } => {
                *self = match code {
                    ..200 => Self::Proceeding { trying: None },
                    200..300 => Self::Accepted {
                        l: now + timers.timeout(),
                    },
                    300.. => Self::Completed {
                        g: (!transport.is_reliable()).then(|| Repeat::start(now, timers.t1)),
                        h: now + timers.timeout(),
                    },
                };
                true
            }
            Self::Accepted { .. } => (200..300).contains(&code),
            Self::Completed { .. } | Self::Confirmed { .. } | Self::Terminated => false,
        }
    }

    /// A retransmission of the INVITE came.
    pub fn retransmission(&self) -> OnRetransmission {
        match self {
            Self::Proceeding { .. } | Self::Completed { .. } => OnRetransmission::Resend,
            Self::Confirmed { .. } | Self::Accepted { .. } | Self::Terminated => {
                OnRetransmission::Absorb
            }
        }
    }

    /// An ACK came.
    pub fn ack(&mut self, now: Time, timers: &Timers, transport: Transport) -> OnAck {
        match self {
            Self::Completed { .. } => {
                let linger = timers.short_linger(transport);
                *self = linger.map_or(Self::Terminated, |linger| Self::Confirmed {
                    i: now + linger,
                });
                OnAck::Absorb
            }
            Self::Proceeding { .. } | Self::Confirmed { .. } | Self::Terminated => OnAck::Absorb,
            Self::Accepted { .. } => OnAck::Pass,
        }
    }

    /// Handles the timers that are due.
    pub fn expire(&mut self, now: Time, timers: &Timers) -> ServerTimer {
        match self {
            Self::Proceeding { trying: Some(at) } if *at <= now => {
                *self = Self::Proceeding { trying: None };
                ServerTimer::Trying
            }
            Self::Completed { h, .. } if *h <= now => {
                *self = Self::Terminated;
                ServerTimer::Unconfirmed
            }
            Self::Completed { g: Some(g), .. } if g.at <= now => {
                *g = g.doubled(now, timers.t2);
                ServerTimer::Resend
            }
            Self::Confirmed { i: until } | Self::Accepted { l: until } if *until <= now => {
                *self = Self::Terminated;
                ServerTimer::Ended
            }
            Self::Proceeding { .. }
            | Self::Completed { .. }
            | Self::Confirmed { .. }
            | Self::Accepted { .. }
            | Self::Terminated => ServerTimer::Nothing,
        }
    }

    /// When [`ServerInvite::expire`] should be called next.
    pub fn deadline(&self) -> Option<Time> {
        match *self {
            Self::Proceeding { trying } => trying,
            Self::Completed { g, h } => Some(g.map_or(h, |g| g.at.min(h))),
            Self::Confirmed { i: until } | Self::Accepted { l: until } => Some(until),
            Self::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Udp};

    fn start() -> ServerInvite {
        ServerInvite::start(Time::ZERO, Some(Duration::from_millis(200)))
    }

    fn respond(machine: &mut ServerInvite, at: u64, code: u16, transport: Transport) -> bool {
        machine.respond(Time::from_millis(at), code, &Timers::default(), transport)
    }

    fn fired(mut machine: ServerInvite) -> Vec<(u64, ServerTimer)> {
        let mut fired = Vec::new();
        while let Some(at) = machine.deadline() {
            fired.push((at.as_millis(), machine.expire(at, &Timers::default())));
        }
        fired
    }

    #[test]
    fn a_100_is_due_after_200_ms_without_a_response() {
        assert_eq!(fired(start()), [(200, ServerTimer::Trying)]);
        let mut machine = start();
        assert!(respond(&mut machine, 100, 180, Udp));
        assert_eq!(fired(machine), []);
        assert_eq!(machine.retransmission(), OnRetransmission::Resend);
    }

    #[test]
    fn retransmissions_of_a_failure_follow_at_doubled_intervals_up_to_t2_until_timer_h() {
        let mut machine = start();
        assert!(respond(&mut machine, 0, 486, Udp));
        assert_eq!(machine.retransmission(), OnRetransmission::Resend);
        let copies = [
            500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
        ];
        let mut expected: Vec<_> = copies.map(|at| (at, ServerTimer::Resend)).into();
        expected.push((32_000, ServerTimer::Unconfirmed));
        assert_eq!(fired(machine), expected);
    }

    #[test]
    fn a_failure_over_a_reliable_transport_has_timer_h_only() {
        let mut machine = start();
        assert!(respond(&mut machine, 0, 486, Tcp));
        assert_eq!(fired(machine), [(32_000, ServerTimer::Unconfirmed)]);
    }

    #[test]
    fn an_ack_stops_the_retransmissions_and_its_own_retransmissions_are_absorbed_until_timer_i() {
        let mut machine = start();
        respond(&mut machine, 0, 486, Udp);
        let timers = Timers::default();
        assert_eq!(
            machine.ack(Time::from_millis(700), &timers, Udp),
            OnAck::Absorb
        );
        assert_eq!(
            machine.ack(Time::from_millis(800), &timers, Udp),
            OnAck::Absorb
        );
        assert_eq!(machine.retransmission(), OnRetransmission::Absorb);
        assert!(!respond(&mut machine, 900, 487, Udp));
        assert_eq!(fired(machine), [(5_700, ServerTimer::Ended)]);
    }

    #[test]
    fn an_ack_over_a_reliable_transport_ends_the_transaction() {
        let mut machine = start();
        respond(&mut machine, 0, 486, Tcp);
        assert_eq!(
            machine.ack(Time::ZERO, &Timers::default(), Tcp),
            OnAck::Absorb
        );
        assert_eq!(machine, ServerInvite::Terminated);
    }

    #[test]
    fn after_a_2xx_retransmissions_of_the_invite_are_absorbed_until_timer_l() {
        for transport in [Udp, Tcp] {
            let mut machine = start();
            assert!(respond(&mut machine, 1_000, 200, transport));
            assert!(
                respond(&mut machine, 1_100, 200, transport),
                "a 2xx of another callee"
            );
            assert!(!respond(&mut machine, 1_100, 486, transport));
            assert!(!respond(&mut machine, 1_100, 180, transport));
            assert_eq!(machine.retransmission(), OnRetransmission::Absorb);
            let ack = machine.ack(Time::from_millis(1_200), &Timers::default(), transport);
            assert_eq!(ack, OnAck::Pass);
            assert_eq!(fired(machine), [(33_000, ServerTimer::Ended)]);
        }
    }
}
