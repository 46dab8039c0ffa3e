//! The end of a transaction: what is kept for retransmissions.

use super::Context;
use crate::absorber::{Absorbers, Duration, Kind};
use crate::branch::Branch;
use crate::event::{End, Event};
use crate::kept::Kept;
use crate::outbox::What;
use crate::server::Rest;
use crate::slab::Id;
use crate::time::Time;
use crate::timers::Timers;
use crate::tools::Tools;

impl<T: Clone> Context<T> {
    /// Whether only retransmissions of messages can still come.
    pub(crate) fn is_over(&self) -> bool {
        let is_invite = self.server.is_invite();
        // Nobody needs what a target that was given up says to a request other than INVITE once that is answered.
        let is_live =
            |branch: &Branch<T>| branch.is_live() && (is_invite || branch.attempt.is_none());
        self.server.rest() != Rest::Active && !self.branches.iter().any(is_live)
    }

    /// Ends the transaction. Returns the absorber of its retransmissions, if any can come, and the list of targets for the next transaction.
    pub(crate) fn retire(
        mut self,
        now: Time,
        absorbers: &mut Absorbers,
        tools: &mut Tools<T>,
    ) -> (Option<Id>, Vec<Branch<T>>) {
        tools.events.push_back(Event::Ended {
            id: self.id,
            end: self.end(now),
        });
        let absorber = self
            .retransmissions_until(now, &tools.config.timers)
            .map(|until| {
                let short = now + tools.config.timers.t4;
                let (duration, expires) = if until <= short {
                    (Duration::Short, short)
                } else {
                    (Duration::Long, now + tools.config.timers.longest_linger())
                };
                self.write_kept(&mut tools.scratch);
                absorbers.insert(self.peer, self.kind(), &tools.scratch, duration, expires)
            });
        for branch in &mut self.branches {
            branch.release(tools);
        }
        tools.charged -= self.charged;
        self.best.clear(&mut tools.buffers);
        tools.buffers.take_back(&mut self.request);
        tools.buffers.take_back(&mut self.reply);
        tools.buffers.take_back(&mut self.reason);
        self.branches.clear();
        (absorber, self.branches)
    }

    fn end(&self, now: Time) -> End {
        End {
            code: self.code,
            attempts: self.targets_tried() as u8,
            cancelled: self.is_cancelled,
            unconfirmed: self.is_unconfirmed,
            late_successes: self.late_successes,
            first_response: self.first_response.map(|time| time.since(self.began)),
            final_response: self.final_response.map(|time| time.since(self.began)),
            took: now.since(self.began),
        }
    }

    fn kind(&self) -> Kind {
        match self.code {
            _ if !self.server.is_invite() => Kind::NonInvite,
            Some(200..300) => Kind::Accepted,
            Some(_) | None => Kind::Failed,
        }
    }

    /// Until when retransmissions of the request or of final responses may come, or the call of a target that has failed.
    fn retransmissions_until(&self, now: Time, timers: &Timers) -> Option<Time> {
        let calls = self.branches.iter().map(|branch| branch.call_until(timers));
        let calls = calls.filter(|until| until.is_some_and(|until| until > now));
        let request = match self.server.rest() {
            Rest::Retransmissions { until } => Some(until),
            Rest::Active | Rest::None => None,
        };
        let responses = self.branches.iter().map(Branch::retransmissions_until);
        let all = responses.chain(calls).chain([request]);
        all.flatten().max()
    }

    /// Writes what retransmissions are answered with.
    fn write_kept(&self, out: &mut Vec<u8>) {
        out.clear();
        for branch in &self.branches {
            if let Some((to, bytes)) = branch.kept_ack() {
                let ack = Kept {
                    what: What::Ack,
                    branch: branch.number,
                    to,
                    bytes,
                };
                ack.write(out);
            }
        }
        let is_answered = match self.kind() {
            Kind::NonInvite => !self.reply.is_empty(),
            // The failure was acknowledged, or its time is over.
            Kind::Accepted | Kind::Failed => false,
        };
        if is_answered {
            let reply = Kept {
                what: self.reply_is,
                branch: 0,
                to: self.back,
                bytes: &self.reply,
            };
            reply.write_response_to(&self.request, out);
        }
    }
}
