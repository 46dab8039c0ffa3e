//! The client transaction of a request other than INVITE (RFC 3261 §17.1.2).

use portcullis_sip::Transport;

use super::repeat::Repeat;
use super::steps::{ClientTimer, OnResponse};
use crate::time::Time;
use crate::timers::Timers;

/// RFC 3261 figure 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientNonInvite {
    /// No response yet.
    Trying {
        /// The next retransmission of the request; `None` over a reliable transport, and after [`ClientNonInvite::stop_retransmissions`].
        e: Option<Repeat>,
        /// Limit of the time without a final response.
        f: Time,
    },
    /// A provisional response came: retransmissions follow at intervals of T2.
    Proceeding {
        /// The next retransmission.
        e: Option<Repeat>,
        /// Limit of the time without a final response.
        f: Time,
    },
    /// A final response came.
    Completed {
        /// Until then its retransmissions are absorbed.
        k: Time,
    },
    /// The end.
    Terminated,
}

impl ClientNonInvite {
    /// The state after the request was sent.
    pub fn start(now: Time, timers: &Timers, transport: Transport) -> Self {
        Self::Trying {
            e: (!transport.is_reliable()).then(|| Repeat::start(now, timers.t1)),
            f: now + timers.timeout(),
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
        match *self {
            Self::Trying { e, f } | Self::Proceeding { e, f } if code < 200 => {
                *self = Self::Proceeding { e, f };
                OnResponse::Pass
            }
            Self::Trying { .. } | Self::Proceeding { .. } => {
                let linger = timers.short_linger(transport);
                *self = linger.map_or(Self::Terminated, |linger| Self::Completed {
                    k: now + linger,
                });
                OnResponse::Pass
            }
            Self::Completed { .. } | Self::Terminated => OnResponse::Absorb,
        }
    }

    /// Handles the timers that are due.
    pub fn expire(&mut self, now: Time, timers: &Timers) -> ClientTimer {
        match self {
            Self::Trying { f, .. } | Self::Proceeding { f, .. } if *f <= now => {
                *self = Self::Terminated;
                ClientTimer::TimedOut
            }
            Self::Trying { e: Some(e), .. } if e.at <= now => {
                *e = e.doubled(now, timers.t2);
                ClientTimer::Resend
            }
            Self::Proceeding { e: Some(e), .. } if e.at <= now => {
                *e = Repeat::start(now, timers.t2);
                ClientTimer::Resend
            }
            Self::Completed { k } if *k <= now => {
                *self = Self::Terminated;
                ClientTimer::Ended
            }
            Self::Trying { .. }
            | Self::Proceeding { .. }
            | Self::Completed { .. }
            | Self::Terminated => ClientTimer::Nothing,
        }
    }

    /// Sends no more retransmissions, but goes on waiting for a response until timer F: for a target whose time is over.
    pub fn stop_retransmissions(&mut self) {
        if let Self::Trying { e, .. } | Self::Proceeding { e, .. } = self {
            *e = None;
        }
    }

    /// When [`ClientNonInvite::expire`] should be called next.
    pub fn deadline(&self) -> Option<Time> {
        match *self {
            Self::Trying { e, f } | Self::Proceeding { e, f } => Some(e.map_or(f, |e| e.at.min(f))),
            Self::Completed { k } => Some(k),
            Self::Terminated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Udp};

    fn start(transport: Transport) -> ClientNonInvite {
        ClientNonInvite::start(Time::ZERO, &Timers::default(), transport)
    }

    fn receive(
        machine: &mut ClientNonInvite,
        at: u64,
        code: u16,
        transport: Transport,
    ) -> OnResponse {
        machine.receive(Time::from_millis(at), code, &Timers::default(), transport)
    }

    fn fired(mut machine: ClientNonInvite) -> Vec<(u64, ClientTimer)> {
        let mut fired = Vec::new();
        while let Some(at) = machine.deadline() {
            fired.push((at.as_millis(), machine.expire(at, &Timers::default())));
        }
        fired
    }

    fn with_end(retransmissions: &[u64]) -> Vec<(u64, ClientTimer)> {
        let resent = retransmissions.iter().map(|&at| (at, ClientTimer::Resend));
        resent.chain([(32_000, ClientTimer::TimedOut)]).collect()
    }

    #[test]
    fn retransmissions_follow_at_doubled_intervals_up_to_t2_until_timer_f() {
        let copies = [
            500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
        ];
        assert_eq!(fired(start(Udp)), with_end(&copies));
    }

    #[test]
    fn after_a_provisional_response_retransmissions_follow_at_t2_and_timer_f_stays() {
        let mut machine = start(Udp);
        assert_eq!(receive(&mut machine, 600, 100, Udp), OnResponse::Pass);
        // The interval that runs ends as it would have ended.
        let copies = [500, 4_500, 8_500, 12_500, 16_500, 20_500, 24_500, 28_500];
        assert_eq!(fired(machine), with_end(&copies));
    }

    #[test]
    fn a_reliable_transport_has_timer_f_only() {
        assert_eq!(fired(start(Tcp)), with_end(&[]));
        let mut machine = start(Tcp);
        receive(&mut machine, 600, 100, Tcp);
        assert_eq!(fired(machine), with_end(&[]));
    }

    #[test]
    fn retransmissions_of_the_final_response_are_absorbed_until_timer_k() {
        for code in [200, 302, 404, 503, 600] {
            let mut machine = start(Udp);
            assert_eq!(receive(&mut machine, 1_000, code, Udp), OnResponse::Pass);
            assert_eq!(receive(&mut machine, 1_001, code, Udp), OnResponse::Absorb);
            assert_eq!(receive(&mut machine, 1_001, 100, Udp), OnResponse::Absorb);
            assert_eq!(fired(machine), [(6_000, ClientTimer::Ended)]);
        }
    }

    #[test]
    fn a_final_response_over_a_reliable_transport_ends_the_transaction() {
        let mut machine = start(Tcp);
        assert_eq!(receive(&mut machine, 1_000, 200, Tcp), OnResponse::Pass);
        assert_eq!(machine, ClientNonInvite::Terminated);
    }
}
