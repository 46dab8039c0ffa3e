//! The server transaction of a request of either kind.

use portcullis_sip::Transport;

use crate::machine::{OnAck, OnRetransmission, ServerInvite, ServerNonInvite, ServerTimer};
use crate::time::Time;
use crate::timers::Timers;

/// One of the two server machines, with the transport of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    machine: Machine,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
enum Machine {
    Invite(ServerInvite),
    NonInvite(ServerNonInvite),
}

/// What remains of a server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It still has work to do.
    Active,
    /// It absorbs retransmissions of the request; those of a request other than INVITE are answered.
    Retransmissions {
        /// Until then.
        until: Time,
    },
    /// Nothing.
    None,
}

impl Server {
    pub(crate) fn invite(machine: ServerInvite, transport: Transport) -> Self {
        Self {
            machine: Machine::Invite(machine),
            transport,
        }
    }

    pub(crate) fn non_invite(machine: ServerNonInvite, transport: Transport) -> Self {
        Self {
            machine: Machine::NonInvite(machine),
            transport,
        }
    }

    pub(crate) fn is_invite(&self) -> bool {
        match self.machine {
            Machine::Invite(_) => true,
            Machine::NonInvite(_) => false,
        }
    }

    /// Whether a 100 is still to be sent: no response was.
    pub(crate) fn awaits_trying(&self) -> bool {
        matches!(
            self.machine,
            Machine::Invite(ServerInvite::Proceeding { trying: Some(_) })
        )
    }

    pub(crate) fn respond(&mut self, now: Time, code: u16, timers: &Timers) -> bool {
        match &mut self.machine {
            Machine::Invite(invite) => invite.respond(now, code, timers, self.transport),
            Machine::NonInvite(other) => other.respond(now, code, timers, self.transport),
        }
    }

    /// The request ends without an answer (RFC 4320 §4.2): late retransmissions are absorbed.
    pub(crate) fn give_up(&mut self, now: Time, timers: &Timers) {
        match &mut self.machine {
            Machine::Invite(invite) => *invite = ServerInvite::Terminated,
            Machine::NonInvite(other) => {
                let linger = timers.short_linger(self.transport);
                *other = linger.map_or(ServerNonInvite::Terminated, |linger| {
                    ServerNonInvite::Completed { j: now + linger }
                });
            }
        }
    }

    pub(crate) fn retransmission(&self) -> OnRetransmission {
        match &self.machine {
            Machine::Invite(invite) => invite.retransmission(),
            Machine::NonInvite(other) => other.retransmission(),
        }
    }

    pub(crate) fn ack(&mut self, now: Time, timers: &Timers) -> OnAck {
        match &mut self.machine {
            Machine::Invite(invite) => invite.ack(now, timers, self.transport),
            Machine::NonInvite(_) => OnAck::Pass,
        }
    }

    pub(crate) fn expire(&mut self, now: Time, timers: &Timers) -> ServerTimer {
        match &mut self.machine {
            Machine::Invite(invite) => invite.expire(now, timers),
            Machine::NonInvite(other) => other.expire(now),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.machine {
            Machine::Invite(invite) => invite.deadline(),
            Machine::NonInvite(other) => other.deadline(),
        }
    }

    pub(crate) fn rest(&self) -> Rest {
        match self.machine {
            Machine::Invite(ServerInvite::Proceeding { .. } | ServerInvite::Completed { .. })
            | Machine::NonInvite(ServerNonInvite::Trying { .. } | ServerNonInvite::Proceeding) => {
                Rest::Active
            }
            Machine::Invite(
                ServerInvite::Confirmed { i: until } | ServerInvite::Accepted { l: until },
            )
            | Machine::NonInvite(ServerNonInvite::Completed { j: until }) => {
                Rest::Retransmissions { until }
            }
            Machine::Invite(ServerInvite::Terminated)
            | Machine::NonInvite(ServerNonInvite::Terminated) => Rest::None,
        }
    }
}
