//! The client transaction of a request of either kind.

use portcullis_sip::Transport;

use crate::machine::{ClientInvite, ClientNonInvite, ClientTimer, OnResponse};
use crate::time::Time;
use crate::timers::Timers;

/// One of the two client machines, with the transport of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    machine: Machine,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
enum Machine {
    Invite(ClientInvite),
    NonInvite(ClientNonInvite),
}

/// How far a client transaction is, for the proxy core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No response yet.
    Silent,
    /// A provisional response came.
    Provisional,
    /// A final response came, or none will.
    Final,
}

impl Client {
    pub(crate) fn start(now: Time, is_invite: bool, timers: &Timers, transport: Transport) -> Self {
        let machine = if is_invite {
            Machine::Invite(ClientInvite::start(now, timers, transport))
        } else {
            Machine::NonInvite(ClientNonInvite::start(now, timers, transport))
        };
        Self { machine, transport }
    }

    pub(crate) fn is_invite(&self) -> bool {
        match self.machine {
            Machine::Invite(_) => true,
            Machine::NonInvite(_) => false,
        }
    }

    pub(crate) fn receive(&mut self, now: Time, code: u16, timers: &Timers) -> OnResponse {
        match &mut self.machine {
            Machine::Invite(invite) => invite.receive(now, code, timers, self.transport),
            Machine::NonInvite(other) => other.receive(now, code, timers, self.transport),
        }
    }

    pub(crate) fn expire(&mut self, now: Time, timers: &Timers) -> ClientTimer {
        match &mut self.machine {
            Machine::Invite(invite) => invite.expire(now),
            Machine::NonInvite(other) => other.expire(now, timers),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.machine {
            Machine::Invite(invite) => invite.deadline(),
            Machine::NonInvite(other) => other.deadline(),
        }
    }

    /// No retransmission is sent any more. Responses are still handled until timer B or F: the target may have got the request.
    pub(crate) fn give_up(&mut self) {
        match &mut self.machine {
            Machine::Invite(invite) => invite.stop_retransmissions(),
            Machine::NonInvite(other) => other.stop_retransmissions(),
        }
    }

    /// No response is expected any more.
    pub(crate) fn terminate(&mut self) {
        match &mut self.machine {
            Machine::Invite(invite) => *invite = ClientInvite::Terminated,
            Machine::NonInvite(other) => *other = ClientNonInvite::Terminated,
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        match self.machine {
            Machine::Invite(ClientInvite::Calling { .. })
            | Machine::NonInvite(ClientNonInvite::Trying { .. }) => Progress::Silent,
            Machine::Invite(ClientInvite::Proceeding)
            | Machine::NonInvite(ClientNonInvite::Proceeding { .. }) => Progress::Provisional,
            Machine::Invite(
                ClientInvite::Completed { .. }
                | ClientInvite::Accepted { .. }
                | ClientInvite::Terminated,
            )
            | Machine::NonInvite(ClientNonInvite::Completed { .. } | ClientNonInvite::Terminated) => {
                Progress::Final
            }
        }
    }

    /// Until when retransmissions of the final response are handled.
    pub(crate) fn retransmissions_until(&self) -> Option<Time> {
        match self.progress() {
            Progress::Final => self.deadline(),
            Progress::Silent | Progress::Provisional => None,
        }
    }
}
