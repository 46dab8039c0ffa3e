//! The client transaction of an INVITE (RFC 3261 §17.1.1, RFC 6026 §8.4).

use std::time::Duration;

use portcullis_sip::Transport;

use super::repeat::Repeat;
use super::steps::{ClientTimer, OnResponse};
use crate::time::Time;
use crate::timers::Timers;

/// RFC 6026 figure 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientInvite {
    /// No response yet.
    Calling {
        /// The next retransmission of the INVITE; `None` over a reliable transport, and after [`ClientInvite::stop_retransmissions`].
        a: Option<Repeat>,
        /// Limit of the time without a response.
        b: Time,
    },
    /// A provisional response came. No timer of the transaction runs: the proxy core has timer C.
    Proceeding,
    /// A failure came and was acknowledged.
    Completed {
        /// Until then its retransmissions are acknowledged.
        d: Time,
    },
    /// A 2xx response came; further ones, of other callees, may follow.
    Accepted {
        /// Until then they are passed on.
        m: Time,
    },
    /// The end.
    Terminated,
}

impl ClientInvite {
    /// The state after the INVITE was sent.
    pub fn start(now: Time, timers: &Timers, transport: Transport) -> Self {
        Self::Calling {
            a: (!transport.is_reliable()).then(|| Repeat::start(now, timers.t1)),
            b: now + timers.timeout(),
        }
    }

    /// A response with this code came.
    pub fn receive(
        &mut self,
        now: Time,
        code: u16,
        timers: &Timers,
        transport: Transport,
    ) -> OnResponse {
        match self {
            Self::Calling { .. } | Self::Proceeding => match code {
                ..200 => {
                    *self = Self::Proceeding;
                    OnResponse::Pass
                }
                200..300 => {
                    *self = Self::Accepted {
                        m: now + timers.timeout(),
                    };
                    OnResponse::Pass
                }
                300.. => {
                    let linger = timers.failure_linger(transport);
                    *self = linger.map_or(Self::Terminated, |linger| Self::Completed {
                        d: now + linger,
                    });
                    OnResponse::PassAndAck
                }
            },
            Self::Completed { .. } if code >= 300 => OnResponse::AckAgain,
            // After a failure, or after the time for it, too: a downstream proxy passes the 2xx of each of its targets on, whatever it has answered
            // before (§16.7(5)), and the call exists.
            Self::Completed { .. } | Self::Accepted { .. } | Self::Terminated
                if (200..300).contains(&code) =>
            {
                OnResponse::Pass
            }
            Self::Completed { .. } | Self::Accepted { .. } | Self::Terminated => OnResponse::Absorb,
        }
    }

    /// Handles the timers that are due.
    pub fn expire(&mut self, now: Time) -> ClientTimer {
        match self {
            Self::Calling { b, .. } if *b <= now => {
                *self = Self::Terminated;
                ClientTimer::TimedOut
            }
            // The interval of timer A has no upper limit (§17.1.1.2).
            Self::Calling { a: Some(a), .. } if a.at <= now => {
                *a = a.doubled(now, Duration::MAX);
                ClientTimer::Resend
            }
            Self::Completed { d: until } | Self::Accepted { m: until } if *until <= now => {
                *self = Self::Terminated;
                ClientTimer::Ended
            }
            Self::Calling { .. }
            | Self::Proceeding
            | Self::Completed { .. }
            | Self::Accepted { .. }
            | Self::Terminated => ClientTimer::Nothing,
        }
    }

    /// Sends no more retransmissions, but goes on waiting for a response until timer B: for a target whose time is over.
    pub fn stop_retransmissions(&mut self) {
        if let Self::Calling { a, .. } = self {
            *a = None;
        }
    }

    /// When [`ClientInvite::expire`] should be called next.
    pub fn deadline(&self) -> Option<Time> {
        match *self {
            Self::Calling { a, b } => Some(a.map_or(b, |a| a.at.min(b))),
            Self::Completed { d: until } | Self::Accepted { m: until } => Some(until),
            Self::Proceeding | Self::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Udp};

    const START: Time = Time::from_millis(1_000);

    fn start(transport: Transport) -> ClientInvite {
        ClientInvite::start(START, &Timers::default(), transport)
    }

    fn receive(
        machine: &mut ClientInvite,
        after: u64,
        code: u16,
        transport: Transport,
    ) -> OnResponse {
        let now = Time::from_millis(START.as_millis() + after);
        machine.receive(now, code, &Timers::default(), transport)
    }

    /// Every timer until the end, with its time in milliseconds since the start.
    fn fired(mut machine: ClientInvite) -> Vec<(u64, ClientTimer)> {
        let mut fired = Vec::new();
        while let Some(at) = machine.deadline() {
            fired.push((at.since(START).as_millis() as u64, machine.expire(at)));
        }
        fired
    }

    #[test]
    fn retransmissions_of_the_invite_follow_at_doubled_intervals_until_timer_b() {
        let copies = [500, 1_500, 3_500, 7_500, 15_500, 31_500];
        let mut expected: Vec<_> = copies.map(|at| (at, ClientTimer::Resend)).into();
        expected.push((32_000, ClientTimer::TimedOut));
        assert_eq!(fired(start(Udp)), expected);
    }

    #[test]
    fn a_reliable_transport_has_timer_b_only() {
        assert_eq!(fired(start(Tcp)), [(32_000, ClientTimer::TimedOut)]);
    }

    #[test]
    fn stopped_retransmissions_leave_timer_b() {
        let mut machine = start(Udp);
        machine.stop_retransmissions();
        assert_eq!(fired(machine), [(32_000, ClientTimer::TimedOut)]);
    }

    #[test]
    fn a_provisional_response_stops_both_timers() {
        let mut machine = start(Udp);
        assert_eq!(receive(&mut machine, 100, 100, Udp), OnResponse::Pass);
        assert_eq!(machine, ClientInvite::Proceeding);
        assert_eq!(machine.deadline(), None);
        assert_eq!(receive(&mut machine, 200, 183, Udp), OnResponse::Pass);
    }

    #[test]
    fn each_retransmission_of_a_failure_is_acknowledged_until_timer_d() {
        for codes in [&[486][..], &[180, 300], &[100, 180, 699]] {
            let mut machine = start(Udp);
            let (last, before) = codes.split_last().unwrap();
            for &code in before {
                receive(&mut machine, 0, code, Udp);
            }
            assert_eq!(
                receive(&mut machine, 2_000, *last, Udp),
                OnResponse::PassAndAck
            );
            assert_eq!(
                receive(&mut machine, 2_500, *last, Udp),
                OnResponse::AckAgain
            );
            assert_eq!(receive(&mut machine, 2_500, 180, Udp), OnResponse::Absorb);
            assert_eq!(receive(&mut machine, 2_500, 200, Udp), OnResponse::Pass);
            assert_eq!(
                receive(&mut machine, 2_500, *last, Udp),
                OnResponse::AckAgain
            );
            assert_eq!(fired(machine), [(34_000, ClientTimer::Ended)]);
        }
    }

    #[test]
    fn a_failure_over_a_reliable_transport_ends_the_transaction() {
        let mut machine = start(Tcp);
        assert_eq!(receive(&mut machine, 10, 486, Tcp), OnResponse::PassAndAck);
        assert_eq!(machine, ClientInvite::Terminated);
        assert_eq!(receive(&mut machine, 20, 486, Tcp), OnResponse::Absorb);
        assert_eq!(receive(&mut machine, 20, 200, Tcp), OnResponse::Pass);
    }

    #[test]
    fn every_2xx_is_passed_on_until_timer_m() {
        for transport in [Udp, Tcp] {
            let mut machine = start(transport);
            assert_eq!(
                receive(&mut machine, 3_000, 200, transport),
                OnResponse::Pass
            );
            assert_eq!(
                receive(&mut machine, 3_500, 200, transport),
                OnResponse::Pass
            );
            assert_eq!(
                receive(&mut machine, 3_500, 486, transport),
                OnResponse::Absorb
            );
            assert_eq!(
                receive(&mut machine, 3_500, 180, transport),
                OnResponse::Absorb
            );
            assert_eq!(fired(machine), [(35_000, ClientTimer::Ended)]);
        }
    }

    #[test]
    fn an_early_call_of_expire_does_nothing() {
        let mut machine = start(Udp);
        let before = machine;
        assert_eq!(
            machine.expire(Time::from_millis(1_499)),
            ClientTimer::Nothing
        );
        assert_eq!(machine, before);
    }
}
